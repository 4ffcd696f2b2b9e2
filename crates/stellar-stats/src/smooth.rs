//! Intervals and tests of smooth functions of sums over clusters, such as differences of Kendall's
//! tau.

use std::collections::BTreeMap;

use super::bootstrap::{Bootstrap, FEWEST_CLUSTERS, quantile};
use super::cluster::ClusterMean;
use super::interval::Interval;
use super::rng::Rng;
use super::student::student_quantile_between;
use crate::cancel::cancelled;

/// A smooth function of K sums, and its gradient. It must not change if all sums are multiplied by
/// one number. `None` where it is undefined.
pub type Smooth<const K: usize> = fn(&[f64; K]) -> Option<(f64, [f64; K])>;

/// Sums of one cluster, and the number of observations behind them.
pub type ClusterSums<const K: usize> = ([f64; K], usize);

/// A function of sums over clusters with its interval and test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SmoothEstimate {
    /// The function of all sums.
    pub value: f64,
    /// Number of clusters with observations.
    pub clusters: usize,
    /// Standard error; `None` for fewer than two clusters.
    pub error: Option<f64>,
    /// The interval; `None` for fewer than [`FEWEST_CLUSTERS`] clusters, or without variation.
    pub interval: Option<Interval>,
    /// Two-sided p-value of the null hypothesis that the function is 0. At the level 1 −
    /// `confidence`, it is significant where the interval does not contain 0, up to the resolution
    /// of 2 / (1 + resamples).
    pub p: Option<f64>,
}

impl Bootstrap {
    /// Computes the studentised bootstrap of a function of sums, for several sets of clusters.
    ///
    /// The function is replaced by its linear approximation at the sums: every cluster contributes
    /// the product of the gradient and its own sums, and the standard error and its degrees of
    /// freedom are those of a mean over clusters ([`ClusterMean`]) with these contributions. In
    /// each resample, every cluster gets a random weight, as in [`Bootstrap::mean`], and the
    /// function's distance from its estimate is measured in units of the resample's own standard
    /// error. Quantiles of these distances give the interval, and their ranks the p-value (P. Hall,
    /// *The Bootstrap and Edgeworth Expansion*, 1992, sections 3.2 and 3.12).
    ///
    /// The result for one set does not depend on the others. Sets with equally many clusters share
    /// their random weights. `None` if the function is undefined.
    pub fn smooth<const K: usize>(
        &self,
        function: Smooth<K>,
        sets: &[Vec<ClusterSums<K>>],
    ) -> Vec<Option<SmoothEstimate>> {
        let mut found = vec![None; sets.len()];
        let mut alike: BTreeMap<usize, Vec<Resampled<K>>> = BTreeMap::new();
        for (place, set) in sets.iter().enumerate() {
            let Some((estimate, resampled)) = Resampled::new(place, function, set) else {
                continue;
            };
            found[place] = Some(estimate);
            if let Some(resampled) = resampled {
                alike.entry(estimate.clusters).or_default().push(resampled);
            }
        }
        for (clusters, mut group) in alike {
            let mut rng = Rng::new(self.seed);
            let mut weights = vec![0.0; clusters];
            for _ in 0..self.resamples {
                if cancelled() {
                    break;
                }
                rng.fill_beta_half_three_halves(&mut weights);
                let scale = clusters as f64 / weights.iter().sum::<f64>();
                for weight in &mut weights {
                    *weight *= scale;
                }
                for of in &mut group {
                    of.resample(function, &weights);
                }
            }
            for of in group {
                let (place, value) = (of.place, of.value);
                if let Some((interval, p)) = of.finish(self.confidence)
                    && let Some(estimate) = &mut found[place]
                {
                    debug_assert!(estimate.value.to_bits() == value.to_bits());
                    (estimate.interval, estimate.p) = (Some(interval), Some(p));
                }
            }
        }
        found
    }
}

/// One set of clusters while it is resampled.
struct Resampled<const K: usize> {
    place: usize,
    clusters: Vec<[f64; K]>,
    value: f64,
    /// Unit of the distances: the standard error without the factor √(G / (G − 1)), widened for
    /// unequal clusters.
    error: f64,
    degrees: f64,
    distances: Vec<f64>,
}

impl<const K: usize> Resampled<K> {
    fn new(
        place: usize,
        function: Smooth<K>,
        set: &[ClusterSums<K>],
    ) -> Option<(SmoothEstimate, Option<Self>)> {
        let filled: Vec<&ClusterSums<K>> = set.iter().filter(|(_, count)| *count > 0).collect();
        let total = total(filled.iter().map(|(sums, _)| (sums, 1.0)));
        let (value, gradient) = function(&total).filter(|(value, _)| value.is_finite())?;
        let of: usize = filled.iter().map(|(_, count)| count).sum();
        let contributions: Vec<(f64, usize)> =
            filled.iter().map(|(sums, count)| (dot(&gradient, sums) * of as f64, *count)).collect();
        let mean = ClusterMean::new(&contributions);
        let clusters = filled.len();
        let estimate = SmoothEstimate {
            value,
            clusters,
            error: mean.map(|mean| mean.error),
            interval: None,
            p: None,
        };
        // Rounding of sums without any variation is no spread.
        let enough = |mean: &ClusterMean| clusters >= FEWEST_CLUSTERS && mean.error > 1e-12;
        let resampled = mean.filter(enough).map(|mean| Self {
            place,
            clusters: filled.iter().map(|(sums, _)| *sums).collect(),
            value,
            error: mean.error,
            degrees: mean.degrees,
            distances: Vec::new(),
        });
        Some((estimate, resampled))
    }

    fn resample(&mut self, function: Smooth<K>, weights: &[f64]) {
        let weighted = || self.clusters.iter().zip(weights.iter().copied());
        let Some((value, gradient)) = function(&total(weighted())) else { return };
        let spread: f64 =
            weighted().map(|(sums, weight)| weight * dot(&gradient, sums).powi(2)).sum();
        let distance = (value - self.value) / spread.sqrt();
        if distance.is_finite() {
            self.distances.push(distance);
        }
    }

    fn finish(mut self, confidence: f64) -> Option<(Interval, f64)> {
        let outside = (1.0 - confidence) / 2.0;
        let (count, upper) = (self.clusters.len() as f64, 1.0 - outside);
        let wider = student_quantile_between(upper, self.degrees)
            / student_quantile_between(upper, count - 1.0);
        let unit = self.error * wider * ((count - 1.0) / count).sqrt();
        self.distances.sort_unstable_by(f64::total_cmp);
        let interval = Interval {
            low: self.value - unit * quantile(&self.distances, upper)?,
            high: self.value - unit * quantile(&self.distances, outside)?,
        };
        let found = self.value / unit;
        let below = self.distances.partition_point(|distance| *distance < found);
        let up_to = self.distances.partition_point(|distance| *distance <= found);
        let side = (self.distances.len() - below).min(up_to);
        let p = 2.0 * (1 + side) as f64 / (1 + self.distances.len()) as f64;
        Some((interval, p.min(1.0)))
    }
}

fn total<'a, const K: usize>(sums: impl Iterator<Item = (&'a [f64; K], f64)>) -> [f64; K] {
    let mut total = [0.0; K];
    for (sums, weight) in sums {
        for (total, sum) in total.iter_mut().zip(sums) {
            *total += weight * sum;
        }
    }
    total
}

fn dot<const K: usize>(a: &[f64; K], b: &[f64; K]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Sums over pairs behind the difference of Kendall's tau-b of two series, A and B, with a third:
/// concordant minus discordant pairs of A, the same of B, pairs not tied in the third series, pairs
/// not tied in A, pairs not tied in B.
pub type TauSums = [f64; 5];

/// Returns the difference of tau-b of A and of B, and its gradient. `None` if all pairs are tied in
/// one of the series.
#[must_use]
pub fn tau_difference(sums: &TauSums) -> Option<(f64, TauSums)> {
    let &[a, b, free, free_a, free_b] = sums;
    if free <= 0.0 || free_a <= 0.0 || free_b <= 0.0 {
        return None;
    }
    let (root_a, root_b) = ((free * free_a).sqrt(), (free * free_b).sqrt());
    let (tau_a, tau_b) = (a / root_a, b / root_b);
    let gradient = [
        1.0 / root_a,
        -1.0 / root_b,
        (tau_b - tau_a) / (2.0 * free),
        -tau_a / (2.0 * free_a),
        tau_b / (2.0 * free_b),
    ];
    Some((tau_a - tau_b, gradient))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(sums: &[f64; 2]) -> Option<(f64, [f64; 2])> {
        let mean = sums[0] / sums[1];
        (sums[1] > 0.0).then_some((mean, [1.0 / sums[1], -mean / sums[1]]))
    }

    #[test]
    fn a_mean_has_the_interval_of_a_mean() {
        let clusters = [(3.0, 2), (1.0, 1), (4.5, 3), (-2.0, 2), (7.0, 4), (0.0, 0)];
        let bootstrap = Bootstrap { resamples: 500, ..Bootstrap::default() };
        let expected = bootstrap.mean(&clusters).unwrap();
        let sums: Vec<_> =
            clusters.iter().map(|(sum, count)| ([*sum, *count as f64], *count)).collect();
        let found = bootstrap.smooth(ratio, &[Vec::new(), sums])[1].unwrap();
        let interval = found.interval.unwrap();
        assert!((interval.low - expected.low).abs() < 1e-12, "{interval:?} {expected:?}");
        assert!((interval.high - expected.high).abs() < 1e-12);
        assert_eq!(found.clusters, 5);
    }

    #[test]
    fn the_gradient_of_a_difference_of_tau_is_its_slope() {
        let at = [12.0, 5.0, 40.0, 38.0, 30.0];
        let (value, gradient) = tau_difference(&at).unwrap();
        for place in 0..5 {
            let mut moved = at;
            moved[place] += 1e-6;
            let slope = (tau_difference(&moved).unwrap().0 - value) / 1e-6;
            assert!((slope - gradient[place]).abs() < 1e-6, "{place}: {slope} {gradient:?}");
        }
        assert_eq!(tau_difference(&[0.0, 0.0, 4.0, 0.0, 4.0]), None);
    }

    #[test]
    fn the_p_value_follows_the_interval() {
        let bootstrap = Bootstrap { resamples: 999, ..Bootstrap::default() };
        let mut rng = Rng::new(4);
        let sets: Vec<Vec<_>> = (0..40)
            .map(|at| {
                let shift = f64::from(at) / 80.0;
                (0..15).map(|_| ([rng.unit() - 0.5 + shift, 1.0], 1)).collect()
            })
            .collect();
        let (mut inside, mut outside) = (0, 0);
        for found in bootstrap.smooth(ratio, &sets).into_iter().flatten() {
            let (interval, p) = (found.interval.unwrap(), found.p.unwrap());
            let contains = interval.low <= 0.0 && 0.0 <= interval.high;
            if (p - 0.05).abs() > 0.004 {
                assert_eq!(contains, p > 0.05, "{interval:?} {p}");
            }
            inside += usize::from(contains);
            outside += usize::from(!contains);
        }
        assert!(inside > 3 && outside > 3, "{inside} {outside}");
    }

    #[test]
    fn nothing_is_said_without_variation_or_clusters() {
        let bootstrap = Bootstrap { resamples: 50, ..Bootstrap::default() };
        let equal = vec![([1.0, 1.0], 1); 8];
        let few = vec![([1.0, 1.0], 1), ([2.0, 1.0], 1)];
        let found = bootstrap.smooth(ratio, &[equal, few, vec![([0.0, 0.0], 1)]]);
        assert_eq!((found[0].unwrap().interval, found[0].unwrap().p), (None, None));
        assert!(found[1].unwrap().error.is_some() && found[1].unwrap().interval.is_none());
        assert_eq!(found[2], None);
    }
}
