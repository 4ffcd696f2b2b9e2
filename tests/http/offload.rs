//! Offloading the models: what is refused, what waits, and that nothing is lost.

use axum::{body::Body, http::Request};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    harness::{Answer, App, ONE_GRAPH, tells},
    runs::{form, post},
    support::{form::Form, images::png},
};

const GAUGE: &str = "stellar_engine_offloaded";

impl App {
    async fn engine(&self, to: &str) -> Value {
        let request = Request::post(format!("/v1/engine/{to}")).body(Body::empty()).unwrap();
        self.send(request).await.ok()
    }

    async fn reward(&self, seed: u32) -> Answer {
        let items = [json!({"image": STANDARD.encode(png(seed))})];
        self.send(post("/v1/rewards", &json!({"rewards": [ONE_GRAPH], "items": items}))).await
    }
}

fn one(seed: u32) -> Form {
    Form::new().file("image", png(seed)).field("metrics", ONE_GRAPH)
}

fn check<'a>(readiness: &'a Value, name: &str) -> &'a Value {
    let checks = readiness["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap()
}

#[tokio::test]
async fn an_offloaded_service_refuses_scoring_keeps_samples_and_is_alive() {
    let app = App::start().await;
    let run = app.run_of("A").await;
    let first = app.engine("offload").await;
    assert_eq!((&first["state"], &first["changed"]), (&json!("offloaded"), &json!(true)));
    assert_eq!(app.engine("offload").await["changed"], false);

    tells(&app.score(one(1)).await.problem(503, "engine_offloaded"), &["/v1/engine/reload"]);
    app.reward(1).await.problem(503, "engine_offloaded");
    assert_eq!(app.put(&run, "waits", form(1)).await.status, 202);
    let readiness = app.get("/readyz").await;
    tells(&readiness.problem(503, "unavailable"), &["the models are offloaded"]);
    let readiness = readiness.json();
    assert_eq!(check(&readiness, "engine")["ok"], false);
    assert_eq!(check(&readiness, "graphs")["ok"], true, "no graph is broken");
    app.get("/livez").await.ok();
    app.get("/v1/leaderboard").await.ok();
    let models = app.get("/v1/models").await.ok();
    assert_eq!((&models["state"], &models["batching"]), (&json!("offloaded"), &json!("dynamic")));
    assert!(models["lanes"].as_array().unwrap().iter().all(|lane| lane["healthy"] == true));
    assert!((app.number(GAUGE).await - 1.0).abs() < f64::EPSILON);
    let now = app.get(&format!("/v1/runs/{run}")).await.ok();
    assert_eq!((&now["counts"]["pending"], &now["counts"]["failed"]), (&json!(1), &json!(0)));

    let back = app.engine("reload").await;
    assert_eq!((&back["state"], &back["changed"]), (&json!("resident"), &json!(true)));
    assert!(app.number(GAUGE).await.abs() < f64::EPSILON);
    app.get("/readyz").await.ok();
    app.until_scored(&run, 1).await;
    app.score(one(1)).await.ok();
    let answer = app.reward(1).await.ok();
    assert_eq!(answer["provenance"]["batching"], "dynamic");
    let audit = app.get("/v1/audit").await.ok();
    let routes = audit["items"].as_array().unwrap().iter().map(|row| row["route"].clone());
    let expected = ["reload", "offload", "offload"].map(|to| json!(format!("/v1/engine/{to}")));
    let routes: Vec<_> = routes.filter(|route| expected.contains(route)).collect();
    assert_eq!(routes, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offload_waits_for_requests_that_are_being_scored() {
    let app = App::with(|setup| setup.config.rewards.concurrency = 1).await;
    app.gate.close();
    let items: Vec<_> = (0..4).map(|seed| json!({"image": STANDARD.encode(png(seed))})).collect();
    let body = json!({"rewards": [ONE_GRAPH], "items": items});
    let meanwhile = async {
        app.gate.reached_by(1).await;
        let offload = app.engine("offload");
        let late = async {
            app.until(GAUGE, 1.0).await;
            // One that has not begun is refused at once, though the first has three items to go.
            app.reward(9).await.problem(503, "engine_offloaded");
            app.gate.open();
        };
        tokio::join!(offload, late).0
    };
    let (answer, offloaded) = tokio::join!(app.send(post("/v1/rewards", &body)), meanwhile);
    let rewards = answer.ok()["rewards"][ONE_GRAPH].clone();
    assert!(rewards.as_array().unwrap().iter().all(Value::is_f64), "{rewards}");
    assert_eq!(offloaded["state"], "offloaded");
    app.engine("reload").await;
    app.reward(9).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn races_of_offloads_reloads_and_scoring_end_well() {
    let app = App::start().await;
    let run = app.run_of("A").await;
    let scoring = futures_util::future::join_all((0..40).map(|seed| {
        let app = &app;
        async move {
            let answer = app.score(one(seed)).await;
            assert!([200, 503].contains(&answer.status.as_u16()), "{answer:?}");
        }
    }));
    let spooled = futures_util::future::join_all((0..10).map(|seed| {
        let (app, run) = (&app, &run);
        async move { assert_eq!(app.put(run, &seed.to_string(), form(seed)).await.status, 202) }
    }));
    let moves = futures_util::future::join_all(
        ["offload", "reload", "offload", "offload", "reload"].map(|to| app.engine(to)),
    );
    tokio::join!(scoring, spooled, moves);
    app.engine("reload").await;
    app.until_scored(&run, 10).await;
    app.score(one(1)).await.ok();
    // The service also ends while it is offloaded.
    app.engine("offload").await;
}

#[tokio::test]
async fn real_graphs_leave_memory_and_come_back_with_equal_scores() {
    let app = App::real_with(|config| config.engine.cache_bytes = 0).await;
    let sample = || Form::new().file("image", png(1)).field("prompt", "a person on a bench");
    let before = app.score(sample()).await.ok()["scores"].clone();
    let offloaded = app.engine("offload").await;
    let bytes = |answer: &Value, when: &str| {
        answer[format!("resident_bytes_{when}")].as_u64().expect("a number on Linux") >> 20
    };
    assert!(bytes(&offloaded, "after") + 16 < bytes(&offloaded, "before"), "{offloaded}");
    let reloaded = app.engine("reload").await;
    assert!(bytes(&reloaded, "after") > bytes(&reloaded, "before") + 16, "{reloaded}");
    let after = app.score(sample()).await.ok()["scores"].clone();
    assert_eq!(before, after);
}
