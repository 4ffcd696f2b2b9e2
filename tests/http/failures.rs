//! Failures of the service: the request gets an error, nothing is stored, and the next request is
//! served.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stellar_score::engine::fake::Trouble;

use crate::{
    harness::{App, ONE_GRAPH, tells},
    support::{form::Form, images::png},
};

fn form(seed: u32) -> Form {
    Form::new().file("image", png(seed)).field("metrics", ONE_GRAPH).field("method", "mine")
}

#[tokio::test]
async fn a_failed_graph_is_an_internal_error_that_stores_nothing() {
    let app = App::start().await;
    for trouble in [Trouble::Fails, Trouble::Panics, Trouble::Miscounts] {
        app.graphs.always(Some(trouble));
        let detail = app.score(form(1)).await.problem(500, "internal");
        assert!(!detail.contains("told to"), "the cause belongs in the log: {detail}");
        assert_eq!(app.counted("mine", ONE_GRAPH).await, 0);
        app.graphs.always(None);
    }
    app.score(form(1)).await.ok();
    assert_eq!(app.counted("mine", ONE_GRAPH).await, 1);
}

#[tokio::test]
async fn a_non_finite_value_is_an_error_and_never_a_score() {
    let app = App::start().await;
    app.graphs.always(Some(Trouble::NotANumber));
    app.score(form(1)).await.problem(500, "internal");
    assert_eq!(app.counted("mine", ONE_GRAPH).await, 0);
    app.graphs.always(None);
    let response = app.score(form(1)).await.ok();
    assert_eq!(response["cached"], false, "the NaN was not cached");
}

#[tokio::test]
async fn readiness_names_a_repeatedly_failing_graph_until_it_recovers() {
    let app = App::start().await;
    app.graphs.always(Some(Trouble::Fails));
    for seed in 0..3 {
        app.get("/readyz").await.ok();
        app.score(form(seed)).await.problem(500, "internal");
    }
    tells(&app.get("/readyz").await.problem(503, "unavailable"), &["clip_l.image"]);
    app.get("/livez").await.ok();
    app.graphs.always(None);
    app.score(form(4)).await.ok();
    app.get("/readyz").await.ok();
}

#[tokio::test]
async fn readiness_lists_every_check_and_names_a_disk_that_is_nearly_full() {
    let app = App::start().await;
    let ready = app.get("/readyz").await.ok();
    let names = |body: &Value| {
        let checks = body["checks"].as_array().unwrap().iter();
        checks.map(|check| (check["name"].clone(), check["ok"].clone())).collect::<Vec<_>>()
    };
    let all = ["start", "graphs", "engine", "store", "disk", "tasks", "stop"];
    assert_eq!(names(&ready), all.map(|name| (json!(name), json!(true))));
    app.get("/startupz").await.ok();

    let app = App::with(|setup| setup.config.store.min_free_mib = u64::MAX).await;
    let answer = app.get("/readyz").await;
    tells(&answer.problem(503, "unavailable"), &["the spool", "MiB free", "store.min_free_mib"]);
    let failing: Vec<_> =
        names(&answer.json()).into_iter().filter(|(_, ok)| ok == &json!(false)).collect();
    assert_eq!(failing, [(json!("disk"), json!(false))]);
    app.get("/startupz").await.ok();
    app.score(form(1)).await.ok();
}

#[tokio::test]
async fn a_store_that_is_down_makes_requests_unavailable_and_the_service_not_ready() {
    let app = App::start().await;
    app.score(form(1)).await.ok();
    app.store.close().await;
    tells(&app.score(form(2)).await.problem(503, "unavailable"), &["store", "retry"]);
    app.get("/v1/leaderboard").await.problem(503, "unavailable");
    app.get("/v1/samples/01932b5e-7c7e-7000-8000-000000000000").await.problem(503, "unavailable");
    app.get("/readyz").await.problem(503, "unavailable");
    app.get("/livez").await.ok();
}

#[tokio::test]
async fn a_request_past_its_deadline_is_refused_and_stores_nothing() {
    let app = App::with(|setup| setup.config.server.deadline_seconds = 1).await;
    app.gate.close();
    let started = Instant::now();
    let detail = app.score(form(1)).await.problem(504, "deadline_exceeded");
    tells(&detail, &["1 s", "nothing was stored"]);
    assert!(started.elapsed() >= Duration::from_secs(1));
    app.gate.open();
    assert_eq!(app.counted("mine", ONE_GRAPH).await, 0);
    app.score(form(2)).await.ok();
    assert_eq!(app.counted("mine", ONE_GRAPH).await, 1);
}

/// A graph without the output that the metric reads simulates a defect in a handler.
#[tokio::test]
async fn a_panic_in_a_handler_returns_a_problem() {
    let app = App::with(|setup| {
        for graph in &mut setup.graphs {
            for output in &mut graph.outputs {
                output.name.push_str("_renamed");
            }
        }
    })
    .await;
    let detail = app.score(form(1)).await.problem(500, "internal");
    assert!(
        !detail.contains("renamed") && !detail.contains("registry"),
        "the cause belongs in the log: {detail}"
    );
    app.get("/readyz").await.ok();
}

#[tokio::test]
async fn one_bad_image_does_not_fail_the_others_of_its_batch() {
    let app = App::with(|setup| setup.config.engine.cache_bytes = 0).await;
    app.score(form(99)).await.ok();
    let bad = app.graphs.batches().remove(0).remove(0);
    app.graphs.trouble_with(bad, Trouble::Fails);
    app.gate.close();
    let conduct = async {
        app.gate.reached_by(1).await;
        let others = futures_util::future::join_all((1..5).map(|seed| app.score(form(seed))));
        let wait = async {
            // One item runs and five are queued: they form the next batch.
            app.until(r#"stellar_engine_queue_depth{graph="clip_l.image"}"#, 5.0).await;
            app.gate.open();
        };
        tokio::join!(others, app.score(form(99)), wait)
    };
    let (first, (others, failing, ())) = tokio::join!(app.score(form(0)), conduct);
    first.ok();
    failing.problem(500, "internal");
    for response in others {
        response.ok();
    }
    assert_eq!(app.counted("mine", ONE_GRAPH).await, 6);
    assert_eq!(
        app.graphs.sizes(),
        [1, 1, 5, 1, 1, 1, 1, 1],
        "the items of a failed batch are retried singly"
    );
}
