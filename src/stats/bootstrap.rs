//! Confidence intervals by resampling whole clusters.
//!
//! Scores of one identity resemble each other, so that a thousand prompts over ten people say less than a thousand
//! independent samples: resampling single scores would make intervals far too narrow. Whole clusters are drawn
//! instead; without clusters, every score is one of its own.

use std::collections::BTreeMap;

use super::normal::{normal_cdf, normal_quantile};
use super::rng::Rng;

/// The two ends of a confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// How to resample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bootstrap {
    /// How many samples are drawn. The ends of a 95 % interval of 10,000 are within 2 to 3 % of its width of those
    /// of infinitely many.
    pub resamples: usize,
    /// The coverage aimed at, between 0 and 1.
    pub confidence: f64,
    /// What the draws follow from.
    pub seed: u64,
}

impl Default for Bootstrap {
    /// 10,000 resamples for 95 %.
    fn default() -> Self {
        Self { resamples: 10_000, confidence: 0.95, seed: 0 }
    }
}

impl Bootstrap {
    /// The BCa interval of a mean over clusters, given the sum and the count of each cluster's numbers.
    ///
    /// None below two clusters, where there is nothing to tell the spread from, and where every cluster is empty.
    #[must_use]
    pub fn mean(&self, clusters: &[(f64, usize)]) -> Option<Interval> {
        self.means(&[clusters]).remove(0)
    }

    /// [`mean`](Self::mean) of several quantities over the same clusters. Those that have numbers in the same clusters share
    /// their draws, which cost most.
    #[must_use]
    pub fn means<C: AsRef<[(f64, usize)]>>(&self, quantities: &[C]) -> Vec<Option<Interval>> {
        let mut intervals = vec![None; quantities.len()];
        let mut alike: BTreeMap<Vec<bool>, Vec<usize>> = BTreeMap::new();
        for (place, clusters) in quantities.iter().enumerate() {
            let filled = clusters.as_ref().iter().map(|(_, count)| *count > 0).collect();
            alike.entry(filled).or_default().push(place);
        }
        for places in alike.into_values() {
            let filled: Vec<Vec<(f64, f64)>> = places
                .iter()
                .map(|&place| {
                    let clusters = quantities[place].as_ref().iter().filter(|(_, count)| *count > 0);
                    clusters.map(|(sum, count)| (*sum, *count as f64)).collect()
                })
                .collect();
            for (place, interval) in places.into_iter().zip(self.filled_means(&filled)) {
                intervals[place] = interval;
            }
        }
        intervals
    }

    /// The intervals of means over clusters of which none is empty.
    fn filled_means(&self, quantities: &[Vec<(f64, f64)>]) -> Vec<Option<Interval>> {
        let clusters = quantities.first().map_or(0, Vec::len);
        if clusters < 2 {
            return vec![None; quantities.len()];
        }
        let mut distributions = vec![Vec::with_capacity(self.resamples); quantities.len()];
        let mut times = vec![0.0; clusters];
        let mut rng = Rng::new(self.seed);
        for _ in 0..self.resamples {
            times.fill(0.0);
            for _ in 0..clusters {
                times[rng.below(clusters)] += 1.0;
            }
            for (quantity, distribution) in quantities.iter().zip(&mut distributions) {
                let (mut sum, mut count) = (0.0, 0.0);
                for (&(cluster, size), &times) in quantity.iter().zip(&times) {
                    sum += times * cluster;
                    count += times * size;
                }
                distribution.push(sum / count);
            }
        }
        let interval = |(quantity, distribution): (&Vec<(f64, f64)>, Vec<f64>)| {
            let sum: f64 = quantity.iter().map(|(sum, _)| sum).sum();
            let count: f64 = quantity.iter().map(|(_, count)| count).sum();
            let without = |&(cluster, size): &(f64, f64)| (sum - cluster) / (count - size);
            let jackknife: Vec<f64> = quantity.iter().map(without).collect();
            (sum / count)
                .is_finite()
                .then(|| bca(&distribution, sum / count, &jackknife, self.confidence))
                .flatten()
        };
        quantities.iter().zip(distributions).map(interval).collect()
    }

    /// The BCa interval of any statistic of `clusters` clusters, which is given how often each was drawn: once each
    /// for the estimate itself.
    ///
    /// None below two clusters and where the statistic is not a number for the clusters themselves. Resamples for
    /// which it is none (a class missing by chance) are left out.
    pub fn interval(&self, clusters: usize, mut statistic: impl FnMut(&[u32]) -> f64) -> Option<Interval> {
        if clusters < 2 {
            return None;
        }
        let estimate = statistic(&vec![1; clusters]);
        if !estimate.is_finite() {
            return None;
        }
        let distribution = self.distribution(clusters, &mut statistic);
        let mut times = vec![1; clusters];
        let jackknife: Vec<f64> = (0..clusters)
            .map(|left_out| {
                times[left_out] = 0;
                let without = statistic(&times);
                times[left_out] = 1;
                without
            })
            .collect();
        bca(&distribution, estimate, &jackknife, self.confidence)
    }

    /// The statistic of each resample, in the order drawn.
    pub fn distribution(&self, clusters: usize, mut statistic: impl FnMut(&[u32]) -> f64) -> Vec<f64> {
        let mut rng = Rng::new(self.seed);
        let mut times = vec![0; clusters];
        (0..self.resamples)
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

/// The percentile interval of a bootstrap distribution: its quantiles, linearly interpolated. None where it is empty.
#[must_use]
pub fn percentile(distribution: &[f64], confidence: f64) -> Option<Interval> {
    let outside = (1.0 - confidence) / 2.0;
    between(distribution, outside, 1.0 - outside)
}

/// The bias-corrected and accelerated interval: percentiles moved by how far the distribution's median is from the
/// estimate and by how the spread changes with it, which the jackknife (the estimates without each cluster) tells.
///
/// As `scipy.stats.bootstrap` computes it, after B. Efron, *Better Bootstrap Confidence Intervals*, Journal of the
/// American Statistical Association 82(397), 1987. Where all resamples lie on one side of the estimate the
/// correction would be infinite, and where the jackknife is constant there is no acceleration: the former falls
/// back to [`percentile`]. None where the distribution is empty.
#[must_use]
pub fn bca(distribution: &[f64], estimate: f64, jackknife: &[f64], confidence: f64) -> Option<Interval> {
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

/// So many evenly spaced quantiles of numbers, from the smallest to the largest, linearly interpolated. Sorts the numbers; none
/// where there are none, or fewer than two quantiles are asked for.
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

/// The quantile of sorted numbers as numpy's default has it: linear between the two nearest.
fn quantile(sorted: &[f64], p: f64) -> Option<f64> {
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
    fn equal_clusters_have_an_interval_of_no_width() {
        let interval = Bootstrap::default().mean(&[(0.5, 1); 9]).unwrap();
        assert_eq!(interval, Interval { low: 0.5, high: 0.5 });
    }

    #[test]
    fn the_same_seed_gives_the_same_interval_and_another_seed_another() {
        let clusters: Vec<_> = (0..20_u32).map(|i| (f64::from(i * i % 7), 1 + i as usize % 3)).collect();
        let with = |seed| Bootstrap { seed, ..Bootstrap::default() }.mean(&clusters);
        assert_eq!(with(1), with(1));
        assert_ne!(with(1), with(2));
    }

    #[test]
    fn several_means_at_once_are_those_one_by_one() {
        let cluster = |i: u32| (f64::from(i * i % 7), 1 + i as usize % 3);
        let whole: Vec<_> = (0..20).map(cluster).collect();
        let other: Vec<_> = (0..20).map(|i| (f64::from(i % 4), 2)).collect();
        let gaps: Vec<_> = (0..20).map(|i| if i % 5 == 0 { (0.0, 0) } else { cluster(i) }).collect();
        let bootstrap = Bootstrap { resamples: 500, ..Bootstrap::default() };
        let one_by_one: Vec<_> = [&whole, &other, &gaps, &vec![]].map(|each| bootstrap.mean(each)).to_vec();
        assert_eq!(bootstrap.means(&[&whole, &other, &gaps, &vec![]]), one_by_one);
        // As the general way has it, whose jackknife leaves out and adds up anew.
        let general = bootstrap.interval(20, |times| {
            let drawn = whole
                .iter()
                .zip(times)
                .map(|((sum, count), &times)| (f64::from(times) * sum, f64::from(times) * *count as f64));
            let (sum, count) = drawn.fold((0.0, 0.0), |total, each| (total.0 + each.0, total.1 + each.1));
            sum / count
        });
        let (one, general) = (one_by_one[0].unwrap(), general.unwrap());
        assert!((one.low - general.low).abs() < 1e-12 && (one.high - general.high).abs() < 1e-12);
    }

    /// A normal number of mean 0 and deviation 1.
    fn normal(rng: &mut Rng) -> f64 {
        normal_quantile(rng.unit().max(f64::MIN_POSITIVE))
    }

    #[test]
    fn intervals_of_clustered_scores_cover_the_truth() {
        // 40 identities of 5 to 15 prompts; a third of the variance is the identity's.
        let (mut clustered, mut single, trials) = (0, 0, 1000);
        let mut rng = Rng::new(20_260_320);
        for trial in 0..trials {
            let mut clusters = Vec::new();
            let mut scores = Vec::new();
            for _ in 0..40 {
                let identity = normal(&mut rng) / 2f64.sqrt();
                let prompts = 5 + rng.below(11);
                let of: Vec<f64> = (0..prompts).map(|_| identity + normal(&mut rng)).collect();
                clusters.push((of.iter().sum(), prompts));
                scores.extend(of.into_iter().map(|score| (score, 1)));
            }
            let bootstrap = Bootstrap { resamples: 500, seed: trial, ..Bootstrap::default() };
            let covers = |interval: Interval| interval.low <= 0.0 && 0.0 <= interval.high;
            clustered += u32::from(covers(bootstrap.mean(&clusters).unwrap()));
            let bootstrap = Bootstrap { resamples: 100, ..bootstrap };
            single += u32::from(covers(bootstrap.mean(&scores).unwrap()));
        }
        assert!((930..=970).contains(&clustered), "{clustered} of {trials}");
        assert!(single < 800, "scores taken as independent cover the truth {single} times of {trials} only");
    }
}
