//! `/datasets` and `/datasets/{dataset}`, with the consistency of photos.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    http::{Request, header},
};
use serde_json::{Value, json};
use stellar_score::{content::ContentHash, store::NewPhoto};
use time::OffsetDateTime;

use crate::harness::{Answer, App};
use crate::support::form::Form;

fn text(answer: &Answer) -> String {
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert_eq!(answer.status, 200, "{text}");
    text
}

async fn register(app: &App, dataset: &str, prompts: Value) {
    let body = json!({"prompts": prompts}).to_string();
    let request = Request::put(format!("/v1/datasets/{dataset}/prompts"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body))
        .unwrap();
    app.send(request).await.ok();
}

fn file(path: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

async fn enrol(app: &App, identity: &str, name: &str, photo: &[u8]) {
    let metadata = json!({"identity": identity, "name": name, "attributes": {"Young": true}});
    let form = Form::new().file("photo", photo).field("metadata", metadata.to_string());
    let body = form.finish();
    let request = Request::post("/v1/datasets/D/photos")
        .header(header::CONTENT_TYPE, Form::content_type())
        .header(header::CONTENT_LENGTH, body.len())
        .body(Body::from(body))
        .unwrap();
    app.send(request).await.ok();
}

#[tokio::test]
async fn datasets_are_listed_with_links_and_hostile_names_stay_text() {
    let app = App::start().await;
    let empty = text(&app.get("/datasets").await);
    assert!(empty.contains("No dataset is registered") && empty.contains("dataset register"));
    let names = ["%3Cscript%3Ealert(1)%3C%2Fscript%3E", "%D7%A9%D7%9C%D7%95%D7%9D", "%F0%9F%8D%95"];
    for name in names {
        register(&app, name, json!([{"identity": "0", "prompt": "{}"}])).await;
    }
    let page = text(&app.get("/datasets").await);
    assert!(page.contains("&lt;script&gt;alert(1)") && !page.contains("<script>alert"), "{page}");
    for name in names {
        let link = format!("href=\"/datasets/{}\"", name.replace('(', "%28").replace(')', "%29"));
        assert!(page.contains(&link), "{link} is missing in {page}");
        let page = text(&app.get(&format!("/datasets/{name}")).await);
        assert!(!page.contains("<script>alert") && page.contains("No photo is enrolled"), "{page}");
    }
    let csv = text(&app.get("/datasets?download=csv:datasets").await);
    assert!(csv.starts_with("dataset,prompts,photos,revision,created\r\n"), "{csv}");
    assert!(text(&app.get("/datasets?limit=1").await).contains("Next page"));
    app.get("/datasets/nowhere").await.problem(404, "not_found");
    app.get("/datasets?page=2").await.problem(400, "malformed_request");
}

#[tokio::test]
async fn prompts_are_counted_by_kind_category_object_and_relation() {
    let app = App::start().await;
    let ride = json!([["person", "riding", "horse"]]);
    let prompt = |identity: &str, text: &str, kind: Value, objects: Value, relations: Value| {
        json!({"identity": identity, "prompt": text, "kind": kind, "categories": ["<b>sports"],
               "detectables": objects, "relations": relations})
    };
    let prompts = json!([
        prompt("0", "{} riding a horse", json!("T"), json!(["horse"]), ride.clone()),
        prompt("1", "{} riding a horse", json!("T"), json!(["horse"]), ride),
        prompt("1", "{} with a cat", json!("H"), json!(["cat"]), json!([])),
        {"identity": "1", "prompt": "{}"},
    ]);
    register(&app, "D", prompts).await;
    let found = app.get("/v1/datasets/D/composition").await.ok();
    let count = |label: &str, prompts: usize| json!({"label": label, "prompts": prompts});
    assert_eq!(
        (&found["prompts"], &found["people"], &found["templates"]),
        (&json!(4), &json!(2), &json!(3))
    );
    assert_eq!(found["kinds"], json!([count("T", 2), count("H", 1)]));
    assert_eq!(found["objects"], json!([count("horse", 2), count("cat", 1)]));
    assert_eq!(found["relations"], json!([count("person riding horse", 2)]));
    assert_eq!((&found["without_kind"], &found["without_relations"]), (&json!(1), &json!(2)));
    let page = text(&app.get("/datasets/D").await);
    for part in ["person riding horse", "&lt;b&gt;sports", "3 different texts for 2 people"] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
    // All prompts are read for the words, so only on request.
    assert!(page.contains("?statistics=true#statistics") && !page.contains("per person"), "{page}");
    let page = text(&app.get("/datasets/D?statistics=true").await);
    assert!(page.contains("mean per person") && page.contains("prepositions"), "{page}");
    let found = app.get("/v1/datasets/D/statistics").await.ok();
    let kinds: Vec<_> =
        found["statistics"].as_array().unwrap().iter().map(|of| &of["kind"]).collect();
    assert_eq!(kinds, [&Value::Null, &json!("H"), &json!("T")]);
    assert_eq!(found["statistics"][0]["quantities"][0]["distinct"], 6);
    let csv = text(&app.get("/datasets/D?download=csv:objects").await);
    assert_eq!(csv, "object,prompts,share\r\nhorse,2,0.5\r\ncat,1,0.25\r\n");
    app.get("/v1/datasets/nowhere/composition").await.problem(404, "not_found");
}

#[tokio::test]
async fn photos_of_a_person_are_compared_and_missing_faces_have_a_reason() {
    let app = App::real_with(|config| config.privacy.face_retention_days = 30).await;
    let face = file("packs/demo/goldens/astronaut-face.jpg");
    enrol(&app, "same", "0", &face).await;
    enrol(&app, "same", "1", &face).await;
    enrol(&app, "single", "0", &file("packs/demo/goldens/astronaut.jpg")).await;
    let found = app.get("/v1/datasets/D/consistency").await.ok();
    let person = |found: &Value, at: usize| found["people"][at].clone();
    let same = person(&found, 0);
    assert!((same["consistency"].as_f64().unwrap() - 1.0).abs() < 1e-6, "{same}");
    assert_eq!((&same["photos"], &same["with_face"]), (&json!(2), &json!(2)));
    assert_eq!(same["lowest_photo"], "0", "of equals the first");
    let single = person(&found, 1);
    assert_eq!((&single["consistency"], &single["reason"]), (&json!(null), &json!("one_photo")));

    // Enrolled without faces, as by another pack. The revision changes, and with it the response.
    app.store
        .enrol(&NewPhoto {
            dataset: "D".to_owned(),
            identity: "<i>unknown".to_owned(),
            name: "0".to_owned(),
            image: ContentHash::of(b"a photo"),
            attributes: BTreeMap::new(),
            created: OffsetDateTime::now_utc(),
            new_faces: false,
        })
        .await
        .unwrap();
    let found = app.get("/v1/datasets/D/consistency").await.ok();
    assert_eq!(found["people"].as_array().unwrap().len(), 3);
    let unknown = person(&found, 0);
    assert_eq!((&unknown["unknown"], &unknown["reason"]), (&json!(1), &json!("faces_not_stored")));
    let page = text(&app.get("/datasets/D").await);
    for part in
        ["1.000", "one photo with a face", "faces not stored", "&lt;i&gt;unknown", "not stored for"]
    {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
    let csv = text(&app.get("/datasets/D?download=csv:people").await);
    assert!(csv.starts_with("person,photos,with a face,consistency,"), "{csv}");
    app.get("/v1/datasets/nowhere/consistency").await.problem(404, "not_found");
}
