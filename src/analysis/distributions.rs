//! Distributions of the scores of a run, as measured.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::stats::quantiles;
use crate::store::RunData;

/// Number of bins of a histogram.
const BINS: usize = 30;

/// Distribution of the scores of one metric over a run, as measured: no penalty is applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = MetricDistribution)]
pub struct Distribution {
    /// Code of the metric.
    #[schema(example = "ips")]
    pub metric: String,
    /// Version of the metric's definition.
    pub version: u32,
    /// Number of samples with a number.
    pub n: usize,
    /// Smallest number.
    pub least: f64,
    /// First quartile: a quarter of the numbers are below it.
    pub q1: f64,
    /// Median: half of the numbers are below it.
    pub median: f64,
    /// Third quartile.
    pub q3: f64,
    /// Largest number.
    pub most: f64,
    /// Number of samples in each of the equally wide bins from `least` to `most`. Each bin includes
    /// its lower end; the last one also its upper end. One bin if all numbers are equal.
    pub counts: Vec<u64>,
}

/// Returns the distribution of each metric that has numbers, by code.
#[must_use]
pub fn distributions(data: &RunData) -> Vec<Distribution> {
    let columns = data.metrics.iter().filter_map(|(code, column)| {
        let mut numbers: Vec<f64> = column.values.iter().flatten().copied().collect();
        let places = quantiles(&mut numbers, 5)?;
        let [least, q1, median, q3, most] = places[..] else { return None };
        Some(Distribution {
            metric: code.clone(),
            version: column.version,
            n: numbers.len(),
            least,
            q1,
            median,
            q3,
            most,
            counts: counts(&numbers, least, most),
        })
    });
    columns.collect()
}

fn counts(numbers: &[f64], least: f64, most: f64) -> Vec<u64> {
    if least >= most {
        return vec![numbers.len() as u64];
    }
    let mut counts = vec![0; BINS];
    for number in numbers {
        let share = (number - least) / (most - least);
        // Casting saturates, so a rounding error below 0 is in the first bin.
        counts[((share * BINS as f64) as usize).min(BINS - 1)] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::compare::tests::simulated;

    fn of(values: Vec<Option<f64>>) -> Vec<Distribution> {
        let mut data = simulated(1, values.len(), 1, 2, 0.0);
        data.metrics.get_mut("dino").unwrap().values = values;
        distributions(&data)
    }

    #[test]
    fn every_number_is_in_one_bin_and_the_largest_in_the_last() {
        let found = of((0..=60).map(|at| Some(f64::from(at))).chain([None]).collect());
        let [of] = &found[..] else { panic!("{found:?}") };
        assert_eq!((of.n, of.least, of.median, of.most), (61, 0.0, 30.0, 60.0));
        assert_eq!((of.q1, of.q3), (15.0, 45.0));
        assert_eq!(of.counts.iter().sum::<u64>(), 61);
        assert_eq!((of.counts.len(), of.counts[0], of.counts[29]), (30, 2, 3));
    }

    #[test]
    fn equal_numbers_are_one_bin_and_a_metric_without_numbers_has_no_distribution() {
        assert_eq!(of(vec![Some(0.5); 3])[0].counts, [3]);
        assert!(of(vec![None; 3]).is_empty());
    }
}
