use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use prometheus::Registry;
use tokio::sync::Notify;

use super::*;
use crate::tensor::Output;

struct Setup {
    cache: FeatureCache,
    lane: LaneTelemetry,
    telemetry: EngineTelemetry,
    runs: Arc<AtomicUsize>,
}

fn cache(bytes: u64) -> Setup {
    let telemetry = EngineTelemetry::register(&Registry::new()).unwrap();
    let lane = telemetry.lane("clip.image");
    Setup {
        cache: FeatureCache::new(bytes, telemetry.clone()),
        lane,
        telemetry,
        runs: Arc::default(),
    }
}

fn key(input: usize) -> FeatureKey {
    FeatureKey {
        graph: ContentHash::of(b"graph"),
        input: ContentHash::of(&input.to_le_bytes()),
        with: None,
    }
}

fn features(length: usize) -> Arc<Features> {
    let output = Output { shape: vec![length], data: vec![1.0; length] };
    Arc::new(Features::new(vec![("embedding".into(), output)]))
}

impl Setup {
    async fn get(&self, input: usize) -> Result<Feature, EngineError> {
        self.cache.get(key(input), &self.lane, |on_complete| self.compute(on_complete, None)).await
    }

    async fn get_after(&self, input: usize, gate: &Arc<Notify>) -> Result<Feature, EngineError> {
        self.cache
            .get(key(input), &self.lane, |on_complete| {
                self.compute(on_complete, Some(Arc::clone(gate)))
            })
            .await
    }

    fn compute(
        &self,
        on_complete: OnComplete,
        gate: Option<Arc<Notify>>,
    ) -> impl Future<Output = Computation> + Send + 'static {
        let runs = Arc::clone(&self.runs);
        async move {
            if let Some(gate) = gate {
                gate.notified().await;
            }
            runs.fetch_add(1, Ordering::Relaxed);
            let features = features(4);
            on_complete(&features);
            Ok(Computed { features, timing: Timing::default() })
        }
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::Relaxed)
    }

    fn count_in_flight(&self) -> usize {
        self.cache.count_in_flight()
    }
}

#[tokio::test]
async fn the_second_request_is_a_hit() {
    let setup = cache(1 << 20);
    assert_eq!(setup.get(1).await.unwrap().origin, Origin::Computed);
    assert_eq!(setup.get(1).await.unwrap().origin, Origin::Cached);
    assert_eq!(setup.get(2).await.unwrap().origin, Origin::Computed);
    assert_eq!((setup.runs(), setup.count_in_flight()), (2, 0));
    assert_eq!((setup.lane.hits.get(), setup.lane.misses.get()), (1, 2));
}

#[tokio::test]
async fn fifty_concurrent_requests_share_one_computation_even_if_nothing_is_stored() {
    for bytes in [0, 1 << 20] {
        let setup = cache(bytes);
        let gate = Arc::new(Notify::new());
        let (results, ()) =
            tokio::join!(join_all((0..50).map(|_| setup.get_after(1, &gate))), async {
                gate.notify_one();
            });
        let origins: Vec<_> = results.into_iter().map(|feature| feature.unwrap().origin).collect();
        assert_eq!(setup.runs(), 1);
        assert_eq!(origins.iter().filter(|&&origin| origin == Origin::Computed).count(), 1);
        assert_eq!(setup.lane.shared.get(), 49);
        assert_eq!(setup.count_in_flight(), 0);
    }
}

#[tokio::test]
async fn dropping_the_first_request_does_not_affect_the_others() {
    let setup = Arc::new(cache(1 << 20));
    let gate = Arc::new(Notify::new());
    let ask = || {
        let (setup, gate) = (Arc::clone(&setup), Arc::clone(&gate));
        tokio::spawn(async move { setup.get_after(1, &gate).await })
    };
    let first = ask();
    tokio::task::yield_now().await;
    let second = ask();
    tokio::task::yield_now().await;
    assert_eq!(setup.count_in_flight(), 1);
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    gate.notify_one();
    let feature =
        tokio::time::timeout(Duration::from_secs(5), second).await.unwrap().unwrap().unwrap();
    assert_eq!(feature.origin, Origin::Shared);
    assert_eq!(setup.runs(), 1);
    assert_eq!(setup.get(1).await.unwrap().origin, Origin::Cached);
}

#[tokio::test]
async fn a_computation_is_dropped_with_its_last_request_and_the_next_request_starts_anew() {
    let setup = cache(1 << 20);
    let gate = Arc::new(Notify::new());
    let soon = Duration::from_millis(5);
    let both = tokio::join!(
        tokio::time::timeout(soon, setup.get_after(1, &gate)),
        tokio::time::timeout(soon, setup.get_after(1, &gate)),
    );
    assert!(both.0.is_err() && both.1.is_err());
    assert_eq!((setup.runs(), setup.count_in_flight()), (0, 0));
    assert_eq!(setup.get(1).await.unwrap().origin, Origin::Computed);
}

#[tokio::test]
async fn features_computed_after_all_requests_were_dropped_are_stored() {
    let setup = cache(1 << 20);
    let mut begun = None;
    let ask = setup.cache.get(key(1), &setup.lane, |on_complete| {
        begun = Some(on_complete);
        std::future::pending()
    });
    assert!(tokio::time::timeout(Duration::from_millis(5), ask).await.is_err());
    assert_eq!(setup.count_in_flight(), 1, "the graph is still running it");
    begun.take().unwrap()(&features(4));
    assert_eq!(setup.count_in_flight(), 0);
    assert_eq!(setup.get(1).await.unwrap().origin, Origin::Cached);
}

#[tokio::test]
async fn a_late_result_of_a_removed_input_is_not_stored() {
    let setup = cache(1 << 20);
    let mut begun = None;
    let ask = setup.cache.get(key(1), &setup.lane, |on_complete| {
        begun = Some(on_complete);
        std::future::pending()
    });
    assert!(tokio::time::timeout(Duration::from_millis(5), ask).await.is_err());
    setup.cache.forget(&HashSet::from([key(1).input]));
    begun.take().unwrap()(&features(4));
    assert_eq!(setup.get(1).await.unwrap().origin, Origin::Computed);
}

#[tokio::test]
async fn an_error_is_returned_to_all_pending_requests_and_not_stored() {
    let setup = cache(1 << 20);
    let fail = |_: OnComplete| async {
        tokio::task::yield_now().await;
        Err(EngineError::Stopping)
    };
    let (one, other) = tokio::join!(
        setup.cache.get(key(1), &setup.lane, fail),
        setup.cache.get(key(1), &setup.lane, |on_complete| setup.compute(on_complete, None)),
    );
    assert!(matches!(one, Err(EngineError::Stopping)));
    assert!(matches!(other, Err(EngineError::Stopping)));
    assert_eq!(setup.count_in_flight(), 0);
    assert_eq!(setup.get(1).await.unwrap().origin, Origin::Computed);
}

#[tokio::test]
async fn the_size_stays_within_its_bound_and_evictions_are_counted() {
    let entry = weight(&features(4)) as u64;
    let setup = cache(10 * entry);
    for input in 0..200 {
        setup.get(input).await.unwrap();
    }
    let (bytes, entries) = setup.cache.size();
    assert!(bytes <= 10 * entry && bytes > 0, "{bytes} of {}", 10 * entry);
    assert_eq!(entries, bytes / entry);
    assert_eq!(setup.telemetry.evictions.get(), 200 - entries);
    assert_eq!(setup.telemetry.cache_bytes.get() as u64, bytes);
    assert_eq!(setup.telemetry.cache_entries.get() as u64, entries);
    for input in 0..200 {
        setup.cache.forget(&HashSet::from([key(input).input]));
    }
    assert_eq!((setup.telemetry.cache_bytes.get(), setup.telemetry.cache_entries.get()), (0, 0));
}

#[tokio::test]
async fn a_cache_of_zero_bytes_stores_nothing() {
    let setup = cache(0);
    assert_eq!(setup.get(1).await.unwrap().origin, Origin::Computed);
    assert_eq!(setup.get(1).await.unwrap().origin, Origin::Computed);
    assert_eq!(setup.cache.size(), (0, 0));
}

#[tokio::test]
async fn removed_features_are_computed_again_also_if_they_were_in_flight() {
    let setup = cache(1 << 20);
    setup.get(1).await.unwrap();
    let joint = FeatureKey { with: Some(ContentHash::of(b"prompt")), ..key(1) };
    setup
        .cache
        .get(joint, &setup.lane, |on_complete| setup.compute(on_complete, None))
        .await
        .unwrap();
    assert_eq!(setup.cache.forget(&HashSet::from([key(1).input])), 2, "including joint features");
    assert!(setup.cache.peek(&joint).is_none());
    assert_eq!(setup.get(1).await.unwrap().origin, Origin::Computed);

    let gate = Arc::new(Notify::new());
    let forget = async {
        tokio::task::yield_now().await;
        setup.cache.forget(&HashSet::from([key(2).input]));
        gate.notify_one();
    };
    let (feature, ()) = tokio::join!(setup.get_after(2, &gate), forget);
    assert!(feature.is_ok());
    assert_eq!(setup.get(2).await.unwrap().origin, Origin::Computed);
}

#[test]
fn concurrent_threads_compute_each_feature_once() {
    let setup = cache(1 << 20);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    let setup = Arc::new(setup);
    runtime.block_on(async {
        let tasks = (0..400).map(|at| {
            let setup = Arc::clone(&setup);
            tokio::spawn(async move { setup.get(at % 20).await.map(|_| ()) })
        });
        for task in join_all(tasks).await {
            task.unwrap().unwrap();
        }
    });
    assert_eq!((setup.runs(), setup.count_in_flight()), (20, 0));
}

#[tokio::test]
async fn removing_many_inputs_checks_each_feature_once_and_blocks_no_request() {
    let setup = cache(1 << 20);
    for input in 0..200 {
        setup.get(input).await.unwrap();
    }
    let gate = Arc::new(Notify::new());
    let in_flight = setup.get_after(1_000, &gate);
    tokio::pin!(in_flight);
    assert!((&mut in_flight).now_or_never().is_none());
    let gone: HashSet<_> = (0..500).map(|input| key(input).input).collect();
    let (checks, free) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let forgotten = setup.cache.forget_where(|input| {
        checks.fetch_add(1, Ordering::Relaxed);
        // Every request for a feature takes this lock.
        free.fetch_add(usize::from(setup.cache.0.in_flight.try_lock().is_ok()), Ordering::Relaxed);
        gone.contains(input)
    });
    assert_eq!(forgotten, 200);
    assert_eq!(
        checks.load(Ordering::Relaxed),
        200 + 1,
        "each stored and in-flight feature is checked once"
    );
    assert_eq!(free.load(Ordering::Relaxed), 200, "requests are blocked while entries are scanned");
    gate.notify_one();
    in_flight.await.unwrap();
}
