//! Numbers that cannot be computed: each null of an analysis comes with a reason.

use std::time::{Duration, Instant};

use axum::{
    body::Body,
    http::{Request, header},
};
use serde_json::{Value, json};

use crate::{harness::App, instances::eventually};

async fn send(app: &App, path: &str, media_type: &str, body: String) -> Value {
    let request =
        Request::post(path).header(header::CONTENT_TYPE, media_type).body(Body::from(body));
    let response = app.send(request.expect("a valid request")).await;
    assert!(response.status.is_success(), "{path}: {}", String::from_utf8_lossy(&response.body));
    response.json()
}

/// Imports a run with a constant `dino`, equal in all runs, and a varying `aesthetic`.
async fn run(app: &App, method: &str, names: &[&str], shift: f64) -> String {
    let body = json!({"method": method, "run": "r", "dataset": "d"}).to_string();
    let run = send(app, "/v1/runs", "application/json", body).await;
    let run = run["run_id"].as_str().expect("an id").to_owned();
    for (column, scores) in
        [("dino_fidelity", [0.5, 0.5, 0.5]), ("aesthetic_score", [4.0, 6.0, 5.0])]
    {
        let rows = names.iter().zip(scores).enumerate();
        let shift = if column == "dino_fidelity" { 0.0 } else { shift };
        let rows = rows.map(|(at, (name, score))| format!("{at},{name},{}\n", score + shift));
        let csv = format!(",name,{column}\n{}", rows.collect::<String>());
        send(app, &format!("/v1/runs/{run}/import?source=ref"), "text/csv", csv).await;
    }
    run
}

/// Collects the reasons of null numbers; fails on a null without a reason.
fn reasons(at: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(list) => list.iter().for_each(|entry| reasons(at, entry, found)),
        Value::Object(object) => {
            let mut expect = |number: &str, reason: &str| {
                let is = |key: &str| object.get(key).is_some_and(|value| !value.is_null());
                if object.get(number).is_some_and(Value::is_null) {
                    assert!(is(reason), "{at}: `{number}` is null without `{reason}`: {value}");
                    found.push(format!(
                        "{at} {number} {}",
                        object[reason].as_str().expect("a word")
                    ));
                } else {
                    assert!(
                        !is(reason),
                        "{at}: `{number}` is a number but has `{reason}`: {value}"
                    );
                }
            };
            // Interval bounds need no reason of their own if the number itself is null.
            let centre = ["mean", "difference", "tau", "share"]
                .into_iter()
                .find(|key| object.contains_key(*key));
            if centre.is_some_and(|key| !object[key].is_null()) {
                expect(if object.contains_key("low") { "low" } else { "share_low" }, "no_interval");
            }
            if object.contains_key("tau") {
                expect("tau", "no_tau");
            }
            if object.contains_key("value") {
                expect("value", "reason");
            }
            for kind in ["votes", "ratings"] {
                if let Some(alpha) = object.get(&format!("{kind}_alpha")) {
                    expect(&format!("{kind}_alpha"), &format!("{kind}_alpha_reason"));
                    if !alpha.is_null() {
                        expect(&format!("{kind}_alpha_low"), &format!("{kind}_alpha_no_interval"));
                    }
                }
            }
            object.iter().for_each(|(key, entry)| reasons(&format!("{at} {key}"), entry, found));
        }
        _ => {}
    }
}

#[tokio::test]
async fn every_null_of_an_analysis_has_a_reason() {
    let app = App::start().await;
    // All samples show one identity, so the variance between identities is unknown.
    let names = ["007-0-0", "007-0-1", "007-0-2"];
    let (a, b) = (run(&app, "a", &names, 0.0).await, run(&app, "b", &names, 0.1).await);
    let vote = |annotator: &str, name: &str| json!({"question": "overall", "annotator": annotator, "name": name, "run_a": a, "run_b": b, "preferred": "a"});
    let votes: Vec<_> = ["x", "y", "z"].map(|annotator| vote(annotator, names[0])).to_vec();
    let body = json!({"preferences": votes}).to_string();
    send(&app, "/v1/preferences", "application/json", body).await;

    let slices = format!("/v1/analysis/slices?run={a}&pack=ref");
    eventually!("the summary of the run", app.get(&slices).await.status == 200);
    let mut found = Vec::new();
    for path in [
        "/v1/leaderboard?pack=ref".to_owned(),
        format!("/v1/runs/{a}/report?pack=ref"),
        slices,
        format!("/v1/runs/{a}/compare/{b}?pack=ref"),
        format!("/v1/analysis/correlations?run={a}&pack=ref"),
        "/v1/analysis/trade-off?pack=ref&x=dino&y=aesthetic".to_owned(),
        "/v1/analysis/alignment?pack=ref&min_pairs=1".to_owned(),
        "/v1/analysis/preferences".to_owned(),
        "/v1/leaderboard?pack=ref&on=common".to_owned(),
    ] {
        reasons(path.split('?').next().expect("a path"), &app.get(&path).await.ok(), &mut found);
    }
    let all = found.join("\n");
    for word in [
        "low too_few_people",
        "value constant",
        "share_low too_few_prompts",
        "votes_alpha no_variation",
        "ratings_alpha nothing_shared",
    ] {
        assert!(all.contains(word), "{word} is missing in:\n{all}");
    }
    // With a second annotator there is an alpha, but from too few pairs for an interval.
    let mut other = vote("x", names[1]);
    other["preferred"] = json!("b");
    let votes = json!({"preferences": [other, vote("y", names[1])]}).to_string();
    send(&app, "/v1/preferences", "application/json", votes).await;
    let mut found = Vec::new();
    reasons("", &app.get("/v1/analysis/preferences").await.ok(), &mut found);
    reasons("", &app.get("/v1/analysis/alignment?pack=ref&min_pairs=1").await.ok(), &mut found);
    let all = found.join("\n");
    for word in ["votes_alpha_low too_few_shared", "tau constant"] {
        assert!(all.contains(word), "{word} is missing in:\n{all}");
    }
}
