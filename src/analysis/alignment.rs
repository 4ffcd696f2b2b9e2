//! Agreement of metrics with annotators, and of annotators with each other.
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
use super::ranks::more_is_better;
use super::reasons::{NoAlpha, NoCoefficient, NoInterval};
use super::slices::slices_of;
use crate::stats::{
    self, Bootstrap, BradleyTerryError, FEWEST_CLUSTERS, Interval, Level, bradley_terry, krippendorff_alpha,
    krippendorff_alpha_interval, normal_quantile,
};
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
                pairs.push((preference.name.clone(), JudgedPair { a, b, preference: value }));
            }
            Judgement::Rating { run, rating } => {
                rated.entry((&preference.annotator, &preference.name)).or_default().push((run, rating));
            }
        }
    }
    for ((_, name), ratings) in rated {
        for (at, (a, of_a)) in ratings.iter().enumerate() {
            for (b, of_b) in &ratings[at + 1..] {
                let preference = of_a.total_cmp(of_b) as i8;
                pairs.push((name.to_owned(), JudgedPair { a: *a, b: *b, preference }));
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

/// Computes the agreement of metrics with annotators: over all pairs first, then over slices with
/// at least `min_pairs` pairs. `data` holds the judged samples, as read by
/// [`Store::samples_data`](crate::store::Store::samples_data).
#[must_use]
pub fn alignment(pairs: &[(String, JudgedPair)], data: &RunData, min_pairs: usize) -> Vec<SliceAlignment> {
    let place = |run: Uuid, name: &str| data.names.binary_search(&format!("{run}/{name}")).ok();
    let pairs: Vec<(usize, usize, i8)> = pairs
        .iter()
        .filter_map(|(name, pair)| Some((place(pair.a, name)?, place(pair.b, name)?, pair.preference)))
        .collect();
    // The run's id is removed, since a prompt is the same in all runs.
    let prompt = |at: usize| data.names[at].split_once('/').map_or("", |(_, name)| name).to_owned();
    let clusters = Clusters::new(&data.identities, prompt);
    let mut found = Vec::new();
    for (slice, members) in slices_of(data) {
        let chosen: Vec<_> =
            pairs.iter().filter(|(a, _, _)| members.binary_search(a).is_ok()).copied().collect();
        if !slice.is_all() && chosen.len() < min_pairs {
            continue;
        }
        let resamples = if slice.is_all() { 10_000 } else { 2_000 };
        let metrics = data.metrics.iter().filter_map(|(code, column)| {
            let more = more_is_better(code)?;
            let of = aligned(&chosen, &column.values, more, &clusters, resamples)?;
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
        let order =
            (f64::from(of_a > of_b) - f64::from(of_a < of_b)) * if more_is_better { 1.0 } else { -1.0 };
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

/// Agreement of annotators with each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AnnotatorAgreement {
    /// Number of annotators.
    pub annotators: usize,
    /// Pairs of images with votes of several annotators.
    pub votes_shared: usize,
    /// Krippendorff's alpha of the votes on an ordinal scale of three: 1 for perfect agreement, 0
    /// for chance. Null if no pair has two votes or all votes are the same.
    pub votes_alpha: Option<f64>,
    /// Reason if `votes_alpha` is null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub votes_alpha_reason: Option<NoAlpha>,
    /// Lower end of its 95 % confidence interval, resampling pairs of images. Null if alpha is null
    /// or there are fewer than three pairs.
    pub votes_alpha_low: Option<f64>,
    /// Upper end.
    pub votes_alpha_high: Option<f64>,
    /// Reason if `votes_alpha` has no interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub votes_alpha_no_interval: Option<NoInterval>,
    /// Images with ratings of several annotators.
    pub ratings_shared: usize,
    /// Krippendorff's alpha of the ratings on an ordinal scale.
    pub ratings_alpha: Option<f64>,
    /// Reason if `ratings_alpha` is null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratings_alpha_reason: Option<NoAlpha>,
    /// Lower end of its 95 % confidence interval, resampling images.
    pub ratings_alpha_low: Option<f64>,
    /// Upper end.
    pub ratings_alpha_high: Option<f64>,
    /// Reason if `ratings_alpha` has no interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratings_alpha_no_interval: Option<NoInterval>,
}

fn no_alpha(alpha: Option<f64>, shared: usize) -> Option<NoAlpha> {
    match (alpha, shared) {
        (Some(_), _) => None,
        (None, 0) => Some(NoAlpha::NothingShared),
        (None, _) => Some(NoAlpha::NoVariation),
    }
}

/// Computes the agreement of annotators with each other.
#[must_use]
pub fn annotator_agreement(preferences: &[Preference]) -> AnnotatorAgreement {
    let mut votes: BTreeMap<(&str, Uuid, Uuid), Vec<Option<f64>>> = BTreeMap::new();
    let mut ratings: BTreeMap<(&str, Uuid), Vec<Option<f64>>> = BTreeMap::new();
    let mut annotators = std::collections::BTreeSet::new();
    for preference in preferences {
        annotators.insert(&preference.annotator);
        match preference.judgement {
            Judgement::Vote { a, b, preference: value } => {
                // The store orders the two runs of every vote.
                votes.entry((&preference.name, a, b)).or_default().push(Some(value.into()));
            }
            Judgement::Rating { run, rating } => {
                ratings.entry((&preference.name, run)).or_default().push(Some(rating));
            }
        }
    }
    let (votes, ratings): (Vec<_>, Vec<_>) = (votes.into_values().collect(), ratings.into_values().collect());
    let shared = |units: &[Vec<Option<f64>>]| units.iter().filter(|unit| unit.len() > 1).count();
    let bootstrap = Bootstrap { resamples: 2_000, ..Bootstrap::default() };
    let ends = |units: &[Vec<Option<f64>>]| {
        let interval = krippendorff_alpha_interval(units, Level::Ordinal, &bootstrap);
        interval.map(|ends| (ends.low, ends.high)).unzip()
    };
    let ((votes_low, votes_high), (ratings_low, ratings_high)) = (ends(&votes), ends(&ratings));
    let alpha = |units: &[Vec<Option<f64>>]| krippendorff_alpha(units, Level::Ordinal);
    let (votes_alpha, ratings_alpha) = (alpha(&votes), alpha(&ratings));
    let no_interval = |alpha, low, units: &[Vec<Option<f64>>]| {
        NoInterval::of(alpha, low, shared(units), FEWEST_CLUSTERS, NoInterval::TooFewShared)
    };
    AnnotatorAgreement {
        annotators: annotators.len(),
        votes_shared: shared(&votes),
        votes_alpha,
        votes_alpha_reason: no_alpha(votes_alpha, shared(&votes)),
        votes_alpha_low: votes_low,
        votes_alpha_high: votes_high,
        votes_alpha_no_interval: no_interval(votes_alpha, votes_low, &votes),
        ratings_shared: shared(&ratings),
        ratings_alpha,
        ratings_alpha_reason: no_alpha(ratings_alpha, shared(&ratings)),
        ratings_alpha_low: ratings_low,
        ratings_alpha_high: ratings_high,
        ratings_alpha_no_interval: no_interval(ratings_alpha, ratings_low, &ratings),
    }
}

/// Annotators' preferences for one method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MethodPreference {
    /// The method.
    pub method: String,
    /// Pairs with another method's image.
    pub pairs: usize,
    /// Pairs in which this method's image was preferred.
    pub wins: usize,
    /// Pairs without a preference.
    pub ties: usize,
    /// Preference share: (wins + ties / 2) / pairs.
    pub share: f64,
    /// Lower end of its 95 % confidence interval, clustered by prompt.
    pub share_low: Option<f64>,
    /// Upper end.
    pub share_high: Option<f64>,
    /// Reason if the share has no interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_interval: Option<NoInterval>,
    /// Logarithm of the Bradley-Terry strength; the strengths sum to 0. A method is preferred to
    /// another with probability 1 / (1 + exp(other − own)). `no_strengths` gives the reason for
    /// null.
    pub strength: Option<f64>,
    /// Lower end of its 95 % confidence interval, from the curvature of the likelihood, which
    /// assumes that votes are independent.
    pub strength_low: Option<f64>,
    /// Upper end.
    pub strength_high: Option<f64>,
}

/// Annotators' preferences by method, best first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MethodPreferences {
    /// The methods.
    pub methods: Vec<MethodPreference>,
    /// Reason for missing strengths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_strengths: Option<String>,
    /// Whether half a win was added to each side of every compared pair before fitting, because
    /// some methods never lost or never won. Strengths are then shrunk together instead of
    /// infinitely far apart.
    pub penalised: bool,
}

/// Two methods whose next comparison is the most informative.
#[derive(Debug, Clone, PartialEq)]
pub struct NextPair {
    /// One method.
    pub a: String,
    /// The other.
    pub b: String,
    /// Pairs already judged.
    pub judged: usize,
    /// Estimated probability that A is preferred.
    pub expected: f64,
    /// Expected information of one more judgement on their difference in strength: p(1 − p) / (1 +
    /// judged).
    pub gain: f64,
}

/// Counts between methods, by name of the sample.
struct Tally<'a> {
    methods: Vec<&'a str>,
    /// Number of wins by winner and loser; a tie counts half for each.
    wins: BTreeMap<(usize, usize), f64>,
    /// Number of comparisons by the earlier and the later of two methods.
    judged: BTreeMap<(usize, usize), usize>,
    pairs: Vec<(&'a str, usize, usize, i8)>,
}

fn tally<'a>(pairs: &'a [(String, JudgedPair)], methods: &'a BTreeMap<Uuid, String>) -> Tally<'a> {
    let mut names: Vec<&str> = methods.values().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let place = |run| names.binary_search(&methods.get(&run)?.as_str()).ok();
    let (mut wins, mut judged, mut between) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for (name, pair) in pairs {
        let Some((a, b)) = place(pair.a).zip(place(pair.b)).filter(|(a, b)| a != b) else { continue };
        let share = f64::midpoint(1.0, pair.preference.into());
        *wins.entry((a, b)).or_insert(0.0) += share;
        *wins.entry((b, a)).or_insert(0.0) += 1.0 - share;
        *judged.entry((a.min(b), a.max(b))).or_insert(0) += 1;
        between.push((name.as_str(), a, b, pair.preference));
    }
    Tally { methods: names, wins, judged, pairs: between }
}

/// Strengths with their standard errors, by method.
struct Fitted {
    strengths: Vec<Option<(f64, f64)>>,
    penalised: bool,
    problem: Option<String>,
}

impl Tally<'_> {
    fn fit(&self) -> Result<stats::BradleyTerry, BradleyTerryError> {
        let comparisons: Vec<stats::Comparison> = self
            .wins
            .iter()
            .filter(|(_, times)| **times > 0.0)
            .map(|(&(winner, loser), &times)| stats::Comparison { winner, loser, times })
            .collect();
        bradley_terry(self.methods.len(), &comparisons)
    }

    /// Fits strengths if some methods never lost: half a win is added to each side of every
    /// compared pair, so that the strengths do not diverge. Only the largest set of methods
    /// connected by comparisons is fitted; other methods share no scale with it.
    fn fit_penalised(&self) -> Fitted {
        let mut group: Vec<usize> = (0..self.methods.len()).collect();
        // Each method gets the smallest index that it is connected with. There are few methods, so
        // repeating the pass is fast enough.
        loop {
            let mut changed = false;
            for &(a, b) in self.judged.keys() {
                let least = group[a].min(group[b]);
                changed |= group[a] != least || group[b] != least;
                (group[a], group[b]) = (least, least);
            }
            if !changed {
                break;
            }
        }
        let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
        for of in &group {
            *sizes.entry(*of).or_default() += 1;
        }
        let largest =
            sizes.iter().max_by_key(|(of, size)| (**size, std::cmp::Reverse(**of))).map(|(of, _)| *of);
        let members: Vec<usize> = (0..group.len()).filter(|at| Some(group[*at]) == largest).collect();
        let place = |method: usize| members.binary_search(&method).ok();
        let mut comparisons = Vec::new();
        for &(a, b) in self.judged.keys() {
            let Some((x, y)) = place(a).zip(place(b)) else { continue };
            for (winner, loser, won) in [(x, y, (a, b)), (y, x, (b, a))] {
                let times = 0.5 + self.wins.get(&won).copied().unwrap_or_default();
                comparisons.push(stats::Comparison { winner, loser, times });
            }
        }
        let mut strengths = vec![None; group.len()];
        match bradley_terry(members.len(), &comparisons) {
            Ok(fit) if members.len() > 1 => {
                for (at, method) in members.iter().enumerate() {
                    strengths[*method] = Some((fit.strengths[at], fit.errors[at]));
                }
                let apart = sizes.len() > 1;
                let problem = apart.then(|| {
                    "some methods were not compared with any of the others: add comparisons".to_owned()
                });
                Fitted { strengths, penalised: true, problem }
            }
            Ok(_) => {
                Fitted { strengths, penalised: false, problem: Some("no methods were compared".to_owned()) }
            }
            Err(error) => Fitted { strengths, penalised: false, problem: Some(error.to_string()) },
        }
    }
}

/// Computes preference shares and Bradley-Terry strengths of methods, given the method of each run.
#[must_use]
pub fn method_preferences(
    pairs: &[(String, JudgedPair)],
    methods: &BTreeMap<Uuid, String>,
) -> MethodPreferences {
    // Methods without judgements would break the scale.
    let judged: std::collections::BTreeSet<Uuid> =
        pairs.iter().flat_map(|(_, pair)| [pair.a, pair.b]).collect();
    let methods = methods.iter().filter(|(run, _)| judged.contains(*run));
    let methods: BTreeMap<Uuid, String> = methods.map(|(run, method)| (*run, method.clone())).collect();
    let tally = tally(pairs, &methods);
    let prompts: Vec<&str> = {
        let mut prompts: Vec<&str> = tally.pairs.iter().map(|(name, ..)| *name).collect();
        prompts.sort_unstable();
        prompts.dedup();
        prompts
    };
    let mut sums = vec![vec![(0.0, 0_usize); prompts.len()]; tally.methods.len()];
    let mut counts = vec![(0, 0, 0); tally.methods.len()];
    for &(name, a, b, preference) in &tally.pairs {
        let prompt = prompts.binary_search(&name).expect("every name is among them");
        for (method, value) in [(a, preference), (b, -preference)] {
            sums[method][prompt].0 += f64::midpoint(1.0, value.into());
            sums[method][prompt].1 += 1;
            counts[method].0 += 1;
            counts[method].1 += usize::from(value > 0);
            counts[method].2 += usize::from(value == 0);
        }
    }
    let intervals = Bootstrap { resamples: 4_000, ..Bootstrap::default() }.means(&sums);
    let fit = match tally.fit() {
        Ok(fit) => Fitted {
            strengths: fit.strengths.into_iter().zip(fit.errors).map(Some).collect(),
            penalised: false,
            problem: None,
        },
        Err(_) => tally.fit_penalised(),
    };
    let reach = normal_quantile(0.975);
    let mut found: Vec<MethodPreference> = (0..tally.methods.len())
        .map(|at| {
            let (pairs, wins, ties) = counts[at];
            let strength = fit.strengths[at].map(|(strength, error)| (strength, error * reach));
            let interval = intervals[at].map(|interval: Interval| interval.within(0.0, 1.0));
            let share = if pairs == 0 { 0.0 } else { (wins as f64 + ties as f64 / 2.0) / pairs as f64 };
            MethodPreference {
                method: tally.methods[at].to_owned(),
                pairs,
                wins,
                ties,
                share,
                share_low: interval.map(|ends| ends.low),
                share_high: interval.map(|ends| ends.high),
                no_interval: NoInterval::of(
                    Some(share),
                    interval.map(|ends| ends.low),
                    sums[at].iter().filter(|(_, count)| *count > 0).count(),
                    2,
                    NoInterval::TooFewPrompts,
                ),
                strength: strength.map(|(at, _)| at),
                strength_low: strength.map(|(at, reach)| at - reach),
                strength_high: strength.map(|(at, reach)| at + reach),
            }
        })
        .filter(|of| of.pairs > 0)
        .collect();
    let order = |of: &MethodPreference| of.strength.unwrap_or(of.share);
    found.sort_by(|one, other| {
        order(other).total_cmp(&order(one)).then_with(|| one.method.cmp(&other.method))
    });
    MethodPreferences { methods: found, penalised: fit.penalised, no_strengths: fit.problem }
}

/// Returns pairs of methods ordered by the information of their next comparison, best first: pairs
/// of similar strength and pairs with few comparisons. Without strengths, every preference has
/// probability 1/2.
#[must_use]
pub fn next_pairs(pairs: &[(String, JudgedPair)], methods: &BTreeMap<Uuid, String>) -> Vec<NextPair> {
    let tally = tally(pairs, methods);
    let n = tally.methods.len();
    let strengths = tally.fit().map_or_else(|_| vec![0.0; n], |fit| fit.strengths);
    let mut found = Vec::new();
    for a in 0..n {
        for b in a + 1..n {
            let expected = 1.0 / (1.0 + (strengths[b] - strengths[a]).exp());
            let judged = tally.judged.get(&(a, b)).copied().unwrap_or_default();
            found.push(NextPair {
                a: tally.methods[a].to_owned(),
                b: tally.methods[b].to_owned(),
                judged,
                expected,
                gain: expected * (1.0 - expected) / (1 + judged) as f64,
            });
        }
    }
    found.sort_by(|one, other| {
        other.gain.total_cmp(&one.gain).then_with(|| (&one.a, &one.b).cmp(&(&other.a, &other.b)))
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Rng, kendall_tau_b};
    use crate::store::{MetricColumn, Question};

    fn run(at: usize) -> Uuid {
        Uuid::from_u128(at as u128 + 1)
    }

    fn answer(annotator: usize, name: usize, judgement: Judgement) -> Preference {
        Preference {
            id: Uuid::nil(),
            question: Question::Overall,
            annotator: format!("annotator {annotator}"),
            name: format!("{name:03}"),
            judgement,
            created: time::OffsetDateTime::UNIX_EPOCH,
        }
    }

    fn rating(name: usize, at: usize, rating: f64) -> Preference {
        answer(0, name, Judgement::Rating { run: run(at), rating })
    }

    fn vote(annotator: usize, name: usize, a: usize, b: usize, preference: i8) -> Preference {
        answer(annotator, name, Judgement::Vote { a: run(a), b: run(b), preference })
    }

    /// Samples of `runs` runs with `names` names each; the metric's values are ordered by run, then
    /// by name.
    fn data(runs: usize, names: usize, metric: &str, values: Vec<Option<f64>>) -> RunData {
        let mut data = super::super::compare::tests::simulated(1, runs * names, 1, 1, 0.0);
        data.names = (0..runs * names).map(|at| format!("{}/{:03}", run(at / names), at % names)).collect();
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
            let answers: Vec<_> = ratings.iter().enumerate().map(|(at, of)| rating(0, at, *of)).collect();
            let data = data(9, 1, "ips", scores.iter().copied().map(Some).collect());
            let found = alignment(&judged_pairs(&answers), &data, 1);
            let expected = kendall_tau_b(&scores, &ratings).unwrap();
            assert!((found[0].metrics[0].tau.unwrap() - expected).abs() < 1e-12);
            assert_eq!((found[0].pairs, found[0].metrics[0].low), (36, None), "one prompt is one cluster");
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
        let of = |answers: &[Preference]| alignment(&judged_pairs(answers), &data, 1)[0].metrics[0].clone();
        let (random, right) = (of(&random), of(&right));
        assert!(random.low.unwrap() < 0.0 && random.high.unwrap() > 0.0, "{random:?}");
        assert!(
            right.low.unwrap() < 0.6 && right.high.unwrap() > 0.6 && right.low.unwrap() > 0.3,
            "{right:?}"
        );
    }

    #[test]
    fn shares_and_strengths_order_methods_and_unconnected_ones_have_shares_only() {
        let methods: BTreeMap<Uuid, String> = (0..3).map(|at| (run(at), format!("method {at}"))).collect();
        let mut answers = Vec::new();
        for name in 0..40 {
            answers.push(vote(0, name, 0, 1, if name % 4 == 0 { -1 } else { 1 }));
            answers.push(vote(0, name, 1, 2, i8::from(name % 3 != 0)));
        }
        let found = method_preferences(&judged_pairs(&answers), &methods);
        let names: Vec<_> = found.methods.iter().map(|of| of.method.as_str()).collect();
        assert_eq!((names, &found.no_strengths), (vec!["method 0", "method 1", "method 2"], &None));
        let first = &found.methods[0];
        assert_eq!((first.pairs, first.wins, first.ties, first.share), (40, 30, 0, 0.75));
        assert!(first.share_low.unwrap() < 0.75 && first.strength_low.unwrap() < first.strength.unwrap());
        // 30 to 10: the odds are 3.
        let apart = first.strength.unwrap() - found.methods[1].strength.unwrap();
        assert!((apart - 3_f64.ln()).abs() < 1e-9);

        let found = method_preferences(&judged_pairs(&answers[..1]), &methods);
        assert_eq!(found.methods.len(), 2);
        assert!(found.penalised && found.methods[0].strength.is_some() && found.no_strengths.is_none());
        // One and a half wins to a half: the odds are 3.
        let apart = found.methods[0].strength.unwrap() - found.methods[1].strength.unwrap();
        assert!((apart - 3_f64.ln()).abs() < 1e-9);
    }

    #[test]
    fn an_unbeaten_method_has_a_strength_and_an_unconnected_one_has_none() {
        let methods: BTreeMap<Uuid, String> = (0..5).map(|at| (run(at), format!("method {at}"))).collect();
        let mut answers = Vec::new();
        for name in 0..20 {
            answers.push(vote(0, name, 0, 1, 1));
            answers.push(vote(0, name, 1, 2, if name % 2 == 0 { 1 } else { -1 }));
        }
        answers.push(vote(0, 99, 3, 4, 1));
        let found = method_preferences(&judged_pairs(&answers), &methods);
        assert!(
            found.penalised
                && found
                    .no_strengths
                    .as_ref()
                    .is_some_and(|why| why.contains("not compared with any of the others"))
        );
        let strength = |name: &str| found.methods.iter().find(|of| of.method == name).unwrap().strength;
        assert!(strength("method 0").unwrap() > strength("method 1").unwrap());
        assert_eq!((strength("method 3"), strength("method 4")), (None, None));
    }

    #[test]
    fn the_next_pair_is_one_not_compared_yet_and_then_the_closest() {
        let methods: BTreeMap<Uuid, String> = (0..3).map(|at| (run(at), format!("method {at}"))).collect();
        let answers: Vec<_> = (0..10).map(|name| vote(0, name, 0, 1, 1 - 2 * (name % 2) as i8)).collect();
        let next = next_pairs(&judged_pairs(&answers), &methods);
        assert_eq!(next.iter().map(|pair| pair.judged).collect::<Vec<_>>(), [0, 0, 10]);
        assert!((next[0].gain - 0.25).abs() < 1e-12);
    }

    #[test]
    fn annotators_who_agree_have_an_alpha_of_one() {
        let answers: Vec<_> = (0..10)
            .flat_map(|name| (0..3).map(move |who| vote(who, name, 0, 1, if name % 2 == 0 { 1 } else { -1 })))
            .chain([rating(0, 0, 3.0)])
            .collect();
        let found = annotator_agreement(&answers);
        assert_eq!((found.annotators, found.votes_shared, found.votes_alpha), (3, 10, Some(1.0)));
        assert_eq!((found.votes_alpha_low, found.votes_alpha_high), (Some(1.0), Some(1.0)));
        assert_eq!((found.ratings_shared, found.ratings_alpha, found.ratings_alpha_low), (0, None, None));
    }
}
