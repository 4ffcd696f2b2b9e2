//! Concurrent clients.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use stellar_score::analysis::{LeaderboardQuery, leaderboard};
use stellar_score::content::ContentHash;
use stellar_score::store::{
    NewSample, RecordOutcome, Recorded, RunName, Store, StoreError, StoreOptions,
};
use stellar_score::telemetry::Telemetry;
use uuid::Uuid;

use crate::harness::*;

/// Runs all futures concurrently, each in its own task.
async fn at_once<T: Send + 'static>(
    tasks: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
    join_all(tasks).await.into_iter().map(Result::unwrap).collect()
}

/// A sample with fifteen scores, multiples of 1/64: their sums are exact in any order.
fn fifteen(name: usize) -> NewSample {
    let scores =
        (0..15).map(|metric| number(&format!("metric {metric:02}"), (name + metric) as f64 / 64.0));
    scored("A", &name.to_string(), scores.collect())
}

/// Asserts that each of the samples `0..n` counts once in each of its metrics.
async fn assert_counted_once(store: &Store, n: usize) {
    let page = by_run(store).await;
    assert_eq!(page.rows.len(), 1);
    assert_eq!(page.rows[0].metrics.len(), 15);
    for (metric, summary) in summaries(&page.rows[0]).iter().enumerate() {
        assert_eq!((summary.n, summary.nulls), (n as u64, 0));
        let numbers: Vec<f64> = (0..n).map(|name| (name + metric) as f64 / 64.0).collect();
        let mean = numbers.iter().sum::<f64>() / n as f64;
        let variance = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n as f64 - 1.0);
        assert!((summary.mean.unwrap() - mean).abs() < 1e-12, "{summary:?}");
        assert!((summary.std.unwrap() / variance.sqrt() - 1.0).abs() < 1e-12, "{summary:?}");
    }
}

pub(crate) async fn sixty_four_clients_lose_no_row_and_no_sum(db: Database) {
    let store = db.open().await;
    let clients = (0..64).map(|client| {
        let store = store.clone();
        async move {
            for round in 0..4 {
                let recorded = store.record(&fifteen(client * 4 + round)).await.unwrap();
                assert_eq!(recorded.outcome, RecordOutcome::Created);
            }
        }
    });
    at_once(clients).await;
    assert_eq!(db.count("samples").await, 256);
    assert_eq!(db.count("scores").await, 256 * 15);
    assert_counted_once(&store, 256).await;
}

pub(crate) async fn clients_repeating_one_sample_agree_on_its_id(db: Database) {
    let store = db.open().await;
    let all = at_once((0..64).map(|_| {
        let store = store.clone();
        async move { store.record(&fifteen(0)).await.unwrap() }
    }))
    .await;
    assert!(
        all.iter().all(|recorded| recorded.sample == all[0].sample && recorded.run == all[0].run)
    );
    assert_eq!(all.iter().filter(|recorded| recorded.outcome == RecordOutcome::Created).count(), 1);
    assert_eq!(db.count("scores").await, 15);
    let page = by_run(&store).await;
    assert!(summaries(&page.rows[0]).iter().all(|summary| summary.n == 1));
}

pub(crate) async fn clients_rescoring_the_same_samples_do_not_deadlock(db: Database) {
    let store = db.open().await;
    let clients = (0..64_usize).map(|client| {
        let store = store.clone();
        async move {
            for round in 0..4 {
                let mut new = fifteen((client + round) % 8);
                for (position, score) in new.scores.iter_mut().enumerate() {
                    score.metric_version = 1 + ((client + round + position) % 3) as u32;
                }
                // In either order of the scores.
                if client % 2 == 0 {
                    new.scores.reverse();
                }
                store.record(&new).await.unwrap();
            }
        }
    });
    at_once(clients).await;
    // Every sample counts once in each metric, regardless of the version that came last.
    let mut counted = [0; 15];
    for summary in &summaries(&by_run(&store).await.rows[0]) {
        counted[summary.metric["metric ".len()..].parse::<usize>().unwrap()] += summary.n;
    }
    assert_eq!(counted, [8; 15]);
}

pub(crate) async fn two_processes_share_a_database(db: Database) {
    // Like two processes, two stores share no connection.
    let stores = [db.open().await, db.open().await];
    let clients = (0..64).map(|client| {
        let store = stores[client % 2].clone();
        async move {
            for round in 0..2 {
                store.record(&fifteen(client * 2 + round)).await.unwrap();
            }
        }
    });
    at_once(clients).await;
    for store in &stores {
        assert_counted_once(store, 128).await;
    }
}

pub(crate) async fn writers_do_not_block_a_reader(db: Database) {
    let store = db.open().await;
    let first = store.record(&fifteen(0)).await.unwrap().sample;
    let writers = (1..65).map(|name| {
        let store = store.clone();
        async move {
            for round in 0..4 {
                store.record(&fifteen(name * 4 + round)).await.unwrap();
            }
        }
    });
    let writing = tokio::spawn(at_once(writers.collect::<Vec<_>>()));
    let mut slowest = Duration::ZERO;
    let mut reads = 0;
    while !writing.is_finished() || reads == 0 {
        let started = Instant::now();
        store.ping().await.unwrap();
        assert!(store.sample(first).await.unwrap().is_some());
        assert_eq!(leaderboard(&store, &LeaderboardQuery::default()).await.unwrap().rows.len(), 1);
        slowest = slowest.max(started.elapsed());
        reads += 1;
    }
    writing.await.unwrap();
    // Thousands of times longer than a read takes, but a fraction of the time of all writers.
    assert!(slowest < Duration::from_secs(5), "{slowest:?} in {reads} reads");
}

/// Polls a future until it has been pending `waits` times, then drops it.
async fn drop_after<T>(waits: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut waited = 0;
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending if waited == waits => Poll::Ready(None),
        Poll::Pending => {
            waited += 1;
            Poll::Pending
        }
    })
    .await
}

pub(crate) async fn dropped_recordings_are_all_or_nothing(db: Database) {
    let store = db.open().await;
    let mut finished = 0;
    for name in 0..60 {
        if drop_after(name, store.record(&fifteen(name))).await.is_some() {
            finished += 1;
        }
    }
    assert!((1..60).contains(&finished), "{finished} clients finished");
    for name in 0..60 {
        let again = NewSample { id: Uuid::now_v7(), ..fifteen(name) };
        let outcome = store.record(&again).await.unwrap().outcome;
        assert_ne!(outcome, RecordOutcome::Rescored, "sample {name} has only some of its scores");
    }
    assert_counted_once(&store, 60).await;
}

pub(crate) async fn recordings_after_dropped_ones_are_visible_to_others(db: Database) {
    let store = db.open().await;
    for name in 0..200 {
        drop_after(name % 5, store.record(&fifteen(name))).await;
    }
    if db.kind == Kind::Postgres {
        // The next user of such a connection would write into a transaction that never ends.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let open = "SELECT query FROM pg_stat_activity WHERE state = 'idle in transaction' AND \
            query = 'BEGIN' \
                         AND state_change < now() - interval '1 second'";
        assert_eq!(db.texts(open).await, Vec::<String>::new());
    }
    for name in 0..200 {
        store.record(&NewSample { id: Uuid::now_v7(), ..fifteen(name) }).await.unwrap();
    }
    assert_counted_once(&db.open().await, 200).await;
}

pub(crate) async fn recordings_of_clients_that_left_are_in_the_service_metrics(db: Database) {
    let telemetry = Telemetry::new();
    let options = StoreOptions { telemetry: telemetry.store.clone(), ..StoreOptions::default() };
    let store = Store::open(&db.url, &options).await.unwrap();
    for name in 0..20 {
        assert!(drop_after(0, store.record(&fifteen(name))).await.is_none());
    }
    let counted = || {
        let lines = ["stellar_samples_total{outcome=\"created\"} 20", "{metric=\"metric 14\"} 20"];
        lines.iter().all(|line| telemetry.export().contains(line))
    };
    let started = Instant::now();
    while !counted() {
        assert!(started.elapsed() < Duration::from_secs(20), "{}", telemetry.export());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn samples_recorded_at_the_same_time_share_transactions(db: Database) {
    let store = db.open().await;
    let recorded = at_once((0..200).map(|name| {
        let store = store.clone();
        async move { store.record(&fifteen(name)).await.unwrap() }
    }))
    .await;
    assert!(
        recorded
            .iter()
            .all(|one| one.outcome == RecordOutcome::Created && one.run == recorded[0].run)
    );
    assert_counted_once(&store, 200).await;
    if db.kind == Kind::Postgres {
        let transactions = db.texts("SELECT DISTINCT CAST(xmin AS text) FROM samples").await.len();
        assert!(transactions < 100, "{transactions} transactions");
    }
}

/// Other samples in the same transaction do not change an outcome: repetitions, conflicts, other
/// runs and finished runs.
pub(crate) async fn sharing_a_transaction_changes_no_outcome(db: Database) {
    let store = db.open().await;
    let name = |run: &str| Some(RunName::new("A", Some(run.into())));
    let finished = store
        .record(&NewSample { run: name("finished"), ..fifteen(0) })
        .await
        .unwrap()
        .run
        .unwrap();
    store.finish_run(finished).await.unwrap();
    store.record(&fifteen(0)).await.unwrap();

    let mut asked = Vec::new();
    for at in 1..40 {
        asked.push(("new", fifteen(at)));
        asked.push(("new", NewSample { run: name(&format!("run {}", at % 3)), ..fifteen(at) }));
        asked.push(("new", NewSample { run: None, ..fifteen(at) }));
        asked.push(("repeated", NewSample { id: Uuid::now_v7(), ..fifteen(0) }));
        let mut other = fifteen(0);
        other.inputs.content = ContentHash::of(b"other");
        other.id = Uuid::now_v7();
        asked.push(("conflict", other));
        asked.push(("finished", NewSample { run: name("finished"), ..fifteen(at) }));
    }
    let outcomes = at_once(asked.into_iter().map(|(expected, sample)| {
        let store = store.clone();
        async move { (expected, sample.id, store.record(&sample).await) }
    }))
    .await;
    for (expected, id, outcome) in outcomes {
        match (expected, outcome) {
            ("new", Ok(Recorded { sample, outcome: RecordOutcome::Created, .. })) => {
                assert_eq!(sample, id);
            }
            ("repeated", Ok(Recorded { sample, outcome: RecordOutcome::Repeated, .. })) => {
                assert_ne!(sample, id);
            }
            ("conflict", Err(StoreError::SampleConflict { .. }))
            | ("finished", Err(StoreError::RunFinished { .. })) => {}
            (expected, outcome) => panic!("{expected}: {outcome:?}"),
        }
    }
    let page = by_run(&store).await;
    let counts: Vec<_> =
        page.rows.iter().map(|row| (row.run.clone().unwrap(), summaries(row)[0].n)).collect();
    let expected = [("finished", 1), ("run", 40), ("run 0", 13), ("run 1", 13), ("run 2", 13)];
    assert_eq!(counts, expected.map(|(run, n)| (run.to_owned(), n)));
}

/// A transaction adds its sums to those of the run; numbers may be tiny, huge, missing, or equal to
/// the first.
pub(crate) async fn sums_of_a_transaction_are_added_to_those_of_the_run(db: Database) {
    let store = db.open().await;
    let numbers = [0.25, 1e-170, -3e-170, 0.5, 0.25, 1e-300, -0.75, 0.0, 1e8, -1e8];
    for _ in 0..8 {
        let round = db.count("samples").await;
        let samples = (0..40).map(|at| {
            let of_m = match at % 11 {
                10 => null("m", "no_face"),
                place => number("m", numbers[place]),
            };
            scored("A", &format!("{round} {at}"), vec![of_m])
        });
        let recorded = at_once(samples.map(|sample| {
            let store = store.clone();
            async move { store.record(&sample).await }
        }))
        .await;
        assert!(recorded.iter().all(Result::is_ok), "{recorded:?}");
    }
    let all: Vec<f64> = (0..8)
        .flat_map(|_| (0..40).filter(|at| at % 11 != 10).map(|at| numbers[at % 11]))
        .collect();
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    let deviation =
        (all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (all.len() as f64 - 1.0)).sqrt();
    let found = only_summary(&store).await;
    assert_eq!((found.n, found.nulls), (all.len() as u64, 320 - all.len() as u64));
    assert!((found.mean.unwrap() - mean).abs() < 1e-6, "{found:?}, not {mean}");
    assert!((found.std.unwrap() / deviation - 1.0).abs() < 1e-12, "{found:?}, not {deviation}");
}
