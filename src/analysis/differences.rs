//! Differences of metrics in their agreement with annotators: which metrics agree best, and which
//! cannot be distinguished from the best.
//!
//! The agreement is that of `alignment`: Kendall's tau-b over pairs of images. A metric is compared
//! with a *reference metric* over the pairs in which both have scores, so that both are judged on
//! the same preferences. The difference of the two has a studentised bootstrap interval over
//! identities (or prompts where no identity is known), and a p-value from the same resamples.
//!
//! **Correction.** If the reference is the metric with the largest tau, it was chosen by the same
//! data: one metric out of several is the best by chance alone. Every pair of metrics could have
//! been compared, so Holm's correction is over all k (k − 1) / 2 pairs. It needs the p-values of
//! the k − 1 comparisons only: the others could only make the corrected ones smaller. If the
//! reference was named beforehand, the correction is over the k − 1 comparisons.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::alignment::{JudgedPair, PlacedPairs};
use super::labels::slices_of;
use super::ranks::more_is_better;
use super::reasons::{NoCoefficient, NoInterval};
use crate::stats::{
    Bootstrap, ClusterSums, FEW_CLUSTERS, FEWEST_CLUSTERS, TauSums, holm_of, tau_difference,
};
use crate::store::RunData;

/// Level of the tests.
const LEVEL: f64 = 0.05;

/// What a comparison with the reference metric shows, at the level of 5 % after correction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TauVerdict {
    /// This is the reference metric.
    Reference,
    /// The metric agrees less with annotators than the reference metric.
    Worse,
    /// The metric agrees more with annotators than the reference metric.
    Better,
    /// The data do not tell the two metrics apart, which does not mean that they are equal.
    NotDistinguishable,
    /// The difference cannot be tested: too few people or prompts, or a tie in every pair.
    Unknown,
}

/// A metric compared with the reference metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TauDifference {
    /// Code of the metric.
    #[schema(example = "clip_t")]
    pub metric: String,
    /// Version of the metric's definition.
    pub version: u32,
    /// Pairs in which both images have scores of both metrics.
    pub pairs: usize,
    /// Identities among them; without an identity, a prompt counts as one.
    pub clusters: usize,
    /// Whether there are fewer than 8 clusters, so that the interval is based on little data.
    pub few_clusters: bool,
    /// Kendall's tau-b of the metric over these pairs, 1 for full agreement.
    pub tau: Option<f64>,
    /// Kendall's tau-b of the reference metric over the same pairs.
    pub tau_reference: Option<f64>,
    /// `tau − tau_reference`: below 0 if the metric agrees less. Null for the reference metric.
    pub difference: Option<f64>,
    /// Lower end of the difference's 95 % confidence interval, clustered by identity. It is not
    /// corrected for the number of comparisons.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Reason for a null difference: the metric, the reference metric or the annotators have a tie
    /// in every pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_difference: Option<NoCoefficient>,
    /// Reason if the difference has no interval and no p-value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_interval: Option<NoInterval>,
    /// Two-sided p-value of the difference, from the same resamples as the interval.
    pub p: Option<f64>,
    /// P-value with Holm's correction over `comparisons`.
    pub p_holm: Option<f64>,
    /// What the comparison shows.
    pub verdict: TauVerdict,
    /// Whether the metric is in the best group: the reference metric, and those that are not shown
    /// to be worse. Null if that is not known.
    pub best: Option<bool>,
}

/// Comparisons of metrics over a slice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SliceDifferences {
    /// Kind of the slice; empty for all pairs.
    pub kind: String,
    /// Label within the kind.
    pub label: String,
    /// Pairs in the slice.
    pub pairs: usize,
    /// Code of the reference metric: the one that was named, or the one with the largest tau. Null
    /// if no metric has a tau.
    pub reference: Option<String>,
    /// Number of comparisons that p-values are corrected for.
    pub comparisons: usize,
    /// The metrics, by tau over the pairs of the comparison; the reference metric comes first.
    pub metrics: Vec<TauDifference>,
}

/// Options of the comparisons.
#[derive(Debug, Clone, PartialEq)]
pub struct DifferenceOptions {
    /// The reference metric; the one with the largest tau of a slice if `None`.
    pub against: Option<String>,
    /// Whether to compare within slices too.
    pub slices: bool,
    /// Slices with fewer pairs are left out.
    pub min_pairs: usize,
    /// Number of resamples.
    pub resamples: usize,
}

impl Default for DifferenceOptions {
    /// Against the best, without slices, 10,000 resamples.
    fn default() -> Self {
        Self { against: None, slices: false, min_pairs: 20, resamples: 10_000 }
    }
}

/// Compares each metric's agreement with annotators with that of a reference metric: over all pairs
/// first, then over slices. `data` holds the judged samples, as for
/// [`alignment`](super::alignment()).
#[must_use]
pub fn tau_differences(
    pairs: &[(String, JudgedPair)],
    data: &RunData,
    options: &DifferenceOptions,
) -> Vec<SliceDifferences> {
    let placed = PlacedPairs::new(pairs, data);
    let mut slices = slices_of(data);
    if !options.slices {
        slices.truncate(1);
    }
    let mut found = Vec::new();
    for (slice, members) in slices {
        let chosen = placed.within(&members);
        if slice.is_all() || chosen.len() >= options.min_pairs {
            let of = differences(&chosen, data, &placed, options);
            found.push(SliceDifferences { kind: slice.kind, label: slice.label, ..of });
        }
    }
    found
}

/// The orders of a pair: −1, 0 or 1 for each metric, `None` without scores of both images.
struct Ordered<'a> {
    metric: &'a str,
    version: u32,
    orders: Vec<Option<f64>>,
}

fn differences(
    pairs: &[(usize, usize, i8)],
    data: &RunData,
    placed: &PlacedPairs,
    options: &DifferenceOptions,
) -> SliceDifferences {
    let metrics: Vec<Ordered<'_>> = data
        .metrics
        .iter()
        .filter_map(|(code, column)| {
            let more = more_is_better(code)?;
            let order = |&(a, b, _): &(usize, usize, i8)| {
                let (of_a, of_b) = column.values[a].zip(column.values[b])?;
                let order = f64::from(of_a > of_b) - f64::from(of_a < of_b);
                Some(if more { order } else { -order })
            };
            let orders: Vec<Option<f64>> = pairs.iter().map(order).collect();
            orders.iter().any(Option::is_some).then_some(Ordered {
                metric: code,
                version: column.version,
                orders,
            })
        })
        .collect();
    let taus: Vec<Option<f64>> = metrics.iter().map(|of| tau(pairs, &of.orders)).collect();
    let reference = match &options.against {
        Some(against) => metrics.iter().position(|of| of.metric == against),
        // Of equal ones, the first by code.
        None => (0..metrics.len())
            .rev()
            .filter(|at| taus[*at].is_some())
            .max_by(|a, b| taus[*a].unwrap_or(-2.0).total_cmp(&taus[*b].unwrap_or(-2.0))),
    };
    let mut of = SliceDifferences {
        kind: String::new(),
        label: String::new(),
        pairs: pairs.len(),
        reference: reference.map(|at| metrics[at].metric.to_owned()),
        comparisons: 0,
        metrics: Vec::new(),
    };
    let Some(reference) = reference else { return of };
    let sets: Vec<Vec<ClusterSums<5>>> = metrics
        .iter()
        .map(|metric| sums(pairs, &metric.orders, &metrics[reference].orders, placed))
        .collect();
    let bootstrap = Bootstrap { resamples: options.resamples, ..Bootstrap::default() };
    let estimates = bootstrap.smooth(tau_difference, &sets);
    for (at, metric) in metrics.iter().enumerate() {
        let own = at == reference;
        let clusters = sets[at].iter().filter(|(_, count)| *count > 0).count();
        let estimate = estimates[at].filter(|_| !own);
        let total = sets[at].iter().fold([0.0; 5], |mut total, (sums, _)| {
            total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
            total
        });
        let tau = |sum: f64, free: f64| {
            Some(sum / (total[2] * free).sqrt()).filter(|tau: &f64| tau.is_finite())
        };
        let interval = estimate.and_then(|of| of.interval);
        let difference = estimate.map(|of| of.value);
        of.metrics.push(TauDifference {
            metric: metric.metric.to_owned(),
            version: metric.version,
            pairs: both(&metric.orders, &metrics[reference].orders).count(),
            clusters,
            few_clusters: clusters < FEW_CLUSTERS,
            tau: tau(total[0], total[3]),
            tau_reference: tau(total[1], total[4]),
            difference,
            low: interval.map(|ends| ends.low),
            high: interval.map(|ends| ends.high),
            no_difference: (!own && difference.is_none()).then_some(NoCoefficient::Constant),
            no_interval: NoInterval::of(
                difference,
                interval.map(|ends| ends.low),
                clusters,
                FEWEST_CLUSTERS,
                NoInterval::TooFewPeople,
            ),
            p: estimate.and_then(|of| of.p),
            p_holm: None,
            verdict: if own { TauVerdict::Reference } else { TauVerdict::Unknown },
            best: own.then_some(true),
        });
    }
    of.judge(options.against.is_none());
    of
}

impl SliceDifferences {
    /// Corrects the p-values and concludes from them.
    fn judge(&mut self, is_chosen_by_data: bool) {
        let k = self.metrics.len();
        self.comparisons =
            if is_chosen_by_data { k * k.saturating_sub(1) / 2 } else { k.saturating_sub(1) };
        let tested: Vec<usize> = (0..k).filter(|at| self.metrics[*at].p.is_some()).collect();
        let p: Vec<f64> = tested.iter().filter_map(|at| self.metrics[*at].p).collect();
        for (at, p) in tested.into_iter().zip(holm_of(&p, self.comparisons)) {
            self.metrics[at].p_holm = Some(p);
        }
        for of in &mut self.metrics {
            if of.verdict == TauVerdict::Reference {
                continue;
            }
            of.verdict = match (of.p_holm, of.difference) {
                (Some(p), Some(difference)) if p < LEVEL => {
                    if difference < 0.0 {
                        TauVerdict::Worse
                    } else {
                        TauVerdict::Better
                    }
                }
                (Some(_), _) => TauVerdict::NotDistinguishable,
                // Two metrics with the same preferences in every pair.
                (None, Some(difference))
                    if difference.abs() < 1e-12
                        && of.no_interval == Some(NoInterval::NoVariation) =>
                {
                    TauVerdict::NotDistinguishable
                }
                _ => TauVerdict::Unknown,
            };
            of.best = match of.verdict {
                TauVerdict::Worse => Some(false),
                TauVerdict::Unknown => None,
                _ => Some(true),
            };
        }
        self.metrics.sort_by(|a, b| {
            let last = |of: &TauDifference| of.verdict != TauVerdict::Reference;
            let tau = |of: &TauDifference| of.tau.unwrap_or(f64::NEG_INFINITY);
            last(a).cmp(&last(b)).then_with(|| tau(b).total_cmp(&tau(a)))
        });
    }
}

/// Returns tau-b of one metric over all pairs in which it has scores.
fn tau(pairs: &[(usize, usize, i8)], orders: &[Option<f64>]) -> Option<f64> {
    let (mut sum, mut free, mut own) = (0.0, 0.0, 0.0);
    for ((_, _, preference), order) in pairs.iter().zip(orders) {
        let Some(order) = order else { continue };
        sum += f64::from(*preference) * order;
        free += f64::from(*preference).abs();
        own += order.abs();
    }
    Some(sum / (free * own).sqrt()).filter(|tau: &f64| tau.is_finite())
}

/// Returns the positions and orders of the pairs in which two metrics have scores.
fn both(a: &[Option<f64>], b: &[Option<f64>]) -> impl Iterator<Item = (usize, f64, f64)> {
    let orders = a.iter().zip(b).enumerate();
    orders.filter_map(|(at, (a, b))| a.zip(*b).map(|(a, b)| (at, a, b)))
}

/// Returns the sums of each cluster over the pairs in which two metrics have scores.
fn sums(
    pairs: &[(usize, usize, i8)],
    a: &[Option<f64>],
    b: &[Option<f64>],
    placed: &PlacedPairs,
) -> Vec<ClusterSums<5>> {
    let mut sums: Vec<(TauSums, usize)> = vec![([0.0; 5], 0); placed.clusters()];
    for (at, a, b) in both(a, b) {
        let (one, _, preference) = pairs[at];
        let human = f64::from(preference);
        let (of, count) = &mut sums[placed.cluster(one)];
        for (sum, part) in of.iter_mut().zip([human * a, human * b, human.abs(), a.abs(), b.abs()])
        {
            *sum += part;
        }
        // A pair that is tied everywhere says nothing.
        *count += usize::from(human != 0.0 || a != 0.0 || b != 0.0);
    }
    sums
}
