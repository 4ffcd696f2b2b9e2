use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::engine::error::EngineError;
use crate::engine::lane::rebuild::tests::{Setup, lane};
use crate::tensor::Tensor;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn opened(setup: &Setup) -> u32 {
    setup.attempts.load(Ordering::SeqCst)
}

#[test]
fn a_parked_lane_finishes_its_queue_and_opens_its_session_again() {
    let setup = lane();
    setup.fake.hold();
    // Three shapes are three batches.
    let waiting: Vec<_> = (1..4)
        .map(|length: usize| {
            let item = vec![Tensor::I64 { shape: vec![length], data: vec![1; length].into() }];
            setup.lane.submit(item, Box::new(|_| {})).unwrap()
        })
        .collect();
    setup.lane.park();
    let brief = Instant::now() + Duration::from_millis(20);
    assert!(!setup.lane.until_parked(brief), "a batch is running");
    let refused = setup.ask(2).unwrap_err();
    assert!(matches!(refused, EngineError::Offloaded), "{refused}");
    setup.fake.release();
    assert!(setup.lane.until_parked(soon()));
    for answer in waiting {
        assert!(answer.blocking_recv().unwrap().is_ok());
    }
    assert!(setup.is_ready() && opened(&setup) == 0);
    setup.lane.park();
    assert!(setup.lane.until_parked(soon()), "parking twice is parking");
    setup.lane.unpark();
    setup.lane.until_open(soon()).unwrap();
    assert_eq!(opened(&setup), 1);
    assert!(setup.ask(3).is_ok());
}

#[test]
fn a_session_that_cannot_be_opened_again_is_told_and_tried_further() {
    let setup = lane();
    setup.lane.park();
    assert!(setup.lane.until_parked(soon()));
    setup.refused.store(true, Ordering::SeqCst);
    setup.lane.unpark();
    assert_eq!(setup.lane.until_open(soon()), Err("the file is gone".to_owned()));
    setup.until("the rebuilding", Setup::is_rebuilding);
    // It can be parked meanwhile, and is then no longer broken.
    setup.lane.park();
    assert!(setup.lane.until_parked(soon()));
    assert!(setup.is_ready());
    setup.lane.unpark();
    assert!(setup.lane.until_open(soon()).is_err());
    setup.refused.store(false, Ordering::SeqCst);
    setup.until("readiness", |setup| setup.is_ready() && opened(setup) > 3);
    assert!(setup.ask(1).is_ok());
}

#[test]
fn a_parked_lane_stops_at_once() {
    let setup = lane();
    setup.lane.park();
    assert!(setup.lane.until_parked(soon()));
    setup.lane.stop();
    setup.lane.join();
    assert_eq!(opened(&setup), 0);
    assert!(setup.lane.until_parked(soon()), "whoever waits for it is woken");
}
