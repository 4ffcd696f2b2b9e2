//! Responses agree with the stored data.

use std::time::{Duration, Instant};

use axum::{body::Body, http::Request};
use serde_json::json;
use stellar_score::store::{RunFacts, RunName};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    database::Database,
    harness::{App, ONE_GRAPH},
    instances::eventually,
    spool::{pending, scored},
    support::{form::Form, images::png},
};

async fn on(database: &Database) -> App {
    let url = database.url.clone();
    App::with(move |setup| setup.config.store.url = url).await
}

async fn a_repeated_sample_returns_the_stored_numbers(database: Database) {
    let app = on(&database).await;
    let form = || {
        Form::new()
            .file("image", png(1))
            .field("metrics", ONE_GRAPH)
            .field("method", "m")
            .field("name", "a")
    };
    let first = app.score(form()).await.ok();
    // Simulates an attribute score whose dataset has changed since.
    database
        .execute(&format!("UPDATE scores SET value = 0.125 WHERE metric = '{ONE_GRAPH}'"))
        .await;
    let again = app.score(form()).await.ok();
    assert_eq!((&again["outcome"], &again["sample"]), (&json!("repeated"), &first["sample"]));
    assert_ne!(first["scores"][ONE_GRAPH]["value"], 0.125);
    assert_eq!(again["scores"][ONE_GRAPH]["value"], 0.125, "{again}");
    let id = first["sample"].as_str().expect("an id");
    let stored = app.get(&format!("/v1/samples/{id}")).await.ok();
    assert_eq!(stored["scores"][0]["value"], 0.125, "{stored}");
}

/// A run with a sample that was scored with another pack before this service started.
async fn run_of_another_pack(app: &App, name: &str, metrics: Option<Vec<String>>) -> Uuid {
    let facts = RunFacts { metrics, ..RunFacts::default() };
    let name = RunName::new("m", Some(name.to_owned()));
    let run =
        app.store.create_run(&name, &facts, OffsetDateTime::now_utc()).await.expect("a run").0;
    let new = pending(&run, "a", "folder");
    app.store.accept(&new).await.expect("accepted");
    app.store
        .record_pending(&scored(&new, &run), run.id)
        .await
        .expect("recorded")
        .expect("it was pending");
    run.id
}

async fn state(app: &App, run: Uuid) -> serde_json::Value {
    app.get(&format!("/v1/runs/{run}")).await.ok()
}

async fn a_run_with_attributes_of_another_pack_finishes_when_it_is_loaded(database: Database) {
    let app = on(&database).await;
    let with = run_of_another_pack(&app, "with", None).await;
    let without = run_of_another_pack(&app, "without", Some(vec![ONE_GRAPH.into()])).await;
    for run in [with, without] {
        let request = Request::post(format!("/v1/runs/{run}/finish")).body(Body::empty());
        assert_eq!(app.send(request.expect("a valid request")).await.status, 202);
    }
    // Both are checked in one pass: once one is finished, the other has been skipped.
    eventually!(
        "the end of the run without attributes",
        state(&app, without).await["state"] == "finished"
    );
    let blocked = state(&app, with).await;
    assert_eq!(
        (&blocked["state"], &blocked["held"]["code"]),
        (&json!("finishing"), &json!("pack_not_loaded"))
    );
    // Simulates loading its pack; the score registers the loaded pack.
    app.score(Form::new().file("image", png(1)).field("metrics", ONE_GRAPH)).await.ok();
    let loaded = app.scoring.pack().digest.to_string();
    database.execute(&format!("UPDATE runs SET pack = '{loaded}' WHERE id = '{with}'")).await;
    eventually!("the end of the other run", state(&app, with).await["state"] == "finished");
    assert_eq!(state(&app, with).await.get("held"), None);
}

crate::on_both_databases!(
    a_repeated_sample_returns_the_stored_numbers,
    a_run_with_attributes_of_another_pack_finishes_when_it_is_loaded,
);
