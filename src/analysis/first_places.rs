//! First places: how often each method has the best image of a prompt, by each metric and by
//! people.
//!
//! **By a metric**, over the prompts (sample names) for which all runs have a number: the share of
//! them in which a run has the best score. Runs with equal scores share the place. The shares of
//! all runs sum to 1. Intervals resample identities.
//!
//! **By people**: of the answers about images of these runs only, the share in which a run's image
//! was chosen, of the answers in which it was shown. A vote is an answer about two images, a choice
//! of a study one about several. Such a share depends on how many images were shown, so the same
//! share is given for each metric over the same images (`share_of_answers`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::alignment::judged_pairs;
use super::clusters::Clusters;
use super::gallery::shared_metrics;
use super::ranks::more_is_better;
use super::reasons::NoInterval;
use super::study::ShareInterval;
use crate::stats::{Bootstrap, FEW_CLUSTERS, share_intervals};
use crate::store::{Judgement, Preference, RunData};

/// A run's share of first places.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FirstPlaceShare {
    /// First places; a shared one is a part of one.
    pub first: f64,
    /// Number of prompts, or of people's answers in which the run's image was shown.
    pub of: usize,
    /// `first / of`; null if `of` is 0.
    pub share: Option<f64>,
    /// Lower end of its 95 % confidence interval; `share_interval` says how it was computed.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// How the interval was computed: over identities for a metric, over prompts for people.
    pub share_interval: Option<ShareInterval>,
    /// Reason if the share has no interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_interval: Option<NoInterval>,
    /// Of a metric: its share over the images that people were shown, in the answers in which the
    /// run's image was: to be compared with the share of people. Null without such answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_of_answers: Option<f64>,
    /// Number of answers in `share_of_answers`. Those in which a shown image has no score are left
    /// out, but count in the share of people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<usize>,
}

/// First places by one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MetricFirstPlaces {
    /// Code of the metric.
    #[schema(example = "ips")]
    pub metric: String,
    /// Version of the metric's definition.
    pub version: u32,
    /// Prompts for which all runs have a number.
    pub prompts: usize,
    /// Prompts among them in which several runs share the first place.
    pub shared: usize,
    /// Identities among them; a prompt without an identity counts as one.
    pub clusters: usize,
    /// Whether there are fewer than 8 clusters, so that intervals are based on little data.
    pub few_clusters: bool,
    /// The share of each run, in the order of the runs.
    pub shares: Vec<FirstPlaceShare>,
}

/// First choices of people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PeopleFirstPlaces {
    /// Answers about images of these runs only.
    pub answers: usize,
    /// Answers without a preference, which are a part of a choice of each image.
    pub ties: usize,
    /// Prompts with an answer.
    pub prompts: usize,
    /// Mean of 1/k over the answers, where k is the number of images shown: the share of a run that
    /// is as good as the others.
    pub chance: f64,
    /// The share of each run, in the order of the runs.
    pub shares: Vec<FirstPlaceShare>,
}

/// First places of runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FirstPlaces {
    /// Prompts that all runs have.
    pub prompts: usize,
    /// One entry per metric with a direction, in the order of the registry.
    pub metrics: Vec<MetricFirstPlaces>,
    /// First choices of people; `None` if nobody judged images of these runs only.
    pub people: Option<PeopleFirstPlaces>,
}

/// Counts first places over the prompts that all runs have: all of them, or those of one kind.
/// `preferences` are the votes of people; ratings are left out. The scores of all runs should be of
/// one pack. Scores are as measured, without any penalty.
#[must_use]
pub fn first_places(
    runs: &[Arc<RunData>],
    preferences: &[Preference],
    wanted: Option<&[String]>,
    kind: Option<&str>,
) -> FirstPlaces {
    let prompts = common(runs, kind);
    let names: Vec<&str> = runs
        .first()
        .map(|run| prompts.iter().map(|at| &*run.names[at[0]]).collect())
        .unwrap_or_default();
    let answers = answers(runs, preferences, &names);
    let identities: Vec<Option<String>> = prompts
        .iter()
        .map(|at| at.iter().zip(runs).find_map(|(at, run)| run.identities[*at].clone()))
        .collect();
    let clusters = Clusters::new(&identities, |at| names[at].to_owned());
    let metrics = shared_metrics(runs, wanted).into_iter().filter_map(|code| {
        let more = more_is_better(&code)?;
        let columns = runs.iter().map(|run| run.metrics.get(&code)).collect::<Option<Vec<_>>>()?;
        // Oriented so that more is better.
        let scores: Vec<Vec<Option<f64>>> = prompts
            .iter()
            .map(|at| {
                let of = at.iter().zip(&columns).map(|(at, column)| column.values[*at]);
                of.map(|score| score.map(|score| if more { score } else { -score })).collect()
            })
            .collect();
        let version = columns.first()?.version;
        Some(by_metric(code, version, &scores, &clusters, &answers))
    });
    let metrics = metrics.collect();
    let people = (!answers.is_empty()).then(|| by_people(runs.len(), &answers));
    FirstPlaces { prompts: prompts.len(), metrics, people }
}

/// Returns the positions of each prompt in all runs.
fn common(runs: &[Arc<RunData>], kind: Option<&str>) -> Vec<Vec<usize>> {
    let Some((first, others)) = runs.split_first() else { return Vec::new() };
    let is_of_kind =
        |at: usize| kind.is_none_or(|kind| first.prompt_kinds[at].as_deref() == Some(kind));
    let places = (0..first.names.len()).filter(|at| is_of_kind(*at)).filter_map(|at| {
        let mut places = vec![at];
        for run in others {
            places.push(run.names.binary_search(&first.names[at]).ok()?);
        }
        Some(places)
    });
    places.collect()
}

/// An answer of a person about images of one prompt.
struct Answer {
    /// Index of the prompt.
    prompt: usize,
    /// Indices of the runs that were shown, ascending.
    shown: Vec<usize>,
    /// Indices of the runs that were chosen: one, or several that are tied.
    chosen: Vec<usize>,
}

/// The votes of one answer, while they are collected.
#[derive(Default)]
struct Open {
    prompt: Option<usize>,
    shown: BTreeSet<usize>,
    lost: BTreeSet<usize>,
    /// Whether a run was shown that is not listed.
    has_others: bool,
}

/// Returns the answers about prompts that all runs have, in which only these runs were shown.
fn answers(runs: &[Arc<RunData>], preferences: &[Preference], names: &[&str]) -> Vec<Answer> {
    let votes: Vec<Preference> = preferences
        .iter()
        .filter(|of| matches!(of.judgement, Judgement::Vote { .. }))
        .cloned()
        .collect();
    let place = |run: Uuid| runs.iter().position(|of| of.run == run);
    let mut open: BTreeMap<(Option<Uuid>, usize), Open> = BTreeMap::new();
    for (at, (name, pair)) in judged_pairs(&votes).into_iter().enumerate() {
        // A vote that is part of no trial is an answer of its own.
        let key = pair.trial.map_or((None, at), |trial| (Some(trial), 0));
        let of = open.entry(key).or_default();
        of.prompt = names.binary_search(&name.as_str()).ok();
        let Some((a, b)) = place(pair.a).zip(place(pair.b)) else {
            of.has_others = true;
            continue;
        };
        of.shown.extend([a, b]);
        match pair.preference {
            1.. => of.lost.insert(b),
            0 => false,
            _ => of.lost.insert(a),
        };
    }
    let answers = open.into_values().filter(|of| !of.has_others && of.shown.len() > 1);
    let answers = answers.filter_map(|Open { prompt, shown, lost, .. }| {
        let chosen: Vec<usize> = shown.difference(&lost).copied().collect();
        let shown = shown.into_iter().collect();
        (!chosen.is_empty()).then_some(Answer { prompt: prompt?, shown, chosen })
    });
    answers.collect()
}

/// Returns the indices of the largest scores; `None` if one is missing.
fn best(scores: impl Iterator<Item = (usize, Option<f64>)>) -> Option<Vec<usize>> {
    let (mut best, mut first) = (f64::NEG_INFINITY, Vec::new());
    for (at, score) in scores {
        let score = score?;
        if score > best {
            (best, first) = (score, vec![at]);
        } else if score >= best {
            first.push(at);
        }
    }
    Some(first)
}

fn by_metric(
    metric: String,
    version: u32,
    scores: &[Vec<Option<f64>>],
    clusters: &Clusters,
    answers: &[Answer],
) -> MetricFirstPlaces {
    let runs = scores.first().map_or(0, Vec::len);
    let mut sums = vec![vec![(0.0, 0); clusters.keys.len()]; runs];
    let (mut prompts, mut shared) = (0, 0);
    for (at, scores) in scores.iter().enumerate() {
        let Some(first) = best(scores.iter().copied().enumerate()) else { continue };
        prompts += 1;
        shared += usize::from(first.len() > 1);
        for of in &mut sums {
            of[clusters.of[at]].1 += 1;
        }
        for run in &first {
            sums[*run][clusters.of[at]].0 += 1.0 / first.len() as f64;
        }
    }
    let mut shares = shares(&sums, NoInterval::TooFewPeople);
    let mut of_answers = vec![(0.0, 0_usize); runs];
    for Answer { prompt, shown, .. } in answers {
        let scores = &scores[*prompt];
        let Some(first) = best(shown.iter().map(|run| (*run, scores[*run]))) else { continue };
        for run in shown {
            of_answers[*run].1 += 1;
        }
        for run in &first {
            of_answers[*run].0 += 1.0 / first.len() as f64;
        }
    }
    for (share, (first, of)) in shares.iter_mut().zip(of_answers) {
        share.share_of_answers = (of > 0).then(|| first / of as f64);
        share.answers = (!answers.is_empty()).then_some(of);
    }
    let filled = |of: &Vec<(f64, usize)>| of.iter().filter(|(_, count)| *count > 0).count();
    let clusters = sums.first().map_or(0, filled);
    let few_clusters = clusters < FEW_CLUSTERS;
    MetricFirstPlaces { metric, version, prompts, shared, clusters, few_clusters, shares }
}

fn by_people(runs: usize, answers: &[Answer]) -> PeopleFirstPlaces {
    let known: BTreeSet<usize> = answers.iter().map(|answer| answer.prompt).collect();
    let known: Vec<usize> = known.into_iter().collect();
    let mut sums = vec![vec![(0.0, 0); known.len()]; runs];
    let (mut chance, mut ties) = (0.0, 0);
    for Answer { prompt, shown, chosen } in answers {
        let prompt = known.partition_point(|each| each < prompt);
        chance += 1.0 / shown.len() as f64;
        ties += usize::from(chosen.len() > 1);
        for run in shown {
            sums[*run][prompt].1 += 1;
        }
        for run in chosen {
            sums[*run][prompt].0 += 1.0 / chosen.len() as f64;
        }
    }
    PeopleFirstPlaces {
        answers: answers.len(),
        ties,
        prompts: known.len(),
        chance: chance / answers.len().max(1) as f64,
        shares: shares(&sums, NoInterval::TooFewPrompts),
    }
}

/// Returns the share of each run with its interval over clusters.
fn shares(sums: &[Vec<(f64, usize)>], too_few: NoInterval) -> Vec<FirstPlaceShare> {
    let bootstrap = Bootstrap { resamples: 4_000, ..Bootstrap::default() };
    let intervals = share_intervals(&bootstrap, sums);
    let share = |(sums, interval): (&Vec<(f64, usize)>, Option<_>)| {
        let of: usize = sums.iter().map(|(_, count)| count).sum();
        let first: f64 = sums.iter().map(|(sum, _)| sum).sum();
        let share = (of > 0).then(|| first / of as f64);
        let (ends, method) = interval.unzip();
        let low = ends.map(|ends: crate::stats::Interval| ends.low);
        let filled = sums.iter().filter(|(_, count)| *count > 0).count();
        FirstPlaceShare {
            first,
            of,
            share,
            low,
            high: ends.map(|ends| ends.high),
            share_interval: method.map(ShareInterval::from),
            no_interval: NoInterval::of(share, low, filled, 2, too_few),
            share_of_answers: None,
            answers: None,
        }
    };
    sums.iter().zip(intervals).map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::super::alignment::tests::{rating, run, vote};
    use super::super::compare::tests::simulated;
    use super::*;

    /// A run with these scores of `dino`, one prompt for each.
    fn scored(at: usize, scores: &[Option<f64>]) -> Arc<RunData> {
        let mut data = simulated(1, scores.len(), 1, 1, 0.0);
        data.run = run(at);
        data.names = (0..scores.len()).map(|at| format!("{at:03}")).collect();
        data.identities = vec![None; scores.len()];
        data.metrics.get_mut("dino").unwrap().values = scores.to_vec();
        Arc::new(data)
    }

    fn three() -> Vec<Arc<RunData>> {
        vec![
            scored(0, &[Some(0.9), Some(0.5), Some(0.1), None]),
            scored(1, &[Some(0.1), Some(0.5), Some(0.2), Some(0.3)]),
            scored(2, &[Some(0.2), Some(0.4), Some(0.3), Some(0.9)]),
        ]
    }

    #[test]
    fn first_places_sum_to_one_and_ties_share() {
        let found = first_places(&three(), &[], None, None);
        let of = &found.metrics[0];
        assert_eq!((found.prompts, of.prompts, of.shared, of.clusters), (4, 3, 1, 3));
        let first: Vec<f64> = of.shares.iter().map(|share| share.first).collect();
        assert_eq!(first, [1.5, 0.5, 1.0]);
        assert_eq!(found.people, None);
        let sum: f64 = of.shares.iter().filter_map(|share| share.share).sum();
        assert!((sum - 1.0).abs() < 1e-12);
    }

    #[test]
    fn people_choose_among_the_images_that_they_saw() {
        let trial = |vote: Preference, of: usize| Preference { trial: Some(run(of)), ..vote };
        let votes = [
            // One choice of three: two votes of one trial.
            trial(vote(0, 0, 2, 0, 1), 70),
            trial(vote(0, 0, 2, 1, 1), 70),
            vote(0, 1, 0, 1, 0),
            vote(1, 1, 0, 2, 1),
            // Of a run that is not listed, and of no common prompt.
            vote(1, 1, 0, 8, 1),
            vote(1, 77, 0, 1, 1),
            rating(1, 0, 5.0),
            rating(1, 1, 1.0),
        ];
        let found = first_places(&three(), &votes, None, None);
        let people = found.people.unwrap();
        assert_eq!((people.answers, people.ties, people.prompts), (3, 1, 2));
        assert!((people.chance - (1.0 / 3.0 + 0.5 + 0.5) / 3.0).abs() < 1e-12);
        let of = |at: usize| (people.shares[at].first, people.shares[at].of);
        assert_eq!((of(0), of(1), of(2)), ((1.5, 3), (0.5, 2), (1.0, 2)));
        // The metric has run 0 first of the three, ties 0 and 1, and has 0 before 2.
        let metric = &found.metrics[0].shares;
        assert!((metric[0].share_of_answers.unwrap() - 2.5 / 3.0).abs() < 1e-12);
        assert_eq!(metric[2].share_of_answers, Some(0.0));
        assert_eq!(
            (metric[0].answers, metric[2].answers, people.shares[0].answers),
            (Some(3), Some(2), None)
        );

        // Run 0 has no score of the last prompt: people's answer counts, and not for the metric.
        let found = first_places(&three(), &[vote(0, 3, 0, 1, 1), vote(0, 0, 0, 1, 1)], None, None);
        let of = &found.metrics[0].shares[0];
        assert_eq!((of.share_of_answers, of.answers), (Some(1.0), Some(1)));
        assert_eq!(found.people.unwrap().shares[0].of, 2);
    }

    #[test]
    fn a_smaller_distance_is_first_and_kinds_are_filtered() {
        let mut runs: Vec<RunData> = three().iter().map(|run| RunData::clone(run)).collect();
        for run in &mut runs {
            let column = run.metrics.remove("dino").unwrap();
            run.metrics.insert("dreamsim".to_owned(), column);
            run.prompt_kinds = ["T", "H", "T", "T"].map(|kind| Some(kind.to_owned())).to_vec();
        }
        let runs: Vec<_> = runs.into_iter().map(Arc::new).collect();
        let found = first_places(&runs, &[], None, Some("T"));
        let first: Vec<f64> = found.metrics[0].shares.iter().map(|share| share.first).collect();
        assert_eq!((found.prompts, first), (3, vec![1.0, 1.0, 0.0]));
        assert_eq!(first_places(&runs, &[], None, Some("x")).prompts, 0);
        assert_eq!(first_places(&[], &[], None, None), FirstPlaces::default());
    }
}
