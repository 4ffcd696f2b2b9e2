//! `/vote` and `/study`: votes cast in the browser move what people are said to prefer.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};
use stellar_score::{
    content::ContentHash,
    key::{Key, KeyLimits, Scope},
    store::{KeyRecord, NewScore, ScoreValue},
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::harness::{Answer, App};
use crate::stored::{self, loaded_pack};

/// Stores a run with these values of `ips`, one sample and person each.
pub(crate) async fn record(app: &App, method: &str, values: &[f64]) -> Uuid {
    let pack = loaded_pack(app).await;
    let mut run = None;
    for (place, value) in values.iter().enumerate() {
        let mut new = stored::sample(&pack, method, place as u32);
        new.inputs.prompt = Some(format!("<script>alert({place})</script> a person"));
        new.inputs.image = ContentHash::of(format!("image {method} {place}").as_bytes());
        new.inputs.references = vec![ContentHash::of(b"reference")];
        new.inputs.metadata = json!({"identity": format!("person {place}")});
        new.scores = vec![NewScore {
            metric: "ips".into(),
            metric_version: 1,
            value: ScoreValue::Number(*value),
            flags: vec![],
        }];
        run = app.store.record(&new).await.unwrap().run;
    }
    run.unwrap()
}

pub(crate) fn text(answer: &Answer) -> String {
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert_eq!(answer.status, 200, "{text}");
    text
}

/// The value of a hidden field.
pub(crate) fn field(page: &str, name: &str) -> Option<String> {
    let ballot = page.split("id=\"ballot\"").nth(1)?;
    let rest = ballot.split(&format!("name=\"{name}\" value=\"")).nth(1)?;
    Some(rest.split('"').next()?.to_owned())
}

pub(crate) async fn send(app: &App, path: &str, fields: &[(&str, &str)]) -> Answer {
    let encode = |text: &str| text.replace('%', "%25").replace('&', "%26").replace(' ', "+");
    let body: Vec<_> =
        fields.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    let request = Request::post(path)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(body.join("&")))
        .unwrap();
    app.send(request).await
}

/// Answers the pair of a page, and returns the address that the service goes on to.
async fn answer(app: &App, page: &str, annotator: &str, preferred: &str) -> String {
    let of = |name| field(page, name).unwrap_or_else(|| panic!("no {name} in {page}"));
    let (name, a, b, first) = (of("name"), of("run_a"), of("run_b"), of("shown_first"));
    let repeat = field(page, "repeat");
    let mut fields = vec![
        ("question", "overall"),
        ("annotator", annotator),
        ("consent", "yes"),
        ("name", &name),
        ("run_a", &a),
        ("run_b", &b),
        ("shown_first", &first),
        ("preferred", preferred),
    ];
    if let Some(repeat) = &repeat {
        fields.push(("repeat", repeat));
    }
    let response = send(app, "/vote", &fields).await;
    assert_eq!(response.status, 303, "{:?}", String::from_utf8_lossy(&response.body));
    response.headers["location"].to_str().unwrap().to_owned()
}

fn session(annotator: &str) -> String {
    format!("/vote?question=overall&annotator={annotator}&consent=yes")
}

/// Votes on every new pair; `prefers` says for a sample whether the first run is preferred.
async fn vote_on_all(
    app: &App,
    first: Uuid,
    annotator: &str,
    prefers: impl Fn(&str) -> Option<bool>,
) {
    let mut address = session(annotator);
    loop {
        let page = text(&app.get(&address).await);
        let Some(name) = field(&page, "name") else { return };
        let is_first = field(&page, "run_a").unwrap() == first.to_string();
        let preferred = match prefers(&name) {
            None => "tie",
            Some(wins) if wins == is_first => "a",
            Some(_) => "b",
        };
        address = answer(app, &page, annotator, preferred).await;
    }
}

fn close(found: &Value, expected: f64) {
    assert!((found.as_f64().unwrap() - expected).abs() < 1e-9, "{found} is not {expected}");
}

#[tokio::test]
async fn votes_cast_in_the_browser_move_study_and_api_as_computed_by_hand() {
    let app = App::start().await;
    let better = record(&app, "better", &[0.9, 0.8, 0.7, 0.6, 0.5]).await;
    record(&app, "worse", &[0.1; 5]).await;
    vote_on_all(&app, better, "calm-otter", |name| match name {
        "04" => None,
        name => Some(name != "03"),
    })
    .await;

    // Three wins, a loss and a tie: the share is 3.5 of 5. The metric prefers "better" in all five:
    // tau-b is (3 - 1) / sqrt(4 · 5), and it agrees with three of four preferences.
    let shares = app.get("/v1/analysis/preferences").await.ok();
    assert_eq!(
        (&shares["answers"], &shares["methods"][0]["method"]),
        (&json!(5), &json!("better"))
    );
    close(&shares["methods"][0]["share"], 0.7);
    // The odds are 3.5 to 1.5; strengths sum to 0.
    close(&shares["methods"][0]["strength"], (3.5_f64 / 1.5).ln() / 2.0);
    let alignment = app.get("/v1/analysis/alignment").await.ok();
    let ips = &alignment["slices"][0]["metrics"][0];
    close(&ips["tau"], 2.0 / 20_f64.sqrt());
    close(&ips["agreement"], 0.75);
    assert_eq!(shares["voting"]["ties"], 1);
    assert_eq!(shares["voting"]["first"]["of"], 4);

    let study = text(&app.get("/study").await);
    for part in ["0.447", "75 %", "70 %", "calm-otter"] {
        assert!(study.contains(part), "{part} is missing in {study}");
    }
    assert!(!text(&app.get("/study?question=identity").await).contains("calm-otter"));
    let csv = text(&app.get("/study?download=csv:alignment").await);
    assert!(
        csv.starts_with("metric,pairs,tau,low,high,agreement,published tau,best?\r\nips,5,0.447"),
        "{csv}"
    );
    let svg = text(&app.get("/study?download=svg:tau").await);
    assert!(svg.starts_with("<?xml") && svg.contains("ips"), "{svg}");
    let latex = text(&app.get("/study?download=latex:methods").await);
    assert!(latex.contains("\\toprule") && latex.contains("better"), "{latex}");

    // One more vote of the other kind, from another annotator, on the pair that was a tie.
    vote_on_all(&app, better, "keen-lark", |_| Some(true)).await;
    let shares = app.get("/v1/analysis/preferences").await.ok();
    close(&shares["methods"][0]["share"], 8.5 / 10.0);
    assert_eq!(shares["agreement"]["votes_shared"], 5);
}

#[tokio::test]
async fn the_start_page_asks_for_consent_before_anything_is_shown_or_stored() {
    let app = App::start().await;
    let a = record(&app, "a", &[0.5]).await;
    let b = record(&app, "b", &[0.5]).await;
    for address in ["/vote", "/vote?annotator=ada", "/vote?question=identity"] {
        let page = text(&app.get(address).await);
        assert!(page.contains("name=\"consent\"") && page.contains("What is recorded"), "{page}");
        assert!(!page.contains("id=\"ballot\""), "{page}");
    }
    let hostile = text(&app.get("/vote?annotator=%3Cscript%3Ex%3C/script%3E").await);
    assert!(hostile.contains("&lt;script&gt;x") && !hostile.contains("<script>x"), "{hostile}");
    let (a, b) = (a.to_string(), b.to_string());
    let vote = [("annotator", "ada"), ("name", "00"), ("run_a", &a), ("run_b", &b)];
    let vote = [&vote[..], &[("question", "overall"), ("preferred", "a")]].concat();
    send(&app, "/vote", &vote).await.problem(422, "invalid_field");
    let other = [&vote[..], &[("consent", "yes"), ("beauty", "1")]].concat();
    send(&app, "/vote", &other).await.problem(400, "malformed_request");
    app.get("/vote?question=beauty").await.problem(400, "malformed_request");
    app.get("/vote?annotator=ada&consent=yes&goal=0").await.problem(400, "malformed_request");
    assert_eq!(app.get("/v1/preferences").await.ok()["preferences"], json!([]));
}

#[tokio::test]
async fn a_pair_shows_its_prompt_and_person_and_neither_methods_nor_scores() {
    let app = App::start().await;
    record(&app, "secretmethod", &[0.987_65]).await;
    record(&app, "othermethod", &[0.123_45]).await;
    let page = text(&app.get(&session("ada").replace("overall", "identity")).await);
    assert!(page.contains("Which image looks more like the person?"));
    assert!(page.contains("&lt;script&gt;alert(0)") && !page.contains("<script>alert"));
    for image in ["image secretmethod 0", "image othermethod 0", "reference"] {
        assert!(page.contains(&ContentHash::of(image.as_bytes()).to_hex()), "{image}");
    }
    for secret in ["secretmethod", "othermethod", "0.987", "0.123"] {
        assert!(!page.contains(secret), "{secret} is in {page}");
    }
    assert!(page.contains("aria-keyshortcuts") && !page.contains(" style="));
}

#[tokio::test]
async fn a_vote_is_undone_and_cannot_tell_is_kept_apart() {
    let app = App::start().await;
    record(&app, "a", &[0.5, 0.6]).await;
    record(&app, "b", &[0.5, 0.6]).await;
    let first = text(&app.get(&session("ada")).await);
    let name = field(&first, "name").unwrap();
    let address = answer(&app, &first, "ada", "a").await;
    assert_eq!(app.get("/v1/preferences").await.ok()["preferences"].as_array().unwrap().len(), 1);
    let stored = &app.get("/v1/preferences").await.ok()["preferences"][0];
    assert!(stored["shown_first"] == "a" || stored["shown_first"] == "b", "{stored}");
    let id = address.split("undo=").nth(1).unwrap().to_owned();
    let undo = [("annotator", "ada"), ("question", "overall"), ("consent", "yes"), ("id", &id)];
    // Others cannot withdraw it here.
    let others = [("annotator", "bob"), undo[1], undo[2], undo[3]];
    send(&app, "/vote/undo", &others).await;
    assert_eq!(app.get("/v1/preferences").await.ok()["preferences"].as_array().unwrap().len(), 1);
    let response = send(&app, "/vote/undo", &undo).await;
    assert_eq!(response.status, 303);
    assert_eq!(app.get("/v1/preferences").await.ok()["preferences"], json!([]));
    let again = text(&app.get(response.headers["location"].to_str().unwrap()).await);
    assert_eq!(field(&again, "name").as_deref(), Some(&*name), "the same pair is shown again");

    answer(&app, &again, "ada", "cannot_tell").await;
    assert_eq!(app.get("/v1/preferences").await.ok()["preferences"], json!([]));
    let kept = &app.get("/v1/preferences?counted=false").await.ok()["preferences"][0];
    assert_eq!((&kept["preferred"], &kept["name"]), (&json!("cannot_tell"), &json!(name)));
    let next = text(&app.get(&session("ada")).await);
    assert_ne!(field(&next, "name").unwrap(), name, "it is not asked again");
    let found = app.get("/v1/analysis/preferences").await.ok();
    assert_eq!((&found["answers"], &found["voting"]["cannot_tell"]), (&json!(0), &json!(1)));
    assert_eq!(found["methods"], json!([]));
    // A vote replaces it, and it replaces a vote.
    let (a, b) = (kept["run_a"].as_str().unwrap(), kept["run_b"].as_str().unwrap());
    for (preferred, counted, apart) in [("b", 1, 0), ("cannot_tell", 0, 1)] {
        let vote = json!({"preferences": [{"question": "overall", "annotator": "ada", "name": name,
            "run_a": a, "run_b": b, "preferred": preferred}]});
        let request = Request::post("/v1/preferences").header("content-type", "application/json");
        app.send(request.body(Body::from(vote.to_string())).unwrap()).await.ok();
        for (query, expected) in [("", counted), ("?counted=false", apart)] {
            let found = app.get(&format!("/v1/preferences{query}")).await.ok();
            assert_eq!(found["preferences"].as_array().unwrap().len(), expected, "{preferred}");
        }
    }
    let deleted = app.send(Request::delete("/v1/annotators/ada").body(Body::empty()).unwrap());
    assert_eq!(deleted.await.ok()["preferences"], 1);
    assert_eq!(app.get("/v1/preferences?counted=false").await.ok()["preferences"], json!([]));
}

#[tokio::test]
async fn the_eighth_pair_is_a_repeat_with_the_sides_swapped_and_does_not_count() {
    let app = App::start().await;
    record(&app, "a", &[0.5; 12]).await;
    record(&app, "b", &[0.5; 12]).await;
    let mut address = session("ada");
    let mut firsts = std::collections::BTreeMap::new();
    for _ in 0..7 {
        let page = text(&app.get(&address).await);
        assert_eq!(field(&page, "repeat"), None);
        firsts.insert(field(&page, "name").unwrap(), first_run(&page));
        address = answer(&app, &page, "ada", "a").await;
    }
    let page = text(&app.get(&address).await);
    assert_eq!(field(&page, "repeat").as_deref(), Some("true"), "{page}");
    let name = field(&page, "name").unwrap();
    assert_ne!(firsts[&name], first_run(&page), "the other image is on the left");
    answer(&app, &page, "ada", "tie").await;
    let found = app.get("/v1/analysis/preferences").await.ok();
    assert_eq!((&found["answers"], &found["methods"][0]["ties"]), (&json!(7), &json!(0)));
    let consistency = &found["voting"]["consistency"];
    assert_eq!((&consistency["of"], &consistency["count"]), (&json!(1), &json!(0)));
    let page = text(&app.get(&session("ada")).await);
    assert_eq!(field(&page, "repeat"), None, "once");
    assert!(page.contains("8 answers"), "{page}");
}

/// The id of the run whose image is on the left.
fn first_run(page: &str) -> String {
    let side = if field(page, "shown_first").unwrap() == "a" { "run_a" } else { "run_b" };
    field(page, side).unwrap()
}

#[tokio::test]
async fn empty_pages_say_what_to_do() {
    let app = App::start().await;
    let page = text(&app.get(&session("ada")).await);
    assert!(page.contains("nothing to compare yet") && page.contains("stellar-score submit"));
    let page = text(&app.get("/study").await);
    assert!(page.contains("Nobody has answered this question") && page.contains("/vote?question="));
    app.get("/study?nothing=1").await.problem(400, "malformed_request");
}

#[tokio::test]
async fn voting_needs_the_scope_annotate_and_no_page_of_another_site() {
    let app = App::start().await;
    let key = |name: &str, scope: Scope| {
        let key = Key::generate().unwrap();
        let record = KeyRecord {
            id: key.id(),
            name: name.to_owned(),
            hash: key.hash(),
            scopes: vec![scope],
            limits: KeyLimits::default(),
            created: OffsetDateTime::now_utc(),
            expires: None,
            revoked: None,
        };
        (format!("Bearer {}", key.reveal()), record)
    };
    let (reader, of_reader) = key("reader", Scope::Read);
    let (annotator, of_annotator) = key("annotator", Scope::Annotate);
    for record in [of_reader, of_annotator] {
        assert!(app.store.create_key(&record).await.unwrap());
    }
    let get = |path: &str, key: &str| {
        Request::get(path).header("authorization", key).body(Body::empty()).unwrap()
    };
    app.get("/vote").await.problem(401, "unauthorized");
    app.send(get("/vote", &reader)).await.problem(403, "scope_missing");
    assert_eq!(app.send(get("/vote", &annotator)).await.status, 200);
    assert_eq!(app.send(get("/study", &reader)).await.status, 200);
    app.send(get("/study", &annotator)).await.problem(403, "scope_missing");
    let post = |path: &str, key: &str, site: &str| {
        let request = Request::post(path).header("authorization", key);
        let kind = "application/x-www-form-urlencoded";
        let request = request.header("content-type", kind).header("sec-fetch-site", site);
        request.body(Body::from("annotator=ada")).unwrap()
    };
    for path in ["/vote", "/vote/undo"] {
        app.send(post(path, &reader, "same-origin")).await.problem(403, "scope_missing");
        app.send(post(path, &annotator, "cross-site")).await.problem(403, "cross_site");
        app.send(post(path, &annotator, "same-origin")).await.problem(422, "invalid_field");
    }
}

#[tokio::test]
async fn many_annotators_with_hostile_names_are_cut_on_the_page_and_whole_in_the_download() {
    let app = App::start().await;
    let a = record(&app, "a", &[0.5; 3]).await;
    let b = record(&app, "b", &[0.5; 3]).await;
    let votes: Vec<Value> = (0..60)
        .map(|at| {
            let annotator = format!("{at:02} <script>{}", "🐕".repeat(50));
            json!({"question": "overall", "annotator": annotator, "name": "00", "run_a": a,
                   "run_b": b, "preferred": "tie"})
        })
        .collect();
    let request = Request::post("/v1/preferences").header("content-type", "application/json");
    let body = json!({ "preferences": votes }).to_string();
    app.send(request.body(Body::from(body)).unwrap()).await.ok();
    let page = text(&app.get("/study").await);
    assert!(page.len() < 150_000, "{}", page.len());
    assert!(page.contains("40 with the most votes, of 60") && !page.contains("<script>🐕"));
    assert!(page.contains("&lt;script&gt;🐕") && page.contains("All shared pairs got the same"));
    let csv = text(&app.get("/study?download=csv:annotators").await);
    assert_eq!(csv.lines().count(), 61, "{csv}");
}
