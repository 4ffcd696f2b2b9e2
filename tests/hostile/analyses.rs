//! Analyses beside scoring: they wait for each other, and nobody waits for them.

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
        let rows = (0..3_000).map(|at| format!("{at},s{at:04},{}\n", f64::from(at * 7919 % 1000) / 1000.0));
        let csv = format!(",name,dino_fidelity\n{}", rows.collect::<String>());
        let request = Request::post(format!("/v1/runs/{run}/import?source=them"))
            .header(header::CONTENT_TYPE, "text/csv");
        app.send(request.body(Body::from(csv)).expect("a valid request")).await.ok();
        runs.push(run);
    }
    runs.try_into().expect("two runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn many_slow_analyses_are_refused_with_429_and_keep_no_score_waiting() {
    let app =
        App::with(|setup| (setup.config.analysis.concurrency, setup.config.analysis.queue) = (1, 4)).await;
    let [a, b] = slow_runs(&app).await;
    let path = format!("/v1/runs/{a}/compare/{b}?slices=true&min_pairs=0");
    let asked = (0..32).map(|_| app.get(&path));
    let all = futures_util::future::join_all(asked);
    let beside = async {
        let mut scored = 0;
        for seed in 0..5 {
            let form = Form::new().file("image", images::png(seed)).field("metrics", ONE_GRAPH);
            app.score(form.field("method", "mine")).await.ok();
            app.get("/readyz").await.ok();
            scored += 1;
        }
        scored
    };
    let (answers, scored) = tokio::join!(all, beside);
    assert_eq!(scored, 5);
    let refused = answers.iter().filter(|answer| answer.status == 429).count();
    let answered = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((refused, answered), (28, 4), "four places, and everybody else is told at once");
    let refusal = answers.iter().find(|answer| answer.status == 429).expect("one was refused");
    tells(&refusal.problem(429, "overloaded"), &["analyses", "retry"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_place_of_a_client_that_left_is_free_again() {
    let app =
        App::with(|setup| (setup.config.analysis.concurrency, setup.config.analysis.queue) = (1, 2)).await;
    let [a, b] = slow_runs(&app).await;
    for round in 0..10 {
        let path = format!("/v1/runs/{a}/compare/{b}?slices=true&min_pairs={round}");
        let leaving = tokio::time::timeout(Duration::from_millis(5), app.get(&path)).await;
        drop(leaving);
    }
    let started = Instant::now();
    // Whoever stays is answered: nothing that was left fills the places.
    while app.get(&format!("/v1/runs/{a}/report")).await.status != 200 {
        assert!(started.elapsed() < Duration::from_mins(1), "those that left still hold the places");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_whose_first_reader_left_is_there_for_the_next() {
    let app = App::start().await;
    let [a, _] = slow_runs(&app).await;
    let kept = async || app.number("stellar_kept_answers_bytes{of=\"reports\"}").await;
    assert!(kept().await < 1.0, "nothing is kept yet");
    drop(tokio::time::timeout(Duration::from_millis(5), app.get(&format!("/v1/runs/{a}/report"))).await);
    let started = Instant::now();
    while kept().await < 1.0 {
        assert!(started.elapsed() < Duration::from_mins(1), "it was given up with its reader");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_to_ask_next_is_found_among_very_many_methods() {
    let app = App::start().await;
    for at in 0..400 {
        let body = json!({"method": format!("method {at}"), "run": "r"}).to_string();
        let request = Request::post("/v1/runs").header(header::CONTENT_TYPE, "application/json");
        let status = app.send(request.body(Body::from(body)).expect("a valid request")).await.status;
        assert!(status.is_success(), "{status}");
    }
    let next = app.get("/v1/preferences/next?limit=1").await.ok();
    assert_eq!(next["pairs"], json!([]), "nobody has a sample");
}

#[tokio::test]
async fn labels_that_no_run_has_leave_the_leaderboard_as_it_was() {
    let app = App::start().await;
    let form = Form::new().file("image", images::png(1)).field("metrics", ONE_GRAPH);
    app.score(form.field("method", "mine")).await.ok();
    // Else the background would do it in between.
    stellar_score::analysis::refresh_stale(&app.store).await.expect("the summaries");
    let before = app.get("/v1/leaderboard").await.ok();
    for at in 0..200 {
        let answer = app.get(&format!("/v1/leaderboard?category=made-up-{at}-{}", "x".repeat(200))).await;
        answer.ok();
    }
    app.get(&format!("/v1/leaderboard?category={}", "x".repeat(9_000)))
        .await
        .problem(400, "malformed_request");
    assert_eq!(app.get("/v1/leaderboard").await.ok(), before);
}
