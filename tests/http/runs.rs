//! Runs, from accepted samples to the finished run.

use axum::{
    body::Body,
    http::{Request, header},
};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use stellar_score::{content::ContentHash, engine::fake::Trouble};
use tower::ServiceExt as _;

use crate::{
    harness::{Answer, App, ONE_GRAPH, tells},
    support::{form::Form, images::png, pending::of_another_pack},
};

pub(crate) fn put(run: &str, name: &str, form: Form) -> Request<Body> {
    let body = form.finish();
    Request::put(format!("/v1/runs/{run}/samples/{name}"))
        .header(header::CONTENT_TYPE, Form::content_type())
        .header(header::CONTENT_LENGTH, body.len())
        .body(Body::from(body))
        .expect("a valid request")
}

pub(crate) fn post(path: &str, body: &Value) -> Request<Body> {
    Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .expect("a valid request")
}

pub(crate) fn csv(run: &str, source: &str, text: &str) -> Request<Body> {
    Request::post(format!("/v1/runs/{run}/import?source={source}"))
        .header(header::CONTENT_TYPE, "text/csv")
        .body(Body::from(text.to_owned()))
        .expect("a valid request")
}

impl App {
    /// Creates a run that is scored with one metric and returns its id.
    pub(crate) async fn run_of(&self, method: &str) -> String {
        let response =
            self.send(post("/v1/runs", &json!({"method": method, "metrics": [ONE_GRAPH]}))).await;
        assert_eq!(response.status, 201, "{response:?}");
        response.json()["run_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn put(&self, run: &str, name: &str, form: Form) -> Answer {
        self.send(put(run, name, form)).await
    }

    pub(crate) async fn finish(&self, run: &str) -> Answer {
        self.send(post(&format!("/v1/runs/{run}/finish"), &json!({}))).await
    }

    /// Polls the run until `done`; panics after 30 s.
    pub(crate) async fn until_run(
        &self,
        run: &str,
        what: &str,
        done: impl Fn(&Value) -> bool,
    ) -> Value {
        let started = std::time::Instant::now();
        loop {
            let now = self.get(&format!("/v1/runs/{run}")).await.ok();
            if done(&now) {
                return now;
            }
            assert!(started.elapsed().as_secs() < 30, "timed out waiting for {what}: {now}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn until_scored(&self, run: &str, count: u64) -> Value {
        self.until_run(run, "its scores", |run| run["counts"]["scored"] == count).await
    }

    pub(crate) async fn samples(&self, run: &str, query: &str) -> Vec<Value> {
        let page = self.get(&format!("/v1/runs/{run}/samples{query}")).await.ok();
        page["items"].as_array().unwrap().clone()
    }
}

pub(crate) fn form(seed: u32) -> Form {
    Form::new().file("image", png(seed))
}

#[tokio::test]
async fn a_submitted_sample_scores_like_an_interactive_one() {
    let app = App::start().await;
    let run = app.run_of("A").await;
    app.gate.close();
    let response = app.put(&run, "one", form(1).field("prompt", "a person")).await;
    assert_eq!(response.status, 202, "{response:?}");
    let accepted = response.json();
    assert_eq!((&accepted["name"], &accepted["state"]), (&json!("one"), &json!("pending")));
    let now = app.get(&format!("/v1/runs/{run}")).await.ok();
    assert_eq!(now["counts"], json!({"accepted": 1, "pending": 1, "scored": 0, "failed": 0}));
    assert_eq!(
        (&now["state"], &now["method"], &now["run"]),
        (&json!("open"), &json!("A"), &json!("default"))
    );
    app.gate.open();
    let now = app.until_scored(&run, 1).await;
    assert_eq!(now["counts"], json!({"accepted": 1, "pending": 0, "scored": 1, "failed": 0}));

    let id = accepted["id"].as_str().unwrap();
    let stored = app.get(&format!("/v1/samples/{id}")).await.ok();
    assert_eq!((&stored["name"], &stored["run_id"]), (&json!("one"), &json!(run)));
    let direct =
        app.score(form(1).field("metrics", ONE_GRAPH).field("prompt", "a person")).await.ok();
    assert_eq!(stored["scores"].as_array().unwrap().len(), 1);
    assert_eq!(stored["scores"][0]["value"], direct["scores"][ONE_GRAPH]["value"]);
    assert_eq!(app.counted("A", ONE_GRAPH).await, 1);
    let listed = app.samples(&run, "").await;
    assert_eq!((&listed[0]["state"], &listed[0]["id"]), (&json!("scored"), &json!(id)));
    assert_eq!(listed[0]["content"], accepted["content"]);
}

#[tokio::test]
async fn a_repeated_sample_returns_200_and_other_content_409() {
    let app = App::start().await;
    let run = app.run_of("A").await;
    app.gate.close();
    assert_eq!(app.put(&run, "one", form(1)).await.status, 202);
    assert_eq!(app.put(&run, "one", form(1)).await.status, 200);
    tells(
        &app.put(&run, "one", form(2)).await.problem(409, "sample_conflict"),
        &["\"one\"", "other content"],
    );
    app.gate.open();
    app.until_scored(&run, 1).await;
    let again = app.put(&run, "one", form(1)).await;
    assert_eq!((again.status.as_u16(), &again.json()["state"]), (200, &json!("scored")));
    app.put(&run, "one", form(2)).await.problem(409, "sample_conflict");
    app.put(&run, "one", form(1).field("prompt", "other")).await.problem(409, "sample_conflict");
}

#[tokio::test]
async fn photos_are_sent_once_and_referenced_by_hash_until_the_run_finishes() {
    let app = App::start().await;
    let run = app.run_of("A").await;
    let (photo, hash) = (png(50), ContentHash::of(&png(50)).to_hex());
    let unknown = app.put(&run, "one", form(1).field("reference_hash", &hash)).await;
    tells(&unknown.problem(422, "image_unknown"), &[&hash]);
    assert_eq!(app.put(&run, "one", form(1).file("reference", &photo)).await.status, 202);
    let by_hash = app.put(&run, "two", form(2).field("reference_hash", &hash)).await;
    assert_eq!(by_hash.status, 202, "{by_hash:?}");
    // A sample with the photo and one with its hash are the same.
    assert_eq!(app.put(&run, "two", form(2).file("reference", &photo)).await.status, 200);
    app.until_scored(&run, 2).await;
    let id = by_hash.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(app.get(&format!("/v1/samples/{id}")).await.ok()["references"], json!([hash]));
    assert_eq!(app.put(&run, "three", form(3).field("auxiliary_hash", &hash)).await.status, 202);
    app.put(&app.run_of("B").await, "one", form(1).field("reference_hash", &hash))
        .await
        .problem(422, "image_unknown");
    let bad = app.put(&run, "four", form(4).field("reference_hash", "abc")).await;
    tells(&bad.problem(422, "invalid_field"), &["64 hexadecimal digits"]);

    app.until_scored(&run, 3).await;
    assert_eq!(app.finish(&run).await.status, 202);
    app.until_run(&run, "its end", |run| run["state"] == "finished").await;
    app.until_kept(0).await;
}

impl App {
    /// Waits until the spool holds this many bytes.
    async fn until_kept(&self, bytes: u64) {
        let started = std::time::Instant::now();
        while self.runs.spool().used() != bytes {
            assert!(
                started.elapsed().as_secs() < 20,
                "the spool holds {} bytes",
                self.runs.spool().used()
            );
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn invalid_images_and_forms_are_refused_as_by_the_score_route() {
    let app = App::start().await;
    let run = app.run_of("A").await;
    let cases: [(Form, u16, &str); 7] = [
        (Form::new().field("prompt", "a person"), 422, "missing_field"),
        (Form::new().file("image", ""), 422, "image_empty"),
        (Form::new().file("image", "no image"), 415, "image_unsupported"),
        (form(1).file("image", png(2)), 422, "repeated_field"),
        (form(1).field("method", "A"), 422, "unknown_field"),
        (form(1).field("metadata", "[]"), 422, "invalid_field"),
        (form(1).field("metadata", r#"{"dataset": "none"}"#), 404, "not_found"),
    ];
    for (form, status, code) in cases {
        app.put(&run, "one", form).await.problem(status, code);
    }
    let nowhere = "01900000-0000-7000-8000-000000000000";
    for wrong in [nowhere, "no-id"] {
        tells(&app.put(wrong, "one", form(1)).await.problem(404, "not_found"), &["GET /v1/runs"]);
        for path in ["", "/samples", "/events"] {
            app.get(&format!("/v1/runs/{wrong}{path}")).await.problem(404, "not_found");
        }
        app.finish(wrong).await.problem(404, "not_found");
    }
    app.put(&run, "%20", form(1)).await.problem(422, "invalid_field");
    app.get(&format!("/v1/runs/{run}/samples?limit=0")).await.problem(400, "malformed_request");
    app.get(&format!("/v1/runs/{run}/samples?state=lost")).await.problem(400, "malformed_request");
    assert_eq!(app.get(&format!("/v1/runs/{run}")).await.ok()["counts"]["accepted"], 0);
    app.until_kept(0).await;
}

#[tokio::test]
async fn an_undecodable_image_fails_its_sample_but_not_the_run() {
    let app = App::start().await;
    let run = app.run_of("A").await;
    // A complete file with a valid header and corrupt pixels.
    let mut rubbish = crate::support::images::png_of(64, 64, 1);
    let middle = rubbish.len() / 2;
    rubbish[middle..middle + 64].fill(0xa5);
    let response = app.put(&run, "bad", Form::new().file("image", &rubbish)).await;
    assert_eq!(response.status, 202, "{response:?}");
    assert_eq!(app.put(&run, "good", form(2)).await.status, 202);
    let now = app.until_run(&run, "both", |run| run["counts"]["pending"] == 0).await;
    assert_eq!(now["counts"], json!({"accepted": 2, "pending": 0, "scored": 1, "failed": 1}));
    let failed = app.samples(&run, "?state=failed").await;
    assert_eq!((failed.len(), &failed[0]["name"]), (1, &json!("bad")));
    assert!(failed[0]["error"]["code"].as_str().unwrap().starts_with("image_"), "{failed:?}");
    tells(failed[0]["error"]["detail"].as_str().unwrap(), &["image: "]);

    assert_eq!(
        app.put(&run, "bad", form(3)).await.status,
        202,
        "another image under the same name"
    );
    let now = app.until_scored(&run, 2).await;
    assert_eq!(now["counts"]["failed"], 0);
    app.until_kept(0).await;
}

#[tokio::test]
async fn a_failed_graph_is_retried() {
    let app = App::start().await;
    let run = app.run_of("A").await;
    app.graphs.always(Some(Trouble::Fails));
    assert_eq!(app.put(&run, "one", form(1)).await.status, 202);
    app.until_at_least("stellar_background_attempts_total{outcome=\"postponed\"}", 1).await;
    app.graphs.always(None);
    app.until_scored(&run, 1).await;
}

#[tokio::test]
async fn a_sample_fails_after_its_last_attempt() {
    let app = App::with(|setup| setup.config.runs.attempts = 1).await;
    let run = app.run_of("A").await;
    app.graphs.always(Some(Trouble::Fails));
    app.put(&run, "one", form(1)).await;
    app.until_run(&run, "its failure", |run| run["counts"]["failed"] == 1).await;
    let failed = app.samples(&run, "?state=failed").await;
    assert_eq!(failed[0]["error"]["code"], "internal");
    tells(failed[0]["error"]["detail"].as_str().unwrap(), &["1 attempts failed"]);
}

#[tokio::test]
async fn pending_samples_survive_a_restart() {
    let app = App::real().await;
    let run = app.run_of("A").await;
    for seed in 0..6 {
        let response =
            app.put(&run, &format!("s{seed}"), form(seed).file("reference", png(99))).await;
        assert_eq!(response.status, 202);
    }
    let app = app.restart().await;
    let now = app.until_scored(&run, 6).await;
    assert_eq!(now["counts"]["failed"], 0);
    let by_hash = form(7).field("reference_hash", ContentHash::of(&png(99)).to_hex());
    assert_eq!(app.put(&run, "s7", by_hash).await.status, 202, "its photo is spooled");
}

#[tokio::test]
async fn interactive_requests_take_priority_over_runs() {
    let app = App::with(|setup| setup.config.runs.concurrency_under_load = 0).await;
    let run = app.run_of("A").await;
    app.gate.close();
    let interactive = {
        let (router, request) = (app.router.clone(), crate::harness::score_request(form(1)));
        tokio::spawn(async move {
            tower::ServiceExt::oneshot(router, request).await.expect("infallible").status()
        })
    };
    app.gate.reached_by(1).await;
    assert_eq!(app.put(&run, "one", form(2)).await.status, 202);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let waiting = app.get(&format!("/v1/runs/{run}")).await.ok();
    assert_eq!(waiting["counts"]["pending"], 1);
    let queued = app.number("stellar_engine_queue_depth{graph=\"clip_l.image\"}").await;
    assert!(queued < 0.5, "the run does not start during the request");
    app.gate.open();
    assert_eq!(interactive.await.unwrap(), 200);
    app.until_scored(&run, 1).await;
}

#[tokio::test]
async fn a_finished_run_refuses_samples_and_finishing_is_idempotent() {
    let app = App::start().await;
    let run = app.run_of("A").await;
    app.gate.close();
    app.put(&run, "one", form(1)).await;
    let response = app.finish(&run).await;
    assert_eq!((response.status.as_u16(), &response.json()["state"]), (202, &json!("finishing")));
    app.put(&run, "two", form(2)).await.problem(409, "run_finished");
    app.gate.open();
    let now = app.until_run(&run, "its end", |run| run["state"] == "finished").await;
    assert!(now["finished"].is_string());
    let again = app.finish(&run).await;
    assert_eq!((again.status.as_u16(), &again.json()), (200, &now));
    tells(
        &app.put(&run, "two", form(2)).await.problem(409, "run_finished"),
        &["A/default", "another run"],
    );
    assert_eq!(app.put(&run, "one", form(1)).await.status, 200, "stored samples may be repeated");
    let scored = form(3).field("method", "A").field("name", "three");
    app.score(scored).await.problem(409, "run_finished");
    app.send(csv(&run, "them", ",name,dino_fidelity\n0,one,0.5\n"))
        .await
        .problem(409, "run_finished");
    assert_eq!(app.get("/v1/runs?state=finished").await.ok()["runs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn samples_of_another_pack_are_blocked_with_a_reason_and_refused_by_the_run() {
    let app = App::start().await;
    let run = app.run_of("A").await;
    let id = run.parse().unwrap();
    let waiting = of_another_pack(id, app.runs.spool().id());
    app.store.accept(&waiting).await.unwrap();
    let now = app.get(&format!("/v1/runs/{run}")).await.ok();
    assert_eq!(
        (&now["counts"]["pending"], &now["held"]["code"]),
        (&json!(1), &json!("pack_not_loaded"))
    );
    tells(
        now["held"]["detail"].as_str().unwrap(),
        &["other", &waiting.pack.digest, "demo", "start it"],
    );
    let listed = app.get("/v1/runs").await.ok();
    assert_eq!(listed["runs"][0]["held"], now["held"]);

    let request = Request::get(format!("/v1/runs/{run}/events")).body(Body::empty()).unwrap();
    let mut events = app.router.clone().oneshot(request).await.unwrap().into_body();
    let first =
        events.frame().await.expect("the current state comes first").unwrap().into_data().unwrap();
    let first = String::from_utf8(first.to_vec()).unwrap();
    tells(&first, &["event: progress", "\"held\":", "pack_not_loaded"]);

    let refused = app.put(&run, "two", form(2)).await.problem(409, "pack_conflict");
    tells(&refused, &["A/default", &waiting.pack.digest]);
    assert!(
        app.get(&format!("/v1/samples/{}", waiting.id))
            .await
            .problem(404, "not_found")
            .contains("sample")
    );
    app.store.delete_sample(waiting.id).await.unwrap().unwrap();
    let now = app.get(&format!("/v1/runs/{run}")).await.ok();
    assert_eq!(
        (&now["counts"]["pending"], now.get("held")),
        (&json!(0), None),
        "nothing is pending"
    );
}

#[tokio::test]
async fn every_route_reports_an_unknown_dataset() {
    let app = App::start().await;
    let run = app.run_of("A").await;
    let unknown = form(1).field("metadata", r#"{"dataset": "nowhere"}"#);
    tells(&app.put(&run, "one", unknown).await.problem(404, "not_found"), &["metadata.dataset"]);
    for path in ["/v1/datasets/nowhere", "/v1/datasets/nowhere/prompts"] {
        tells(&app.get(path).await.problem(404, "not_found"), &["no dataset"]);
    }
    app.put(&run, "one", form(1).field("metadata", "{\"dataset\": "))
        .await
        .problem(422, "invalid_field");
}

#[tokio::test]
async fn a_full_spool_or_run_returns_retry_after() {
    let app = App::with(|setup| setup.config.runs.pending_samples = 1).await;
    let run = app.run_of("A").await;
    app.gate.close();
    app.put(&run, "one", form(1)).await;
    tells(
        &app.put(&run, "two", form(2)).await.problem(429, "overloaded"),
        &["1 samples of run A/default are pending"],
    );
    app.gate.open();

    let app = App::with(|setup| {
        setup.config.limits.request_mib = 1;
        setup.config.store.spool_mib = 1;
    })
    .await;
    let run = app.run_of("A").await;
    app.gate.close();
    // Noise does not compress: each image takes about 300 KB.
    let noise = |seed| crate::support::images::png_of(320, 320, seed);
    let mut responses = Vec::new();
    for seed in 0..8 {
        responses
            .push(app.put(&run, &format!("s{seed}"), Form::new().file("image", noise(seed))).await);
    }
    let refused = responses
        .iter()
        .find(|response| response.status != 202)
        .expect("1 MiB does not hold all of them");
    tells(&refused.problem(507, "storage_full"), &["store.spool_mib", "finish runs"]);
    assert!(refused.headers.contains_key(header::RETRY_AFTER));
    app.gate.open();
    app.until_kept(0).await;
    assert_eq!(app.put(&run, "again", Form::new().file("image", noise(9))).await.status, 202);
}

#[tokio::test]
async fn deletion_removes_pending_samples_and_their_files() {
    let app = App::start().await;
    let run = app.run_of("A").await;
    app.gate.close();
    let (one, photo) = (png(1), png(50));
    let first = app
        .put(&run, "one", Form::new().file("image", &one).file("reference", &photo))
        .await
        .json();
    app.put(&run, "two", form(2).field("reference_hash", ContentHash::of(&photo).to_hex())).await;
    assert!(app.runs.spool().used() > 0);
    let delete = |path: String| app.send(Request::delete(path).body(Body::empty()).unwrap());
    let deleted = delete(format!("/v1/samples/{}", first["id"].as_str().unwrap())).await.ok();
    assert_eq!(deleted["samples"], 1);
    let gone = delete(format!("/v1/images/{}", ContentHash::of(&photo).to_hex())).await;
    assert_eq!(gone.status, 200);
    let failed = app.samples(&run, "").await;
    assert_eq!((failed.len(), &failed[0]["error"]["code"]), (1, &json!("image_deleted")));
    app.until_kept(0).await;
    app.put(&run, "three", form(3)).await;
    app.put(&run, "four", form(4)).await;
    assert_eq!(delete(format!("/v1/runs/{run}")).await.ok()["samples"], 3);
    app.until_kept(0).await;
    app.gate.open();
    app.get(&format!("/v1/runs/{run}")).await.problem(404, "not_found");
    assert_eq!(
        app.counted("A", ONE_GRAPH).await,
        0,
        "samples in flight are not stored after the deletion"
    );
}
