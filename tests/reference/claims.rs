//! Claims about metrics and methods match those that `scripts/claims_fixtures.py` computed with
//! numpy and scipy.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use stellar_score::analysis::{
    DifferenceOptions, FirstPlaceShare, JudgedPair, TauVerdict, first_places, judged_pairs,
    method_preferences, photo_swap, tau_differences,
};
use stellar_score::store::{
    Judgement, MetricColumn, Preference, Question, RelationKinds, RunData, RunName, SamplePhotos,
};
use time::OffsetDateTime;
use uuid::Uuid;

#[derive(Deserialize)]
struct Golden {
    differences: Vec<DifferencesCase>,
    first_places: Vec<FirstPlacesCase>,
    penalised: Vec<PenalisedCase>,
    photos: Vec<PhotosCase>,
}

/// A vote: prompt, the two runs, and the preference for the first.
type Vote = (usize, usize, usize, i8);

#[derive(Deserialize)]
struct DifferencesCase {
    identities: Vec<String>,
    runs: usize,
    /// By metric, prompt and run.
    scores: BTreeMap<String, Vec<Vec<Option<f64>>>>,
    votes: Vec<Vote>,
    against: Option<String>,
    resamples: usize,
    reference: String,
    expected: Vec<ExpectedDifference>,
}

#[derive(Deserialize)]
struct ExpectedDifference {
    metric: String,
    pairs: usize,
    clusters: usize,
    tau: f64,
    tau_reference: f64,
    difference: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
    p: Option<f64>,
    #[serde(default)]
    p_holm: Option<f64>,
}

#[derive(Deserialize)]
struct FirstPlacesCase {
    identities: Vec<String>,
    /// By prompt and run.
    scores: Vec<Vec<f64>>,
    votes: Vec<Vote>,
    runs: usize,
    metric: Vec<ExpectedShare>,
    people: Vec<ExpectedShare>,
    share_of_answers: Vec<Option<f64>>,
}

#[derive(Deserialize)]
struct ExpectedShare {
    share: Option<f64>,
    interval: Option<[f64; 2]>,
}

#[derive(Deserialize)]
struct PenalisedCase {
    methods: usize,
    votes: Vec<Vote>,
    strengths: Vec<f64>,
    reaches: Vec<f64>,
}

#[derive(Deserialize)]
struct PhotosCase {
    /// By person, group, photo and sample.
    people: Vec<Vec<Vec<Vec<f64>>>>,
    expected: ExpectedSwap,
}

#[derive(Deserialize)]
struct ExpectedSwap {
    spread: f64,
    share: f64,
    photo_spread: Option<f64>,
    rest_spread: Option<f64>,
    photo_share: Option<f64>,
    spread_interval: [f64; 2],
    share_interval: [f64; 2],
    photo_share_interval: Option<[f64; 2]>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../data/stats/claims.json")).unwrap()
}

#[track_caller]
fn close(found: Option<f64>, expected: Option<f64>) {
    match (found, expected) {
        (Some(found), Some(expected)) => {
            assert!((found - expected).abs() <= 1e-9, "{found} is not {expected}");
        }
        (found, expected) => assert_eq!(found, expected),
    }
}

fn run(at: usize) -> Uuid {
    Uuid::from_u128(at as u128 + 1)
}

/// Samples with these names, people and scores.
fn data(
    of: usize,
    names: Vec<String>,
    identities: &[String],
    metrics: BTreeMap<String, Vec<Option<f64>>>,
) -> RunData {
    let samples = names.len();
    let column = |values| MetricColumn { version: 1, values, ..MetricColumn::default() };
    RunData {
        run: run(of),
        name: RunName::new(format!("method {of}"), None),
        pack: None,
        names,
        identities: (0..samples)
            .map(|at| Some(identities[at % identities.len()].clone()))
            .collect(),
        prompt_kinds: vec![None; samples],
        categories: vec![Vec::new(); samples],
        attributes: BTreeMap::new(),
        relations: vec![RelationKinds::default(); samples],
        labels: BTreeMap::new(),
        sizes: vec![None; samples],
        metrics: metrics.into_iter().map(|(code, values)| (code, column(values))).collect(),
    }
}

fn prompt(at: usize) -> String {
    format!("{at:04}")
}

fn preferences(votes: &[Vote]) -> Vec<Preference> {
    let vote = |(at, &(name, a, b, preference)): (usize, &Vote)| Preference {
        id: run(at),
        question: Question::Overall,
        annotator: at.to_string(),
        name: prompt(name),
        judgement: Judgement::Vote { a: run(a), b: run(b), preference },
        shown_first: None,
        is_repeat: false,
        trial: None,
        created: OffsetDateTime::UNIX_EPOCH,
    };
    votes.iter().enumerate().map(vote).collect()
}

#[test]
fn differences_of_tau_match_numpy() {
    let (mut worse, mut equal, mut untested) = (0, 0, 0);
    for case in golden().differences {
        let prompts = case.identities.len();
        let names = (0..case.runs)
            .flat_map(|of| (0..prompts).map(move |at| format!("{}/{}", run(of), prompt(at))));
        let metrics = case.scores.iter().map(|(code, scores)| {
            let of_run = |of: usize| scores.iter().map(move |row| row[of]);
            (code.clone(), (0..case.runs).flat_map(of_run).collect())
        });
        let data = data(0, names.collect(), &case.identities, metrics.collect());
        let pairs: Vec<(String, JudgedPair)> = judged_pairs(&preferences(&case.votes));
        let options = DifferenceOptions {
            against: case.against.clone(),
            resamples: case.resamples,
            ..DifferenceOptions::default()
        };
        let found = &tau_differences(&pairs, &data, &options)[0];
        assert_eq!(found.reference.as_deref(), Some(&*case.reference));
        assert_eq!(found.metrics[0].verdict, TauVerdict::Reference);
        assert_eq!(found.metrics.len(), case.expected.len());
        for expected in &case.expected {
            let of = found.metrics.iter().find(|of| of.metric == expected.metric).unwrap();
            assert_eq!((of.pairs, of.clusters), (expected.pairs, expected.clusters));
            close(of.tau, Some(expected.tau));
            close(of.tau_reference, Some(expected.tau_reference));
            close(of.difference, expected.difference);
            close(of.low, expected.low);
            close(of.high, expected.high);
            close(of.p, expected.p);
            close(of.p_holm, expected.p_holm);
            let is_out = expected.p_holm.is_some_and(|p| p < 0.05);
            assert_eq!(matches!(of.verdict, TauVerdict::Worse | TauVerdict::Better), is_out);
            worse += usize::from(is_out);
            equal += usize::from(of.verdict == TauVerdict::NotDistinguishable);
            untested += usize::from(of.verdict == TauVerdict::Unknown);
        }
    }
    assert!(worse > 0 && equal > 0 && untested > 0, "{worse} {equal} {untested}");
}

fn compare(found: &[FirstPlaceShare], expected: &[ExpectedShare]) {
    assert_eq!(found.len(), expected.len());
    for (of, expected) in found.iter().zip(expected) {
        close(of.share, expected.share);
        close(of.low, expected.interval.map(|ends| ends[0]));
        close(of.high, expected.interval.map(|ends| ends[1]));
    }
}

#[test]
fn first_places_match_numpy() {
    for case in golden().first_places {
        let runs: Vec<Arc<RunData>> = (0..case.runs)
            .map(|of| {
                let scores = case.scores.iter().map(|row| Some(row[of])).collect();
                let names = (0..case.scores.len()).map(prompt).collect();
                let metrics = BTreeMap::from([("ips".to_owned(), scores)]);
                Arc::new(data(of, names, &case.identities, metrics))
            })
            .collect();
        let found = first_places(&runs, &preferences(&case.votes), None, None);
        compare(&found.metrics[0].shares, &case.metric);
        compare(&found.people.unwrap().shares, &case.people);
        for (of, expected) in found.metrics[0].shares.iter().zip(&case.share_of_answers) {
            close(of.share_of_answers, *expected);
        }
    }
}

#[test]
fn penalised_strengths_match_numpy() {
    for case in golden().penalised {
        let methods = (0..case.methods).map(|at| (run(at), at.to_string())).collect();
        let found = method_preferences(&judged_pairs(&preferences(&case.votes)), &methods);
        assert!(found.penalised && found.no_strengths.is_none());
        for of in &found.methods {
            let at: usize = of.method.parse().unwrap();
            close(of.strength, Some(case.strengths[at]));
            let reach = of.strength_high.zip(of.strength).map(|(high, strength)| high - strength);
            close(reach, Some(case.reaches[at]));
        }
    }
}

#[test]
fn variance_components_of_swapped_photos_match_numpy() {
    for case in golden().photos {
        let (mut names, mut people, mut scores) = (Vec::new(), Vec::new(), Vec::new());
        let mut photos = BTreeMap::new();
        for (person, groups) in case.people.iter().enumerate() {
            for (group, units) in groups.iter().enumerate() {
                for (unit, numbers) in units.iter().enumerate() {
                    for number in numbers {
                        let name = prompt(names.len());
                        let prompt = Some(format!("prompt {group}"));
                        let references = vec![format!("photo {unit}")];
                        photos.insert(name.clone(), SamplePhotos { prompt, references });
                        names.push(name);
                        people.push(format!("person {person:03}"));
                        scores.push(Some(*number));
                    }
                }
            }
        }
        let run = data(0, names, &people, BTreeMap::from([("sis".to_owned(), scores)]));
        let found = photo_swap(&[(Arc::new(run), photos)], None, None);
        let (of, expected) = (&found.metrics[0], &case.expected);
        close(Some(of.spread), Some(expected.spread));
        close(of.share, Some(expected.share));
        close(of.photo_spread, expected.photo_spread);
        close(of.rest_spread, expected.rest_spread);
        close(of.photo_share, expected.photo_share);
        close(of.spread_low, Some(expected.spread_interval[0]));
        close(of.spread_high, Some(expected.spread_interval[1]));
        close(of.share_low, Some(expected.share_interval[0]));
        close(of.share_high, Some(expected.share_interval[1]));
        close(of.photo_share_low, expected.photo_share_interval.map(|ends| ends[0]));
        close(of.photo_share_high, expected.photo_share_interval.map(|ends| ends[1]));
    }
}
