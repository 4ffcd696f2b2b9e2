//! Images from a prompt and a photo, with the real graphs of the demo generator pack.

use std::path::Path;

use axum::{
    body::Body,
    http::{Request, header},
};
use serde_json::{Value, json};
use stellar_score::{
    content::ContentHash,
    key::{KeyLimits, Scope},
    vision,
};

use crate::{
    harness::{Answer, App, Setup, tells},
    support::form::Form,
};

const IN_FLIGHT: &str = "stellar_generation_images";

fn with_generator(setup: &mut Setup) {
    setup.config.generator.pack =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("packs/demo-generator");
}

fn photo() -> Vec<u8> {
    include_bytes!("../../packs/demo/goldens/astronaut-face.jpg").to_vec()
}

/// A form of few steps, which takes a tenth of a second.
fn form(prompt: &str, metadata: &Value) -> Form {
    Form::new()
        .field("prompt", prompt)
        .file("reference", photo())
        .field("metadata", metadata.to_string())
}

fn quick() -> Value {
    json!({"steps": 2, "width": 64, "height": 32})
}

fn request(form: Form, accept: &str) -> Request<Body> {
    let body = form.finish();
    Request::post("/v1/generate")
        .header(header::CONTENT_TYPE, Form::content_type())
        .header(header::CONTENT_LENGTH, body.len())
        .header(header::ACCEPT, accept)
        .body(Body::from(body))
        .unwrap()
}

impl App {
    async fn generate(&self, form: Form) -> Answer {
        self.send(request(form, "*/*")).await
    }

    async fn outcome(&self, name: &str) -> f64 {
        self.number(&format!("stellar_generated_images_total{{outcome=\"{name}\"}}")).await
    }
}

#[tokio::test]
async fn without_a_generator_the_response_says_what_to_configure() {
    let app = App::start().await;
    let refused = app.generate(form("{} in a hat", &quick())).await;
    tells(&refused.problem(404, "not_found"), &["generator.pack"]);
    assert!(app.get("/v1/models").await.ok().get("generator").is_none());
}

#[tokio::test]
async fn a_photo_and_a_prompt_give_the_same_file_every_time() {
    let app = App::with(with_generator).await;
    let first = app.generate(form("{} in a hat", &quick())).await;
    assert_eq!(
        (first.status.as_u16(), &first.headers["content-type"]),
        (200, &"image/png".parse().unwrap())
    );
    assert_eq!(first.headers["stellar-flags"], "unmasked");
    let image = vision::decode(&first.body, &vision::DecodeLimits::default()).unwrap();
    assert_eq!((image.width, image.height), (64, 32));
    let again = app.generate(form("{} in a hat", &quick())).await;
    assert_eq!(again.body, first.body);
    let other = app.generate(form("{} in a boat", &quick())).await;
    assert!(other.body != first.body);
    // As JSON, with the same file.
    let told = app.send(request(form("{} in a hat", &quick()), "application/json")).await.ok();
    assert_eq!(told["hash"], ContentHash::of(&first.body).to_string());
    assert_eq!(told["flags"], json!(["unmasked"]));
    let provenance = &told["provenance"];
    assert_eq!((&provenance["seed"], &provenance["steps"]), (&json!(42), &json!(2)));
    assert_eq!(provenance["generated"], true);
    let models = app.get("/v1/models").await.ok();
    assert_eq!(provenance["pack"], models["generator"]["pack"]);
    assert_eq!(models["generator"]["lanes"].as_array().map(Vec::len), Some(5), "{models}");
    assert!((app.outcome("generated").await - 4.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn masks_and_prompts_without_a_person_have_their_flags() {
    let app = App::with(with_generator).await;
    let masked = form("{} in a hat", &quick()).file("mask", photo());
    let masked = app.generate(masked).await;
    assert_eq!(
        (masked.status.as_u16(), &masked.headers["stellar-flags"]),
        (200, &"".parse().unwrap())
    );
    let nobody = Form::new().field("prompt", "a hat").field("metadata", quick().to_string());
    let nobody = app.generate(nobody).await;
    assert_eq!(nobody.headers["stellar-flags"], "no_placeholder");
}

#[tokio::test]
async fn wrong_requests_are_refused_before_anything_is_computed() {
    let app = App::with(with_generator).await;
    let with = |metadata: Value| form("{} in a hat", &metadata);
    let cases: [(Form, u16, &str, &[&str]); 13] = [
        (Form::new().file("reference", photo()), 422, "missing_field", &["prompt"]),
        (Form::new().field("prompt", "{} in a hat"), 422, "invalid_field", &["reference", "photo"]),
        (
            Form::new().field("prompt", "a hat").file("mask", photo()),
            422,
            "missing_field",
            &["reference"],
        ),
        (form("{} and {}", &quick()), 422, "invalid_field", &["prompt"]),
        (with(json!({"steps": 151})), 422, "invalid_field", &["steps", "150"]),
        (with(json!({"steps": 0})), 422, "invalid_field", &["steps"]),
        (with(json!({"width": 33})), 422, "invalid_field", &["width", "multiple of 32"]),
        (with(json!({"height": 1 << 20})), 422, "invalid_field", &["height", "2048"]),
        (with(json!({"guidance": -1})), 422, "invalid_field", &["guidance"]),
        (with(json!({"stepz": 2})), 422, "invalid_field", &["stepz"]),
        (with(quick()).field("promt", "x"), 422, "unknown_field", &["promt", "prompt, reference"]),
        (form("a hat", &quick()).field("prompt", "two"), 422, "repeated_field", &["prompt"]),
        (
            Form::new().field("prompt", "a").file("reference", vec![7; 100]),
            415,
            "image_unsupported",
            &["reference"],
        ),
    ];
    for (form, status, code, words) in cases {
        tells(&app.generate(form).await.problem(status, code), words);
    }
    assert!((app.outcome("refused").await - 13.0).abs() < f64::EPSILON);
    assert!(app.outcome("generated").await.abs() < f64::EPSILON);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_beyond_the_limit_get_429_and_a_client_that_leaves_frees_its_place() {
    let app = App::with(|setup| {
        with_generator(setup);
        setup.config.generator.concurrency = 1;
    })
    .await;
    let long = form("{} in a hat", &json!({"steps": 150, "width": 256, "height": 256}));
    let mut leaving = Box::pin(app.generate(long));
    tokio::select! {
        _ = &mut leaving => panic!("150 steps take longer than this"),
        () = app.until(IN_FLIGHT, 1.0) => {}
    }
    let refused = app.generate(form("{} in a hat", &quick())).await;
    tells(&refused.problem(429, "overloaded"), &["generator.concurrency"]);
    assert!(refused.headers.contains_key("retry-after"));
    drop(leaving);
    app.until(IN_FLIGHT, 0.0).await;
    assert!((app.outcome("cancelled").await - 1.0).abs() < f64::EPSILON);
    assert_eq!(app.generate(form("{} in a hat", &quick())).await.status, 200);
}

#[tokio::test]
async fn a_deadline_ends_an_image() {
    let app = App::with(|setup| {
        with_generator(setup);
        setup.config.generator.deadline_seconds = 1;
    })
    .await;
    let long = form("{} in a hat", &json!({"steps": 150, "width": 512, "height": 512}));
    let late = app.generate(long).await;
    tells(&late.problem(504, "deadline_exceeded"), &["generator.deadline_seconds", "steps"]);
    assert!((app.outcome("failed").await - 1.0).abs() < f64::EPSILON);
    assert!(app.number(IN_FLIGHT).await.abs() < f64::EPSILON);
}

#[tokio::test]
async fn a_key_needs_the_scope_and_has_a_limit_of_its_own() {
    let app = App::with(with_generator).await;
    let limits = KeyLimits { generated_per_hour: Some(1), ..KeyLimits::default() };
    let key = app.key("artist", &[Scope::Generate], limits).await;
    let scorer = app.key("scorer", &[Scope::Score], KeyLimits::default()).await;
    let send = |metadata: Value| request(form("{} in a hat", &metadata), "*/*");
    app.with_key(&scorer, send(quick())).await.problem(403, "scope_missing");
    // A refused request does not count.
    app.with_key(&key, send(json!({"steps": 0}))).await.problem(422, "invalid_field");
    assert_eq!(app.with_key(&key, send(quick())).await.status, 200);
    let refused = app.with_key(&key, send(quick())).await;
    tells(&refused.problem(429, "key_limit"), &["1 images per hour"]);
    assert!(refused.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn a_deleted_photo_is_forgotten() {
    let app = App::with(with_generator).await;
    assert_eq!(app.generate(form("{} in a hat", &quick())).await.status, 200);
    let hash = ContentHash::of(&photo());
    assert_eq!(app.scoring.forget(vec![hash]).await, 1, "its words; texts with them are not kept");
    assert_eq!(app.scoring.forget(vec![hash]).await, 0);
}
