//! Confidence intervals by resampling whole clusters.
//!
//! Scores of one identity are correlated, so a thousand prompts over ten people carry less
//! information than a thousand independent samples: resampling single scores would make intervals
//! far too narrow. Instead, whole clusters are weighted or drawn. Without clusters, every score is
//! its own cluster.

use std::collections::BTreeMap;

use super::cluster::ClusterMean;
use super::interval::Interval;
use super::normal::{normal_cdf, normal_quantile};
use super::rng::Rng;
use super::student::{student_quantile, student_quantile_between};
use crate::cancel::cancelled;

/// Options of resampling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bootstrap {
    /// Number of resamples. With 10,000, the ends of a 95 % interval are within 2 to 3 % of its
    /// width of the ends with infinitely many.
    pub resamples: usize,
    /// Nominal coverage, between 0 and 1.
    pub confidence: f64,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Default for Bootstrap {
    /// 10,000 resamples, 95 % coverage.
    fn default() -> Self {
        Self { resamples: 10_000, confidence: 0.95, seed: 0 }
    }
}

impl Bootstrap {
    /// Computes the studentised bootstrap interval of a mean over clusters, given the sum and the
    /// count of each cluster's numbers.
    ///
    /// In each resample, every cluster gets a random weight, Beta(1/2, 3/2), and the distance of
    /// the weighted mean from the mean is measured in units of the resample's own standard error.
    /// Quantiles of these distances bound the error of the mean in units of *its* standard error
    /// ([`ClusterMean`]), separately for each side, so that skewed scores have skewed intervals.
    /// Weights that are never 0 retain all clusters in every resample. Drawing whole clusters
    /// instead gives unbounded intervals if a few clusters are drawn repeatedly, and BCa intervals
    /// of such draws are too narrow by a third at 10 clusters. A. B. Owen, *Better Bootstrap t
    /// Confidence Intervals for the Mean*, 2025 (arXiv:2508.10083).
    ///
    /// If clusters differ in size, the standard error has fewer than G − 1 degrees of freedom,
    /// which resampling does not reflect: the interval is widened by the ratio of Student's
    /// quantiles.
    ///
    /// Returns `None` for fewer than two clusters, from which the spread cannot be estimated.
    #[must_use]
    pub fn mean(&self, clusters: &[(f64, usize)]) -> Option<Interval> {
        self.means(&[clusters]).remove(0)
    }

    /// Like [`mean`](Self::mean), for several quantities over the same clusters. Quantities with
    /// numbers in the same clusters share their draws, which are the main cost.
    #[must_use]
    pub fn means<C: AsRef<[(f64, usize)]>>(&self, quantities: &[C]) -> Vec<Option<Interval>> {
        let mut intervals = vec![None; quantities.len()];
        // Grouped by the clusters that have numbers, then by the counts of numbers.
        let mut alike: BTreeMap<Vec<bool>, BTreeMap<Vec<usize>, OneSize>> = BTreeMap::new();
        for (place, clusters) in quantities.iter().enumerate() {
            let clusters = clusters.as_ref();
            let Some(mean) = ClusterMean::new(clusters) else { continue };
            let filled = clusters.iter().map(|(_, count)| *count > 0).collect();
            let counts: Vec<usize> =
                clusters.iter().map(|(_, count)| *count).filter(|count| *count > 0).collect();
            let sized =
                alike.entry(filled).or_default().entry(counts).or_insert_with_key(|counts| {
                    OneSize {
                        counts: counts.iter().map(|count| *count as f64).collect(),
                        quantities: Vec::new(),
                    }
                });
            let deviations = clusters
                .iter()
                .filter(|(_, count)| *count > 0)
                .map(|(sum, count)| sum - mean.mean * *count as f64)
                .collect();
            let distances = Vec::with_capacity(self.resamples);
            sized.quantities.push(Studentised { place, mean, deviations, distances });
        }
        for by_counts in alike.into_values() {
            let mut groups: Vec<OneSize> = by_counts.into_values().collect();
            self.resample(&mut groups);
            for of in groups.into_iter().flat_map(|group| group.quantities) {
                let place = of.place;
                intervals[place] = of.interval(self.confidence);
            }
        }
        intervals
    }

    /// Computes the distances of all quantities over the same clusters.
    fn resample(&self, groups: &mut [OneSize]) {
        let clusters = groups.first().map_or(0, |group| group.counts.len());
        let mut rng = Rng::new(self.seed);
        let mut weights = vec![0.0; clusters];
        for _ in 0..self.resamples {
            if cancelled() {
                return;
            }
            rng.fill_beta_half_three_halves(&mut weights);
            // Scaled to mean 1, so that the error is that of this number of clusters.
            let scale = clusters as f64 / weights.iter().sum::<f64>();
            for weight in &mut weights {
                *weight *= scale;
            }
            for group in &mut *groups {
                group.resample(&weights);
            }
        }
    }

    /// Computes the BCa interval of any statistic of `clusters` clusters. The statistic gets the
    /// number of times that each cluster was drawn, all 1 for the estimate itself.
    ///
    /// The interval is widened for few clusters. A bootstrap of G clusters has a spread that is too
    /// small by √((G − 1)/G), and normal tails instead of Student's, so its quantiles are moved
    /// outwards to compensate (T. Hesterberg, *What Teachers Should Know About the Bootstrap*, The
    /// American Statistician 69(4), 2015, section 5.3). For 100 clusters this is 2 % of the width.
    ///
    /// Returns `None` for fewer than three clusters, which have only a handful of different
    /// resamples, and if the statistic of the clusters themselves is not finite. Resamples with a
    /// statistic that is not finite (a class missing by chance) are left out.
    pub fn interval(
        &self,
        clusters: usize,
        mut statistic: impl FnMut(&[u32]) -> f64,
    ) -> Option<Interval> {
        if clusters < FEWEST_CLUSTERS {
            return None;
        }
        let estimate = statistic(&vec![1; clusters]);
        if !estimate.is_finite() {
            return None;
        }
        let distribution = self.distribution(clusters, &mut statistic);
        let mut times = vec![1; clusters];
        // For very many clusters, whole blocks are left out, so that the work is not quadratic. The
        // acceleration is the same in expectation, since a block's skewness falls with the square
        // root of its size, as that of the mean does.
        let block = clusters.div_ceil(MOST_LEFT_OUT);
        let mut jackknife = Vec::with_capacity(clusters.div_ceil(block));
        for first in (0..clusters).step_by(block) {
            if cancelled() {
                return None;
            }
            let left_out = first..(first + block).min(clusters);
            times[left_out.clone()].fill(0);
            jackknife.push(statistic(&times));
            times[left_out].fill(1);
        }
        bca(&distribution, estimate, &jackknife, self.widened(clusters))
    }

    /// Returns the coverage whose normal quantile is the widened quantile for `clusters` clusters.
    fn widened(&self, clusters: usize) -> f64 {
        let count = clusters as f64;
        let student = student_quantile(f64::midpoint(1.0, self.confidence), clusters - 1);
        // Coverage 1 would have an infinite quantile.
        (2.0 * normal_cdf(student * (count / (count - 1.0)).sqrt()) - 1.0).min(1.0 - 1e-6)
    }

    /// Returns the finite statistics of all resamples, in the order drawn.
    pub fn distribution(
        &self,
        clusters: usize,
        mut statistic: impl FnMut(&[u32]) -> f64,
    ) -> Vec<f64> {
        let mut rng = Rng::new(self.seed);
        let mut times = vec![0; clusters];
        (0..self.resamples)
            .take_while(|_| !cancelled())
            .map(|_| {
                times.fill(0);
                for _ in 0..clusters {
                    times[rng.below(clusters)] += 1;
                }
                statistic(&times)
            })
            .filter(|value| value.is_finite())
            .collect()
    }
}

/// Minimum number of clusters for the interval of an arbitrary statistic.
pub const FEWEST_CLUSTERS: usize = 3;

/// Maximum number of jackknife resamples, each without one cluster or one block of clusters.
const MOST_LEFT_OUT: usize = 2_000;

/// Quantities over clusters of the same sizes.
struct OneSize {
    /// Numbers in each cluster.
    counts: Vec<f64>,
    quantities: Vec<Studentised>,
}

impl OneSize {
    fn resample(&mut self, weights: &[f64]) {
        let (mut count, mut squares) = (0.0, 0.0);
        for (weight, size) in weights.iter().zip(&self.counts) {
            count += weight * size;
            squares += weight * size * size;
        }
        for of in &mut self.quantities {
            let (mut sum, mut own, mut mixed) = (0.0, 0.0, 0.0);
            for ((weight, size), deviation) in weights.iter().zip(&self.counts).zip(&of.deviations)
            {
                let weighted = weight * deviation;
                sum += weighted;
                own += weighted * deviation;
                mixed += weighted * size;
            }
            let moved = sum / count;
            // Σ weight·(deviation − moved·size)².
            let spread = own - 2.0 * moved * mixed + moved * moved * squares;
            of.distances.push(if spread > 0.0 { sum / spread.sqrt() } else { 0.0 });
        }
    }
}

/// A mean whose interval is computed.
struct Studentised {
    /// Index among the requested quantities.
    place: usize,
    mean: ClusterMean,
    /// Deviation of each cluster's sum from its expectation under the mean.
    deviations: Vec<f64>,
    /// Distance of each resample's mean in units of its standard error, without the factor √((G −
    /// 1)/G).
    distances: Vec<f64>,
}

impl Studentised {
    fn interval(mut self, confidence: f64) -> Option<Interval> {
        let outside = (1.0 - confidence) / 2.0;
        let (clusters, p) = (self.mean.clusters as f64, 1.0 - outside);
        let wider = student_quantile_between(p, self.mean.degrees)
            / student_quantile_between(p, clusters - 1.0);
        let unit = self.mean.error * wider * ((clusters - 1.0) / clusters).sqrt();
        self.distances.sort_unstable_by(f64::total_cmp);
        Some(Interval {
            low: self.mean.mean - unit * quantile(&self.distances, p)?,
            high: self.mean.mean - unit * quantile(&self.distances, outside)?,
        })
    }
}

/// Returns the percentile interval of a bootstrap distribution: its quantiles, linearly
/// interpolated. `None` if the distribution is empty.
#[must_use]
pub fn percentile(distribution: &[f64], confidence: f64) -> Option<Interval> {
    let outside = (1.0 - confidence) / 2.0;
    between(distribution, outside, 1.0 - outside)
}

/// Returns the bias-corrected and accelerated (BCa) interval. Percentiles are corrected for the
/// distance of the distribution's median from the estimate, and for the change of the spread with
/// the estimate. The latter is estimated by the jackknife (the estimates without each cluster).
///
/// Computed as in `scipy.stats.bootstrap`, after B. Efron, *Better Bootstrap Confidence Intervals*,
/// Journal of the American Statistical Association 82(397), 1987. If all resamples lie on one side
/// of the estimate, the correction would be infinite, and the result is [`percentile`]. If the
/// jackknife is constant, the acceleration is 0. `None` if the distribution is empty.
#[must_use]
pub fn bca(
    distribution: &[f64],
    estimate: f64,
    jackknife: &[f64],
    confidence: f64,
) -> Option<Interval> {
    let n = distribution.len() as f64;
    let below = distribution.iter().filter(|&&value| value < estimate).count() as f64;
    let up_to = distribution.iter().filter(|&&value| value <= estimate).count() as f64;
    let bias = normal_quantile((below + up_to) / (2.0 * n));
    if !bias.is_finite() {
        return percentile(distribution, confidence);
    }

    let jackknife: Vec<f64> = jackknife.iter().copied().filter(|value| value.is_finite()).collect();
    let mean = jackknife.iter().sum::<f64>() / jackknife.len() as f64;
    let (mut squares, mut cubes) = (0.0, 0.0);
    for value in jackknife {
        squares += (mean - value).powi(2);
        cubes += (mean - value).powi(3);
    }
    let acceleration = if squares > 0.0 { cubes / (6.0 * squares.powf(1.5)) } else { 0.0 };

    let moved = |p: f64| {
        let z = bias + normal_quantile(p);
        normal_cdf(bias + z / (1.0 - acceleration * z))
    };
    let outside = (1.0 - confidence) / 2.0;
    between(distribution, moved(outside), moved(1.0 - outside))
}

/// Returns `count` evenly spaced quantiles of numbers, from the smallest to the largest, linearly
/// interpolated. Sorts the numbers. `None` if there are no numbers or `count` is less than two.
#[must_use]
pub fn quantiles(values: &mut [f64], count: usize) -> Option<Vec<f64>> {
    values.sort_unstable_by(f64::total_cmp);
    let steps = count.checked_sub(1).filter(|steps| *steps > 0)?;
    (0..count).map(|step| quantile(values, step as f64 / steps as f64)).collect()
}

fn between(distribution: &[f64], low: f64, high: f64) -> Option<Interval> {
    let mut sorted = distribution.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    Some(Interval { low: quantile(&sorted, low)?, high: quantile(&sorted, high)? })
}

/// Returns the quantile of sorted numbers like numpy's default method: linear between the two
/// nearest.
pub(super) fn quantile(sorted: &[f64], p: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = p.clamp(0.0, 1.0) * last as f64;
    let (low, share) = (place.floor(), place.fract());
    let (a, b) = (sorted[low as usize], sorted[(low as usize + 1).min(last)]);
    Some(a + (b - a) * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_than_two_clusters_have_no_interval() {
        let bootstrap = Bootstrap::default();
        assert_eq!(bootstrap.mean(&[]), None);
        assert_eq!(bootstrap.mean(&[(3.0, 6)]), None);
        assert_eq!(bootstrap.mean(&[(3.0, 6), (0.0, 0)]), None);
        assert_eq!(percentile(&[], 0.95), None);
    }

    #[test]
    fn equal_clusters_have_an_interval_of_zero_width() {
        let interval = Bootstrap::default().mean(&[(0.5, 1); 9]).unwrap();
        assert_eq!(interval, Interval { low: 0.5, high: 0.5 });
    }

    #[test]
    fn the_same_seed_gives_the_same_interval_and_another_seed_another() {
        let clusters: Vec<_> =
            (0..20_u32).map(|i| (f64::from(i * i % 7), 1 + i as usize % 3)).collect();
        let with = |seed| Bootstrap { seed, ..Bootstrap::default() }.mean(&clusters);
        assert_eq!(with(1), with(1));
        assert_ne!(with(1), with(2));
    }

    #[test]
    fn several_means_at_once_are_those_one_by_one() {
        let cluster = |i: u32| (f64::from(i * i % 7), 1 + i as usize % 3);
        let whole: Vec<_> = (0..20).map(cluster).collect();
        let other: Vec<_> = (0..20).map(|i| (f64::from(i % 4), 2)).collect();
        let gaps: Vec<_> =
            (0..20).map(|i| if i % 5 == 0 { (0.0, 0) } else { cluster(i) }).collect();
        let bootstrap = Bootstrap { resamples: 500, ..Bootstrap::default() };
        let one_by_one: Vec<_> =
            [&whole, &other, &gaps, &vec![]].map(|each| bootstrap.mean(each)).to_vec();
        assert_eq!(bootstrap.means(&[&whole, &other, &gaps, &vec![]]), one_by_one);
    }

    #[test]
    fn all_interval_methods_agree_for_many_clusters() {
        let mut rng = Rng::new(9);
        let clusters: Vec<(f64, usize)> =
            (0..800).map(|at| (normal(&mut rng), 1 + at % 2)).collect();
        let bootstrap = Bootstrap { resamples: 4000, ..Bootstrap::default() };
        let studentised = bootstrap.mean(&clusters).unwrap();
        let accelerated = bootstrap
            .interval(clusters.len(), |times| {
                let (mut sum, mut count) = (0.0, 0.0);
                for ((of, size), times) in clusters.iter().zip(times) {
                    sum += f64::from(*times) * of;
                    count += f64::from(*times) * *size as f64;
                }
                sum / count
            })
            .unwrap();
        let student = ClusterMean::new(&clusters).unwrap().interval(0.95);
        let width = student.high - student.low;
        for other in [studentised, accelerated] {
            let off = (other.low - student.low).abs().max((other.high - student.high).abs());
            assert!(off < 0.05 * width, "{other:?} {student:?}");
        }
    }

    /// Draws a standard normal number.
    fn normal(rng: &mut Rng) -> f64 {
        normal_quantile(rng.unit().max(f64::MIN_POSITIVE))
    }

    /// Counts in how many rounds the 95 % interval of people's scores lies below the truth, and
    /// above it. A person has 1 to 9 scores. The effect of the person and the noise of each score
    /// have standard deviation 1.
    fn misses(people: usize, rounds: u64, draw: fn(&mut Rng) -> f64) -> (u32, u32) {
        let mut rng = Rng::new(20_260_320);
        let (mut below, mut above) = (0, 0);
        for seed in 0..rounds {
            let clusters: Vec<(f64, usize)> = (0..people)
                .map(|_| {
                    let (person, size) = (draw(&mut rng), 1 + rng.below(9));
                    ((0..size).map(|_| person + draw(&mut rng)).sum(), size)
                })
                .collect();
            let found =
                Bootstrap { resamples: 400, seed, ..Bootstrap::default() }.mean(&clusters).unwrap();
            below += u32::from(found.high < 0.0);
            above += u32::from(found.low > 0.0);
        }
        (below, above)
    }

    /// Draws an exponential number with mean 0, skewed to the right.
    fn skewed(rng: &mut Rng) -> f64 {
        -1.0 - rng.unit().max(f64::MIN_POSITIVE).ln()
    }

    #[test]
    fn intervals_of_clustered_scores_cover_the_truth() {
        for (people, rounds) in [(10, 1500), (20, 1000), (40, 600), (200, 250)] {
            for draw in [normal, skewed] {
                let (below, above) = misses(people, rounds, draw);
                let covered = 100.0 - 100.0 * f64::from(below + above) / rounds as f64;
                assert!(
                    (93.0..=97.0).contains(&covered),
                    "{people}: {covered} % ({below} below, {above} above)"
                );
            }
        }
    }

    #[test]
    fn intervals_that_ignore_clusters_have_too_little_coverage() {
        let mut rng = Rng::new(4);
        let (mut covered, rounds) = (0, 300);
        for seed in 0..rounds {
            let mut scores = Vec::new();
            for _ in 0..20 {
                let person = normal(&mut rng);
                scores.extend((0..10).map(|_| (person + normal(&mut rng), 1)));
            }
            let found =
                Bootstrap { resamples: 100, seed, ..Bootstrap::default() }.mean(&scores).unwrap();
            covered += u32::from(found.low <= 0.0 && 0.0 <= found.high);
        }
        assert!(covered < 200, "{covered} of {rounds}");
    }

    #[test]
    fn a_block_jackknife_gives_the_same_interval_for_very_many_clusters() {
        let mut rng = Rng::new(11);
        let clusters: Vec<f64> = (0..5 * MOST_LEFT_OUT / 2).map(|_| skewed(&mut rng)).collect();
        let mut calls = 0;
        let found = Bootstrap { resamples: 1_000, ..Bootstrap::default() }
            .interval(clusters.len(), |times| {
                calls += 1;
                let sum: f64 =
                    clusters.iter().zip(times).map(|(of, times)| of * f64::from(*times)).sum();
                sum / f64::from(times.iter().sum::<u32>())
            })
            .unwrap();
        assert!(calls <= 1_001 + MOST_LEFT_OUT, "{calls} calls: the jackknife does not use blocks");
        let singles: Vec<(f64, usize)> = clusters.iter().map(|of| (*of, 1)).collect();
        let student = ClusterMean::new(&singles).unwrap().interval(0.95);
        let width = student.high - student.low;
        assert!(
            (found.low - student.low).abs() < 0.1 * width
                && (found.high - student.high).abs() < 0.1 * width
        );
    }

    #[test]
    fn a_skewed_mean_has_a_skewed_interval() {
        let clusters: Vec<(f64, usize)> =
            [0.0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.4, 0.6, 1.0, 2.5].map(|sum| (sum, 1)).to_vec();
        let mean = ClusterMean::new(&clusters).unwrap();
        let (found, student) = (Bootstrap::default().mean(&clusters).unwrap(), mean.interval(0.95));
        assert!(found.high - mean.mean > 1.5 * (mean.mean - found.low), "{found:?}");
        assert!(found.high > student.high && found.low > student.low, "{found:?} {student:?}");
    }
}
