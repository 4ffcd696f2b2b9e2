//! Statistics of groups: items that were generated from one prompt.

use serde::Serialize;
use utoipa::ToSchema;

/// Added to the standard deviation before an advantage is divided by it, as `flow_grpo` does
/// (`flow_grpo/stat_tracking.py` @ ac4c86e).
pub const EPSILON: f64 = 1e-4;

/// Statistics of one group. Items without a reward are left out of the mean and the deviation.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct GroupStatistics {
    /// Positions of the group's items in the request.
    pub items: Vec<usize>,
    /// Number of items with a reward.
    pub n: usize,
    /// Mean; null without a reward.
    pub mean: Option<f64>,
    /// Standard deviation of the population; null without a reward.
    pub std: Option<f64>,
    /// (reward - mean) / (std + 0.0001) of each item. 0 if all rewards are equal.
    pub advantage: Vec<Option<f64>>,
    /// Rank of each item: 1 + the number of items with a larger reward.
    pub rank: Vec<Option<usize>>,
}

impl GroupStatistics {
    /// Computes the statistics of items at these positions with these rewards.
    #[must_use]
    pub fn of(items: Vec<usize>, rewards: &[Option<f64>]) -> Self {
        let values: Vec<f64> = rewards.iter().copied().flatten().collect();
        let n = values.len();
        let mean = (n > 0).then(|| values.iter().sum::<f64>() / n as f64);
        let std = mean.map(|mean| {
            // Rounding of the mean is no deviation.
            if values.iter().all(|value| value.total_cmp(&values[0]).is_eq()) {
                return 0.0;
            }
            let squares = values.iter().map(|value| (value - mean).powi(2));
            (squares.sum::<f64>() / n as f64).sqrt()
        });
        let (mean, std) = (mean.filter(|of| of.is_finite()), std.filter(|of| of.is_finite()));
        let advantage = |reward: &Option<f64>| {
            let (reward, mean, std) = ((*reward)?, mean?, std?);
            Some(if std == 0.0 { 0.0 } else { (reward - mean) / (std + EPSILON) })
        };
        let rank = |reward: &Option<f64>| {
            reward.map(|reward| 1 + values.iter().filter(|other| **other > reward).count())
        };
        Self {
            items,
            n,
            mean,
            std,
            advantage: rewards.iter().map(advantage).collect(),
            rank: rewards.iter().map(rank).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_those_of_numpy() {
        // np.mean, np.std (population) of [1, 2, 4].
        let of = GroupStatistics::of(vec![0, 1, 2, 3], &[Some(1.0), Some(4.0), None, Some(2.0)]);
        assert_eq!(of.n, 3);
        assert!((of.mean.unwrap() - 7.0 / 3.0).abs() < 1e-12);
        assert!((of.std.unwrap() - 1.247_219_128_924_647).abs() < 1e-12);
        let expected = (4.0 - 7.0 / 3.0) / (1.247_219_128_924_647 + 1e-4);
        assert!((of.advantage[1].unwrap() - expected).abs() < 1e-12);
        assert_eq!(of.advantage[2], None);
        assert_eq!(of.rank, [Some(3), Some(1), None, Some(2)]);
    }

    #[test]
    fn a_collapsed_group_has_no_advantage_and_an_empty_one_no_mean() {
        let equal = GroupStatistics::of(vec![0, 1, 2], &[Some(0.1); 3]);
        assert_eq!(equal.std, Some(0.0));
        assert_eq!(equal.advantage, [Some(0.0); 3]);
        assert_eq!(equal.rank, [Some(1); 3]);
        let empty = GroupStatistics::of(vec![0], &[None]);
        assert_eq!((empty.n, empty.mean, empty.std), (0, None, None));
    }
}
