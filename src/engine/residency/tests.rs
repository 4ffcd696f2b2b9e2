use std::sync::Arc;

use prometheus::Registry;

use super::*;
use crate::engine::fake::{self, FakeBackend, FakeControl};
use crate::engine::{Engine, EngineConfig, EngineTelemetry};
use crate::tensor::Tensor;

fn engine() -> (Arc<Engine>, FakeControl, EngineTelemetry) {
    let (control, telemetry) =
        (FakeControl::default(), EngineTelemetry::register(&Registry::new()).unwrap());
    let config = EngineConfig::default();
    let engine = Engine::with_backends(&fake::clip_graphs(), &config, &telemetry, |spec| {
        Box::new(FakeBackend::new(spec, control.clone()))
    });
    (Arc::new(engine.unwrap()), control, telemetry)
}

fn run(engine: &Arc<Engine>) -> tokio::task::JoinHandle<Result<(), EngineError>> {
    let engine = Arc::clone(engine);
    let item = vec![Tensor::U8 { shape: vec![4, 4, 3], data: vec![7; 48].into() }];
    tokio::spawn(async move { engine.run("clip_l.image", item).await.map(drop) })
}

#[tokio::test]
async fn an_offload_waits_for_what_has_begun_and_refuses_what_has_not() {
    let (engine, _, telemetry) = engine();
    let used = engine.enter().unwrap();
    let offload = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.offload().await }
    });
    while engine.residency() == Residency::Resident {
        tokio::task::yield_now().await;
    }
    assert!(matches!(engine.enter().err(), Some(EngineError::Offloaded)));
    // What has begun still gets its features.
    run(&engine).await.unwrap().unwrap();
    assert_eq!((engine.residency(), offload.is_finished()), (Residency::Offloading, false));
    drop(used);
    assert!(offload.await.unwrap().unwrap().changed);
    assert_eq!((engine.residency(), telemetry.offloaded.get()), (Residency::Offloaded, 1));
    assert!(matches!(run(&engine).await.unwrap(), Err(EngineError::Offloaded)));
    assert!(!engine.health().borrow().is_ready());
    assert!(!engine.offload().await.unwrap().changed);
    assert!(engine.reload().await.unwrap().changed);
    assert!(!engine.reload().await.unwrap().changed);
    assert_eq!((engine.residency(), telemetry.offloaded.get()), (Residency::Resident, 0));
    assert!(engine.health().borrow().is_ready());
    run(&engine).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn offloads_and_reloads_at_once_come_one_after_the_other() {
    let (engine, control, _) = engine();
    control.hold();
    let running: Vec<_> = (0..3).map(|_| run(&engine)).collect();
    while control.batches().is_empty() {
        tokio::task::yield_now().await;
    }
    let moves: Vec<_> = (0..12)
        .map(|at| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                if at % 3 == 2 { engine.reload().await } else { engine.offload().await }
            })
        })
        .collect();
    control.release();
    for each in moves {
        each.await.unwrap().unwrap();
    }
    for each in running {
        // Each ran, or came when the engine was offloaded.
        assert!(matches!(each.await.unwrap(), Ok(()) | Err(EngineError::Offloaded)));
    }
    engine.reload().await.unwrap();
    run(&engine).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_offloaded_engine_stops() {
    let (engine, _, _) = engine();
    engine.offload().await.unwrap();
    engine.drain().await;
    assert!(matches!(engine.reload().await, Err(EngineError::Stopping)));
    assert!(matches!(run(&engine).await.unwrap(), Err(EngineError::Stopping)));
}

#[tokio::test]
async fn an_offload_that_waits_ends_when_the_engine_stops() {
    let (engine, _, _) = engine();
    let _used = engine.enter().unwrap();
    let offload = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.offload().await }
    });
    while engine.residency() == Residency::Resident {
        tokio::task::yield_now().await;
    }
    engine.drain().await;
    assert!(matches!(offload.await.unwrap(), Err(EngineError::Stopping)));
}
