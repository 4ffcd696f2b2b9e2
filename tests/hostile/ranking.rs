//! Rankings that would say what the scores do not.

use std::time::{Duration, Instant};

use axum::{
    body::Body,
    http::{Request, header},
};
use serde_json::{Value, json};

use crate::harness::App;

/// A run with these scores by name, imported.
async fn import(app: &App, method: &str, scores: &[(String, f64)]) {
    let body = json!({"method": method, "run": "r", "dataset": "d"}).to_string();
    let request = Request::post("/v1/runs").header(header::CONTENT_TYPE, "application/json");
    let run = app.send(request.body(Body::from(body)).expect("a valid request")).await.json();
    let rows = scores.iter().enumerate().map(|(at, (name, score))| format!("{at},{name},{score}\n"));
    let csv = format!(",name,dino_fidelity\n{}", rows.collect::<String>());
    let path = format!("/v1/runs/{}/import?source=ref", run["run_id"].as_str().expect("an id"));
    let request = Request::post(path).header(header::CONTENT_TYPE, "text/csv").body(Body::from(csv));
    app.send(request.expect("a valid request")).await.ok();
}

/// The board once all its rows are summarised.
async fn board(app: &App, query: &str) -> Value {
    let started = Instant::now();
    loop {
        let board = app.get(&format!("/v1/leaderboard?pack=ref&{query}")).await.ok();
        let rows = board["rows"].as_array().expect("a list");
        if rows.iter().all(|row| row["sample_set"].is_string()) {
            return board;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{board}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn of<'a>(board: &'a Value, method: &str) -> &'a Value {
    let rows = board["rows"].as_array().expect("a list");
    rows.iter().find(|row| row["method"] == method).expect("the method has a row")
}

#[tokio::test]
async fn the_easier_half_of_the_prompts_is_not_ranked_first() {
    let app = App::start().await;
    // Every second prompt is easy; `half` is worse on each of them, and has no other.
    let score = |at: usize| if at.is_multiple_of(2) { 0.9 } else { 0.2 } + (at % 7) as f64 / 1000.0;
    let all: Vec<_> = (0..60).map(|at| (format!("s{at:02}"), score(at))).collect();
    let worse: Vec<_> = all.iter().map(|(name, score)| (name.clone(), score - 0.15)).collect();
    let half: Vec<_> = all.iter().step_by(2).map(|(name, score)| (name.clone(), score - 0.1)).collect();
    for (method, scores) in [("whole", &all), ("worse", &worse), ("half", &half)] {
        import(&app, method, scores).await;
    }
    let board = board(&app, "sort=dino").await;
    let (whole, worse, half) = (of(&board, "whole"), of(&board, "worse"), of(&board, "half"));
    assert!(half["metrics"]["dino"]["mean"].as_f64() > whole["metrics"]["dino"]["mean"].as_f64(), "the trap");
    assert_eq!(whole["sample_set"], worse["sample_set"]);
    assert_ne!(whole["sample_set"], half["sample_set"]);
    assert_eq!([&whole["comparable"], &worse["comparable"], &half["comparable"]], [true, true, false]);
    assert_eq!((&whole["mean_rank"], &worse["mean_rank"]), (&json!(1.0), &json!(2.0)));
    let order: Vec<_> = board["rows"].as_array().expect("a list").iter().map(|row| &row["method"]).collect();
    assert_eq!(order, ["whole", "worse", "half"], "what does not compare stands apart, not first");
    let csv = app.get("/v1/leaderboard?pack=ref&format=csv").await;
    let text = String::from_utf8(csv.body.to_vec()).expect("text");
    assert!(text.lines().next().is_some_and(|head| head.ends_with("sample_set,comparable")), "{text}");
    assert_eq!(half["pack"]["weights"], "imported");
}
