//! Summaries match the scores after any history.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use stellar_score::analysis::{Grouping, LeaderboardQuery, Sort, leaderboard};
use stellar_score::store::{
    MetricSummary, NewSample, NewScore, RunName, ScoreValue, StandingsFilter, Store,
};
use uuid::Uuid;

use crate::harness::*;

pub(crate) async fn a_replaced_score_is_removed_from_the_sums_of_its_version(db: Database) {
    let store = db.open().await;
    for (name, value) in [("1", 1.0), ("2", 2.0), ("3", 6.0)] {
        store.record(&scored("A", name, vec![number("m", value)])).await.unwrap();
    }
    // The number of the first sample is the pivot of the sums of version 1.
    store.record(&scored("A", "1", vec![versioned("m", 2, 10.0)])).await.unwrap();
    let found: Vec<_> = summaries(&by_run(&store).await.rows[0])
        .iter()
        .map(|m| (m.version, m.n, m.mean, m.std))
        .collect();
    assert_eq!(found, [(1, 2, Some(4.0), Some(8f64.sqrt())), (2, 1, Some(10.0), None)]);

    // And back, as when an operator returns to the previous version.
    store.record(&scored("A", "1", vec![number("m", 1.0)])).await.unwrap();
    assert_eq!(only_summary(&store).await, summary(3, 0, Some(3.0), Some(7f64.sqrt())));
}

pub(crate) async fn removing_the_last_score_of_a_version_removes_its_row(db: Database) {
    let store = db.open().await;
    store.record(&scored("A", "1", vec![number("m", 0.1)])).await.unwrap();
    store.record(&scored("A", "2", vec![null("m", "no_detectables")])).await.unwrap();
    for name in ["1", "2"] {
        store.record(&scored("A", name, vec![versioned("m", 2, 0.75)])).await.unwrap();
    }
    let expected = MetricSummary { version: 2, ..summary(2, 0, Some(0.75), Some(0.0)) };
    assert_eq!(only_summary(&store).await, expected);
}

pub(crate) async fn tiny_and_large_numbers_neither_fail_nor_overflow(db: Database) {
    let store = db.open().await;
    let values = [0.0, 1e-160, -1e-300, f64::MIN_POSITIVE / 4.0, 1e-80, -0.0];
    for (position, value) in values.into_iter().enumerate() {
        let name = position.to_string();
        store.record(&scored("Tiny", &name, vec![number("m", value)])).await.unwrap();
        store.record(&scored("Tiny", &name, vec![versioned("m", 2, value)])).await.unwrap();
        store
            .record(&scored("Large", &name, vec![number("m", 1e100 * (position as f64 / 5.0))]))
            .await
            .unwrap();
    }
    let query = LeaderboardQuery {
        sort: Sort::Metric { metric: "m".into(), version: 1, descending: true },
        ..LeaderboardQuery::default()
    };
    let page = leaderboard(&store, &query).await.unwrap();
    assert_eq!(page.rows[0].method, "Large");
    let (mean, std) = (
        page.rows[0].metrics[0].summary.mean.unwrap(),
        page.rows[0].metrics[0].summary.std.unwrap(),
    );
    assert!((mean / 5e99 - 1.0).abs() < 1e-12, "{mean}");
    assert!((std / (1e100 * 0.14f64.sqrt()) - 1.0).abs() < 1e-12, "{std}");
    let tiny = page.rows[1].metrics[0].summary.mean.unwrap();
    assert!((tiny / (1e-80 / 6.0) - 1.0).abs() < 1e-12, "{tiny}");
}

/// One recording in a random history.
#[derive(Clone, Debug)]
struct Step {
    run: usize,
    name: usize,
    pack: bool,
    /// Per metric: None if not requested, else its version and its number or null.
    scores: Vec<Option<(u32, Option<f64>)>>,
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![
        4 => -1.0..1.0f64,
        1 => Just(0.3),
        1 => 5.0..5.001f64,
        1 => -1e3..1e3f64,
    ];
    let score = option::weighted(0.8, (1..=3_u32, option::weighted(0.8, value)));
    (0..2_usize, 0..5_usize, any::<bool>(), vec(score, 3))
        .prop_map(|(run, name, pack, scores)| Step { run, name, pack, scores })
}

impl Step {
    fn sample(&self, method: &str) -> NewSample {
        let scores = self.scores.iter().enumerate().filter_map(|(metric, score)| {
            let (metric_version, value) = (*score)?;
            let value =
                value.map_or(ScoreValue::Null { reason: "none".into() }, ScoreValue::Number);
            Some(NewScore {
                metric: format!("metric {metric}"),
                metric_version,
                value,
                flags: vec![],
            })
        });
        NewSample {
            run: Some(RunName::new(method, Some(format!("run {}", self.run)))),
            pack: if self.pack { official() } else { demo() },
            ..scored(method, &format!("sample {}", self.name), scores.collect())
        }
    }
}

/// The key of a summary: run, pack, metric and version.
type Of = (String, String, String, u32);

pub(crate) async fn summaries_equal_a_recomputation_from_the_scores(db: Database) {
    let store = db.open().await;
    let handle = tokio::runtime::Handle::current();
    let history = AtomicUsize::new(0);
    let runner = move || {
        TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() })
            .run(&vec(step(), 1..40), |steps| {
                let method = format!("method {}", history.fetch_add(1, Ordering::Relaxed));
                handle.block_on(check(&store, &method, &steps));
                Ok(())
            })
            .unwrap();
    };
    tokio::task::spawn_blocking(runner).await.unwrap();
}

async fn check(store: &Store, method: &str, steps: &[Step]) {
    let mut samples = std::collections::BTreeSet::<Uuid>::new();
    for step in steps {
        samples.insert(store.record(&step.sample(method)).await.unwrap().sample);
    }

    let mut values: BTreeMap<Of, Vec<Option<f64>>> = BTreeMap::new();
    for id in samples {
        let sample = store.sample(id).await.unwrap().unwrap();
        let run = sample.run.unwrap().run;
        for score in sample.scores {
            let of = (run.clone(), score.pack.digest, score.metric, score.metric_version);
            values.entry(of).or_default().push(score.value.number());
        }
    }
    let query = LeaderboardQuery {
        filter: StandingsFilter { method: Some(method.into()), ..StandingsFilter::default() },
        by: Grouping::Run,
        ..LeaderboardQuery::default()
    };
    let mut summaries: BTreeMap<Of, MetricSummary> = BTreeMap::new();
    for row in leaderboard(store, &query).await.unwrap().rows {
        for metric in crate::harness::summaries(&row) {
            let of = (
                row.run.clone().unwrap(),
                row.pack.digest.clone(),
                metric.metric.clone(),
                metric.version,
            );
            summaries.insert(of, metric);
        }
    }
    assert_eq!(summaries.keys().collect::<Vec<_>>(), values.keys().collect::<Vec<_>>());
    // Replaced numbers leave their rounding errors, so the largest number ever sets the scale.
    let ever = steps.iter().flat_map(|step| &step.scores).filter_map(|score| score.as_ref()?.1);
    let scale = ever.fold(1.0, |largest: f64, number| largest.max(number.abs()));
    for (of, summary) in &summaries {
        let numbers: Vec<f64> = values[of].iter().copied().flatten().collect();
        let (n, nulls) = (numbers.len(), values[of].len() - numbers.len());
        assert_eq!((summary.n, summary.nulls), (n as u64, nulls as u64), "{of:?}");
        let mean = numbers.iter().sum::<f64>() / n as f64;
        let variance = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n as f64 - 1.0);
        close(summary.mean, (n > 0).then_some(mean), 1e-13 * scale, of);
        close(
            summary.std.map(|std| std * std),
            (n > 1).then_some(variance),
            1e-13 * scale * scale,
            of,
        );
    }
}

fn close(found: Option<f64>, expected: Option<f64>, tolerance: f64, of: &Of) {
    match (found, expected) {
        (None, None) => {}
        (Some(a), Some(b)) if (a - b).abs() <= tolerance => {}
        _ => panic!("{found:?} is not {expected:?} for {of:?}"),
    }
}
