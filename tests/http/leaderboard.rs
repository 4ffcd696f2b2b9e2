//! `GET /v1/leaderboard`: means, order, pages, and invalid parameters.

use serde_json::{Value, json};

use crate::{
    harness::{App, ONE_GRAPH, tells},
    support::{form::Form, images::png},
};

/// Scores an image for a method and returns its aesthetic value.
async fn score(app: &App, method: &str, run: Option<&str>, seed: u32) -> f64 {
    let mut form =
        Form::new().file("image", png(seed)).field("metrics", ONE_GRAPH).field("method", method);
    if let Some(run) = run {
        form = form.field("run", run);
    }
    app.score(form).await.ok()["scores"][ONE_GRAPH]["value"].as_f64().unwrap()
}

fn methods(board: &Value) -> Vec<&str> {
    board["rows"].as_array().unwrap().iter().map(|row| row["method"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_row_has_mean_count_and_standard_deviation() {
    let app = App::start().await;
    let mut values = Vec::new();
    for seed in 0..5 {
        values.push(score(&app, "mine", None, seed).await);
    }
    let mean = values.iter().sum::<f64>() / 5.0;
    let std = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 4.0).sqrt();
    let board = app.get("/v1/leaderboard").await.ok();
    let row = &board["rows"][0];
    assert_eq!(row["method"], "mine");
    assert_eq!(row["pack"]["weights"], "demo");
    let summary = &row["metrics"][ONE_GRAPH];
    assert_eq!(summary["n"], 5);
    assert_eq!(summary["nulls"], 0);
    assert_eq!(summary["coverage"], 1.0);
    assert!((summary["mean"].as_f64().unwrap() - mean).abs() < 1e-12, "{summary} {mean}");
    assert!((summary["std"].as_f64().unwrap() - std).abs() < 1e-12, "{summary} {std}");
}

#[tokio::test]
async fn a_null_score_lowers_the_coverage_but_not_the_mean() {
    let app = App::start().await;
    let form = |seed| {
        Form::new().file("image", png(seed)).field("metrics", "clip_t").field("method", "mine")
    };
    let response = app.score(form(1).field("prompt", "a person")).await.ok();
    app.score(form(2)).await.ok();
    let board = app.get("/v1/leaderboard").await.ok();
    let summary = &board["rows"][0]["metrics"]["clip_t"];
    assert_eq!(summary["mean"], response["scores"]["clip_t"]["value"]);
    assert_eq!(summary["std"], json!(null));
    assert_eq!([&summary["n"], &summary["nulls"]], [&json!(1), &json!(1)]);
    assert_eq!(summary["coverage"], 0.5);
}

#[tokio::test]
async fn methods_are_ranked_best_first_by_the_requested_metric() {
    let app = App::start().await;
    let mut ranked = Vec::new();
    for (seed, method) in [(1, "b"), (2, "a"), (3, "d"), (4, "c")] {
        ranked.push((score(&app, method, None, seed).await, method));
    }
    ranked.sort_by(|one, other| other.0.total_cmp(&one.0));
    let best_first: Vec<_> = ranked.into_iter().map(|(_, method)| method).collect();
    assert_eq!(methods(&app.get("/v1/leaderboard").await.ok()), ["a", "b", "c", "d"]);
    let board = app.get(&format!("/v1/leaderboard?sort={ONE_GRAPH}")).await.ok();
    assert_eq!(methods(&board), best_first);
}

#[tokio::test]
async fn pages_have_no_gaps_or_repeats() {
    let app = App::start().await;
    for seed in 0..5 {
        score(&app, &format!("method {seed}"), None, seed).await;
    }
    let mut seen = Vec::new();
    let mut next = String::new();
    loop {
        let page = app.get(&format!("/v1/leaderboard?sort={ONE_GRAPH}&limit=2{next}")).await.ok();
        assert!(page["rows"].as_array().unwrap().len() <= 2);
        seen.extend(methods(&page).into_iter().map(str::to_owned));
        match page["next"].as_str() {
            Some(cursor) => next = format!("&after={cursor}"),
            None => break,
        }
    }
    let all = app.get(&format!("/v1/leaderboard?sort={ONE_GRAPH}")).await.ok();
    assert_eq!(seen, methods(&all));
    assert_eq!(seen.len(), 5);
}

#[tokio::test]
async fn rows_are_methods_or_runs_as_requested() {
    let app = App::start().await;
    score(&app, "mine", None, 1).await;
    score(&app, "mine", Some("seed 7"), 2).await;
    let by_method = app.get("/v1/leaderboard").await.ok();
    assert_eq!(by_method["rows"].as_array().unwrap().len(), 1);
    assert_eq!(by_method["rows"][0]["metrics"][ONE_GRAPH]["n"], 2);
    let by_run = app.get("/v1/leaderboard?by=run").await.ok();
    let runs: Vec<_> =
        by_run["rows"].as_array().unwrap().iter().map(|row| row["run"].clone()).collect();
    assert_eq!(runs, ["default", "seed 7"]);
    let one = app.get("/v1/leaderboard?by=run&run=seed%207").await.ok();
    assert_eq!(one["rows"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_pack_is_selected_by_name_or_digest_and_an_unknown_one_is_refused() {
    let app = App::start().await;
    score(&app, "mine", None, 1).await;
    assert_eq!(app.get("/v1/leaderboard?pack=all").await.ok()["rows"].as_array().unwrap().len(), 1);
    let of_loaded = app.get("/v1/leaderboard").await.ok();
    assert_eq!(app.get("/v1/leaderboard?pack=demo").await.ok(), of_loaded, "by its name");
    for path in
        ["leaderboard?", "analysis/correlations?", "analysis/trade-off?", "analysis/alignment?"]
    {
        for unknown in ["0".repeat(64), "nobody's".to_owned()] {
            let detail = app
                .get(&format!("/v1/{path}pack={unknown}"))
                .await
                .problem(400, "malformed_request");
            assert!(detail.contains("demo (") && detail.contains(&unknown), "{detail}");
        }
    }
}

#[tokio::test]
async fn a_limit_out_of_range_is_refused_with_the_range() {
    let app = App::start().await;
    for limit in ["0", "1001"] {
        let detail = app
            .get(&format!("/v1/leaderboard?limit={limit}"))
            .await
            .problem(400, "malformed_request");
        tells(&detail, &["limit", limit, "1 to 1000"]);
    }
    let detail = app.get("/v1/leaderboard?limit=many").await.problem(400, "malformed_request");
    tells(&detail, &["limit"]);
}

#[tokio::test]
async fn an_unknown_parameter_is_refused_by_name() {
    let app = App::start().await;
    let detail = app.get("/v1/leaderboard?order=best").await.problem(400, "malformed_request");
    tells(&detail, &["order"]);
}

#[tokio::test]
async fn an_unknown_grouping_is_refused_with_the_known_ones() {
    let app = App::start().await;
    let detail = app.get("/v1/leaderboard?by=person").await.problem(400, "malformed_request");
    tells(&detail, &["person", "method", "run"]);
}

#[tokio::test]
async fn an_unknown_sort_metric_is_refused_with_the_known_ones() {
    let app = App::start().await;
    for parameter in ["sort", "metrics"] {
        let detail = app
            .get(&format!("/v1/leaderboard?{parameter}=beauty"))
            .await
            .problem(422, "unknown_metric");
        tells(&detail, &["beauty", "clip_t", "aesthetic"]);
    }
}

#[tokio::test]
async fn a_cursor_of_another_query_is_refused() {
    let app = App::start().await;
    app.get("/v1/leaderboard?after=nonsense").await.problem(400, "malformed_request");
    for seed in 0..2 {
        score(&app, &format!("method {seed}"), None, seed).await;
    }
    let page = app.get("/v1/leaderboard?limit=1").await.ok();
    let cursor = page["next"].as_str().unwrap();
    let other = format!("/v1/leaderboard?limit=1&sort={ONE_GRAPH}&after={cursor}");
    tells(&app.get(&other).await.problem(400, "malformed_request"), &["cursor"]);
}
