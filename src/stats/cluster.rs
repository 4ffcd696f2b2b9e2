//! Means over clusters without resampling, and tests of paired differences that respect clusters.

use super::bootstrap::Interval;
use super::rng::Rng;
use super::student::student_quantile;

/// Up to so many clusters all assignments of signs are counted instead of drawn.
const EXHAUSTIVE: usize = 12;

/// The interval of a mean over clusters by linearisation, given the sum and the count of each cluster's numbers: the mean is
/// a ratio of two sums over clusters, so its variance is that of `sum − mean · count` (between clusters, with G − 1 in the
/// denominator), and the quantile is Student's with G − 1 degrees of freedom.
///
/// Costs one pass, where [`Bootstrap::mean`](super::Bootstrap::mean) costs thousands, and nearly agrees with it; it is
/// symmetric, which the bootstrap's need not be. W. G. Cochran, *Sampling Techniques*, 1977, section 9A.
///
/// None below two clusters with numbers.
#[must_use]
pub fn linearised_mean(clusters: &[(f64, usize)], confidence: f64) -> Option<Interval> {
    let filled: Vec<_> = clusters.iter().filter(|(_, count)| *count > 0).collect();
    let groups = filled.len();
    if groups < 2 {
        return None;
    }
    let count: f64 = filled.iter().map(|(_, count)| *count as f64).sum();
    let mean = filled.iter().map(|(sum, _)| sum).sum::<f64>() / count;
    let squares: f64 = filled.iter().map(|(sum, count)| (sum - mean * *count as f64).powi(2)).sum();
    let error = (squares * groups as f64 / (groups - 1) as f64).sqrt() / count;
    let reach = error * student_quantile(f64::midpoint(1.0, confidence), groups - 1);
    Some(Interval { low: mean - reach, high: mean + reach })
}

/// The two-sided p-value of the hypothesis that differences are as likely to be turned around as not, cluster by cluster:
/// how often the sum over clusters, each taken with a random sign, is at least as far from 0 as the one found.
///
/// All 2ᴳ assignments are counted for at most 12 clusters; else `draws` are drawn, and the p-value is
/// (1 + as far or further) / (1 + draws), which never falls below its own precision (B. Phipson and G. K. Smyth, *Permutation
/// P-values Should Never Be Zero*, 2010). None without a cluster.
#[must_use]
pub fn sign_flip_test(sums: &[f64], draws: usize, seed: u64) -> Option<f64> {
    if sums.is_empty() || sums.iter().any(|sum| !sum.is_finite()) {
        return None;
    }
    let found = sums.iter().sum::<f64>().abs();
    // Sums of the same numbers in another order differ by rounding, and equal ones must count.
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
    use super::super::{Bootstrap, normal_quantile};
    use super::*;

    #[test]
    fn too_few_clusters_have_no_interval_and_no_test() {
        assert_eq!(linearised_mean(&[(1.0, 2), (0.0, 0)], 0.95), None);
        assert_eq!(sign_flip_test(&[], 100, 0), None);
        assert_eq!(sign_flip_test(&[f64::NAN], 100, 0), None);
    }

    #[test]
    fn few_clusters_are_counted_and_many_drawn_to_the_same_p_value() {
        // All of one sign: only the two assignments without a mixture are as far.
        assert_eq!(sign_flip_test(&[1.0, 2.0, 0.5], 0, 0), Some(0.25));
        assert_eq!(sign_flip_test(&[0.0; 5], 0, 0), Some(1.0));
        let sums: Vec<f64> = (0..12).map(|at| f64::from(at) - 3.9).collect();
        let counted = sign_flip_test(&sums, 0, 0).unwrap();
        // A cluster of no difference changes nothing, but makes them too many to be counted.
        let padded: Vec<f64> = sums.iter().copied().chain([0.0]).collect();
        let drawn = sign_flip_test(&padded, 40_000, 3).unwrap();
        assert!((counted - drawn).abs() < 0.01, "{counted} {drawn}");
    }

    #[test]
    fn without_a_difference_p_values_are_uniform() {
        let mut rng = Rng::new(11);
        let mut below = 0;
        for seed in 0..1000 {
            let sums: Vec<f64> =
                (0..20).map(|_| normal_quantile(rng.unit().max(1e-12)) * (1.0 + rng.unit())).collect();
            below += usize::from(sign_flip_test(&sums, 199, seed).unwrap() <= 0.1);
        }
        // Four deviations of a binomial of 1000 with p = 0.1.
        assert!((62..=138).contains(&below), "{below}");
    }

    #[test]
    fn the_linearised_interval_covers_the_truth_and_resembles_the_bootstrap() {
        let (mut covered, mut widths) = (0, 0.0);
        let mut rng = Rng::new(5);
        let mut normal = || normal_quantile(rng.unit().max(1e-12));
        for seed in 0..1000 {
            let clusters: Vec<(f64, usize)> = (0..30)
                .map(|at| {
                    let (identity, size) = (normal(), 3 + at % 9);
                    ((0..size).map(|_| identity + normal()).sum(), size)
                })
                .collect();
            let interval = linearised_mean(&clusters, 0.95).unwrap();
            covered += u32::from(interval.low <= 0.0 && 0.0 <= interval.high);
            if seed < 20 {
                let drawn =
                    Bootstrap { resamples: 2000, seed, ..Bootstrap::default() }.mean(&clusters).unwrap();
                widths += (interval.high - interval.low) / (drawn.high - drawn.low) / 20.0;
            }
        }
        assert!((930..=970).contains(&covered), "{covered}");
        assert!((1.0..1.1).contains(&widths), "Student's quantile makes it a little wider: {widths}");
    }
}
