//! Lists of methods, runs and samples, and imported scores.

use axum::{
    body::Body,
    http::{Request, header},
};
use serde_json::{Value, json};

use crate::{
    harness::{App, tells},
    runs::{csv, form, post},
};

#[tokio::test]
async fn methods_and_runs_are_created_once_and_listed_in_pages() {
    let app = App::start().await;
    let method = |body: Value| app.send(post("/v1/methods", &body));
    assert_eq!(method(json!({"name": "B", "description": "a generator"})).await.status, 201);
    assert_eq!(method(json!({"name": "B"})).await.ok()["description"], "a generator");
    method(json!({"name": " "})).await.problem(422, "invalid_field");
    method(json!({"title": "B"})).await.problem(422, "invalid_field");
    method(json!({"name": "B", "description": "x".repeat(5000)}))
        .await
        .problem(422, "invalid_field");

    let facts = json!({
        "method": "A", "run": "r1", "dataset": "stellar", "split": "test", "settings": {"steps": 50},
        "flags": {"cross_validated_training": true}, "metrics": ["clip_t"],
    });
    let made = app.send(post("/v1/runs", &facts)).await;
    assert_eq!(made.status, 201);
    let run = made.json();
    assert_eq!(
        run["flags"],
        json!({"cross_validated_training": true, "trained_on_evaluation_photos": false})
    );
    assert_eq!(
        (&run["settings"], &run["pack"], &run["state"]),
        (&json!({"steps": 50}), &Value::Null, &json!("open"))
    );
    assert_eq!(app.send(post("/v1/runs", &facts)).await.ok(), run);
    let mut other = facts.clone();
    other["split"] = json!("val");
    tells(
        &app.send(post("/v1/runs", &other)).await.problem(409, "run_conflict"),
        &["A/r1", "split"],
    );
    for (change, code) in [
        (json!({"metrics": ["clip_x"]}), "unknown_metric"),
        (json!({"metrics": []}), "invalid_field"),
        (json!({"run": ""}), "invalid_field"),
        (json!({"flags": {"other": true}}), "invalid_field"),
        (json!({"settings": 3}), "invalid_field"),
    ] {
        let mut wrong = json!({"method": "C"});
        wrong.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        app.send(post("/v1/runs", &wrong)).await.problem(422, code);
    }
    let not_json = Request::post("/v1/runs").body(Body::from("{}")).unwrap();
    app.send(not_json).await.problem(415, "unsupported_media_type");

    app.send(post("/v1/runs", &json!({"method": "A", "run": "r2"}))).await;
    app.send(post("/v1/runs", &json!({"method": "B"}))).await;
    let first = app.get("/v1/runs?limit=2").await.ok();
    let names = |page: &Value| {
        let runs = page["runs"].as_array().unwrap().iter();
        runs.map(|run| {
            format!("{}/{}", run["method"].as_str().unwrap(), run["run"].as_str().unwrap())
        })
        .collect::<Vec<_>>()
    };
    let second =
        app.get(&format!("/v1/runs?limit=2&after={}", first["next"].as_str().unwrap())).await.ok();
    assert_eq!((names(&first).len(), &second["next"]), (2, &Value::Null));
    // Runs are ordered by id; the order within one millisecond is arbitrary.
    let mut all = [names(&first), names(&second)].concat();
    all.sort();
    assert_eq!(all, ["A/r1", "A/r2", "B/default"]);
    assert_eq!(names(&app.get("/v1/runs?method=B").await.ok()), ["B/default"]);
    app.get("/v1/runs?after=x").await.problem(400, "malformed_request");
    app.get("/v1/runs?limit=1001").await.problem(400, "malformed_request");
    let methods = app.get("/v1/methods?limit=1").await.ok();
    assert_eq!(
        (&methods["methods"][0]["name"], &methods["methods"][0]["runs"]),
        (&json!("A"), &json!(2))
    );
    assert_eq!(app.get("/v1/methods?after=A").await.ok()["methods"][0]["name"], "B");
}

#[tokio::test]
async fn the_samples_of_a_run_are_listed_in_pages() {
    let app = App::start().await;
    let run = app.run_of("A").await;
    for name in ["b", "a", "c"] {
        app.put(&run, name, form(u32::from(name.as_bytes()[0]))).await;
    }
    app.until_scored(&run, 3).await;
    let first = app.get(&format!("/v1/runs/{run}/samples?limit=2")).await.ok();
    assert_eq!((&first["items"][0]["name"], &first["next"]), (&json!("a"), &json!("b")));
    let rest = app.get(&format!("/v1/runs/{run}/samples?limit=2&after=b")).await.ok();
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next"]), (1, &Value::Null));
    assert!(app.samples(&run, "?state=pending").await.is_empty());
    assert_eq!(app.samples(&run, "?state=scored").await.len(), 3);
}

#[tokio::test]
async fn imported_scores_have_their_own_pack() {
    let app = App::start().await;
    let run = app.run_of("A").await;
    let clip = ",name,clip_t,clip_n,clip_i\n0,a,0.4,0.2,0.5\n1,b,0.3,0.1,0.7\n";
    let response = app.send(csv(&run, "them", clip)).await.ok();
    assert_eq!(
        (&response["rows"], &response["new_samples"], &response["scores"]),
        (&json!(2), &json!(2), &json!(6))
    );
    assert_eq!(response["pack"]["name"], "them");
    let again = app.send(csv(&run, "them", clip)).await.ok();
    assert_eq!((&again["new_samples"], &app.samples(&run, "").await.len()), (&json!(0), &2));
    let board = app.get("/v1/leaderboard?pack=all&method=A").await.ok();
    assert_eq!(board["rows"][0]["metrics"]["clip_t"]["n"], 2);
    let mean = board["rows"][0]["metrics"]["clip_t"]["mean"].as_f64().unwrap();
    assert!((mean - 0.35).abs() < 1e-12);

    for (source, text, status, code) in [
        ("them", "a,b\n1,2\n", 422, "invalid_field"),
        ("them", ",name,dino_fidelity\n0,a,x\n", 422, "invalid_field"),
        ("them", ",name,dino_fidelity\n0,a,0.1\n1,a,0.2\n", 422, "invalid_field"),
        ("them", ",name,dino_fidelity\n", 422, "invalid_field"),
        ("%20", clip, 422, "invalid_field"),
    ] {
        app.send(csv(&run, source, text)).await.problem(status, code);
    }
    let without =
        Request::post(format!("/v1/runs/{run}/import?source=x")).body(Body::from(clip)).unwrap();
    app.send(without).await.problem(415, "unsupported_media_type");
    let unnamed = Request::post(format!("/v1/runs/{run}/import"))
        .header(header::CONTENT_TYPE, "text/csv")
        .body(Body::from(clip))
        .unwrap();
    app.send(unnamed).await.problem(400, "malformed_request");
}
