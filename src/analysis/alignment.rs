//! Agreement of metrics with annotators.
//!
//! All judgements are reduced to pairs of images for one prompt. A vote is one pair. An annotator's
//! ratings of several methods' images for a prompt give one pair for every two ratings. Kendall's
//! tau-b is computed over these pairs only, since images of different prompts are never compared:
//! concordant minus discordant pairs, divided by the square root of (pairs not tied by annotators ×
//! pairs not tied by the metric). If one annotator rates all images of one prompt, this is the
//! usual tau-b. Intervals resample identities, or prompts if the identity is unknown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::clusters::Clusters;
use super::labels::slices_of;
use super::ranks::more_is_better;
use super::reasons::{NoCoefficient, NoInterval};
use crate::stats::{Bootstrap, FEWEST_CLUSTERS};
use crate::store::{Judgement, Preference, RunData};

/// Two images for one prompt and the preference between them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JudgedPair {
    /// The run of one image.
    pub a: Uuid,
    /// The run of the other.
    pub b: Uuid,
    /// 1 if A's image is preferred, −1 if B's is, 0 if neither is.
    pub preference: i8,
    /// Answer in a study that the pair is part of: a choice of one out of several images is
    /// several pairs.
    pub trial: Option<Uuid>,
}

/// Returns the pairs in annotators' judgements, each with the name of its samples. Votes are taken
/// as they are; ratings are paired within the same annotator and sample name.
#[must_use]
pub fn judged_pairs(preferences: &[Preference]) -> Vec<(String, JudgedPair)> {
    let mut pairs = Vec::new();
    let mut rated: BTreeMap<(&str, &str), Vec<(Uuid, f64)>> = BTreeMap::new();
    for preference in preferences {
        match preference.judgement {
            Judgement::Vote { a, b, preference: value } => {
                let trial = preference.trial;
                let pair = JudgedPair { a, b, preference: value, trial };
                pairs.push((preference.name.clone(), pair));
            }
            // No statement about the two images.
            Judgement::CannotTell { .. } => {}
            Judgement::Rating { run, rating } => {
                rated
                    .entry((&preference.annotator, &preference.name))
                    .or_default()
                    .push((run, rating));
            }
        }
    }
    for ((_, name), ratings) in rated {
        for (at, (a, of_a)) in ratings.iter().enumerate() {
            for (b, of_b) in &ratings[at + 1..] {
                let preference = of_a.total_cmp(of_b) as i8;
                let pair = JudgedPair { a: *a, b: *b, preference, trial: None };
                pairs.push((name.to_owned(), pair));
            }
        }
    }
    pairs
}

/// Agreement of a metric with annotators.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MetricAlignment {
    /// Code of the metric.
    #[schema(example = "ips")]
    pub metric: String,
    /// Version of the metric's definition.
    pub version: u32,
    /// Pairs in which both images have a score.
    pub pairs: usize,
    /// Kendall's tau-b over these pairs, oriented so that better is higher: 1 for full agreement, 0
    /// for chance.
    pub tau: Option<f64>,
    /// Reason for a null tau: the metric or the annotators have a tie in every pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_tau: Option<NoCoefficient>,
    /// Lower end of tau's 95 % confidence interval, clustered by identity.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Reason if tau has no interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_interval: Option<NoInterval>,
    /// Share of the pairs with a preference in which the metric has the same preference; its ties
    /// count half. Null if no pair has a preference.
    pub agreement: Option<f64>,
}

/// Alignment over a slice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SliceAlignment {
    /// Kind of the slice; empty for all pairs.
    pub kind: String,
    /// Label within the kind.
    pub label: String,
    /// Pairs in the slice.
    pub pairs: usize,
    /// One entry per metric; metrics without a direction are left out.
    pub metrics: Vec<MetricAlignment>,
}

/// Judged pairs by the positions of their two samples, with the preference between them, and the
/// clusters of the samples: an identity, or a prompt where it is unknown.
pub(super) struct PlacedPairs {
    pairs: Vec<(usize, usize, i8)>,
    clusters: Clusters,
}

impl PlacedPairs {
    /// Finds the samples of pairs. Pairs without one of their samples are left out.
    pub(super) fn new(pairs: &[(String, JudgedPair)], data: &RunData) -> Self {
        let place = |run: Uuid, name: &str| data.names.binary_search(&format!("{run}/{name}")).ok();
        let pairs = pairs.iter().filter_map(|(name, pair)| {
            Some((place(pair.a, name)?, place(pair.b, name)?, pair.preference))
        });
        let pairs = pairs.collect();
        // The run's id is removed, since a prompt is the same in all runs.
        let prompt =
            |at: usize| data.names[at].split_once('/').map_or("", |(_, name)| name).to_owned();
        Self { pairs, clusters: Clusters::new(&data.identities, prompt) }
    }

    /// Returns the pairs whose first sample is one of these, in ascending order of positions.
    pub(super) fn within(&self, members: &[usize]) -> Vec<(usize, usize, i8)> {
        let is_one = |(a, _, _): &&(usize, usize, i8)| members.binary_search(a).is_ok();
        self.pairs.iter().filter(is_one).copied().collect()
    }

    /// Returns the cluster of a sample.
    pub(super) fn cluster(&self, at: usize) -> usize {
        self.clusters.of[at]
    }

    /// Returns the number of clusters.
    pub(super) fn clusters(&self) -> usize {
        self.clusters.keys.len()
    }
}

/// Computes the agreement of metrics with annotators: over all pairs first, then over slices with
/// at least `min_pairs` pairs. `data` holds the judged samples, as read by
/// [`Store::samples_data`](crate::store::Store::samples_data).
#[must_use]
pub fn alignment(
    pairs: &[(String, JudgedPair)],
    data: &RunData,
    min_pairs: usize,
) -> Vec<SliceAlignment> {
    let placed = PlacedPairs::new(pairs, data);
    let mut found = Vec::new();
    for (slice, members) in slices_of(data) {
        let chosen = placed.within(&members);
        if !slice.is_all() && chosen.len() < min_pairs {
            continue;
        }
        let resamples = if slice.is_all() { 10_000 } else { 2_000 };
        let metrics = data.metrics.iter().filter_map(|(code, column)| {
            let more = more_is_better(code)?;
            let of = aligned(&chosen, &column.values, more, &placed.clusters, resamples)?;
            Some(MetricAlignment { metric: code.clone(), version: column.version, ..of })
        });
        found.push(SliceAlignment {
            pairs: chosen.len(),
            metrics: metrics.collect(),
            kind: slice.kind,
            label: slice.label,
        });
    }
    found
}

/// Sums over a cluster's pairs: concordant minus discordant, not tied by annotators, not tied by
/// the metric.
type Sums = [f64; 3];

fn aligned(
    pairs: &[(usize, usize, i8)],
    values: &[Option<f64>],
    more_is_better: bool,
    clusters: &Clusters,
    resamples: usize,
) -> Option<MetricAlignment> {
    let mut sums: Vec<Sums> = vec![[0.0; 3]; clusters.keys.len()];
    let (mut count, mut right, mut preferred) = (0, 0.0, 0.0);
    for &(a, b, preference) in pairs {
        let Some((of_a, of_b)) = values[a].zip(values[b]) else { continue };
        let order = (f64::from(of_a > of_b) - f64::from(of_a < of_b))
            * if more_is_better { 1.0 } else { -1.0 };
        let human = f64::from(preference);
        let of = &mut sums[clusters.of[a]];
        of[0] += human * order;
        of[1] += human.abs();
        of[2] += order.abs();
        count += 1;
        if preference != 0 {
            preferred += 1.0;
            right += f64::midpoint(1.0, human * order);
        }
    }
    sums.retain(|of| of[1] + of[2] > 0.0);
    let tau = |times: &[u32]| {
        let mut total: Sums = [0.0; 3];
        for (of, &times) in sums.iter().zip(times) {
            for (total, of) in total.iter_mut().zip(of) {
                *total += f64::from(times) * of;
            }
        }
        total[0] / (total[1] * total[2]).sqrt()
    };
    let estimate = Some(tau(&vec![1; sums.len()])).filter(|tau| tau.is_finite());
    let interval = Bootstrap { resamples, ..Bootstrap::default() }.interval(sums.len(), tau);
    (count > 0).then(|| MetricAlignment {
        metric: String::new(),
        version: 0,
        pairs: count,
        tau: estimate,
        no_tau: estimate.is_none().then_some(NoCoefficient::Constant),
        low: interval.map(|ends| ends.low),
        high: interval.map(|ends| ends.high),
        no_interval: NoInterval::of(
            estimate,
            interval.map(|ends| ends.low),
            sums.len(),
            FEWEST_CLUSTERS,
            NoInterval::TooFewPeople,
        ),
        agreement: (preferred > 0.0).then(|| right / preferred),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::stats::{Rng, kendall_tau_b};
    use crate::store::{MetricColumn, Question};

    pub(in super::super) fn run(at: usize) -> Uuid {
        Uuid::from_u128(at as u128 + 1)
    }

    fn answer(annotator: usize, name: usize, judgement: Judgement) -> Preference {
        Preference {
            id: Uuid::nil(),
            question: Question::Overall,
            annotator: format!("annotator {annotator}"),
            name: format!("{name:03}"),
            judgement,
            shown_first: None,
            is_repeat: false,
            trial: None,
            created: time::OffsetDateTime::UNIX_EPOCH,
        }
    }

    pub(in super::super) fn rating(name: usize, at: usize, rating: f64) -> Preference {
        answer(0, name, Judgement::Rating { run: run(at), rating })
    }

    pub(in super::super) fn vote(
        annotator: usize,
        name: usize,
        a: usize,
        b: usize,
        preference: i8,
    ) -> Preference {
        answer(annotator, name, Judgement::Vote { a: run(a), b: run(b), preference })
    }

    /// Samples of `runs` runs with `names` names each; the metric's values are ordered by run, then
    /// by name.
    fn data(runs: usize, names: usize, metric: &str, values: Vec<Option<f64>>) -> RunData {
        let mut data = super::super::compare::tests::simulated(1, runs * names, 1, 1, 0.0);
        data.names =
            (0..runs * names).map(|at| format!("{}/{:03}", run(at / names), at % names)).collect();
        data.identities = vec![None; runs * names];
        data.metrics = BTreeMap::from([(
            metric.to_owned(),
            MetricColumn { version: 1, values, ..MetricColumn::default() },
        )]);
        data
    }

    #[test]
    fn ratings_of_all_images_of_one_prompt_give_the_usual_tau() {
        let mut rng = Rng::new(3);
        for _ in 0..20 {
            let scores: Vec<f64> = (0..9).map(|_| rng.below(5) as f64).collect();
            let ratings: Vec<f64> = (0..9).map(|_| rng.below(4) as f64).collect();
            let answers: Vec<_> =
                ratings.iter().enumerate().map(|(at, of)| rating(0, at, *of)).collect();
            let data = data(9, 1, "ips", scores.iter().copied().map(Some).collect());
            let found = alignment(&judged_pairs(&answers), &data, 1);
            let expected = kendall_tau_b(&scores, &ratings).unwrap();
            assert!((found[0].metrics[0].tau.unwrap() - expected).abs() < 1e-12);
            assert_eq!(
                (found[0].pairs, found[0].metrics[0].low),
                (36, None),
                "one prompt is one cluster"
            );
        }
    }

    #[test]
    fn a_distance_agrees_by_being_smaller_and_missing_numbers_are_left_out() {
        let answers = [vote(0, 0, 0, 1, 1), vote(0, 1, 0, 1, 1), vote(0, 2, 0, 1, -1)];
        let values = vec![Some(0.1), Some(0.2), Some(0.9), Some(0.5), None, Some(0.3)];
        let found = alignment(&judged_pairs(&answers), &data(2, 3, "dreamsim", values), 1);
        let of = &found[0].metrics[0];
        assert_eq!((of.pairs, of.tau, of.agreement), (2, Some(1.0), Some(1.0)));
    }

    #[test]
    fn the_interval_contains_zero_for_random_votes_and_not_for_true_ones() {
        let mut rng = Rng::new(8);
        let names = 150;
        let values: Vec<Option<f64>> = (0..2 * names).map(|_| Some(rng.unit())).collect();
        let (mut random, mut right) = (Vec::new(), Vec::new());
        for name in 0..names {
            random.push(vote(0, name, 0, 1, if rng.unit() < 0.5 { 1 } else { -1 }));
            let better = if values[name] > values[names + name] { 1 } else { -1 };
            right.push(vote(0, name, 0, 1, if rng.unit() < 0.8 { better } else { -better }));
        }
        let data = data(2, names, "ips", values);
        let of = |answers: &[Preference]| {
            alignment(&judged_pairs(answers), &data, 1)[0].metrics[0].clone()
        };
        let (random, right) = (of(&random), of(&right));
        assert!(random.low.unwrap() < 0.0 && random.high.unwrap() > 0.0, "{random:?}");
        assert!(
            right.low.unwrap() < 0.6 && right.high.unwrap() > 0.6 && right.low.unwrap() > 0.3,
            "{right:?}"
        );
    }
}
