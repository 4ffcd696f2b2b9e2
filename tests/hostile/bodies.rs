//! Bodies in the forms that other programs send.

use axum::{
    body::Body,
    http::{Request, header},
};

use crate::{
    harness::{App, ONE_GRAPH, score_request, tells},
    support::{form::Form, images},
};

#[tokio::test]
async fn a_compressed_body_is_refused_with_the_name_of_its_coding() {
    let app = App::start().await;
    let json = [
        ("PUT", "/v1/datasets/d/prompts"),
        ("POST", "/v1/runs"),
        ("POST", "/v1/preferences"),
        ("POST", "/v1/methods"),
    ];
    for (method, path) in json {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONTENT_ENCODING, "gzip")
            .body(Body::from("{}"))
            .unwrap();
        let response = app.send(request).await;
        tells(&response.problem(415, "unsupported_media_type"), &["gzip", "uncompressed"]);
        assert_eq!(response.headers[header::ACCEPT_ENCODING], "identity", "{path}");
    }
    let mut request = score_request(Form::new().file("image", images::png(1)));
    request.headers_mut().insert(header::CONTENT_ENCODING, "br".parse().unwrap());
    tells(&app.send(request).await.problem(415, "unsupported_media_type"), &["br"]);
    let mut request =
        score_request(Form::new().file("image", images::png(1)).field("metrics", ONE_GRAPH));
    request.headers_mut().insert(header::CONTENT_ENCODING, "identity".parse().unwrap());
    app.send(request).await.ok();
}

#[tokio::test]
async fn field_names_may_end_in_brackets() {
    let app = App::start().await;
    let sent = |reference: &str, auxiliary: &str| {
        Form::new()
            .file("image", images::png(1))
            .file(reference, images::png(2))
            .file(reference, images::png(3))
            .file(auxiliary, images::png(4))
            .field("metrics", "clip_i")
    };
    let plain = app.score(sent("reference", "auxiliary")).await.ok();
    let bracketed = app.score(sent("reference[]", "auxiliary[]")).await.ok();
    assert_eq!(plain["scores"], bracketed["scores"]);
    assert!(plain["scores"]["clip_i"]["value"].is_number(), "{plain}");
    let odd = Form::new().file("image[]", images::png(1));
    app.score(odd).await.problem(422, "unknown_field");
}
