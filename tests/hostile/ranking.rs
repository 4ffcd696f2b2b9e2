//! Rankings that the scores do not support.

use std::time::{Duration, Instant};

use axum::{
    body::Body,
    http::{Request, header},
};
use serde_json::{Value, json};

use crate::harness::{App, tells};

/// Imports a run with these scores by sample name.
async fn import(app: &App, method: &str, scores: &[(String, f64)]) {
    let body = json!({"method": method, "run": "r", "dataset": "d"}).to_string();
    let request = Request::post("/v1/runs").header(header::CONTENT_TYPE, "application/json");
    let run = app.send(request.body(Body::from(body)).expect("a valid request")).await.json();
    let rows =
        scores.iter().enumerate().map(|(at, (name, score))| format!("{at},{name},{score}\n"));
    let csv = format!(",name,dino_fidelity\n{}", rows.collect::<String>());
    let path = format!("/v1/runs/{}/import?source=ref", run["run_id"].as_str().expect("an id"));
    let request =
        Request::post(path).header(header::CONTENT_TYPE, "text/csv").body(Body::from(csv));
    app.send(request.expect("a valid request")).await.ok();
}

/// Waits until all rows are summarised and returns the leaderboard.
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
async fn a_run_of_only_easy_prompts_is_not_ranked_first() {
    let app = App::start().await;
    // Every second prompt is easy; `half` has only these, and is worse on each of them.
    let score = |at: usize| if at.is_multiple_of(2) { 0.9 } else { 0.2 } + (at % 7) as f64 / 1000.0;
    let all: Vec<_> = (0..60).map(|at| (format!("s{at:02}"), score(at))).collect();
    let worse: Vec<_> = all.iter().map(|(name, score)| (name.clone(), score - 0.15)).collect();
    let half: Vec<_> =
        all.iter().step_by(2).map(|(name, score)| (name.clone(), score - 0.1)).collect();
    for (method, scores) in [("whole", &all), ("worse", &worse), ("half", &half)] {
        import(&app, method, scores).await;
    }
    let board = board(&app, "sort=dino").await;
    let (whole, worse, half) = (of(&board, "whole"), of(&board, "worse"), of(&board, "half"));
    assert!(
        half["metrics"]["dino"]["mean"].as_f64() > whole["metrics"]["dino"]["mean"].as_f64(),
        "the plain mean is higher"
    );
    assert_eq!(whole["sample_set"], worse["sample_set"]);
    assert_ne!(whole["sample_set"], half["sample_set"]);
    assert_eq!(
        [&whole["comparable"], &worse["comparable"], &half["comparable"]],
        [true, true, false]
    );
    assert_eq!((&whole["mean_rank"], &worse["mean_rank"]), (&json!(1.0), &json!(2.0)));
    let order: Vec<_> =
        board["rows"].as_array().expect("a list").iter().map(|row| &row["method"]).collect();
    assert_eq!(order, ["whole", "worse", "half"], "rows that are not comparable come last");
    let csv = app.get("/v1/leaderboard?pack=ref&format=csv").await;
    let text = String::from_utf8(csv.body.to_vec()).expect("text");
    assert!(
        text.lines()
            .next()
            .is_some_and(|head| head.ends_with("sample_set,comparable,reason,flags")),
        "{text}"
    );
    assert_eq!(half["pack"]["weights"], "imported");
}

/// Three methods: one with all 40 samples, two with 30 each, 20 of them shared.
async fn three_methods(app: &App) {
    let score = |at: usize| 0.2 + (at % 7) as f64 / 100.0;
    let named = |from: usize, to: usize, shift: f64| -> Vec<(String, f64)> {
        (from..to).map(|at| (format!("s{at:02}"), score(at) + shift)).collect()
    };
    import(app, "whole", &named(0, 40, 0.0)).await;
    // `early` is good on its own samples and bad on the shared ones.
    let mut early = named(0, 30, -0.1);
    early[..10].iter_mut().for_each(|(_, score)| *score = 0.9);
    import(app, "early", &early).await;
    import(app, "late", &named(10, 40, 0.1)).await;
}

#[tokio::test]
async fn on_common_ranks_rows_over_shared_samples() {
    let app = App::start().await;
    three_methods(&app).await;
    let before = board(&app, "sort=dino").await;
    let sets: Vec<_> =
        before["rows"].as_array().expect("a list").iter().map(|row| &row["sample_set"]).collect();
    assert!(sets[0] != sets[1] && sets[1] != sets[2], "{before}");
    assert_eq!(of(&before, "whole")["mean_rank"], 1.0, "each is the only method of its sample set");

    let board = board(&app, "sort=dino&on=common").await;
    assert_eq!((&board["on"], &board["total"]), (&json!("common"), &json!(3)));
    let order: Vec<_> =
        board["rows"].as_array().expect("a list").iter().map(|row| &row["method"]).collect();
    assert_eq!(order, ["late", "whole", "early"]);
    let shared: f64 = (10..30).map(|at: usize| 0.2 + (at % 7) as f64 / 100.0).sum::<f64>() / 20.0;
    for (method, shift, place) in [("late", 0.1, 1.0), ("whole", 0.0, 2.0), ("early", -0.1, 3.0)] {
        let row = of(&board, method);
        let dino = &row["metrics"]["dino"];
        assert_eq!(
            (&dino["n"], &dino["samples"], &dino["pending"]),
            (&json!(20), &json!(20), &json!(false))
        );
        assert!((dino["mean"].as_f64().expect("a mean") - shared - shift).abs() < 1e-12, "{row}");
        assert_eq!((&row["mean_rank"], &row["comparable"]), (&json!(place), &json!(true)), "{row}");
        assert_eq!(row["sample_set"], of(&board, "late")["sample_set"]);
        assert!(dino["low"].as_f64() < dino["mean"].as_f64(), "{row}");
    }
    // The pages form the same list.
    let page = app.get("/v1/leaderboard?pack=ref&sort=dino&on=common&limit=2").await.ok();
    let next = page["next"].as_str().expect("a further page");
    let rest = app
        .get(&format!("/v1/leaderboard?pack=ref&sort=dino&on=common&limit=2&after={next}"))
        .await
        .ok();
    assert_eq!(rest["rows"][0]["method"], "early");
    app.get(&format!("/v1/leaderboard?pack=ref&sort=dino&limit=2&after={next}"))
        .await
        .problem(400, "malformed_request");
    // The shared samples depend on the listed methods.
    let two = app.get("/v1/leaderboard?pack=ref&on=common&method=whole").await.ok();
    assert_eq!(two["rows"][0]["metrics"]["dino"]["n"], 40);
    // They depend on the scores, too.
    import(&app, "first", &[("s10".to_owned(), 0.5), ("s11".to_owned(), 0.6)]).await;
    let fewer = app.get("/v1/leaderboard?pack=ref&on=common").await.ok();
    assert_eq!(of(&fewer, "whole")["metrics"]["dino"]["n"], 2, "{fewer}");
}

#[tokio::test]
async fn trade_offs_and_reports_can_use_shared_samples() {
    let app = App::start().await;
    three_methods(&app).await;
    let apart = app.get("/v1/analysis/trade-off?pack=ref&x=dino&y=dino").await.ok();
    let common = app.get("/v1/analysis/trade-off?pack=ref&x=dino&y=dino&on=common").await.ok();
    let points = common["points"].as_array().expect("a list");
    assert_eq!(apart["points"].as_array().map(Vec::len), Some(3));
    assert_eq!((points.len(), &common["on"]), (3, &json!("common")));
    let front: Vec<_> = points.iter().map(|point| (&point["method"], &point["on_front"])).collect();
    assert_eq!(
        front,
        [
            (&json!("late"), &json!(true)),
            (&json!("whole"), &json!(false)),
            (&json!("early"), &json!(false))
        ]
    );
    assert_eq!(points[2]["dominated_by"], json!(["late", "whole"]));

    let runs = app.get("/v1/runs").await.ok();
    let id = |method: &str| {
        let runs = runs["runs"].as_array().expect("a list");
        let run = runs.iter().find(|run| run["method"] == method).expect("a run");
        run["run_id"].as_str().expect("an id").to_owned()
    };
    let (whole, early, late) = (id("whole"), id("early"), id("late"));
    let own = app.get(&format!("/v1/runs/{whole}/report")).await.ok();
    assert_eq!(own["samples"], 40);
    let of_whole =
        app.get(&format!("/v1/runs/{whole}/report?common_with={early},{late}")).await.ok();
    let of_late =
        app.get(&format!("/v1/runs/{late}/report?common_with={whole},{early}")).await.ok();
    assert_eq!((&of_whole["samples"], &of_late["samples"]), (&json!(20), &json!(20)));
    assert_eq!(of_whole["sample_set"], of_late["sample_set"]);
    assert_ne!(of_whole["sample_set"], own["sample_set"]);
    let (of_whole, of_late) = (&of_whole["rows"][0]["mean"], &of_late["rows"][0]["mean"]);
    assert!(
        (of_late.as_f64().expect("a mean") - of_whole.as_f64().expect("a mean") - 0.1).abs()
            < 1e-12
    );
    let text =
        app.get(&format!("/v1/runs/{whole}/report?common_with={late}&format=markdown")).await;
    let text = String::from_utf8(text.body.to_vec()).expect("text");
    assert!(text.contains("30 samples (set "), "{text}");

    import(&app, "elsewhere", &[("other".to_owned(), 0.5)]).await;
    let detail =
        app.get("/v1/leaderboard?pack=ref&on=common").await.problem(409, "nothing_to_compare");
    tells(&detail, &["no samples in common", "ref"]);
    app.get("/v1/analysis/trade-off?pack=ref&x=dino&y=dino&on=common")
        .await
        .problem(409, "nothing_to_compare");
    let runs = app.get("/v1/runs").await.ok();
    let runs = runs["runs"].as_array().expect("a list");
    let other = runs.iter().find(|run| run["method"] == "elsewhere").expect("a run");
    let other = other["run_id"].as_str().expect("an id");
    app.get(&format!("/v1/runs/{whole}/report?common_with={other}"))
        .await
        .problem(409, "nothing_to_compare");
    app.get(&format!("/v1/runs/{whole}/report?common_with=nonsense"))
        .await
        .problem(404, "not_found");
    let many = vec![late.as_str(); 17].join(",");
    app.get(&format!("/v1/runs/{whole}/report?common_with={many}"))
        .await
        .problem(400, "malformed_request");
}
