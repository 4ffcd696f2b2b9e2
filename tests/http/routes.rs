//! Routes other than scoring: the catalogue, health, documents and unknown routes.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use stellar_score::metrics::REGISTRY;

use crate::{
    harness::{App, ONE_GRAPH, tells},
    support::{form::Form, images::png},
};

#[tokio::test]
async fn an_unknown_route_is_not_found() {
    let app = App::start().await;
    for path in ["/v1/scores", "/v2/score", "/favicon.ico"] {
        tells(&app.get(path).await.problem(404, "not_found"), &["/docs"]);
    }
}

#[tokio::test]
async fn a_wrong_method_is_refused_with_the_allowed_ones() {
    let app = App::start().await;
    let response = app.get("/v1/score").await;
    response.problem(405, "method_not_allowed");
    assert_eq!(response.headers[header::ALLOW], "POST");
    let request = Request::delete("/v1/leaderboard").body(Body::empty()).unwrap();
    let response = app.send(request).await;
    response.problem(405, "method_not_allowed");
    assert_eq!(response.headers[header::ALLOW], "GET,HEAD");
}

#[tokio::test]
async fn an_unknown_or_malformed_sample_id_is_not_found() {
    let app = App::start().await;
    for id in
        ["01932b5e-7c7e-7000-8000-000000000000", "mine", "%20", "%FF", "a".repeat(5000).as_str()]
    {
        tells(&app.get(&format!("/v1/samples/{id}")).await.problem(404, "not_found"), &["sample"]);
    }
}

#[tokio::test]
async fn the_catalogue_lists_every_metric_with_its_meaning() {
    let app = App::start().await;
    let response = app.get("/v1/metrics").await.ok();
    let metrics = response["metrics"].as_array().unwrap();
    assert_eq!(metrics.len(), REGISTRY.len());
    for metric in metrics {
        for text in ["code", "title", "direction", "definition", "interpretation", "source"] {
            assert!(metric[text].as_str().is_some_and(|text| !text.is_empty()), "{metric}: {text}");
        }
        assert!(!metric["needs"].as_array().unwrap().is_empty(), "{metric}");
        assert!(metric["available"].is_boolean());
    }
    assert_eq!(response["pack"]["name"], "demo");
}

#[tokio::test]
async fn models_report_their_usage() {
    let app = App::start().await;
    app.score(Form::new().file("image", png(1)).field("metrics", ONE_GRAPH)).await.ok();
    let response = app.get("/v1/models").await.ok();
    let lanes = response["lanes"].as_array().unwrap();
    assert_eq!(lanes.len(), 3);
    let lane = lanes.iter().find(|lane| lane["roles"][0] == "clip_l.image").unwrap();
    assert_eq!(lane["items"], 1);
    assert_eq!(lane["batches"], 1);
    assert_eq!(lane["queue_depth"], 0);
    assert_eq!(lane["healthy"], true);
    assert!(lane["source"]["checkpoint"].is_string());
}

#[tokio::test]
async fn a_started_service_is_live_and_ready() {
    let app = App::start().await;
    assert_eq!(app.get("/livez").await.ok()["status"], "ok");
    assert_eq!(app.get("/readyz").await.ok()["status"], "ok");
}

#[tokio::test]
async fn the_documents_are_served() {
    let app = App::start().await;
    assert!(app.get("/openapi.json").await.ok()["paths"]["/v1/score"].is_object());
    let docs = app.get("/docs/").await;
    assert_eq!(docs.status, StatusCode::OK);
    assert!(String::from_utf8_lossy(&docs.body).contains("<html"));
}

#[tokio::test]
async fn every_request_is_counted_under_its_route_and_status() {
    let app = App::start().await;
    app.get("/v1/samples/mine").await;
    app.get("/v1/samples/yours").await;
    let line = r#"stellar_http_requests_total{method="GET",route="/v1/samples/{id}",status="404"}"#;
    assert!((app.number(line).await - 2.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn unknown_methods_and_paths_add_no_service_metrics() {
    let app = App::start().await;
    for seed in 0..20 {
        let method = Method::from_bytes(format!("INVENTED{seed}").as_bytes()).unwrap();
        let request =
            Request::builder().method(method).uri(format!("/no/{seed}")).body(Body::empty());
        app.send(request.unwrap()).await;
    }
    let text = app.get("/metrics").await.body;
    let lines = std::str::from_utf8(&text)
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("stellar_http_requests_total{"));
    assert_eq!(lines.collect::<Vec<_>>().len(), 1);
}

#[tokio::test]
async fn a_query_that_grows_in_its_stored_form_is_refused() {
    let app = App::start().await;
    // Normalisation makes this character three times as long, and percent-encoding again.
    let name = "\u{1d160}".repeat(1900);
    for path in ["/v1/runs?method=", "/leaderboard?dataset="] {
        let uri: axum::http::Uri = axum::http::Uri::builder()
            .path_and_query(format!("{path}{name}"))
            .build()
            .expect("raw UTF-8 is accepted");
        let request = axum::http::Request::get(uri).body(axum::body::Body::empty()).unwrap();
        app.send(request).await.problem(400, "malformed_request");
    }
}
