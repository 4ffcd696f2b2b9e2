//! Requests by pages of other sites in a browser on the same machine.

use axum::{
    body::Body,
    http::{Request, header},
};

use crate::{
    harness::{App, ONE_GRAPH, score_request, tells},
    support::{form::Form, images},
};

#[tokio::test]
async fn dns_rebinding_hosts_are_refused() {
    let app = App::start().await;
    let get = |path: &str, host: &str| {
        Request::get(path).header(header::HOST, host).body(Body::empty()).expect("a valid request")
    };
    for path in ["/v1/runs", "/v1/leaderboard", "/docs/", "/openapi.json", "/", "/no-such-route"] {
        let detail = app.send(get(path, "rebound.example:8080")).await.problem(421, "wrong_host");
        tells(&detail, &["rebound.example", "server.hosts"]);
    }
    app.send(get("/v1/runs", "localhost:8080")).await.ok();
    assert_eq!(app.send(get("/livez", "10.1.2.3:8080")).await.status, 200);
    app.send(get("/v1/runs", "a b")).await.problem(400, "malformed_request");
}

#[tokio::test]
async fn cross_site_forms_store_nothing() {
    let app = App::start().await;
    let form = || {
        Form::new()
            .file("image", images::png(1))
            .field("metrics", ONE_GRAPH)
            .field("method", "mine")
    };
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        let mut request = score_request(form());
        request.headers_mut().insert(header::HOST, "127.0.0.1:8080".parse().unwrap());
        request.headers_mut().insert(name, value.parse().unwrap());
        app.send(request).await.problem(403, "cross_site");
    }
    assert_eq!(app.counted("mine", ONE_GRAPH).await, 0);
    let mut request = score_request(form());
    request.headers_mut().insert(header::HOST, "127.0.0.1:8080".parse().unwrap());
    request.headers_mut().insert("origin", "http://127.0.0.1:8080".parse().unwrap());
    app.send(request).await.ok();
}

#[tokio::test]
async fn a_configured_host_is_accepted() {
    let app =
        App::with(|setup| setup.config.server.hosts = vec!["scores.example".to_owned()]).await;
    let request = Request::get("/v1/runs").header(header::HOST, "Scores.example:443");
    app.send(request.body(Body::empty()).expect("a valid request")).await.ok();
}
