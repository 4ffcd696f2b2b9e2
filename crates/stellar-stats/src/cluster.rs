//! Means over clusters without resampling, and cluster-aware tests of paired differences.

use super::interval::Interval;
use super::rng::Rng;
use super::student::student_quantile_between;

/// Maximum number of clusters for which all assignments of signs are enumerated instead of drawn.
const EXHAUSTIVE: usize = 12;

/// Number of clusters below which an interval is based on little data: see [`ClusterMean`].
pub const FEW_CLUSTERS: usize = 8;

/// A mean over clusters with its standard error.
///
/// The mean is Σ w·m over the clusters' own means m, weighted with their shares w of all numbers.
/// The only assumption is that clusters are a random sample. For few clusters, the usual standard
/// error is too small and its G − 1 degrees of freedom are too many, the more so the more clusters
/// differ in size. This is corrected as follows:
///
/// - The **standard error** is the "bias-reduced" one: every squared deviation is divided by its
///   expectation, which is 1 − 2w + Σw² if all clusters' means have the same variance.
/// - Its **degrees of freedom** are Satterthwaite's under the same assumption: G − 1 for clusters
///   of equal size, fewer otherwise.
///
/// R. M. Bell and D. F. `McCaffrey`, *Bias Reduction in Standard Errors for Linear Regression with
/// Multi-Stage Samples*, Survey Methodology 28(2), 2002. If scores vary more within clusters than
/// between them, the means of small clusters vary more than those of large ones, and the degrees of
/// freedom are too few: intervals are then wider than necessary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClusterMean {
    /// The mean of all numbers.
    pub mean: f64,
    /// Standard error of the mean.
    pub error: f64,
    /// Degrees of freedom of the standard error, from 1 to `clusters` − 1.
    pub degrees: f64,
    /// Number of clusters that have numbers.
    pub clusters: usize,
}

impl ClusterMean {
    /// Computes the mean from the sum and the count of each cluster's numbers. Returns `None` for
    /// fewer than two clusters with numbers, or if sums are not finite.
    #[must_use]
    pub fn new(clusters: &[(f64, usize)]) -> Option<Self> {
        let filled = || clusters.iter().filter(|(_, count)| *count > 0);
        let groups = filled().count();
        if groups < 2 {
            return None;
        }
        let total: f64 = filled().map(|(_, count)| *count as f64).sum();
        let mean = filled().map(|(sum, _)| sum).sum::<f64>() / total;
        let squares: f64 = filled().map(|(_, count)| (*count as f64 / total).powi(2)).sum();
        let mut variance = 0.0;
        // Σd, Σdw and Σdw² of the weights d = w²/(1 − 2w + Σw²) of the squared deviations, and the
        // correction of the diagonal.
        let (mut d0, mut d1, mut d2, mut own) = (0.0, 0.0, 0.0, 0.0);
        for (sum, size) in filled() {
            let w = *size as f64 / total;
            let expected = 1.0 - 2.0 * w + squares;
            variance += ((sum - mean * *size as f64) / total).powi(2) / expected;
            let d = w * w / expected;
            d0 += d;
            d1 += d * w;
            d2 += d * w * w;
            own += d * d * (expected.powi(2) - (squares - 2.0 * w).powi(2));
        }
        // Deviations of two clusters have the covariance Σw² − w₁ − w₂. This is the sum over all
        // pairs, multiplied out.
        let pairs =
            squares * squares * d0 * d0 + 2.0 * d0 * d2 - 4.0 * squares * d0 * d1 + 2.0 * d1 * d1;
        let degrees = (squares * squares / (pairs + own)).clamp(1.0, (groups - 1) as f64);
        (mean.is_finite() && variance.is_finite()).then(|| Self {
            mean,
            error: variance.sqrt(),
            degrees,
            clusters: groups,
        })
    }

    /// Returns Student's interval. It is much cheaper than a bootstrap with thousands of sums, but
    /// assumes that the distribution of the mean is symmetric.
    #[must_use]
    pub fn interval(&self, confidence: f64) -> Interval {
        let reach =
            self.error * student_quantile_between(f64::midpoint(1.0, confidence), self.degrees);
        Interval { low: self.mean - reach, high: self.mean + reach }
    }
}

/// Returns the two-sided p-value of a sign-flip permutation test. The null hypothesis is that each
/// cluster's difference has either sign with equal probability. The p-value is the probability that
/// the sum over clusters with random signs is at least as far from 0 as the observed sum.
///
/// All 2ᴳ assignments are enumerated for at most 12 clusters. Otherwise, `draws` assignments are
/// drawn, and the p-value is (1 + number at least as far) / (1 + draws), which is never below its
/// own resolution (B. Phipson and G. K. Smyth, *Permutation P-values Should Never Be Zero*, 2010).
/// Returns `None` without clusters.
#[must_use]
pub fn sign_flip_test(sums: &[f64], draws: usize, seed: u64) -> Option<f64> {
    if sums.is_empty() || sums.iter().any(|sum| !sum.is_finite()) {
        return None;
    }
    let found = sums.iter().sum::<f64>().abs();
    // Sums of the same numbers in another order differ by rounding, and equal sums must count.
    let far = found - 1e-12 * sums.iter().map(|sum| sum.abs()).sum::<f64>();
    if sums.len() <= EXHAUSTIVE {
        let all = 1_u32 << sums.len();
        let signed = |signs: u32| {
            let sum = |(at, sum): (usize, &f64)| if signs >> at & 1 == 1 { -sum } else { *sum };
            sums.iter().enumerate().map(sum).sum::<f64>()
        };
        let as_far = (0..all).filter(|&signs| signed(signs).abs() >= far).count();
        return Some(as_far as f64 / f64::from(all));
    }
    let mut rng = Rng::new(seed);
    let mut as_far = 0;
    for _ in 0..draws {
        let (mut total, mut bits) = (0.0, 0);
        for (at, sum) in sums.iter().enumerate() {
            if at % 64 == 0 {
                bits = rng.next_u64();
            }
            total += if bits & 1 == 1 { -sum } else { *sum };
            bits >>= 1;
        }
        as_far += usize::from(total.abs() >= far);
    }
    Some((1 + as_far) as f64 / (1 + draws) as f64)
}

#[cfg(test)]
mod tests {
    use super::super::normal_quantile;
    use super::*;

    #[test]
    fn too_few_clusters_have_no_interval_and_no_test() {
        assert_eq!(ClusterMean::new(&[(1.0, 2), (0.0, 0)]), None);
        assert_eq!(ClusterMean::new(&[(1.0, 2), (f64::NAN, 1)]), None);
        assert_eq!(sign_flip_test(&[], 100, 0), None);
        assert_eq!(sign_flip_test(&[f64::NAN], 100, 0), None);
    }

    #[test]
    fn enumerated_and_drawn_assignments_give_the_same_p_value() {
        // All have the same sign: only the two assignments with equal signs are as far.
        assert_eq!(sign_flip_test(&[1.0, 2.0, 0.5], 0, 0), Some(0.25));
        assert_eq!(sign_flip_test(&[0.0; 5], 0, 0), Some(1.0));
        let sums: Vec<f64> = (0..12).map(|at| f64::from(at) - 3.9).collect();
        let counted = sign_flip_test(&sums, 0, 0).unwrap();
        // A cluster without a difference changes nothing, but makes the assignments too many to
        // enumerate.
        let padded: Vec<f64> = sums.iter().copied().chain([0.0]).collect();
        let drawn = sign_flip_test(&padded, 40_000, 3).unwrap();
        assert!((counted - drawn).abs() < 0.01, "{counted} {drawn}");
    }

    #[test]
    fn without_a_difference_p_values_are_uniform() {
        let mut rng = Rng::new(11);
        let mut below = 0;
        for seed in 0..1000 {
            let sums: Vec<f64> = (0..20)
                .map(|_| normal_quantile(rng.unit().max(1e-12)) * (1.0 + rng.unit()))
                .collect();
            below += usize::from(sign_flip_test(&sums, 199, seed).unwrap() <= 0.1);
        }
        // Four standard deviations of a binomial of 1000 with p = 0.1.
        assert!((62..=138).contains(&below), "{below}");
    }

    #[test]
    fn clusters_of_one_size_have_the_usual_error_and_degrees() {
        let clusters: Vec<(f64, usize)> = [3.0, 5.0, 4.0, 9.0, 1.0].map(|sum| (sum, 4)).to_vec();
        let found = ClusterMean::new(&clusters).unwrap();
        // The error of the mean of 0.75, 1.25, 1, 2.25 and 0.25: deviation √0.55 over √5.
        assert!(
            (found.mean - 1.1).abs() < 1e-12
                && (found.error - (0.55_f64 / 5.0).sqrt()).abs() < 1e-12
        );
        assert!((found.degrees - 4.0).abs() < 1e-9 && found.clusters == 5);
        // One cluster with nearly all numbers leaves hardly one degree of freedom.
        let uneven: Vec<(f64, usize)> =
            clusters.iter().map(|(sum, _)| (*sum, 1)).chain([(50.0, 95)]).collect();
        assert!(ClusterMean::new(&uneven).unwrap().degrees < 1.5);
    }
}
