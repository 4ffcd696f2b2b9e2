//! Faces in the service: attributes learnt from enrolled photos, storage and deletion.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::{Request, header},
};
use futures_util::{FutureExt as _, future::join_all};
use serde_json::{Value, json};
use stellar_score::{scoring::Metadata, service::probes};

use crate::{
    harness::{Answer, App, tells},
    support::{
        form::Form,
        images::{png, png_of},
    },
};

fn file(path: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn face() -> Vec<u8> {
    file("packs/demo/goldens/astronaut-face.jpg")
}

fn portrait() -> Vec<u8> {
    file("packs/demo/goldens/astronaut.jpg")
}

async fn real(face_retention_days: u32, return_embeddings: bool) -> App {
    App::real_with(|config| {
        (config.privacy.face_retention_days, config.privacy.return_embeddings) =
            (face_retention_days, return_embeddings);
    })
    .await
}

async fn delete(app: &App, path: &str) -> Answer {
    app.send(Request::delete(path).body(Body::empty()).unwrap()).await
}

async fn enrol(app: &App, name: &str, photo: &[u8], attributes: Value) -> Answer {
    let metadata = json!({"identity": "000", "name": name, "attributes": attributes}).to_string();
    let body = Form::new().file("photo", photo).field("metadata", metadata).finish();
    let request = Request::post("/v1/datasets/D/photos")
        .header(header::CONTENT_TYPE, Form::content_type())
        .header(header::CONTENT_LENGTH, body.len())
        .body(Body::from(body))
        .unwrap();
    app.send(request).await
}

/// Enrols two faces of men, one of them young.
async fn dataset(app: &App) {
    enrol(app, "0", &face(), json!({"Young": true, "Male": true})).await.ok();
    enrol(app, "1", &file("tests/data/faces/several.jpg"), json!({"Young": false, "Male": true}))
        .await
        .ok();
}

#[expect(clippy::needless_pass_by_value, reason = "keeps the calls short")]
fn sample(image: &[u8], attributes: Value) -> Form {
    let metadata = json!({"dataset": "D", "attributes": attributes}).to_string();
    Form::new()
        .file("image", image)
        .file("reference", face())
        .field("metadata", metadata)
        .field("metrics", "ips,sis,aps")
        .field("method", "mine")
        .field("evidence", "true")
}

#[tokio::test]
async fn a_single_image_is_judged_by_the_classifiers_of_its_dataset() {
    let app = real(30, false).await;
    dataset(&app).await;
    let response =
        app.score(sample(&face(), json!({"Young": true, "Male": true, "Bald": true}))).await.ok();
    assert_eq!(
        response["scores"]["aps"]["value"], 1.0,
        "the photo is in the training set: {response}"
    );
    let said = response["evidence"]["attributes"].as_array().unwrap();
    assert_eq!(said.len(), 8);
    let of = |name: &str| said.iter().find(|said| said["attribute"] == name).unwrap();
    assert_eq!((&of("Young")["target"], &of("Young")["prediction"]), (&json!(true), &json!(true)));
    assert!(of("Young")["decision"].as_f64().unwrap() > 0.0);
    assert_eq!(of("Male")["left_out"], "constant");
    assert_eq!(of("Big_Nose")["left_out"], "no_target");
    assert_eq!(response["provenance"]["dataset"], json!({"name": "D", "revision": 2, "faces": 2}));

    // Another photo changes the classifiers.
    enrol(&app, "2", &portrait(), json!({"Male": false})).await.ok();
    let response = app.score(sample(&face(), json!({"Male": true}))).await.ok();
    assert_eq!(response["provenance"]["dataset"]["revision"], 3);
    let said = response["evidence"]["attributes"].as_array().unwrap();
    assert!(said.iter().any(|said| said["attribute"] == "Male" && said["prediction"].is_boolean()));
}

#[tokio::test]
async fn aps_without_its_inputs_is_null_with_a_reason() {
    let app = real(30, false).await;
    let form = || Form::new().file("image", face()).field("metrics", "aps");
    let response = app.score(form()).await.ok();
    assert_eq!(response["scores"]["aps"]["reason"], "needs_dataset");
    tells(response["scores"]["aps"]["help"].as_str().unwrap(), &["dataset", "/v1/datasets"]);
    let stored =
        app.get(&format!("/v1/samples/{}", response["sample"].as_str().unwrap())).await.ok();
    assert_eq!(stored["scores"], json!([]), "a metric without its inputs stores no score");
    let unknown = form().field("metadata", r#"{"dataset": "nowhere"}"#);
    tells(&app.score(unknown).await.problem(404, "not_found"), &["metadata.dataset"]);

    enrol(&app, "0", &face(), json!({"Young": true})).await.ok();
    let response = app.score(sample(&face(), json!({"Young": true}))).await.ok();
    assert_eq!(
        response["scores"]["aps"]["reason"], "no_attributes",
        "the dataset has only one class"
    );
}

#[tokio::test]
async fn an_image_without_a_face_fails_all_three() {
    let app = real(30, false).await;
    dataset(&app).await;
    for image in [png_of(64, 48, 1), png_of(19, 64, 1), png_of(2, 2, 1)] {
        let response = app.score(sample(&image, json!({"Young": true}))).await.ok();
        for metric in ["ips", "sis", "aps"] {
            let score = &response["scores"][metric];
            assert_eq!(
                (&score["value"], &score["flags"]),
                (&json!(0.0), &json!(["no_face_in_image"])),
                "{metric}"
            );
        }
        let said = response["evidence"]["attributes"].as_array().unwrap();
        let young = said.iter().find(|said| said["attribute"] == "Young").unwrap();
        assert_eq!((&young["prediction"], young.get("decision")), (&json!(false), None));
    }
    app.score(sample(&png_of(1, 1, 1), json!({}))).await.problem(422, "image_too_small");
}

#[tokio::test]
async fn references_without_a_face_give_null_identity_scores() {
    let app = real(30, false).await;
    dataset(&app).await;
    let form = || {
        let photos = Form::new().file("image", face()).file("reference", png_of(64, 48, 1));
        photos
            .file("auxiliary", png_of(64, 48, 2))
            .field("metrics", "ips,sis")
            .field("method", "mine")
    };
    let response = app.score(form()).await.ok();
    for metric in ["ips", "sis"] {
        let score = &response["scores"][metric];
        let said = (&score["value"], &score["reason"]);
        assert_eq!(said, (&Value::Null, &json!("no_face_in_reference")), "{metric}: {response}");
    }
    // One photo with a face is enough, at any position among those without.
    let response = app.score(form().file("reference", portrait())).await.ok();
    assert!(response["scores"]["ips"]["value"].as_f64().unwrap() > 0.0, "{response}");
}

#[tokio::test]
async fn unusual_images_with_faces_get_all_three_scores() {
    let app = real(30, false).await;
    dataset(&app).await;
    for (name, faces) in [
        ("several.jpg", 2),
        ("turned.jpg", 1),
        ("grey.png", 1),
        ("20-pixels-wide.png", 0),
        ("face-of-15-pixels.png", 0),
    ] {
        let image = file(&format!("tests/data/faces/{name}"));
        let response = app.score(sample(&image, json!({"Young": true}))).await.ok();
        let found = response["evidence"]["faces"][0]["faces"].as_array().unwrap().len();
        assert!(found >= faces, "{name}: {found} faces");
        for metric in ["ips", "sis", "aps"] {
            let score = &response["scores"][metric];
            assert!(score["value"].is_f64(), "{name}: {score}");
            let flagged = score["flags"] == json!(["no_face_in_image"]);
            assert_eq!(flagged, found == 0, "{name}: {score}");
        }
    }
}

#[tokio::test]
async fn enrolling_is_idempotent_and_reports_the_faces_found() {
    let app = real(30, false).await;
    let first = enrol(&app, "0", &face(), json!({"Young": true})).await.ok();
    assert_eq!((&first["created"], &first["revision"]), (&json!(true), &json!(1)));
    assert!(first["faces"].as_u64().unwrap() >= 1);
    let again = enrol(&app, "0", &face(), json!({"Young": true})).await.ok();
    assert_eq!((&again["created"], &again["revision"]), (&json!(false), &json!(1)));
    let detail =
        enrol(&app, "0", &face(), json!({"Young": false})).await.problem(409, "photo_conflict");
    tells(&detail, &["another name"]);
    assert_eq!(enrol(&app, "1", &png(1), json!({"Young": false})).await.ok()["faces"], 0);

    let read = app.get("/v1/datasets/D?limit=1&offset=1").await.ok();
    assert_eq!(
        (&read["photos"], &read["with_face"], &read["without_face"]),
        (&json!(2), &json!(1), &json!(1))
    );
    assert_eq!(
        read["attributes"]["Young"],
        json!({"present": 1, "absent": 0}),
        "photos without a face are not learnt from"
    );
    assert_eq!((&read["items"][0]["name"], &read["items"][0]["faces"]), (&json!("1"), &json!(0)));
    assert_eq!(app.get("/v1/datasets").await.ok()["datasets"][0]["name"], "D");
    app.get("/v1/datasets/E").await.problem(404, "not_found");
    app.get("/v1/datasets?limit=0").await.problem(400, "malformed_request");
}

#[tokio::test]
async fn an_invalid_photo_form_says_what_is_missing() {
    let app = real(30, false).await;
    let post = async |form: Form| {
        let request = Request::post("/v1/datasets/D/photos")
            .header(header::CONTENT_TYPE, Form::content_type())
            .body(Body::from(form.finish()))
            .unwrap();
        app.send(request).await
    };
    let named = || Form::new().field("metadata", r#"{"identity": "0", "name": "0"}"#);
    tells(&post(named()).await.problem(422, "missing_field"), &["`photo`"]);
    tells(
        &post(Form::new().file("photo", png(1))).await.problem(422, "missing_field"),
        &["`metadata`"],
    );
    let nameless =
        Form::new().file("photo", png(1)).field("metadata", r#"{"identity": "0", "name": " "}"#);
    tells(&post(nameless).await.problem(422, "invalid_field"), &["metadata.name"]);
    tells(
        &post(named().file("image", png(1))).await.problem(422, "unknown_field"),
        &["photo and metadata"],
    );
    tells(
        &post(named().file("photo", b"GIF89a")).await.problem(415, "image_unsupported"),
        &["photo"],
    );
    assert_eq!(app.get("/v1/datasets").await.ok()["datasets"], json!([]), "no dataset was created");
}

#[tokio::test]
async fn stored_faces_survive_a_restart_and_are_not_detected_again() {
    let app = real(30, false).await;
    dataset(&app).await;
    let form = || sample(&portrait(), json!({"Young": true}));
    let first = app.score(form()).await.ok();
    let app = app.restart().await;
    let again = app.score(form()).await.ok();
    assert_eq!(again["scores"], first["scores"]);
    assert_eq!(again["evidence"]["faces"], first["evidence"]["faces"]);
    let models = app.get("/v1/models").await.ok();
    let lane = models["lanes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|lane| lane["roles"][0] == "faces.pnet")
        .unwrap();
    assert_eq!(lane["items"], 0, "no face was detected again");
}

#[tokio::test]
async fn zero_retention_stores_no_faces() {
    let app = real(0, false).await;
    let response = app.score(sample(&face(), json!({})).field("name", "1")).await;
    response.problem(404, "not_found");
    let form =
        Form::new().file("image", face()).file("reference", portrait()).field("metrics", "ips");
    app.score(form).await.ok();
    assert_eq!(app.store.purge_faces(None).await.unwrap(), 0);
    tells(
        &enrol(&app, "0", &face(), json!({})).await.problem(409, "faces_not_stored"),
        &["privacy.face_retention_days"],
    );
}

#[tokio::test]
async fn embeddings_are_returned_only_if_the_operator_allows_it() {
    for (allowed, width) in [(false, None), (true, Some(1))] {
        let app = real(30, allowed).await;
        let form =
            Form::new().file("image", face()).field("metrics", "ips").file("reference", face());
        let response = app.score(form.field("evidence", "true")).await.ok();
        let embedding = response["evidence"]["faces"][0]["faces"][0].get("embedding");
        assert_eq!(embedding.map(|e| e.as_array().unwrap().len().min(1)), width);
    }
}

#[tokio::test]
async fn concurrent_requests_share_a_fit_that_outlives_them() {
    let app = real(30, false).await;
    dataset(&app).await;
    let metadata: Metadata = serde_json::from_value(json!({"dataset": "D"})).unwrap();
    let ask = || probes(&app.store, &app.scoring, &metadata);
    let asked = join_all((0..8).map(|_| ask())).await;
    let fits: Vec<_> = asked.into_iter().map(|fit| fit.unwrap().unwrap()).collect();
    assert!(fits.iter().all(|fit| Arc::ptr_eq(fit, &fits[0])), "a request did not share the fit");

    // The request is dropped as soon as the fit has begun. If the fit ends too quickly to be
    // observed, the loop tries again with another photo.
    for at in 2..20 {
        enrol(&app, &at.to_string(), &face(), json!({"Young": true, "Male": false})).await.ok();
        let dataset = app.store.dataset("D").await.unwrap().unwrap();
        let mut waiting = Box::pin(ask());
        let left = loop {
            if (&mut waiting).now_or_never().is_some() {
                break false;
            }
            if app.scoring.is_fitting(dataset.id, dataset.revision) {
                break true;
            }
            tokio::task::yield_now().await;
        };
        drop(waiting);
        if left {
            let started = Instant::now();
            while app.scoring.known_probes(dataset.id, dataset.revision).is_none() {
                assert!(started.elapsed() < Duration::from_secs(20), "the fit was abandoned");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            return;
        }
    }
    panic!("no fit was observed");
}

#[tokio::test]
async fn deletion_clears_store_and_cache() {
    let app = real(30, false).await;
    dataset(&app).await;
    let form = || {
        sample(&portrait(), json!({"Young": true})).field("prompt", "a person").field("name", "1")
    };
    let response = app.score(form()).await.ok();
    let path = format!("/v1/samples/{}", response["sample"].as_str().unwrap());
    app.get("/v1/leaderboard").await.ok();
    let cached = || app.store.caches().bytes().iter().map(|(_, bytes)| *bytes).sum::<u64>();
    assert!(cached() > 0, "the leaderboard is cached");
    let gone = delete(&app, &path).await.ok();
    assert_eq!(
        (&gone["samples"], &gone["scores"], &gone["faces"]),
        (&json!(1), &json!(3), &json!(1))
    );
    assert_eq!(
        gone["cached"], 2,
        "image and reference; the dataset still needs the stored faces of the reference"
    );
    assert_eq!(cached(), 0, "a response may have data of deleted people");
    delete(&app, &path).await.problem(404, "not_found");
    app.get(&path).await.problem(404, "not_found");
    assert_eq!(app.counted("mine", "ips").await, 0);

    let response = app.score(form()).await.ok();
    assert_eq!(response["outcome"], "created");
    let stored =
        app.get(&format!("/v1/samples/{}", response["sample"].as_str().unwrap())).await.ok();
    let run = format!("/v1/runs/{}", response["run_id"].as_str().unwrap());
    assert_eq!(stored["run_id"], response["run_id"]);
    assert_eq!(delete(&app, &run).await.ok()["samples"], 1);
    delete(&app, &run).await.problem(404, "not_found");

    let reference = format!("/v1/images/{}", stored["references"][0].as_str().unwrap());
    let gone = delete(&app, &reference).await.ok();
    assert_eq!((&gone["photos"], &gone["faces"]), (&json!(1), &json!(1)));
    delete(&app, &reference).await.problem(404, "not_found");
    assert_eq!(app.get("/v1/datasets/D").await.ok()["photos"], 1);
    assert_eq!(delete(&app, "/v1/datasets/D").await.ok()["photos"], 1);
    delete(&app, "/v1/datasets/D").await.problem(404, "not_found");
    for nonsense in ["/v1/samples/x", "/v1/runs/x", "/v1/images/x", "/v1/datasets/%FF"] {
        delete(&app, nonsense).await.problem(404, "not_found");
    }
    assert_eq!(app.store.purge_faces(None).await.unwrap(), 0, "no face is left");
}

#[tokio::test]
async fn a_run_is_judged_by_its_own_references() {
    let app = real(30, false).await;
    let several = file("tests/data/faces/several.jpg");
    let mut run = String::new();
    for (name, image, reference, young) in [
        ("1", face(), face(), true),
        ("2", several.clone(), several, false),
        ("3", png(1), face(), true),
    ] {
        let metadata = json!({"attributes": {"Young": young, "Male": true}}).to_string();
        let form = Form::new()
            .file("image", image)
            .file("reference", reference)
            .field("metadata", metadata);
        let form = form.field("metrics", "ips").field("method", "mine").field("name", name);
        run = app.score(form).await.ok()["run_id"].as_str().unwrap().to_owned();
    }
    let bare = Form::new()
        .file("image", face())
        .field("metrics", "aps")
        .field("method", "mine")
        .field("name", "4");
    app.score(bare).await.ok();
    let app = app.restart().await;
    let response = app.get(&format!("/v1/runs/{run}/attributes")).await.ok();
    assert_eq!(
        (&response["judged"], &response["without_reference"], &response["unknown_faces"]),
        (&json!(3), &json!(1), &json!(0))
    );
    let of = |name: &str| {
        response["attributes"]
            .as_array()
            .unwrap()
            .iter()
            .find(|said| said["attribute"] == name)
            .unwrap()
            .clone()
    };
    // The third image has no face and counts as wrong. The second depends on the random
    // embeddings of the demo pack.
    let second = response["samples"][1]["value"].as_f64().unwrap();
    let auc = if second > 0.5 { 0.75 } else { 0.25 };
    assert_eq!(of("Young")["auc"], auc);
    let right = 1 + u64::from(second > 0.5);
    assert_eq!(
        (&of("Young")["n"], &of("Young")["positives"], &of("Young")["right"]),
        (&json!(3), &json!(2), &json!(right))
    );
    assert_eq!((&of("Male")["auc"], &of("Male")["left_out"]), (&json!(null), &json!("constant")));
    assert_eq!(response["auc"], auc);
    let values: Vec<_> = response["samples"]
        .as_array()
        .unwrap()
        .iter()
        .map(|sample| sample["value"].as_f64().unwrap())
        .collect();
    assert_eq!(values, [1.0, second, 0.0]);
    let page = app.get(&format!("/v1/runs/{run}/attributes?offset=2&limit=1")).await.ok();
    assert_eq!(page["samples"][0]["name"], "3");

    app.store.purge_faces(None).await.unwrap();
    let response = app.restart().await.get(&format!("/v1/runs/{run}/attributes")).await.ok();
    assert_eq!(
        (&response["judged"], &response["unknown_faces"], &response["auc"]),
        (&json!(0), &json!(3), &json!(null))
    );
}

#[tokio::test]
async fn a_missing_run_has_no_attributes() {
    let app = App::start().await;
    app.get(&format!("/v1/runs/{}/attributes", uuid::Uuid::now_v7()))
        .await
        .problem(404, "not_found");
    app.get("/v1/runs/x/attributes").await.problem(404, "not_found");
}
