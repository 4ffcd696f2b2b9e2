//! Results of studies agree with a second implementation (`scripts/studies_fixtures.py`).

use serde::Deserialize;
use stellar_score::{
    analysis::study_results,
    stats::{Choice, answers_for_share, choice_model},
    store::{Question, StudyAnswer, StudyChoice, StudyItem},
};
use time::OffsetDateTime;
use uuid::Uuid;

#[derive(Deserialize)]
struct Golden {
    sample_sizes: Vec<SampleSize>,
    studies: Vec<Study>,
}

#[derive(Deserialize)]
struct SampleSize {
    p0: f64,
    p: f64,
    alpha: f64,
    power: f64,
    answers: f64,
}

#[derive(Deserialize)]
struct Study {
    methods: usize,
    images: usize,
    answers: Vec<Row>,
    penalised: bool,
    shares: Vec<f64>,
    intervals: Vec<[f64; 2]>,
    strengths: Vec<f64>,
    reaches: Vec<f64>,
    alpha: Option<f64>,
    positions: Vec<usize>,
    difference_error: f64,
}

#[derive(Deserialize)]
struct Row {
    item: u32,
    set: Vec<usize>,
    shown: Vec<usize>,
    annotator: usize,
    chosen: Option<usize>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../data/stats/studies.json")).unwrap()
}

#[track_caller]
fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-9, "{found} is not {expected}");
}

fn run(at: usize) -> Uuid {
    Uuid::from_u128(at as u128 + 1)
}

#[test]
fn shares_intervals_strengths_and_agreement_match_numpy() {
    for case in golden().studies {
        let runs = |of: &[usize]| of.iter().map(|at| run(*at)).collect::<Vec<_>>();
        let mut items: Vec<StudyItem> = Vec::new();
        for row in &case.answers {
            if items.last().is_none_or(|last| last.place != row.item) {
                let name = format!("{:03}", row.item);
                items.push(StudyItem { place: row.item, name, runs: runs(&row.set), right: None });
            }
        }
        let answer = |row: &Row| StudyAnswer {
            id: Uuid::nil(),
            item: row.item,
            question: Question::Overall,
            annotator: row.annotator.to_string(),
            choice: row.chosen.map_or(StudyChoice::Tie, |at| StudyChoice::One(run(at))),
            shown: runs(&row.shown),
            created: OffsetDateTime::UNIX_EPOCH,
        };
        let answers: Vec<_> = case.answers.iter().map(answer).collect();
        let methods: Vec<_> = (0..case.methods).map(|at| (run(at), at.to_string())).collect();
        let found = study_results(&items, &answers, &methods, case.images);
        assert_eq!((found.answers, found.penalised), (case.answers.len(), case.penalised));
        for of in &found.methods {
            let at: usize = of.method.parse().unwrap();
            close(of.share.unwrap(), case.shares[at]);
            close(of.share_low.unwrap(), case.intervals[at][0]);
            close(of.share_high.unwrap(), case.intervals[at][1]);
            close(of.strength.unwrap(), case.strengths[at]);
            close(of.strength_high.unwrap() - of.strength.unwrap(), case.reaches[at]);
        }
        assert_eq!(found.agreement.alpha.is_some(), case.alpha.is_some());
        close(found.agreement.alpha.unwrap_or_default(), case.alpha.unwrap_or_default());
        let positions: Vec<_> = found.positions.iter().map(|of| of.count).collect();
        assert_eq!(positions, case.positions);

        let prior = if case.penalised { 0.5 } else { 0.0 };
        let choice = |row: &Row, chosen: usize, times: f64| Choice {
            set: row.set.clone(),
            chosen,
            times,
            cluster: row.item as usize,
        };
        let choices: Vec<Choice> = case
            .answers
            .iter()
            .flat_map(|row| match row.chosen {
                Some(chosen) => vec![choice(row, chosen, 1.0)],
                None => row.set.iter().map(|at| choice(row, *at, 0.5)).collect(),
            })
            .collect();
        let fit = choice_model(case.methods, &choices, prior).unwrap();
        close(fit.difference(0, 1).1.unwrap(), case.difference_error);
    }
}

#[test]
fn sample_sizes_match_the_formula() {
    for case in golden().sample_sizes {
        let found = answers_for_share(case.p0, case.p, case.alpha, case.power).unwrap();
        close(found / case.answers, 1.0);
    }
}
