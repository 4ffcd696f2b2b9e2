//! Invalid texts, in every place that accepts a text, on both databases.

use axum::{
    body::Body,
    http::{Request, header},
};
use serde_json::{Value, json};
use stellar_score::{
    content::ContentHash,
    store::{Judgement, NewPhoto, NewPreference, Question},
};
use time::OffsetDateTime;

use crate::{
    database::Database,
    harness::{App, ONE_GRAPH, tells},
    support::{form::Form, images},
};

async fn start(database: &Database) -> App {
    let url = database.url.clone();
    App::with(move |setup| setup.config.store.url = url).await
}

fn send_json(method: &str, path: &str, body: &Value) -> Request<Body> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json");
    request.body(Body::from(body.to_string())).expect("a valid request")
}

fn form() -> Form {
    Form::new().file("image", images::png(1)).field("metrics", ONE_GRAPH)
}

fn with_metadata(metadata: &Value) -> Form {
    form().field("method", "m").field("metadata", metadata.to_string())
}

/// Invalid names, each with a word of its error.
fn bad() -> Vec<(String, &'static str)> {
    vec![
        ("T\0".to_owned(), "U+0000"),
        ("a\nb".to_owned(), "U+000A"),
        ("\u{1b}[31mred".to_owned(), "U+001B"),
        ("invoice\u{202e}gpj.exe".to_owned(), "U+202E"),
        ("zero\u{200b}width".to_owned(), "U+200B"),
        ("   ".to_owned(), "visible"),
        ("x".repeat(5_000), "bytes"),
    ]
}

async fn every_body_refuses_invalid_texts(database: Database) {
    let app = start(&database).await;
    let run =
        app.send(send_json("POST", "/v1/runs", &json!({"method": "m", "run": "r"}))).await.json();
    let run = run["run_id"].as_str().expect("a run").to_owned();
    for (text, says) in bad() {
        for field in ["method", "run", "name"] {
            let form = if field == "method" { form() } else { form().field("method", "m") };
            let detail = app.score(form.field(field, &text)).await.problem(422, "invalid_field");
            tells(&detail, &[field, says]);
        }
        for metadata in [
            json!({"prompt_kind": text}),
            json!({"identity": text}),
            json!({"dataset": text}),
            json!({"categories": [text]}),
            json!({"attributes": {text.as_str(): true}}),
        ] {
            tells(
                &app.score(with_metadata(&metadata)).await.problem(422, "invalid_field"),
                &["metadata", says],
            );
        }
        // An empty word is not an error: it is reported as skipped.
        for metadata in
            [json!({"detectables": [text]}), json!({"relations": [["person", text, "horse"]]})]
        {
            if !text.trim().is_empty() {
                tells(
                    &app.score(with_metadata(&metadata)).await.problem(422, "invalid_field"),
                    &[says],
                );
            }
        }
        for (method, path, body) in [
            ("POST", "/v1/methods".to_owned(), json!({"name": text})),
            ("POST", "/v1/runs".to_owned(), json!({"method": text})),
            ("POST", "/v1/runs".to_owned(), json!({"method": "m", "run": text})),
            ("POST", "/v1/runs".to_owned(), json!({"method": "m", "run": "s", "dataset": text})),
            ("POST", "/v1/runs".to_owned(), json!({"method": "m", "run": "s", "split": text})),
            (
                "PUT",
                "/v1/datasets/d/prompts".to_owned(),
                json!({"prompts": [{"identity": text, "prompt": "a person"}]}),
            ),
            (
                "PUT",
                "/v1/datasets/d/prompts".to_owned(),
                json!({"prompts": [{"identity": "0", "prompt": "a person", "kind": text}]}),
            ),
            (
                "PUT",
                "/v1/datasets/d/prompts".to_owned(),
                json!({"prompts": [{"identity": "0", "prompt": "a person", "categories": [text]}]}),
            ),
            (
                "POST",
                "/v1/preferences".to_owned(),
                json!({"preferences": [{"question": "overall", "annotator": text, "name": "n", "run": run, "rating": 1}]}),
            ),
            (
                "POST",
                "/v1/preferences".to_owned(),
                json!({"preferences": [{"question": "overall", "annotator": "a", "name": text, "run": run, "rating": 1}]}),
            ),
        ] {
            let response = app.send(send_json(method, &path, &body)).await;
            assert!(response.status.is_client_error(), "{path} {body}: {}", response.status);
            tells(response.json()["detail"].as_str().expect("a detail"), &[says]);
        }
        let csv = format!(",name,dino_fidelity\n0,\"{text}\",0.5\n");
        let path = format!("/v1/runs/{run}/import?source=them");
        let import =
            Request::post(path).header(header::CONTENT_TYPE, "text/csv").body(Body::from(csv));
        app.send(import.expect("a valid request")).await.problem(422, "invalid_field");
    }
    assert_eq!(app.counted("m", ONE_GRAPH).await, 0, "nothing was stored");
}

async fn every_query_and_path_refuses_invalid_texts(database: Database) {
    let app = start(&database).await;
    let parameters = [
        "/v1/leaderboard?method=",
        "/v1/leaderboard?dataset=",
        "/v1/leaderboard?split=",
        "/v1/leaderboard?category=",
        "/v1/leaderboard?prompt_kind=",
        "/v1/leaderboard?attribute=",
        "/v1/leaderboard?pack=",
        "/v1/leaderboard?after=",
        "/v1/leaderboard?flags=",
        "/v1/runs?method=",
        "/v1/runs?dataset=",
        "/v1/runs?after=",
        "/v1/methods?after=",
        "/v1/datasets?after=",
        "/v1/datasets/d/prompts?identity=",
        "/v1/datasets/d/prompts?kind=",
        "/v1/analysis/slices?category=",
        "/v1/analysis/trade-off?x=",
        "/v1/analysis/correlations?run=",
        "/v1/analysis/correlations?pack=",
        "/v1/analysis/alignment?question=",
        "/v1/analysis/alignment/differences?against=",
        "/v1/analysis/first-places?runs=",
        "/v1/analysis/first-places?kind=",
        "/v1/runs/01a20805-7f38-714e-9eb6-8001030078d6/photo-swap?with=",
        "/v1/preferences?annotator=",
        "/v1/audit?key=",
        "/v1/audit?resource=",
        "/v1/audit?since=",
        "/v1/preferences/next?annotator=",
        "/v1/samples/01a20805-7f38-714e-9eb6-8001030078d6?percentiles=",
    ];
    for path in parameters {
        for text in ["%00", "a%00b", "%1b%5B2J", "%E2%80%AEx", "%0d%0aSet-Cookie:x"] {
            let response = app.get(&format!("{path}{text}")).await;
            assert!(response.status.is_client_error(), "{path}{text}: {}", response.status);
            assert!(!response.body.contains(&0x1b), "{path}{text}");
        }
        let response = app.get(&format!("{path}{}", "x".repeat(20_000))).await;
        assert!(response.status.is_client_error(), "{path} with 20 kB: {}", response.status);
    }
    for (method, path) in [
        ("GET", "/v1/datasets/%00"),
        ("GET", "/v1/methods/%00"),
        ("DELETE", "/v1/datasets/a%00b"),
        ("DELETE", "/v1/annotators/%00"),
        ("GET", "/v1/datasets/%1F/prompts"),
        ("GET", "/v1/runs/%00/report"),
        ("PUT", "/v1/runs/01a20805-7f38-714e-9eb6-8001030078d6/samples/%00"),
        ("GET", "/v1/runs/..%2f..%2fetc/toolkit/%2e%2e%2fpasswd"),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::empty())
            .expect("a valid request");
        let response = app.send(request).await;
        assert!(response.status.is_client_error(), "{method} {path}: {}", response.status);
    }
}

async fn composed_and_decomposed_names_are_one_annotator(database: Database) {
    let app = start(&database).await;
    let mut runs = Vec::new();
    for method in ["a", "b"] {
        let form = Form::new().file("image", images::png(1)).field("metrics", ONE_GRAPH);
        let scored = app.score(form.field("method", method).field("name", "n")).await.ok();
        runs.push(scored["run_id"].as_str().expect("a run").to_owned());
    }
    for annotator in ["José", "Jose\u{301}", " José "] {
        let vote = json!({"question": "overall", "annotator": annotator, "name": "n", "run_a": runs[0], "run_b": runs[1], "preferred": "a"});
        app.send(send_json("POST", "/v1/preferences", &json!({"preferences": [vote]}))).await.ok();
    }
    let kept = app.get("/v1/preferences").await.ok();
    let preferences = kept["preferences"].as_array().expect("a list");
    assert_eq!(preferences.len(), 1, "the three names are one annotator: {kept}");
    assert_eq!(preferences[0]["annotator"], "José");
    // Queries find the annotator under each of these forms.
    for typed in ["Jose%CC%81", "Jos%C3%A9", "+Jos%C3%A9+"] {
        let found = app.get(&format!("/v1/preferences?annotator={typed}&limit=10")).await.ok();
        assert_eq!(found["preferences"].as_array().map(Vec::len), Some(1), "{typed}");
    }
    let deletion =
        Request::delete("/v1/annotators/Jose%CC%81").body(Body::empty()).expect("a valid request");
    assert_eq!(app.send(deletion).await.ok()["preferences"], 1);
}

/// Older versions stored names without normalisation.
async fn names_stored_before_normalisation_can_be_deleted(database: Database) {
    let app = start(&database).await;
    let now = OffsetDateTime::now_utc();
    let mut runs = Vec::new();
    for method in ["a", "b"] {
        let scored = app.score(form().field("method", method).field("name", "n")).await.ok();
        runs.push(scored["run_id"].as_str().expect("a run").parse().expect("an id"));
    }
    let old = " Jose\u{301}";
    let preference = NewPreference {
        question: Question::Overall,
        annotator: old.to_owned(),
        name: "n".to_owned(),
        judgement: Judgement::Vote { a: runs[0], b: runs[1], preference: 1 },
        shown_first: None,
        is_repeat: false,
    };
    app.store
        .add_preferences(&[preference], now)
        .await
        .expect("a database")
        .expect("the samples are there");
    let photo = NewPhoto {
        dataset: old.to_owned(),
        identity: "p".to_owned(),
        name: "1".to_owned(),
        image: ContentHash::of(b"photo"),
        attributes: [].into(),
        created: now,
        new_faces: false,
    };
    app.store.enrol(&photo).await.expect("a database");
    app.get("/v1/datasets/%20Jose%CC%81").await.ok();
    for (path, deleted) in [("annotators", "preferences"), ("datasets", "")] {
        let request = || Request::delete(format!("/v1/{path}/%20Jose%CC%81")).body(Body::empty());
        let response = app.send(request().expect("a valid request")).await.ok();
        assert!(deleted.is_empty() || response[deleted] == 1, "{response}");
        app.send(request().expect("a valid request")).await.problem(404, "not_found");
    }
}

crate::on_both_databases!(
    names_stored_before_normalisation_can_be_deleted,
    every_body_refuses_invalid_texts,
    every_query_and_path_refuses_invalid_texts,
    composed_and_decomposed_names_are_one_annotator,
);

#[tokio::test]
async fn attributes_of_a_sample_are_bounded_in_number_and_length() {
    let app = App::start().await;
    let named = |count: usize| {
        let names = (0..count).map(|at| (format!("{at:04}a"), json!(true)));
        json!({"attributes": names.collect::<serde_json::Map<_, _>>()})
    };
    app.score(with_metadata(&named(64))).await.ok();
    for count in [65, 3_500] {
        tells(
            &app.score(with_metadata(&named(count))).await.problem(422, "invalid_field"),
            &["attributes", "64"],
        );
    }
    let categories: Vec<_> = (0..65).map(|at| at.to_string()).collect();
    app.score(with_metadata(&json!({"categories": categories})))
        .await
        .problem(422, "invalid_field");
    let long = json!({"attributes": {"a".repeat(65): true}});
    app.score(with_metadata(&long)).await.problem(422, "invalid_field");
}

#[tokio::test]
async fn attributes_may_be_1_and_minus_1_as_in_the_toolkit() {
    let app = App::start().await;
    let numbers = app
        .score(with_metadata(&json!({"attributes": {"Young": 1, "Male": -1, "Bald": 1.0}})))
        .await
        .ok();
    let booleans = app
        .score(with_metadata(&json!({"attributes": {"Young": true, "Male": false, "Bald": true}})))
        .await
        .ok();
    assert_eq!(numbers["sample"], booleans["sample"], "both are the same sample");
    for other in [
        json!(0),
        json!(2),
        json!(0.5),
        json!("1"),
        json!(null),
        json!([]),
        json!({}),
        json!(1e300),
    ] {
        let detail = app
            .score(with_metadata(&json!({"attributes": {"Young": other}})))
            .await
            .problem(422, "invalid_field");
        tells(&detail, &["Young", "-1 if absent"]);
    }
}

#[tokio::test]
async fn times_out_of_range_in_utc_are_refused_by_name() {
    let app = App::start().await;
    for path in [
        "/v1/leaderboard",
        "/v1/analysis/slices",
        "/v1/analysis/trade-off",
        "/v1/analysis/alignment",
    ] {
        for (name, time) in [
            ("since", "9999-12-31T23:59:59-23:59"),
            ("until", "0000-01-01T00:00:00%2B23:59"),
            ("since", "99999-01-01T00:00:00Z"),
            ("until", "yesterday"),
        ] {
            let response = app.get(&format!("{path}?{name}={time}")).await;
            assert_eq!(
                response.status,
                400,
                "{path} {name}={time}: {}",
                String::from_utf8_lossy(&response.body)
            );
        }
    }
    tells(
        &app.get("/v1/leaderboard?since=9999-12-31T23:59:59-23:59")
            .await
            .problem(400, "malformed_request"),
        &["since", "9999"],
    );
    app.get("/v1/leaderboard?since=9999-12-31T23:59:59Z").await.ok();
}

#[tokio::test]
async fn long_texts_and_lists_are_bounded() {
    let app = App::start().await;
    let describe = |description: &str| {
        send_json("POST", "/v1/methods", &json!({"name": "m", "description": description}))
    };
    let lines = app.send(describe("first line\r\n\tsecond line")).await;
    assert!(lines.status.is_success(), "a description may have several lines");
    for (text, says) in bad().iter().filter(|(text, _)| text != "a\nb" && !text.trim().is_empty()) {
        tells(
            &app.send(describe(text)).await.problem(422, "invalid_field"),
            &["description", says],
        );
    }
    for (list, entry) in [
        ("categories", json!("a")),
        ("detectables", json!("a")),
        ("relations", json!(["a", "b", "c"])),
    ] {
        let prompt = json!({"identity": "0", "prompt": "a person", list: vec![entry; 1_001]});
        let request = send_json("PUT", "/v1/datasets/d/prompts", &json!({"prompts": [prompt]}));
        tells(&app.send(request).await.problem(422, "invalid_field"), &["1001", "1000"]);
    }
    let run =
        app.send(send_json("POST", "/v1/runs", &json!({"method": "m", "run": "r"}))).await.json();
    let path = format!("/v1/runs/{}/import?source=them", run["run_id"].as_str().expect("a run"));
    for (name, accepted) in
        [("a".repeat(64), true), ("a".repeat(65), false), ("é".repeat(33), false)]
    {
        let csv = format!(",name,{name}_target,{name}_pred\n0,x,1,1\n");
        let import =
            Request::post(&path).header(header::CONTENT_TYPE, "text/csv").body(Body::from(csv));
        let response = app.send(import.expect("a valid request")).await;
        assert_eq!(
            response.status.is_success(),
            accepted,
            "{name}: {}",
            String::from_utf8_lossy(&response.body)
        );
    }
}

#[tokio::test]
async fn only_questions_configured_by_the_operator_are_accepted() {
    let app = App::with(|setup| setup.config.analysis.questions = vec!["style".to_owned()]).await;
    let mut runs = Vec::new();
    for method in ["a", "b"] {
        let scored = app.score(form().field("method", method).field("name", "n")).await.ok();
        runs.push(scored["run_id"].as_str().expect("a run").to_owned());
    }
    let vote = |question: &str| {
        let vote = json!({"question": question, "annotator": "x", "name": "n", "run_a": runs[0], "run_b": runs[1], "preferred": "a"});
        app.send(send_json("POST", "/v1/preferences", &json!({"preferences": [vote]})))
    };
    for question in ["overall", "identity", "style"] {
        vote(question).await.ok();
    }
    tells(
        &vote("stile").await.problem(422, "invalid_field"),
        &["stile", "overall", "style", "analysis.questions"],
    );
    tells(&vote("Style!").await.problem(422, "invalid_field"), &["lower-case"]);
    let csv = format!(
        "question,annotator,name,run_a,run_b,preferred\nstyle,y,n,{},{},b\nstile,y,n,{},{},b\n",
        runs[0], runs[1], runs[0], runs[1]
    );
    let request = Request::post("/v1/preferences")
        .header(header::CONTENT_TYPE, "text/csv")
        .body(Body::from(csv));
    tells(
        &app.send(request.expect("a valid request")).await.problem(422, "invalid_field"),
        &["line 3", "stile"],
    );
    for route in [
        "preferences?",
        "preferences/next?",
        "analysis/preferences?",
        "analysis/alignment?min_pairs=1&",
        "analysis/alignment/differences?",
        "analysis/first-places?",
    ] {
        let found = app.get(&format!("/v1/{route}question=style")).await.ok();
        assert_eq!(found["question"].as_str().unwrap_or("style"), "style", "{found}");
        tells(
            &app.get(&format!("/v1/{route}question=stile")).await.problem(400, "malformed_request"),
            &["stile", "overall"],
        );
    }
    let found = app.get("/v1/preferences?question=style").await.ok();
    assert_eq!(found["preferences"][0]["question"], "style", "{found}");
    assert_eq!(app.get("/v1/analysis/preferences?question=style").await.ok()["answers"], 1);
}
