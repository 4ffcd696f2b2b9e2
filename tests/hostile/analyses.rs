//! Analyses during scoring: they queue behind each other and delay no other request.

use std::time::{Duration, Instant};

use axum::{
    body::Body,
    http::{Request, header},
};
use serde_json::json;

use crate::{
    harness::{App, ONE_GRAPH, tells},
    support::{form::Form, images},
};

/// Two imported runs that take seconds to compare.
async fn slow_runs(app: &App) -> [String; 2] {
    let mut runs = Vec::new();
    for method in ["a", "b"] {
        let body = json!({"method": method, "run": "r"}).to_string();
        let request = Request::post("/v1/runs").header(header::CONTENT_TYPE, "application/json");
        let run = app.send(request.body(Body::from(body)).expect("a valid request")).await.json();
        let run = run["run_id"].as_str().expect("an id").to_owned();
        let rows = (0..3_000)
            .map(|at| format!("{at},s{at:04},{}\n", f64::from(at * 7919 % 1000) / 1000.0));
        let csv = format!(",name,dino_fidelity\n{}", rows.collect::<String>());
        let request = Request::post(format!("/v1/runs/{run}/import?source=them"))
            .header(header::CONTENT_TYPE, "text/csv");
        app.send(request.body(Body::from(csv)).expect("a valid request")).await.ok();
        runs.push(run);
    }
    runs.try_into().expect("two runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn excess_slow_analyses_return_429_and_do_not_delay_scoring() {
    let app = App::with(|setup| {
        (setup.config.analysis.concurrency, setup.config.analysis.queue) = (1, 4);
    })
    .await;
    let [a, b] = slow_runs(&app).await;
    let path = format!("/v1/runs/{a}/compare/{b}?slices=true&min_pairs=0");
    let asked = (0..32).map(|_| app.get(&path));
    let all = futures_util::future::join_all(asked);
    let scoring = async {
        let mut scored = 0;
        for seed in 0..5 {
            let form = Form::new().file("image", images::png(seed)).field("metrics", ONE_GRAPH);
            app.score(form.field("method", "mine")).await.ok();
            app.get("/readyz").await.ok();
            scored += 1;
        }
        scored
    };
    let (responses, scored) = tokio::join!(all, scoring);
    assert_eq!(scored, 5);
    let refused = responses.iter().filter(|response| response.status == 429).count();
    let accepted = responses.iter().filter(|response| response.status == 200).count();
    assert_eq!((refused, accepted), (28, 4), "four slots; all others are refused at once");
    let refusal =
        responses.iter().find(|response| response.status == 429).expect("one was refused");
    tells(&refusal.problem(429, "overloaded"), &["analyses", "retry"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnected_client_frees_its_slot() {
    let app = App::with(|setup| {
        (setup.config.analysis.concurrency, setup.config.analysis.queue) = (1, 2);
    })
    .await;
    let [a, b] = slow_runs(&app).await;
    for round in 0..10 {
        let path = format!("/v1/runs/{a}/compare/{b}?slices=true&min_pairs={round}");
        let leaving = tokio::time::timeout(Duration::from_millis(5), app.get(&path)).await;
        drop(leaving);
    }
    let started = Instant::now();
    // Abandoned analyses free their slots, so this request gets a response.
    while app.get(&format!("/v1/runs/{a}/report")).await.status != 200 {
        assert!(
            started.elapsed() < Duration::from_mins(1),
            "abandoned analyses still hold the slots"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_completed_after_its_client_disconnects() {
    let app = App::start().await;
    let [a, _] = slow_runs(&app).await;
    let kept = async || app.number("stellar_kept_answers_bytes{of=\"reports\"}").await;
    assert!(kept().await < 1.0, "nothing is cached yet");
    let report = format!("/v1/runs/{a}/report");
    let started = Instant::now();
    while kept().await < 1.0 {
        assert!(started.elapsed() < Duration::from_mins(1), "it was abandoned with its client");
        // No client waits for the whole report. On a busy machine, some leave before it is begun.
        drop(tokio::time::timeout(Duration::from_millis(5), app.get(&report)).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_pairs_are_found_among_many_methods() {
    let app = App::start().await;
    for at in 0..400 {
        let body = json!({"method": format!("method {at}"), "run": "r"}).to_string();
        let request = Request::post("/v1/runs").header(header::CONTENT_TYPE, "application/json");
        let status =
            app.send(request.body(Body::from(body)).expect("a valid request")).await.status;
        assert!(status.is_success(), "{status}");
    }
    let next = app.get("/v1/preferences/next?limit=1").await.ok();
    assert_eq!(next["pairs"], json!([]), "no method has a sample");
}

#[tokio::test]
async fn unknown_labels_do_not_change_the_leaderboard() {
    let app = App::start().await;
    let form = Form::new().file("image", images::png(1)).field("metrics", ONE_GRAPH);
    app.score(form.field("method", "mine")).await.ok();
    // Otherwise the background task would do this in between.
    stellar_score::analysis::refresh_stale(&app.store).await.expect("the summaries");
    let before = app.get("/v1/leaderboard").await.ok();
    for at in 0..200 {
        let response =
            app.get(&format!("/v1/leaderboard?category=made-up-{at}-{}", "x".repeat(200))).await;
        response.ok();
    }
    app.get(&format!("/v1/leaderboard?category={}", "x".repeat(9_000)))
        .await
        .problem(400, "malformed_request");
    assert_eq!(app.get("/v1/leaderboard").await.ok(), before);
}
