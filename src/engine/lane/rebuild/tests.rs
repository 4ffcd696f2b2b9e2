use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use prometheus::Registry;
use tokio::sync::oneshot;

use super::SELF_TESTS;
use crate::engine::device::Device;
use crate::engine::error::EngineError;
use crate::engine::fake::{self, FakeBackend, FakeControl};
use crate::engine::health::HealthBoard;
use crate::engine::lane::queue::{Reopen, Reply};
use crate::engine::lane::worker::FAILURES;
use crate::engine::lane::{Lane, LaneSettings, OnComplete};
use crate::engine::telemetry::EngineTelemetry;
use crate::engine::{Engine, EngineConfig, FeatureRequest, Pack};
use crate::tensor::{Dtype, Tensor};

pub(in crate::engine::lane) struct Setup {
    pub(in crate::engine::lane) lane: Lane,
    pub(in crate::engine::lane) fake: FakeControl,
    pub(in crate::engine::lane) health: HealthBoard,
    pub(in crate::engine::lane) device: Arc<Device>,
    /// Number of attempts to open a session anew.
    pub(in crate::engine::lane) attempts: Arc<AtomicU32>,
    /// Whether they fail.
    pub(in crate::engine::lane) refused: Arc<AtomicBool>,
}

/// A lane that can be rebuilt.
pub(in crate::engine::lane) fn lane() -> Setup {
    let spec = fake::text("clip.text", vec![fake::tensor("embedding", Dtype::F32, &[8])]);
    let fake = FakeControl::default();
    let telemetry = EngineTelemetry::register(&Registry::new()).unwrap();
    let (device, health) = (Device::new(1, telemetry.busy.clone()), HealthBoard::new());
    let (attempts, refused) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let backend = Box::new(FakeBackend::new(&spec, fake.clone()));
    let mut settings = LaneSettings::new("clip.text", spec.max_batch, spec.sample());
    settings.probe_every = Duration::from_millis(5);
    settings.rebuild_pause = Duration::from_millis(5);
    let (counted, refuses, control) = (Arc::clone(&attempts), Arc::clone(&refused), fake.clone());
    let reopen: Reopen = Arc::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        if refuses.load(Ordering::SeqCst) {
            return Err("the file is gone".to_owned());
        }
        Ok(Box::new(FakeBackend::new(&spec, control.clone())))
    });
    settings.reopen = Some(reopen);
    let lane = Lane::start(settings, vec![backend], &device, &health, telemetry.lane("clip.text"))
        .unwrap();
    Setup { lane, fake, health, device, attempts, refused }
}

impl Setup {
    pub(in crate::engine::lane) fn submit(
        &self,
        id: i64,
        done: OnComplete,
    ) -> Result<oneshot::Receiver<Reply>, EngineError> {
        let item = vec![Tensor::I64 { shape: vec![3], data: vec![id; 3].into() }];
        self.lane.submit(item, done)
    }

    pub(in crate::engine::lane) fn ask(&self, id: i64) -> Reply {
        self.submit(id, Box::new(|_| {}))?.blocking_recv().expect("a reply")
    }

    #[track_caller]
    pub(in crate::engine::lane) fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !is_so(self) {
            assert!(started.elapsed() < Duration::from_secs(10), "timed out waiting for {what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(in crate::engine::lane) fn is_ready(&self) -> bool {
        self.health.watch().borrow().is_ready()
    }

    pub(in crate::engine::lane) fn is_rebuilding(&self) -> bool {
        self.health.watch().borrow().rebuilding.contains("clip.text")
    }

    fn rebuilt(&self) -> u64 {
        self.lane.telemetry().rebuilt.get()
    }
}

fn panics() -> OnComplete {
    Box::new(|_| panic!("a defect outside of the graph"))
}

#[test]
fn a_lane_whose_thread_panics_is_rebuilt_and_waiting_items_are_run() {
    let setup = lane();
    let held = setup.device.acquire(Instant::now());
    let killer = setup.submit(0, panics()).unwrap();
    // Other shapes form batches of their own, which wait behind the one that panics.
    let waiting: Vec<_> = (4..7)
        .map(|length: usize| {
            let item = vec![Tensor::I64 { shape: vec![length], data: vec![1; length].into() }];
            setup.lane.submit(item, Box::new(|_| {})).unwrap()
        })
        .collect();
    drop(held);
    assert!(killer.blocking_recv().is_err(), "its reply is dropped with the thread's stack");
    for answer in waiting {
        assert!(answer.blocking_recv().unwrap().is_ok());
    }
    setup.until("readiness", Setup::is_ready);
    assert_eq!((setup.rebuilt(), setup.attempts.load(Ordering::SeqCst)), (1, 1));
    assert_eq!(setup.lane.telemetry().healthy.get(), 1);
    assert!(setup.ask(2).is_ok());
}

#[test]
fn a_session_that_fails_its_self_tests_is_opened_anew() {
    let setup = lane();
    assert!(setup.ask(1).is_ok());
    setup.fake.break_sessions();
    for _ in 0..FAILURES {
        assert!(setup.ask(2).is_err());
    }
    setup.until("the rebuilt session", |setup| setup.rebuilt() == 1);
    setup.until("readiness", Setup::is_ready);
    assert!(setup.ask(2).is_ok());
}

#[test]
fn a_session_that_passes_its_self_test_is_kept_however_bad_the_items_are() {
    let setup = lane();
    let bad = || vec![Tensor::I64 { shape: vec![2], data: vec![9; 2].into() }];
    setup.fake.trouble_with(bad(), fake::Trouble::Fails);
    for _ in 0..10 * FAILURES * SELF_TESTS {
        let answer = setup.lane.submit(bad(), Box::new(|_| {})).unwrap();
        assert!(answer.blocking_recv().unwrap().is_err());
    }
    setup.until("the self-test", Setup::is_ready);
    assert_eq!(setup.attempts.load(Ordering::SeqCst), 0);
}

#[test]
fn while_a_session_cannot_be_opened_new_items_are_refused_and_waiting_ones_wait() {
    let setup = lane();
    setup.refused.store(true, Ordering::SeqCst);
    let held = setup.device.acquire(Instant::now());
    let killer = setup.submit(0, panics()).unwrap();
    let item = vec![Tensor::I64 { shape: vec![7], data: vec![1; 7].into() }];
    let mut waiting = setup.lane.submit(item, Box::new(|_| {})).unwrap();
    drop(held);
    assert!(killer.blocking_recv().is_err());
    setup.until("several attempts", |setup| setup.attempts.load(Ordering::SeqCst) >= 3);
    assert!(setup.is_rebuilding() && !setup.is_ready() && !setup.lane.is_healthy());
    let error = setup.ask(2).unwrap_err();
    assert!(matches!(error, EngineError::Rebuilding { .. }), "{error}");
    assert!(waiting.try_recv().is_err(), "it still waits");
    setup.refused.store(false, Ordering::SeqCst);
    assert!(waiting.blocking_recv().unwrap().is_ok());
    setup.until("readiness", Setup::is_ready);
    assert!(!setup.is_rebuilding());
    assert!(setup.ask(2).is_ok());
}

#[test]
fn a_lane_that_is_being_rebuilt_stops_at_once() {
    let setup = lane();
    setup.refused.store(true, Ordering::SeqCst);
    let held = setup.device.acquire(Instant::now());
    let killer = setup.submit(0, panics()).unwrap();
    let item = vec![Tensor::I64 { shape: vec![7], data: vec![1; 7].into() }];
    let waiting = setup.lane.submit(item, Box::new(|_| {})).unwrap();
    drop(held);
    assert!(killer.blocking_recv().is_err());
    setup.until("attempts", |setup| setup.attempts.load(Ordering::SeqCst) >= 8);
    let started = Instant::now();
    setup.lane.stop();
    setup.lane.join();
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(waiting.blocking_recv().is_err(), "its caller is told, and does not wait forever");
}

/// A panic while outputs are reduced ends the thread of a real session.
#[tokio::test]
async fn a_real_session_is_opened_anew_and_computes_the_same() {
    let pack = Pack::open("packs/demo").unwrap();
    let telemetry = EngineTelemetry::register(&Registry::new()).unwrap();
    let role = "clip.text";
    let small = Pack {
        graphs: pack.graphs.iter().filter(|graph| graph.role == role).cloned().collect(),
        ..pack
    };
    let engine = Engine::start(&small, &EngineConfig::default(), &telemetry).unwrap();
    let item = small.graphs[0].sample();
    let before = engine.run(role, item.clone()).await.unwrap();
    let input = crate::content::ContentHash::of(b"any");
    let prepared = item.clone();
    let prepare = async move { Ok::<_, std::convert::Infallible>(prepared) };
    let request = FeatureRequest::new(role, input, prepare)
        .reduced(|_| panic!("a defect outside of the graph"));
    let failed = engine.feature(request).await;
    assert!(failed.is_err());
    // Queued while the session is opened anew.
    let after = engine.run(role, item).await.unwrap();
    assert_eq!(before.values("embedding"), after.values("embedding"));
    assert!(engine.health().borrow().is_ready());
    assert_eq!(telemetry.lane(role).rebuilt.get(), 1);
}
