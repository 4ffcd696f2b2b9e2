//! Malformed forms: each is refused with the error and what to send instead.

use axum::{
    body::Body,
    http::{Request, header},
};

use crate::{
    harness::{App, ONE_GRAPH, score_request, tells},
    support::{form::Form, images::png},
};

/// A valid form.
fn sound() -> Form {
    Form::new().file("image", png(1)).field("metrics", ONE_GRAPH)
}

async fn post(content_type: Option<&str>, body: impl Into<Body>) -> crate::harness::Answer {
    let mut request = Request::post("/v1/score");
    if let Some(content_type) = content_type {
        request = request.header(header::CONTENT_TYPE, content_type);
    }
    App::start().await.send(request.body(body.into()).unwrap()).await
}

#[tokio::test]
async fn a_form_without_an_image_is_refused_by_the_name_of_the_field() {
    let app = App::start().await;
    let detail =
        app.score(Form::new().field("prompt", "a person")).await.problem(422, "missing_field");
    tells(&detail, &["`image`"]);
    tells(&app.score(Form::new()).await.problem(422, "missing_field"), &["`image`"]);
}

#[tokio::test]
async fn json_instead_of_a_form_is_refused_with_the_content_type_to_send() {
    for content_type in [Some("application/json"), Some("application/x-www-form-urlencoded"), None]
    {
        let detail =
            post(content_type, r#"{"image": "…"}"#).await.problem(415, "unsupported_media_type");
        tells(&detail, &["multipart/form-data"]);
    }
}

#[tokio::test]
async fn a_form_whose_boundary_is_missing_is_refused() {
    let response = post(Some("multipart/form-data"), sound().finish()).await;
    tells(&response.problem(400, "malformed_request"), &["boundary"]);
}

#[tokio::test]
async fn a_form_with_a_mismatched_boundary_is_refused() {
    let response = post(Some("multipart/form-data; boundary=another"), sound().finish()).await;
    response.problem(400, "malformed_request");
}

#[tokio::test]
async fn a_form_that_ends_early_is_refused() {
    let mut body = sound().finish();
    body.truncate(body.len() - 8);
    tells(
        &post(Some(&Form::content_type()), body).await.problem(400, "malformed_request"),
        &["form"],
    );
}

#[tokio::test]
async fn an_empty_body_is_refused() {
    post(Some(&Form::content_type()), "").await.problem(400, "malformed_request");
}

#[tokio::test]
async fn a_part_without_a_name_is_refused() {
    let app = App::start().await;
    let form = sound().part("Content-Disposition: form-data", b"x");
    tells(&app.score(form).await.problem(400, "malformed_request"), &["no name"]);
}

#[tokio::test]
async fn an_unknown_field_is_refused_with_the_known_ones() {
    let app = App::start().await;
    let detail = app.score(sound().field("promt", "a person")).await.problem(422, "unknown_field");
    tells(&detail, &["`promt`", "prompt", "reference"]);
}

#[tokio::test]
async fn a_repeated_image_or_prompt_is_refused_by_name() {
    let app = App::start().await;
    let detail = app.score(sound().file("image", png(2))).await.problem(422, "repeated_field");
    tells(&detail, &["`image`"]);
    let twice = sound().field("prompt", "a person").field("prompt", "a horse");
    tells(&app.score(twice).await.problem(422, "repeated_field"), &["`prompt`"]);
}

#[tokio::test]
async fn ten_megabytes_of_prompt_are_refused_with_the_limit() {
    let app = App::start().await;
    let form = sound().field("prompt", vec![b'a'; 10 << 20]);
    tells(&app.score(form).await.problem(422, "prompt_too_long"), &["8192 bytes"]);
}

#[tokio::test]
async fn the_longest_prompt_allowed_is_scored() {
    let app = App::start().await;
    let form = Form::new()
        .file("image", png(1))
        .field("prompt", "a".repeat(8192))
        .field("metrics", "clip_t");
    assert!(app.score(form).await.ok()["scores"]["clip_t"]["value"].is_f64());
}

#[tokio::test]
async fn a_prompt_that_is_not_utf8_is_refused() {
    let app = App::start().await;
    let detail =
        app.score(sound().field("prompt", [b'a', 0xFF, 0xFE])).await.problem(422, "invalid_field");
    tells(&detail, &["`prompt`", "UTF-8"]);
}

#[tokio::test]
async fn a_prompt_with_a_nul_character_is_refused_since_databases_cannot_store_it() {
    let app = App::start().await;
    let detail = app.score(sound().field("prompt", "a\0b")).await.problem(422, "invalid_field");
    tells(&detail, &["prompt", "U+0000"]);
}

#[tokio::test]
async fn too_many_references_are_refused_with_the_limit() {
    let app = App::with(|setup| setup.config.limits.references = 2).await;
    let form = (0..3).fold(sound(), |form, seed| form.file("reference", png(seed)));
    tells(&app.score(form).await.problem(422, "repeated_field"), &["2", "`reference`"]);
    let form = (0..2).fold(sound(), |form, seed| form.file("reference", png(seed)));
    app.score(form).await.ok();
}

#[tokio::test]
async fn metadata_that_is_not_a_json_object_is_refused_with_the_position() {
    let app = App::start().await;
    for text in ["young", "{\"detectables\": [\"horse\"}", "[]", "null", "[{\"Young\": true}]"] {
        let detail = app.score(sound().field("metadata", text)).await.problem(422, "invalid_field");
        tells(&detail, &["metadata", "JSON object"]);
    }
}

#[tokio::test]
async fn an_unknown_key_of_the_metadata_is_refused_by_name() {
    let app = App::start().await;
    let form = sound().field("metadata", r#"{"detectable": ["horse"]}"#);
    tells(
        &app.score(form).await.problem(422, "invalid_field"),
        &["metadata", "detectable", "detectables"],
    );
}

#[tokio::test]
async fn metadata_over_the_limit_is_refused_with_the_limit() {
    let app = App::start().await;
    let form = sound().field("metadata", vec![b' '; 70_000]);
    tells(&app.score(form).await.problem(422, "invalid_field"), &["`metadata`", "65536"]);
}

#[tokio::test]
async fn an_unknown_metric_is_refused_with_the_known_ones() {
    let app = App::start().await;
    let form = Form::new().file("image", png(1)).field("metrics", "clip_t,beauty");
    tells(
        &app.score(form).await.problem(422, "unknown_metric"),
        &["`beauty`", "clip_t", "aesthetic"],
    );
}

#[tokio::test]
async fn an_empty_list_of_metrics_is_refused() {
    let app = App::start().await;
    for list in ["", " , "] {
        let form = Form::new().file("image", png(1)).field("metrics", list);
        tells(
            &app.score(form).await.problem(422, "invalid_field"),
            &["the list of metrics is empty"],
        );
    }
}

#[tokio::test]
async fn evidence_that_is_neither_true_nor_false_is_refused() {
    let app = App::start().await;
    let detail = app.score(sound().field("evidence", "maybe")).await.problem(422, "invalid_field");
    tells(&detail, &["`maybe`", "true or false"]);
}

#[tokio::test]
async fn a_run_without_a_method_is_refused() {
    let app = App::start().await;
    tells(
        &app.score(sound().field("run", "seed 7")).await.problem(422, "missing_field"),
        &["`method`"],
    );
}

#[tokio::test]
async fn unreadable_names_are_refused() {
    let app = App::start().await;
    for (name, value) in [("method", ""), ("method", "  "), ("run", "a\nb"), ("name", "\u{7}")] {
        let form = sound().field(name, value);
        tells(&app.score(form).await.problem(422, "invalid_field"), &[name]);
    }
    let form = sound().field("method", "m".repeat(257));
    tells(&app.score(form).await.problem(422, "invalid_field"), &["`method`", "256"]);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let app = App::with(|setup| {
        (setup.config.limits.request_mib, setup.config.limits.image_mib) = (1, 1);
    })
    .await;
    let form = (0..3).fold(sound(), |form, _| form.file("reference", vec![0; 400_000]));
    tells(&app.score(form).await.problem(413, "payload_too_large"), &["body"]);
    // Without a Content-Length, the limit is enforced while reading.
    let form = (0..3).fold(sound(), |form, _| form.file("reference", vec![0; 400_000]));
    let mut request = score_request(form);
    request.headers_mut().remove(header::CONTENT_LENGTH);
    tells(&app.send(request).await.problem(413, "payload_too_large"), &["body"]);
}

#[tokio::test]
async fn a_very_long_field_name_is_truncated_in_the_problem() {
    let app = App::start().await;
    let form = sound().field(&"x".repeat(10_000), "y");
    let detail = app.score(form).await.problem(422, "unknown_field");
    assert!(detail.len() < 400, "{} bytes", detail.len());
}
