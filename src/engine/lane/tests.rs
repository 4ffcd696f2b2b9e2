use std::sync::atomic::AtomicUsize;

use prometheus::Registry;
use proptest::prelude::*;

use super::worker::FAILURES;
use super::*;
use crate::engine::error::BackendError;
use crate::engine::fake::{self, FakeBackend, FakeControl, Trouble};
use crate::engine::pack::GraphSpec;
use crate::engine::telemetry::EngineTelemetry;
use crate::tensor::{Dtype, Features};

struct Setup {
    lane: Arc<Lane>,
    fake: FakeControl,
    health: HealthBoard,
    device: Arc<Device>,
}

impl Setup {
    fn submit(&self, item: Vec<Tensor>) -> Result<oneshot::Receiver<Reply>, EngineError> {
        self.lane.submit(item, nothing())
    }
}

/// A callback that does nothing.
fn nothing() -> OnComplete {
    Box::new(|_| {})
}

fn spec() -> GraphSpec {
    fake::text("clip.text", vec![fake::tensor("embedding", Dtype::F32, &[8])])
}

fn lane(adjust: impl FnOnce(&mut LaneSettings)) -> Setup {
    let (spec, fake) = (spec(), FakeControl::default());
    let telemetry = EngineTelemetry::register(&Registry::new()).unwrap();
    let device = Device::new(1, telemetry.busy.clone());
    let health = HealthBoard::new();
    let mut settings = LaneSettings::new("clip.text", spec.max_batch, spec.sample());
    adjust(&mut settings);
    let backend = Box::new(FakeBackend::new(&spec, fake.clone()));
    let lane = Lane::start(settings, vec![backend], &device, &health, telemetry.lane("clip.text"))
        .unwrap();
    Setup { lane: Arc::new(lane), fake, health, device }
}

/// A text of `length` tokens, all of them `id`.
fn item(id: i64, length: usize) -> Vec<Tensor> {
    vec![Tensor::I64 { shape: vec![length], data: vec![id; length].into() }]
}

/// The first id of every item, batch by batch.
fn ids(fake: &FakeControl) -> Vec<Vec<i64>> {
    let id = |item: &Vec<Tensor>| match &item[0] {
        Tensor::I64 { data, .. } => data[0],
        _ => unreachable!("texts only"),
    };
    fake.batches().iter().map(|batch| batch.iter().map(id).collect()).collect()
}

/// Occupies the device, so that the lane takes nothing and a queue builds up.
fn hold(setup: &Setup) -> super::super::device::Slot {
    setup.device.acquire(Instant::now())
}

fn embedding(reply: Reply) -> Vec<f32> {
    reply.unwrap().features.values("embedding").unwrap().to_vec()
}

fn alone(id: i64, length: usize) -> Vec<f32> {
    let mut backend = FakeBackend::new(&spec(), FakeControl::default());
    backend.run(&[item(id, length)]).unwrap()[0].values("embedding").unwrap().to_vec()
}

#[test]
fn queued_items_form_batches_in_order_up_to_the_largest() {
    let setup = lane(|_| {});
    let held = hold(&setup);
    let answers: Vec<_> = (0..10).map(|id| setup.submit(item(id, 3)).unwrap()).collect();
    assert_eq!(setup.lane.depth(), 10);
    drop(held);
    for (id, answer) in (0..).zip(answers) {
        assert_eq!(embedding(answer.blocking_recv().unwrap()), alone(id, 3));
    }
    assert_eq!(ids(&setup.fake), [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
    assert_eq!(setup.lane.totals(), (10, 3));
}

#[test]
fn an_idle_lane_runs_a_single_item_without_delay() {
    let setup = lane(|_| {});
    let answer = setup.submit(item(1, 3)).unwrap().blocking_recv().unwrap().unwrap();
    assert_eq!(answer.batch, 1);
    assert!(answer.queue < Duration::from_secs(5), "{:?}", answer.queue);
}

#[test]
fn only_equal_shapes_share_a_batch_and_the_oldest_entry_decides() {
    let setup = lane(|_| {});
    let held = hold(&setup);
    let lengths = [2, 5, 2, 5, 7, 2];
    let answers: Vec<_> = (0..)
        .zip(lengths)
        .map(|(id, length)| (id, length, setup.submit(item(id, length)).unwrap()))
        .collect();
    drop(held);
    for (id, length, answer) in answers {
        assert_eq!(embedding(answer.blocking_recv().unwrap()), alone(id, length));
    }
    assert_eq!(ids(&setup.fake), [vec![0, 2, 5], vec![1, 3], vec![4]]);
}

#[test]
fn dropped_callers_are_skipped_before_inference_and_counted() {
    let setup = lane(|_| {});
    let held = hold(&setup);
    let mut answers: Vec<_> = (0..8).map(|id| setup.submit(item(id, 3)).unwrap()).collect();
    answers.retain({
        let mut at = 0;
        move |_| {
            at += 1;
            [1, 5].contains(&(at - 1))
        }
    });
    drop(held);
    for answer in answers {
        assert!(answer.blocking_recv().unwrap().is_ok());
    }
    assert_eq!(ids(&setup.fake).concat(), [1, 5]);
    // The last two entries may still be in the queue; stopping drains it.
    setup.lane.stop();
    setup.lane.join();
    assert_eq!(setup.lane.telemetry().dropped.get(), 6);
    assert_eq!(setup.lane.telemetry().done.get(), 2);
}

#[test]
fn a_full_queue_refuses_at_once_and_a_caller_that_leaves_makes_room() {
    let setup = lane(|settings| settings.capacity = 3);
    let held = hold(&setup);
    let mut answers: Vec<_> = (0..3).map(|id| setup.submit(item(id, 3)).unwrap()).collect();
    for _ in 0..2 {
        let refused = setup.submit(item(9, 3)).unwrap_err();
        assert!(matches!(refused, EngineError::Overloaded { waiting: 3, .. }), "{refused}");
    }
    assert!(setup.lane.admit().is_err());
    answers.remove(1);
    answers.push(setup.submit(item(4, 3)).unwrap());
    drop(held);
    for answer in answers {
        assert!(answer.blocking_recv().unwrap().is_ok());
    }
    assert_eq!(ids(&setup.fake).concat(), [0, 2, 4]);
    assert_eq!(setup.lane.telemetry().refused.get(), 3);
}

#[test]
fn a_bad_item_fails_alone_and_the_others_get_their_results() {
    for trouble in [Trouble::Fails, Trouble::Panics, Trouble::Miscounts, Trouble::NotANumber] {
        let setup = lane(|_| {});
        setup.fake.trouble_with(item(2, 3), trouble);
        let held = hold(&setup);
        let answers: Vec<_> = (0..4).map(|id| setup.submit(item(id, 3)).unwrap()).collect();
        drop(held);
        for (id, answer) in (0..).zip(answers) {
            let reply = answer.blocking_recv().unwrap();
            if id == 2 {
                let error = reply.unwrap_err();
                let expected = match trouble {
                    Trouble::Fails => "told to fail",
                    Trouble::Panics => "told to panic",
                    Trouble::Miscounts => "expected 1 results, found 0",
                    Trouble::NotANumber => "not finite in output `embedding`",
                };
                assert!(error.to_string().contains(expected), "{error}");
            } else {
                assert_eq!(embedding(reply), alone(id, 3), "{trouble:?}");
            }
        }
        // NaN is found in the results of the batch itself, without a retry.
        let retried = if trouble == Trouble::NotANumber { 0 } else { 4 };
        assert_eq!(setup.lane.telemetry().retried.get(), retried, "{trouble:?}");
        assert_eq!(setup.fake.batches().len() as u64, 1 + retried);
        assert!(setup.lane.is_healthy());
    }
}

#[test]
fn the_items_of_a_batch_too_large_for_the_device_are_retried_one_by_one() {
    let setup = lane(|_| {});
    setup.fake.fail_above(2);
    let held = hold(&setup);
    let answers: Vec<_> = (0..4).map(|id| setup.submit(item(id, 3)).unwrap()).collect();
    drop(held);
    for (id, answer) in (0..).zip(answers) {
        assert_eq!(embedding(answer.blocking_recv().unwrap()), alone(id, 3));
    }
    assert_eq!(setup.fake.sizes(), [4, 1, 1, 1, 1]);
}

#[test]
fn a_lane_that_fails_repeatedly_is_unhealthy_until_it_succeeds() {
    for trouble in [Trouble::Panics, Trouble::Fails, Trouble::NotANumber] {
        let setup = lane(|_| {});
        let ask = || setup.submit(item(1, 3)).unwrap().blocking_recv().unwrap();
        setup.fake.always(Some(trouble));
        for failure in 1..=FAILURES {
            assert!(setup.lane.is_healthy(), "{trouble:?} after {}", failure - 1);
            assert!(ask().is_err());
        }
        assert!(!setup.lane.is_healthy(), "{trouble:?}");
        assert!(!setup.health.watch().borrow().is_ready());
        assert_eq!(setup.lane.telemetry().healthy.get(), 0);
        setup.fake.always(None);
        assert!(ask().is_ok());
        assert!(setup.lane.is_healthy());
        assert!(setup.health.watch().borrow().is_ready());
    }
}

#[test]
fn an_unhealthy_lane_without_work_recovers_by_probing() {
    let setup = lane(|settings| settings.probe_every = Duration::from_millis(5));
    setup.fake.always(Some(Trouble::Fails));
    for _ in 0..FAILURES {
        assert!(setup.submit(item(1, 3)).unwrap().blocking_recv().unwrap().is_err());
    }
    assert!(!setup.lane.is_healthy());
    setup.fake.always(None);
    let started = Instant::now();
    while !setup.lane.is_healthy() {
        assert!(started.elapsed() < Duration::from_secs(10), "no probe ran");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn stopping_finishes_queued_items_and_refuses_new_ones() {
    let setup = lane(|_| {});
    let held = hold(&setup);
    let answers: Vec<_> = (0..9).map(|id| setup.submit(item(id, 3)).unwrap()).collect();
    setup.lane.stop();
    assert!(matches!(setup.submit(item(9, 3)), Err(EngineError::Stopping)));
    drop(held);
    setup.lane.join();
    for answer in answers {
        assert!(answer.blocking_recv().unwrap().is_ok());
    }
    assert_eq!(setup.lane.depth(), 0);
}

#[test]
fn an_incomplete_batch_waits_for_the_delay_and_a_full_one_does_not() {
    let setup = lane(|settings| settings.max_delay = Duration::from_secs(30));
    let answers: Vec<_> = (0..4).map(|id| setup.submit(item(id, 3)).unwrap()).collect();
    for answer in answers {
        assert_eq!(answer.blocking_recv().unwrap().unwrap().batch, 4);
    }
    drop(setup);

    let delay = Duration::from_millis(300);
    let setup = lane(|settings| settings.max_delay = delay);
    let first = setup.submit(item(1, 3)).unwrap();
    let second = setup.submit(item(2, 3)).unwrap();
    let answer = first.blocking_recv().unwrap().unwrap();
    assert_eq!(answer.batch, 2);
    assert!(answer.queue >= delay, "{:?}", answer.queue);
    assert!(second.blocking_recv().unwrap().is_ok());
}

#[test]
fn two_threads_of_a_lane_share_one_queue() {
    let (spec, fake) = (spec(), FakeControl::default());
    fake.delay(Duration::from_millis(2));
    let telemetry = EngineTelemetry::register(&Registry::new()).unwrap();
    let device = Device::new(2, telemetry.busy.clone());
    let backend = || Box::new(FakeBackend::new(&spec, fake.clone())) as Box<dyn Backend>;
    let settings = LaneSettings::new("clip.text", 2, spec.sample());
    let lane = Lane::start(
        settings,
        vec![backend(), backend()],
        &device,
        &HealthBoard::new(),
        telemetry.lane("clip.text"),
    )
    .unwrap();
    let answers: Vec<_> = (0..40).map(|id| lane.submit(item(id, 3), nothing()).unwrap()).collect();
    for (id, answer) in (0..).zip(answers) {
        assert_eq!(embedding(answer.blocking_recv().unwrap()), alone(id, 3));
    }
    assert_eq!(fake.sizes().iter().sum::<usize>(), 40);
}

/// A backend that records its name whenever it runs.
struct Noting(&'static str, Arc<Mutex<Vec<&'static str>>>, FakeBackend);
impl Backend for Noting {
    fn run(&mut self, batch: &[Vec<Tensor>]) -> Result<Vec<Features>, BackendError> {
        self.1.lock().unwrap().push(self.0);
        self.2.run(batch)
    }
}

#[test]
fn lanes_take_device_turns_by_the_age_of_their_work() {
    let telemetry = EngineTelemetry::register(&Registry::new()).unwrap();
    let device = Device::new(1, telemetry.busy.clone());
    let (spec, order) = (spec(), Arc::new(Mutex::new(Vec::new())));
    let start = |name: &'static str| {
        let fake = FakeBackend::new(&spec, FakeControl::default());
        let backend = Box::new(Noting(name, Arc::clone(&order), fake));
        let settings = LaneSettings::new(name, 1, spec.sample());
        Lane::start(settings, vec![backend], &device, &HealthBoard::new(), telemetry.lane(name))
            .unwrap()
    };
    let (a, b) = (start("a"), start("b"));
    let held = device.acquire(Instant::now());
    let mut answers = Vec::new();
    for lane in [&b, &a, &a, &b] {
        answers.push(lane.submit(item(1, 3), nothing()).unwrap());
    }
    while device.waiting() < 2 {
        thread::sleep(Duration::from_millis(1));
    }
    drop(held);
    for answer in answers {
        assert!(answer.blocking_recv().unwrap().is_ok());
    }
    assert_eq!(*order.lock().unwrap(), ["b", "a", "a", "b"]);
}

#[test]
fn a_lane_that_waits_for_its_next_turn_still_accepts_work() {
    let setup = lane(|settings| settings.max_batch = 1);
    setup.fake.hold();
    let first = setup.submit(item(1, 3)).unwrap();
    let second = setup.submit(item(2, 3)).unwrap();
    while setup.fake.batches().is_empty() {
        thread::sleep(Duration::from_millis(1));
    }
    // The oldest work of all: it goes before the lane's second item and holds the device.
    let other = thread::spawn({
        let device = Arc::clone(&setup.device);
        move || device.acquire(Instant::now().checked_sub(Duration::from_mins(1)).unwrap())
    });
    while setup.device.waiting() < 1 {
        thread::sleep(Duration::from_millis(1));
    }
    setup.fake.release();
    let held = other.join().unwrap();
    assert!(first.blocking_recv().unwrap().is_ok());
    while setup.device.waiting() < 1 {
        thread::sleep(Duration::from_millis(1));
    }
    let third = setup.submit(item(3, 3)).unwrap();
    assert_eq!(setup.lane.depth(), 2);
    drop(held);
    assert!(second.blocking_recv().unwrap().is_ok() && third.blocking_recv().unwrap().is_ok());
}

#[tokio::test]
async fn a_deadline_of_the_caller_removes_the_item_from_the_queue() {
    let setup = lane(|_| {});
    let held = hold(&setup);
    let late =
        tokio::time::timeout(Duration::from_millis(10), setup.lane.run(item(1, 3), nothing()))
            .await;
    assert!(late.is_err());
    drop(held);
    assert!(setup.lane.run(item(2, 3), nothing()).await.is_ok());
    assert_eq!(ids(&setup.fake), [[2]]);
}

#[test]
fn on_complete_is_called_even_if_the_caller_leaves_while_the_graph_runs() {
    let setup = lane(|_| {});
    setup.fake.hold();
    let (sender, receiver) = std::sync::mpsc::channel();
    let on_complete =
        Box::new(move |features: &Arc<Features>| sender.send(Arc::clone(features)).unwrap());
    let answer = setup.lane.submit(item(1, 3), on_complete).unwrap();
    while setup.fake.batches().is_empty() {
        thread::sleep(Duration::from_millis(1));
    }
    drop(answer);
    setup.fake.release();
    let features = receiver.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(features.values("embedding").unwrap(), alone(1, 3));
}

#[test]
fn concurrent_callers_each_get_their_own_result() {
    let setup = lane(|settings| settings.max_batch = 8);
    setup.fake.delay(Duration::from_millis(1));
    let wrong = AtomicUsize::new(0);
    thread::scope(|scope| {
        for caller in 0..16_i64 {
            let (lane, wrong) = (&setup.lane, &wrong);
            scope.spawn(move || {
                for round in 0..10_i64 {
                    let (id, length) = (caller * 100 + round, 1 + (caller % 3) as usize);
                    let reply =
                        lane.submit(item(id, length), nothing()).unwrap().blocking_recv().unwrap();
                    if embedding(reply) != alone(id, length) {
                        wrong.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(wrong.load(Ordering::Relaxed), 0);
    assert!(setup.fake.sizes().iter().any(|&size| size > 1), "all batches had one item");
    assert!(setup.fake.sizes().iter().all(|&size| size <= 8));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn batch_size_and_order_never_change_a_result(
        texts in prop::collection::vec((0..6_i64, 1..4_usize), 1..24),
        max_batch in 1..6_usize,
        bad in 0..6_i64,
    ) {
        let setup = lane(|settings| settings.max_batch = max_batch);
        setup.fake.trouble_with(item(bad, 2), Trouble::Fails);
        let held = hold(&setup);
        let answers: Vec<_> =
            texts.iter().map(|&(id, length)| setup.submit(item(id, length)).unwrap()).collect();
        drop(held);
        for (&(id, length), answer) in texts.iter().zip(answers) {
            let reply = answer.blocking_recv().unwrap();
            if (id, length) == (bad, 2) {
                prop_assert!(reply.is_err());
            } else {
                prop_assert_eq!(embedding(reply), alone(id, length));
            }
        }
        prop_assert!(setup.fake.sizes().iter().all(|&size| size <= max_batch));
    }
}
