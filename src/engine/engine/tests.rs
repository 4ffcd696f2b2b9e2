use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use prometheus::Registry;

use super::*;
use crate::engine::Origin;
use crate::engine::fake::{self, FakeBackend, FakeControl, Trouble};
use crate::engine::pack::{FileSpec, Pack, Sha};
use crate::tensor::Dtype;
use crate::vision::{CropRounding, Filter, Geometry};

fn telemetry() -> EngineTelemetry {
    EngineTelemetry::register(&Registry::new()).unwrap()
}

fn engine_of(graphs: &[GraphSpec], config: &EngineConfig) -> (Engine, FakeControl) {
    let control = FakeControl::default();
    let engine = Engine::with_backends(graphs, config, &telemetry(), |spec| {
        Box::new(FakeBackend::new(spec, control.clone()))
    })
    .unwrap();
    (engine, control)
}

fn engine() -> (Engine, FakeControl) {
    engine_of(&fake::clip_graphs(), &EngineConfig::default())
}

fn image(value: u8) -> Vec<Tensor> {
    vec![Tensor::U8 { shape: vec![4, 4, 3], data: vec![value; 48].into() }]
}

fn hash(value: u8) -> ContentHash {
    ContentHash::of(&[value])
}

async fn ask(engine: &Engine, role: &str, value: u8) -> Result<Feature, EngineError> {
    let prepare = async move { Ok::<_, Infallible>(image(value)) };
    engine.feature(FeatureRequest::new(role, hash(value), prepare)).await
}

async fn until_running(control: &FakeControl) {
    while control.batches().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[derive(Debug, thiserror::Error, PartialEq)]
#[error("the image is upside down")]
struct UpsideDown;

#[tokio::test]
async fn a_feature_is_computed_once_and_then_cached_without_preparation() {
    let (engine, control) = engine();
    let first = ask(&engine, "clip_l.image", 1).await.unwrap();
    assert_eq!(first.origin, Origin::Computed);
    assert_eq!(first.timing.batch, 1);
    assert_eq!(first.features.values("embedding").unwrap().len(), 6);
    assert!(first.features.scalar("aesthetic").is_some());

    let prepared = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&prepared);
    let prepare = async move {
        count.fetch_add(1, Ordering::Relaxed);
        Ok::<_, Infallible>(image(1))
    };
    let second =
        engine.feature(FeatureRequest::new("clip_l.image", hash(1), prepare)).await.unwrap();
    assert_eq!((second.origin, prepared.load(Ordering::Relaxed)), (Origin::Cached, 0));
    assert!(Arc::ptr_eq(&first.features, &second.features));
    assert_eq!(control.sizes(), [1]);
}

#[tokio::test]
async fn different_graphs_have_different_features_of_the_same_input() {
    let (engine, _) = engine();
    let one = ask(&engine, "clip.image", 1).await.unwrap();
    let other = ask(&engine, "clip_l.image", 1).await.unwrap();
    assert_eq!(other.origin, Origin::Computed);
    assert_ne!(one.features, other.features);
}

#[tokio::test]
async fn fifty_callers_of_one_feature_share_one_run() {
    let (engine, control) = engine();
    control.hold();
    let all = join_all((0..50).map(|_| ask(&engine, "clip.image", 1)));
    // All requests have started when the second future is polled.
    let (features, ()) = tokio::join!(all, async { control.release() });
    assert_eq!(control.batches().len(), 1);
    let origins: Vec<_> = features.into_iter().map(|feature| feature.unwrap().origin).collect();
    assert_eq!(origins.iter().filter(|&&origin| origin == Origin::Shared).count(), 49);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn different_inputs_form_batches_up_to_the_graphs_largest() {
    let (engine, control) = engine();
    control.hold();
    let all = join_all((0..40).map(|value| ask(&engine, "clip.image", value)));
    let (features, ()) = tokio::join!(all, async { control.release() });
    assert!(features.iter().all(Result::is_ok));
    let sizes = control.sizes();
    assert_eq!(sizes.iter().sum::<usize>(), 40);
    assert!(sizes.iter().all(|&size| size <= 4) && sizes.contains(&4), "{sizes:?}");
}

#[tokio::test]
async fn entries_with_the_same_file_share_a_lane_and_have_all_outputs() {
    let mut graphs = fake::clip_graphs();
    let files = graphs[0].files.clone();
    graphs[2].files = files;
    graphs[2].max_batch = 2;
    let (engine, control) = engine_of(&graphs, &EngineConfig::default());
    let status = engine.status();
    assert_eq!(status.len(), 2);
    assert_eq!(status[0].roles, ["clip.image", "clip_l.image"]);
    assert_eq!(status[0].max_batch, 2);
    assert!(ask(&engine, "clip.image", 1).await.unwrap().features.get("aesthetic").is_some());
    assert_eq!(ask(&engine, "clip_l.image", 1).await.unwrap().origin, Origin::Cached);
    assert_eq!(control.sizes(), [1]);
}

#[tokio::test]
async fn the_same_file_with_another_crop_never_shares_features() {
    let mut graphs = fake::clip_graphs();
    let files = graphs[0].files.clone();
    graphs[2].files = files;
    graphs[2].geometry = Some(Geometry::ShortestEdge {
        size: 4,
        filter: Filter::Bicubic,
        crop: CropRounding::HalfEven,
    });
    let (engine, _) = engine_of(&graphs, &EngineConfig::default());
    assert_eq!(engine.status().len(), 2);
    assert_eq!(ask(&engine, "clip.image", 1).await.unwrap().origin, Origin::Computed);
    assert_eq!(ask(&engine, "clip_l.image", 1).await.unwrap().origin, Origin::Computed);
}

#[test]
fn one_file_with_two_signatures_fails_the_start() {
    let mut graphs = fake::clip_graphs();
    graphs[1].files = graphs[0].files.clone();
    let error = Engine::with_backends(&graphs, &EngineConfig::default(), &telemetry(), |spec| {
        Box::new(FakeBackend::new(spec, FakeControl::default()))
    })
    .err()
    .unwrap()
    .to_string();
    assert!(error.contains("clip.image") && error.contains("input_ids"), "{error}");
}

#[tokio::test]
async fn a_graph_missing_from_the_pack_is_an_error_that_names_it() {
    let (engine, _) = engine();
    assert!(engine.graph("dino.image").is_none());
    assert_eq!(engine.graph("clip.text").unwrap().text.as_ref().unwrap().context, 16);
    let error = ask(&engine, "dino.image", 1).await.unwrap_err().to_string();
    assert!(error.contains("`dino.image`") && error.contains("export"), "{error}");
}

#[tokio::test]
async fn the_callers_error_is_passed_on_and_can_be_downcast() {
    let (engine, control) = engine();
    let request = FeatureRequest::new("clip.image", hash(1), async { Err(UpsideDown) });
    let failed = engine.feature(request).await.unwrap_err();
    assert_eq!(failed.to_string(), "the image is upside down");
    let EngineError::Prepare(cause) = failed else { panic!("{failed:?}") };
    assert_eq!(cause.downcast_ref::<UpsideDown>(), Some(&UpsideDown));
    assert!(control.batches().is_empty());
    assert_eq!(ask(&engine, "clip.image", 1).await.unwrap().origin, Origin::Computed);
}

#[tokio::test]
async fn a_panic_in_preparation_is_an_error_and_the_next_request_works() {
    let (engine, _) = engine();
    #[expect(unreachable_code, reason = "the panic is intended, and the last line sets the type")]
    let prepare = async {
        panic!("resize went wrong");
        Ok::<_, Infallible>(image(1))
    };
    let request = FeatureRequest::new("clip.image", hash(1), prepare);
    let error = engine.feature(request).await.unwrap_err();
    assert!(error.to_string().contains("resize went wrong"), "{error}");
    assert!(ask(&engine, "clip.image", 1).await.is_ok());
}

#[tokio::test]
async fn an_item_of_the_wrong_shape_is_refused_before_it_is_queued() {
    let (engine, control) = engine();
    let huge = async { Ok::<_, Infallible>(vec![Tensor::ones(Dtype::U8, vec![4, 400, 3])]) };
    let request = FeatureRequest::new("clip.image", hash(1), huge);
    let error = engine.feature(request).await.unwrap_err().to_string();
    assert!(
        error.contains("u8[4, 4, 3]") && error.contains("U8[4, 400, 3]".to_lowercase().as_str()),
        "{error}"
    );
    assert!(control.batches().is_empty());
}

#[tokio::test]
async fn a_full_queue_refuses_before_preparing_anything() {
    let config = EngineConfig { queue: 1, max_batch: 1, ..EngineConfig::default() };
    let (engine, control) = engine_of(&fake::clip_graphs(), &config);
    control.hold();
    let prepared = Arc::new(AtomicUsize::new(0));
    let all = join_all((0..10).map(|value| {
        let count = Arc::clone(&prepared);
        engine.feature(FeatureRequest::new("clip.image", hash(value), async move {
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(image(value))
        }))
    }));
    let (answers, ()) = tokio::join!(all, async { control.release() });
    let refused = answers
        .iter()
        .filter(|answer| matches!(answer, Err(EngineError::Overloaded { .. })))
        .count();
    assert!(refused >= 8, "{refused}");
    assert_eq!(prepared.load(Ordering::Relaxed), 10 - refused);
}

#[tokio::test]
async fn a_deadline_drops_the_work_before_it_reaches_the_graph() {
    let config = EngineConfig { max_batch: 1, ..EngineConfig::default() };
    let (engine, control) = engine_of(&fake::clip_graphs(), &config);
    control.hold();
    let late = async {
        until_running(&control).await;
        let late =
            tokio::time::timeout(Duration::from_millis(10), ask(&engine, "clip.image", 2)).await;
        control.release();
        late
    };
    let (first, late) = tokio::join!(ask(&engine, "clip.image", 1), late);
    assert!(first.is_ok() && late.is_err());
    engine.drain().await;
    assert_eq!(control.batches(), [[image(1)]]);
}

#[tokio::test]
async fn a_retry_after_a_deadline_hits_the_batch_that_had_started() {
    let (engine, control) = engine();
    control.hold();
    tokio::select! {
        biased;
        _ = ask(&engine, "clip.image", 1) => panic!("replied while the graph was held"),
        () = until_running(&control) => {}
    }
    control.release();
    engine.drain().await;
    assert_eq!(ask(&engine, "clip.image", 1).await.unwrap().origin, Origin::Cached);
    assert_eq!(control.sizes(), [1]);
}

#[tokio::test]
async fn a_bad_item_fails_alone_and_is_not_cached() {
    let (engine, control) = engine();
    control.trouble_with(image(3), Trouble::NotANumber);
    control.delay(Duration::from_millis(5));
    let answers = join_all((0..8).map(|value| ask(&engine, "clip.image", value))).await;
    for (value, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.is_err(), value == 3, "{value}");
    }
    assert!(matches!(ask(&engine, "clip.image", 3).await, Err(EngineError::NotFinite { .. })));
    assert_eq!(ask(&engine, "clip.image", 4).await.unwrap().origin, Origin::Cached);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_finishes_queued_items_refuses_new_ones_and_shows_in_health() {
    let (engine, control) = engine();
    let engine = Arc::new(engine);
    control.hold();
    let mut health = engine.health();
    assert!(health.borrow_and_update().is_ready());
    let asked: Vec<_> = (0..9)
        .map(|value| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move { ask(&engine, "clip.image", value).await })
        })
        .collect();
    let all_wait = || control.sizes().iter().sum::<usize>() + engine.status()[0].queue_depth == 9;
    while !all_wait() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::join!(engine.drain(), async { control.release() });
    health.changed().await.unwrap();
    assert!(health.borrow().stopping && !health.borrow().is_ready());
    for answer in asked {
        assert!(answer.await.unwrap().is_ok());
    }
    assert!(matches!(ask(&engine, "clip.image", 200).await, Err(EngineError::Stopping)));
    assert_eq!(ask(&engine, "clip.image", 3).await.unwrap().origin, Origin::Cached);
    engine.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_callers_with_short_deadlines_leak_nothing_and_get_their_own_results() {
    let config = EngineConfig {
        queue: 16,
        cache_bytes: 4096,
        concurrent_batches: 2,
        ..EngineConfig::default()
    };
    let (engine, control) = engine_of(&fake::clip_graphs(), &config);
    let engine = Arc::new(engine);
    control.delay(Duration::from_millis(1));
    control.trouble_with(image(7), Trouble::Fails);
    control.trouble_with(image(8), Trouble::Panics);
    let expected = |role: &str, value| {
        let spec = fake::clip_graphs().into_iter().find(|spec| spec.role == role).unwrap();
        FakeBackend::new(&spec, FakeControl::default()).run(&[image(value)]).unwrap().remove(0)
    };
    let callers: Vec<_> = (0_u64..900)
        .map(|at| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                let role = ["clip.image", "clip_l.image"][at as usize % 2];
                let value = (at.wrapping_mul(2_654_435_761) >> 5) as u8 % 24;
                let deadline = Duration::from_millis(at % 13);
                (role, value, tokio::time::timeout(deadline, ask(&engine, role, value)).await)
            })
        })
        .collect();
    let mut answered = 0;
    for caller in callers {
        match caller.await.unwrap() {
            (role, value, Ok(Ok(feature))) => {
                assert_eq!(*feature.features, expected(role, value), "{role} {value}");
                answered += 1;
            }
            (_, value, Ok(Err(EngineError::Failed { .. }))) => assert!([7, 8].contains(&value)),
            (_, _, Ok(Err(error))) => {
                assert!(matches!(error, EngineError::Overloaded { .. }), "{error}");
            }
            (_, _, Err(_)) => {}
        }
    }
    assert!(answered > 0);
    engine.drain().await;
    assert!(engine.status().iter().all(|lane| lane.queue_depth == 0));
    assert_eq!(engine.cache.count_in_flight(), 0);
    assert!(engine.cache_size().0 <= 4096);
}

#[tokio::test]
async fn a_graph_that_fails_repeatedly_shows_in_health_and_status() {
    let (engine, control) = engine();
    control.always(Some(Trouble::Panics));
    for value in 0..3 {
        assert!(ask(&engine, "clip.image", value).await.is_err());
    }
    let failing: Vec<_> =
        engine.health().borrow().failing.iter().map(ToString::to_string).collect();
    assert_eq!(failing, ["clip.image"]);
    let healthy: Vec<_> = engine.status().iter().map(|lane| lane.healthy).collect();
    assert_eq!(healthy, [false, true, true]);
}

#[tokio::test]
async fn a_removed_input_is_computed_again_by_every_graph() {
    let (engine, _) = engine();
    for role in ["clip.image", "clip_l.image"] {
        ask(&engine, role, 1).await.unwrap();
        ask(&engine, role, 2).await.unwrap();
    }
    engine.forget(&HashSet::from([hash(1)]));
    for role in ["clip.image", "clip_l.image"] {
        assert_eq!(ask(&engine, role, 1).await.unwrap().origin, Origin::Computed);
        assert_eq!(ask(&engine, role, 2).await.unwrap().origin, Origin::Cached);
    }
    assert_eq!(engine.cache_size().1, 4);
}

#[tokio::test]
async fn status_reports_resident_graphs_and_their_counts() {
    let (engine, _) = engine();
    ask(&engine, "clip.image", 1).await.unwrap();
    let status = engine.status();
    assert_eq!(status.len(), 3);
    let image = &status[0];
    assert_eq!((image.items, image.batches, image.queue_depth, image.max_batch), (1, 1, 0, 4));
    assert_eq!((image.file.as_str(), image.provider), ("clip.image.onnx", Provider::Cpu));
    assert!(image.healthy);
    let json = serde_json::to_value(image).unwrap();
    assert_eq!(json["source"]["checkpoint"], "fake");
    assert_eq!(json["precision"], "fp32");
}

#[test]
fn max_batch_can_be_lowered_and_not_raised() {
    for (configured, expected) in [(0, 4), (2, 2), (99, 4)] {
        let config = EngineConfig { max_batch: configured, ..EngineConfig::default() };
        let (engine, _) = engine_of(&fake::clip_graphs(), &config);
        assert!(engine.status().iter().all(|lane| lane.max_batch == expected));
    }
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    for (config, key) in [
        (EngineConfig { queue: 0, ..EngineConfig::default() }, "engine.queue"),
        (EngineConfig { max_delay_ms: 60_000, ..EngineConfig::default() }, "engine.max_delay_ms"),
        (EngineConfig { threads: 5000, ..EngineConfig::default() }, "engine.threads"),
    ] {
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn graphs_with_different_files_have_their_own_lanes() {
    let mut graphs = fake::clip_graphs();
    graphs[2].files = vec![FileSpec { path: "other.onnx".into(), sha256: Sha::of(b"other") }];
    assert_eq!(by_weights(&graphs).len(), 3);
}

/// Faces are stored under this digest: if it changes, every database loses the faces that it has.
#[test]
fn the_face_graphs_of_the_demo_pack_have_the_digest_under_which_faces_are_stored() {
    let pack = Pack::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("packs/demo")).unwrap();
    let (engine, _) = engine_of(&pack.graphs, &EngineConfig::default());
    assert_eq!(
        engine.family_digest("faces").unwrap().to_string(),
        "b235bb72ebfa6fd26c0b6a8556d8ac2e338897126d33bbb58f55facab0083060",
        "if the demo pack has other face graphs, adapt this test; otherwise restore the digest"
    );
}
