//! Intervals of proportions.

use super::{Bootstrap, Interval, normal_quantile};

/// How the interval of a share was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareMethod {
    /// Wilson's score interval over answers, which are independent.
    Wilson,
    /// Wilson's score interval over clusters, for a share of 0 or 1.
    WilsonOverClusters,
    /// The studentised bootstrap over clusters.
    Bootstrap,
}

/// Computes the intervals of shares over clusters of answers, given the sum and the count of each
/// cluster.
///
/// Where no cluster has two answers, answers are independent, and the interval is Wilson's. In
/// small studies it is closer to its nominal coverage than the bootstrap. A share of 0 or 1 has no
/// spread to resample: the clusters are counted as one answer each. All other shares have the
/// bootstrap interval of [`Bootstrap::means`], within 0 and 1. `None` for fewer than two clusters,
/// or if a share between 0 and 1 is the same in all clusters.
#[must_use]
pub fn share_intervals(
    bootstrap: &Bootstrap,
    shares: &[Vec<(f64, usize)>],
) -> Vec<Option<(Interval, ShareMethod)>> {
    let resampled = bootstrap.means(shares);
    let one = |(clusters, resampled): (&Vec<(f64, usize)>, Option<Interval>)| {
        let filled: Vec<_> = clusters.iter().filter(|(_, count)| *count > 0).collect();
        if filled.len() < 2 {
            return None;
        }
        let of = filled.iter().map(|(_, count)| count).sum::<usize>();
        let sum = filled.iter().map(|(sum, _)| sum).sum::<f64>();
        let confidence = bootstrap.confidence;
        // Halves of ties are no whole answers.
        if of == filled.len() && sum.fract() == 0.0 {
            return Some((wilson(sum as usize, of, confidence)?, ShareMethod::Wilson));
        }
        if sum <= 0.0 || sum >= of as f64 {
            let all = if sum <= 0.0 { 0 } else { filled.len() };
            let interval = wilson(all, filled.len(), confidence)?;
            return Some((interval, ShareMethod::WilsonOverClusters));
        }
        let interval = resampled?.within(0.0, 1.0);
        (interval.low < interval.high).then_some((interval, ShareMethod::Bootstrap))
    };
    shares.iter().zip(resampled).map(one).collect()
}

/// Returns Wilson's score interval of the proportion `count / of` at a level such as 0.95; `None`
/// for no observations.
///
/// Observations must be independent.
#[must_use]
pub fn wilson(count: usize, of: usize, confidence: f64) -> Option<Interval> {
    if of == 0 || count > of {
        return None;
    }
    let n = of as f64;
    let share = count as f64 / n;
    let z = normal_quantile(f64::midpoint(1.0, confidence));
    let scale = 1.0 / (1.0 + z * z / n);
    let centre = scale * (share + z * z / (2.0 * n));
    let reach = scale * z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    Some(Interval { low: centre - reach, high: centre + reach }.within(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_share_follows_its_answers() {
        let shares = [
            vec![(1.0, 1), (0.0, 1), (0.0, 1), (0.0, 0)],
            vec![(0.0, 3), (0.0, 2)],
            vec![(3.0, 3), (2.0, 2)],
            vec![(1.0, 3), (2.0, 3), (0.0, 2)],
            vec![(1.0, 2), (1.0, 2)],
            vec![(0.5, 1), (1.0, 1)],
            vec![(1.0, 3)],
        ];
        let found = share_intervals(&Bootstrap { resamples: 200, ..Bootstrap::default() }, &shares);
        let methods: Vec<_> = found.iter().map(|of| of.map(|(_, method)| method)).collect();
        let (wilson, over, boot) = (
            Some(ShareMethod::Wilson),
            Some(ShareMethod::WilsonOverClusters),
            Some(ShareMethod::Bootstrap),
        );
        assert_eq!(methods, [wilson, over, over, boot, None, boot, None]);
        let (zero, all) = (found[1].unwrap().0, found[2].unwrap().0);
        assert!((zero.high - (1.0 - all.low)).abs() < 1e-12 && zero.high > 0.6 && zero.low == 0.0);
    }

    /// Expected values: the closed formula in Python, in double precision.
    #[test]
    fn the_interval_has_the_ends_of_the_closed_formula() {
        for (count, of, low, high) in [
            (8, 10, 0.490_162_471_536_641_8, 0.943_317_848_545_624_7),
            (0, 5, 0.0, 0.434_482_464_783_174_8),
            (5, 5, 0.565_517_535_216_825_4, 1.0),
            (50, 100, 0.403_831_530_365_995_6, 0.596_168_469_634_004_4),
        ] {
            let found = wilson(count, of, 0.95).unwrap();
            assert!(
                (found.low - low).abs() < 1e-9 && (found.high - high).abs() < 1e-9,
                "{found:?}"
            );
        }
        assert_eq!(wilson(0, 0, 0.95), None);
    }
}
