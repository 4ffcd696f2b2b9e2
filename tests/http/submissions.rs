//! `/v1/submissions`: bundles are received, verified, withdrawn and deleted; the change log.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read as _, Write as _};

use axum::{body::Body, http::Request};
use serde_json::{Value, json};
use stellar_score::{
    card::CollectedSettings,
    key::{KeyLimits, Scope},
    metrics,
    scoring::Metadata,
    store::{PackId, Weights},
    submission::{Bundle, BundleFacts, BundleSample, BundleScore, Declarations, totals},
};
use uuid::Uuid;
use zip::{ZipArchive, ZipWriter, write::SimpleFileOptions};

use crate::{
    harness::{Answer, App, tells},
    keys::new_key,
    pages::votes::text,
    runs::post,
};

const METRICS: [&str; 3] = ["aps", "clip_t", "dino"];

fn sample(at: usize) -> BundleSample {
    let hash = |of: &str| stellar_score::content::ContentHash::of(of.as_bytes()).to_hex();
    let number = |value| BundleScore { value: Some(value), reason: None };
    let mut scores = BTreeMap::from([("clip_t".to_owned(), number(0.25 + 0.01 * at as f64))]);
    // One null, and one sample without a score over the whole run.
    let null = BundleScore { value: None, reason: Some("no_reference".to_owned()) };
    scores.insert("dino".to_owned(), if at == 0 { null } else { number(0.5) });
    if at != 1 {
        scores.insert("aps".to_owned(), number(0.75));
    }
    let mut metadata = Metadata { identity: Some(format!("{:03}", at % 3)), ..Metadata::default() };
    metadata.settings.steps = Some(50);
    BundleSample {
        name: format!("sample {at}"),
        content: hash(&format!("content {at}")),
        image: hash(&format!("image {at}")),
        prompt: Some(hash("a person")),
        references: vec![hash("photo")],
        auxiliary: vec![],
        metadata,
        scores,
    }
}

fn pack() -> PackId {
    PackId { name: "official".into(), digest: "a".repeat(64), weights: Weights::Official }
}

fn facts(method: &str, samples: &[BundleSample]) -> BundleFacts {
    let version = |code: &&str| metrics::find(code).expect("a metric").version;
    BundleFacts {
        method: method.to_owned(),
        run: "one".to_owned(),
        dataset: Some("stellar".to_owned()),
        split: None,
        pack: pack(),
        program: "0.1.0".to_owned(),
        service_versions: BTreeSet::from(["0.1.0".to_owned()]),
        metric_versions: METRICS.iter().map(|code| ((*code).to_owned(), version(code))).collect(),
        declarations: Declarations {
            card: Some(
                serde_json::from_value(json!({"training": {"trained_on_prompts": false}})).unwrap(),
            ),
            flags: BTreeMap::from([("cross_validated_training".to_owned(), true)]),
            settings: json!({"sampler": "ddim"}).as_object().unwrap().clone(),
        },
        image_settings: CollectedSettings::of(samples.iter().map(|of| &of.metadata.settings)),
        samples: samples.len() as u64,
        metrics: totals(samples),
    }
}

/// A bundle with a change after its tables were made, and a right manifest.
fn changed(method: &str, change: impl FnOnce(&mut BundleFacts, &mut Vec<BundleSample>)) -> Vec<u8> {
    let mut samples: Vec<BundleSample> = (0..6).map(sample).collect();
    let mut facts = facts(method, &samples);
    change(&mut facts, &mut samples);
    Bundle::write(&facts, &samples).expect("an archive").0
}

fn bundle(method: &str) -> Vec<u8> {
    changed(method, |_, _| {})
}

/// Replaces a text in one part of an archive, and keeps the manifest.
fn edited(file: &[u8], part: &str, old: &str, new: &str) -> Vec<u8> {
    let mut archive = ZipArchive::new(Cursor::new(file)).unwrap();
    let mut written = ZipWriter::new(Cursor::new(Vec::new()));
    for at in 0..archive.len() {
        let mut entry = archive.by_index(at).unwrap();
        let name = entry.name().unwrap().into_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        if name == part {
            assert!(text.contains(old), "{text}");
            text = text.replacen(old, new, 1);
        }
        written.start_file(name, SimpleFileOptions::default()).unwrap();
        written.write_all(text.as_bytes()).unwrap();
    }
    written.finish().unwrap().into_inner()
}

fn upload(file: impl Into<Body>) -> Request<Body> {
    let request = Request::post("/v1/submissions").header("content-type", "application/zip");
    request.body(file.into()).unwrap()
}

/// Sends a bundle and returns the id of its submission.
async fn send(app: &App, file: &[u8]) -> String {
    let sent = app.send(upload(file.to_vec())).await;
    assert_eq!(sent.status, 201, "{}", String::from_utf8_lossy(&sent.body));
    sent.json()["id"].as_str().unwrap().to_owned()
}

async fn verify(app: &App, id: &str) -> Answer {
    let report = json!({"share": 0.5, "seed": u64::MAX, "samples": 3, "note": "all agree"});
    app.send(post(&format!("/v1/submissions/{id}/verification"), &report)).await
}

async fn withdraw(app: &App, id: &str) -> Answer {
    let body = json!({"note": "asked by the authors"});
    app.send(post(&format!("/v1/submissions/{id}/withdrawal"), &body)).await
}

async fn delete(app: &App, path: &str) -> Answer {
    app.send(Request::delete(path).body(Body::empty()).unwrap()).await
}

async fn board(app: &App) -> Vec<Value> {
    app.get("/v1/leaderboard?pack=all").await.ok()["rows"].as_array().unwrap().clone()
}

async fn changes(app: &App) -> Vec<String> {
    let log = app.get("/v1/board/changes").await.ok();
    let actions = log["items"].as_array().unwrap().iter();
    actions.map(|of| of["action"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_submission_is_on_the_board_from_its_verification_to_its_withdrawal() {
    let app = App::start().await;
    let file = bundle("mine");
    let id = send(&app, &file).await;
    let again = app.send(upload(file.clone())).await.ok();
    assert_eq!((&again["id"], &again["state"]), (&json!(id), &json!("received")));
    assert_eq!(board(&app).await, Vec::<Value>::new(), "a received one is on no leaderboard");
    let read = app.get(&format!("/v1/submissions/{id}")).await.ok();
    assert_eq!((&read["method"], &read["run_id"]), (&json!("mine"), &Value::Null));
    assert_eq!(read["facts"]["metrics"]["dino"]["nulls"], 1);
    assert_eq!(read["facts"]["declarations"]["settings"]["sampler"], "ddim");
    let got = app.get(&format!("/v1/submissions/{id}/bundle")).await;
    assert_eq!(got.headers["content-type"], "application/zip");
    assert_eq!(got.body, file, "the bytes that were sent");

    let verified = verify(&app, &id).await.ok();
    assert_eq!(verified["state"], "verified");
    assert_eq!(verified["verification"]["seed"], u64::MAX);
    let run_id = verified["run_id"].as_str().unwrap();
    let run = app.get(&format!("/v1/runs/{run_id}")).await.ok();
    assert_eq!((&run["state"], &run["counts"]["scored"]), (&json!("finished"), &json!(6)));
    assert_eq!(run["submission"]["id"], id.as_str());
    assert_eq!(run["submission"]["digest"], verified["digest"]);
    assert!(run["submission"]["verified"].is_string());
    let finish = Request::post(format!("/v1/runs/{run_id}/finish")).body(Body::empty()).unwrap();
    let again = app.send(finish).await.ok();
    assert_eq!((&again["submission"], &again["pack"]), (&run["submission"], &run["pack"]));
    assert_eq!((&run["pack"]["name"], &run["dataset"]), (&json!("official"), &json!("stellar")));
    assert_eq!(run["flags"]["cross_validated_training"], true);
    assert_eq!(app.get("/v1/runs").await.ok()["runs"][0]["submission"]["id"], id.as_str());
    let rows = board(&app).await;
    assert_eq!((rows.len(), &rows[0]["method"]), (1, &json!("mine")));
    let clip = &rows[0]["metrics"]["clip_t"];
    assert_eq!(clip["n"], 6);
    assert!((clip["mean"].as_f64().unwrap() - 0.275).abs() < 1e-12, "{clip}");
    assert_eq!(
        (&rows[0]["metrics"]["dino"]["n"], &rows[0]["metrics"]["dino"]["nulls"]),
        (&json!(5), &json!(1))
    );
    let method = app.get("/v1/methods/mine").await.ok();
    assert_eq!(method["method"]["card"]["training"]["trained_on_prompts"], false);
    assert_eq!(
        method["runs"][0]["image_settings"]["settings"]["steps"]["values"][0]["value"],
        "50"
    );
    tells(&verify(&app, &id).await.problem(409, "submission_conflict"), &["is verified"]);

    assert_eq!(withdraw(&app, &id).await.ok()["state"], "withdrawn");
    assert_eq!(board(&app).await, Vec::<Value>::new());
    app.get(&format!("/v1/runs/{run_id}")).await.problem(404, "not_found");
    withdraw(&app, &id).await.problem(409, "submission_conflict");
    verify(&app, &id).await.problem(409, "submission_conflict");
    let again = app.send(upload(file)).await.ok();
    assert_eq!((&again["id"], &again["state"]), (&json!(id), &json!("withdrawn")));

    assert_eq!(changes(&app).await, ["withdrawn", "verified", "received"]);
    let first = app.get("/v1/board/changes?limit=1").await.ok();
    assert_eq!(first["items"][0]["note"], "asked by the authors");
    let next = first["next"].as_str().unwrap();
    let rest = app.get(&format!("/v1/board/changes?after={next}")).await.ok();
    assert_eq!(
        (rest["items"].as_array().unwrap().len(), &rest["items"][0]["note"]),
        (2, &json!("all agree"))
    );
}

#[tokio::test]
async fn what_does_not_agree_is_named() {
    let app = App::start().await;
    let better = |_: &mut BundleFacts, samples: &mut Vec<BundleSample>| {
        samples[2].scores.get_mut("clip_t").unwrap().value = Some(0.9);
    };
    let file = bundle("mine");
    let image = sample(2).image;
    for (file, words) in [
        (
            edited(&file, "samples.jsonl", "\"value\":0.27", "\"value\":0.97"),
            &["samples.jsonl was changed"][..],
        ),
        (edited(&file, "samples.jsonl", &image, &"0".repeat(64)), &["samples.jsonl was changed"]),
        (edited(&file, "submission.json", "ddim", "euler"), &["submission.json was changed"]),
        (edited(&file, "manifest.json", "\"format\": 1", "\"format\": 2"), &["format 2"]),
        (changed("mine", better), &["1 difference", "clip_t: the mean is"]),
        (
            changed("mine", |_, samples| samples[1].metadata.settings.steps = Some(20)),
            &["image_settings"],
        ),
        (changed("mine", |_, samples| samples[1].image = "0".repeat(63)), &["sample 1", "64"]),
        (changed("mine", |facts, _| facts.samples = 7), &["counts 7 samples"]),
        (changed("mine", |facts, _| facts.dataset = Some("a\0b".into())), &["dataset", "U+0000"]),
        (changed("mine", |facts, _| facts.method = "\u{202e}".into()), &["the method"]),
        (
            changed("mine", |facts, _| {
                facts.declarations.flags.insert("best".into(), true);
            }),
            &["flags", "best"],
        ),
        (changed("mine", |facts, _| facts.pack.weights = Weights::Imported), &["imported"]),
        (
            changed("mine", |_, samples| {
                samples[0].scores.get_mut("dino").unwrap().reason = Some("a\nb".into());
            }),
            &["sample 0", "null with a reason"],
        ),
        (
            changed("mine", |_, samples| samples[3].metadata.identity = Some(" \u{200b}".into())),
            &["sample 3", "identity"],
        ),
        (
            changed("mine", |_, samples| samples.iter_mut().for_each(|of| of.content.clear())),
            &["6 differences", "sample 4", "…"],
        ),
        (b"no archive".to_vec(), &["not a submission bundle"]),
    ] {
        tells(&app.send(upload(file)).await.problem(422, "invalid_field"), words);
    }
    // The pack of the digest is known under another name.
    let demo = app.scoring.pack().id();
    let pretended = PackId { weights: Weights::Official, ..demo };
    let file = changed("mine", |facts, _| facts.pack = pretended);
    tells(&app.send(upload(file)).await.problem(422, "invalid_field"), &["demo weights"]);
    app.send(post("/v1/submissions", &json!({}))).await.problem(415, "unsupported_media_type");
    let mut large = upload("x");
    large.headers_mut().insert("content-length", ((32 << 20) + 1).into());
    tells(&app.send(large).await.problem(413, "payload_too_large"), &["33554432 bytes"]);
    assert_eq!(app.get("/v1/submissions").await.ok()["items"], json!([]));
    assert_eq!(changes(&app).await, Vec::<String>::new());
}

#[tokio::test]
async fn reports_are_checked_and_the_run_must_be_new() {
    let app = App::start().await;
    let id = send(&app, &bundle("mine")).await;
    let path = format!("/v1/submissions/{id}/verification");
    for (share, samples, note) in
        [(0.0, 1, ""), (1.5, 1, ""), (0.5, 0, ""), (0.5, 7, ""), (0.5, 1, "\u{202e}")]
    {
        let report = json!({"share": share, "seed": 1, "samples": samples, "note": note});
        app.send(post(&path, &report)).await.problem(422, "invalid_field");
    }
    let long = json!({"share": 1, "seed": 1, "samples": 6, "note": "x".repeat(2_001)});
    app.send(post(&path, &long)).await.problem(422, "invalid_field");
    app.send(post(&path, &json!({"share": 1}))).await.problem(422, "invalid_field");
    for path in ["verification", "withdrawal"] {
        let path = format!("/v1/submissions/{}/{path}", Uuid::nil());
        let body = if path.ends_with('n') {
            json!({"share": 1, "seed": 1, "samples": 1})
        } else {
            json!({})
        };
        app.send(post(&path, &body)).await.problem(404, "not_found");
    }
    for path in ["", "/bundle"] {
        app.get(&format!("/v1/submissions/{}{path}", Uuid::nil())).await.problem(404, "not_found");
    }

    let taken = app.send(post("/v1/runs", &json!({"method": "mine", "run": "one"}))).await;
    let taken = taken.json()["run_id"].as_str().unwrap().to_owned();
    let refused = verify(&app, &id).await.problem(409, "run_conflict");
    tells(&refused, &["mine/one", &format!("DELETE /v1/runs/{taken}")]);
    let state = app.get(&format!("/v1/submissions/{id}")).await.ok()["state"].clone();
    assert_eq!(state, "received");
    delete(&app, &format!("/v1/runs/{taken}")).await.ok();
    let run = verify(&app, &id).await.ok()["run_id"].as_str().unwrap().to_owned();

    // The deletion of the run is a withdrawal.
    delete(&app, &format!("/v1/runs/{run}")).await.ok();
    let read = app.get("/v1/submissions?state=withdrawn&method=mine").await.ok();
    assert_eq!(read["items"][0]["id"], id.as_str());
    assert_eq!(app.get("/v1/submissions?state=verified").await.ok()["items"], json!([]));
    assert_eq!(changes(&app).await, ["withdrawn", "verified", "received"]);
}

#[tokio::test]
async fn a_deleted_submission_leaves_its_digest_in_the_log() {
    let app = App::start().await;
    let id = send(&app, &bundle("mine")).await;
    let digest = verify(&app, &id).await.ok()["digest"].clone();
    let path = format!("/v1/submissions/{id}");
    assert_eq!(delete(&app, &path).await.ok()["samples"], 6);
    delete(&app, &path).await.problem(404, "not_found");
    app.get(&path).await.problem(404, "not_found");
    assert_eq!(board(&app).await, Vec::<Value>::new());
    let log = app.get("/v1/board/changes").await.ok();
    let log = log["items"].as_array().unwrap();
    assert_eq!(log.len(), 3);
    for of in log {
        assert_eq!(
            (&of["submission"], &of["note"], &of["digest"]),
            (&Value::Null, &json!(""), &digest)
        );
    }
    let again = app.send(upload(bundle("mine"))).await;
    assert_eq!(again.status, 201, "it may be sent again");
}

#[tokio::test]
async fn the_log_says_whose_key_made_a_change() {
    let app = App::start().await;
    let mut keys = Vec::new();
    for scope in [Scope::Score, Scope::Admin, Scope::Read] {
        let (key, record) = new_key(&format!("{scope}"), &[scope], KeyLimits::default());
        assert!(app.store.create_key(&record).await.unwrap());
        keys.push((key, record.id));
    }
    let with = |key: &str, mut request: Request<Body>| {
        request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
        app.send(request)
    };
    let [(author, by_author), (admin, by_admin), (reader, _)] = &keys[..] else { unreachable!() };
    with(reader, upload(bundle("mine"))).await.problem(403, "scope_missing");
    let sent = with(author, upload(bundle("mine"))).await;
    assert_eq!(sent.status, 201);
    let path = format!("/v1/submissions/{}/withdrawal", sent.json()["id"].as_str().unwrap());
    with(author, post(&path, &json!({}))).await.problem(403, "scope_missing");
    with(admin, post(&path, &json!({}))).await.ok();
    let log =
        with(reader, Request::get("/v1/board/changes").body(Body::empty()).unwrap()).await.ok();
    assert_eq!(log["items"][0]["by"], json!(by_admin));
    assert_eq!(log["items"][1]["by"], json!(by_author));
}

#[tokio::test]
async fn the_page_lists_submissions_and_changes_as_text() {
    let app = App::start().await;
    let empty = text(&app.get("/submissions").await);
    assert!(empty.contains("submission send"), "{empty}");
    let hostile = "<script>x</script>";
    let first = send(&app, &bundle(hostile)).await;
    let second = send(&app, &bundle("mine")).await;
    let run = verify(&app, &second).await.ok()["run_id"].as_str().unwrap().to_owned();
    let page = text(&app.get("/submissions").await);
    assert!(!page.contains(hostile) && page.contains("&lt;script&gt;"), "{page}");
    for part in [
        format!("/v1/submissions/{first}/bundle"),
        format!("/runs/{run}"),
        "3 of 6".to_owned(),
        "all agree".to_owned(),
        "aria-current=\"page\"".to_owned(),
    ] {
        assert!(page.contains(&part), "{part} is missing in: {page}");
    }
    let received = text(&app.get("/submissions?state=received").await);
    assert!(!received.contains(&format!("/v1/submissions/{second}/bundle")), "{received}");
    let csv = app.get("/submissions?download=csv:changes").await;
    assert_eq!(String::from_utf8_lossy(&csv.body).lines().count(), 4);
    let page = text(&app.get("/submissions?limit=1").await);
    let next = app.get("/v1/submissions?limit=1").await.ok()["next"].as_str().unwrap().to_owned();
    assert!(page.contains(&format!("after={next}")), "{page}");
    let log = app.get("/v1/board/changes?limit=2").await.ok();
    let older = format!("/submissions?changes_after={}", log["next"].as_str().unwrap());
    let page = text(&app.get(&older).await);
    assert!(!page.contains("all agree"), "{page}");
    app.get("/submissions?state=lost").await.problem(400, "malformed_request");
    let run = text(&app.get(&format!("/runs/{run}")).await);
    assert!(run.contains("verified"), "{run}");
}
