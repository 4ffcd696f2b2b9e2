//! Two services on one database, each with its own spool.

use std::time::{Duration, Instant};

use axum::{
    body::Body,
    http::{Request, header},
};
use serde_json::json;

use crate::{
    database::Database,
    harness::App,
    support::{form::Form, images},
};

async fn start(database: &Database) -> App {
    let url = database.url.clone();
    App::with(move |setup| setup.config.store.url = url).await
}

pub(crate) async fn new_run(app: &App) -> String {
    let body = json!({"method": "m", "run": "r", "metrics": ["clip_i", "aesthetic"]}).to_string();
    let request = Request::post("/v1/runs")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body));
    let response = app.send(request.expect("a valid request")).await;
    assert!(response.status.is_success(), "{}", response.json());
    response.json()["run_id"].as_str().expect("an id").to_owned()
}

pub(crate) async fn put(app: &App, run: &str, name: &str, form: Form) -> u16 {
    let body = form.finish();
    let request = Request::put(format!("/v1/runs/{run}/samples/{name}"))
        .header(header::CONTENT_TYPE, Form::content_type())
        .header(header::CONTENT_LENGTH, body.len())
        .body(Body::from(body));
    app.send(request.expect("a valid request")).await.status.as_u16()
}

/// Waits for the work of another task. A macro, since a closure that borrows across an await is not
/// `Send`.
macro_rules! eventually {
    ($what:expr, $is_so:expr) => {
        let started = Instant::now();
        while !$is_so {
            assert!(started.elapsed() < Duration::from_secs(30), "timed out waiting for {}", $what);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
}

pub(crate) use eventually;

async fn post(app: &App, path: &str) -> u16 {
    app.send(Request::post(path).body(Body::empty()).expect("a valid request"))
        .await
        .status
        .as_u16()
}

async fn delete(app: &App, path: &str) -> u16 {
    app.send(Request::delete(path).body(Body::empty()).expect("a valid request"))
        .await
        .status
        .as_u16()
}

async fn a_run_finished_by_the_other_instance_leaves_no_files(database: Database) {
    let (one, two) = (start(&database).await, start(&database).await);
    let run = new_run(&one).await;
    for (at, app) in [&one, &two].into_iter().enumerate() {
        let form =
            Form::new().file("image", images::png(at as u32)).file("reference", images::png(100));
        assert_eq!(put(app, &run, &format!("s{at}"), form).await, 202);
    }
    assert!(one.runs.spool().used() > 0 && two.runs.spool().used() > 0);
    assert_eq!(post(&two, &format!("/v1/runs/{run}/finish")).await, 202);
    eventually!(
        "the end of the run",
        one.get(&format!("/v1/runs/{run}")).await.ok()["state"] == "finished"
    );
    let counts = one.get(&format!("/v1/runs/{run}")).await.ok()["counts"].clone();
    assert_eq!((&counts["scored"], &counts["failed"]), (&json!(2), &json!(0)), "{counts}");
    eventually!("the end of the files", one.runs.spool().used() + two.runs.spool().used() == 0);
}

async fn a_run_deleted_by_the_other_instance_leaves_no_files(database: Database) {
    let (one, two) = (start(&database).await, start(&database).await);
    one.gate.close();
    let run = new_run(&one).await;
    for at in 0..3 {
        let form = Form::new().file("image", images::png(at)).file("reference", images::png(100));
        assert_eq!(put(&one, &run, &format!("s{at}"), form).await, 202);
    }
    assert_eq!(delete(&two, &format!("/v1/runs/{run}")).await, 200);
    one.gate.open();
    eventually!("the end of the files", one.runs.spool().used() == 0);
    assert_eq!(delete(&one, &format!("/v1/runs/{run}")).await, 404, "it is deleted for both");
}

/// Deletion reaches the spool of the instance that accepted the sample: both the image itself and
/// the files that are useless without their reference.
async fn an_image_deleted_by_the_other_instance_leaves_no_files(database: Database) {
    let (one, two) = (start(&database).await, start(&database).await);
    one.gate.close();
    let run = new_run(&one).await;
    let (image, reference) = (images::png(1), images::png(100));
    for (name, image) in [("a", &image), ("b", &images::png(2))] {
        let form = Form::new().file("image", image.clone()).file("reference", reference.clone());
        assert_eq!(put(&one, &run, name, form).await, 202);
    }
    let before = one.runs.spool().used();
    assert_eq!(before, (image.len() + images::png(2).len() + reference.len()) as u64);
    assert_eq!(delete(&two, &format!("/v1/images/{}", blake3::hash(&image).to_hex())).await, 200);
    eventually!("the end of the image", one.runs.spool().used() == before - image.len() as u64);
    assert_eq!(
        delete(&two, &format!("/v1/images/{}", blake3::hash(&reference).to_hex())).await,
        200
    );
    eventually!("the end of all files", one.runs.spool().used() == 0);
    one.gate.open();
    eventually!(
        "the end of the samples",
        one.get(&format!("/v1/runs/{run}")).await.ok()["counts"]["failed"] == 2
    );
}

/// Both spools have a file of the image; the last instance to need it notifies the other.
async fn an_equal_image_on_both_instances_leaves_no_files(database: Database) {
    let (one, two) = (start(&database).await, start(&database).await);
    one.gate.close();
    two.gate.close();
    let run = new_run(&one).await;
    for (name, app) in [("a", &one), ("b", &two)] {
        let form = Form::new().file("image", images::png(1)).file("reference", images::png(100));
        assert_eq!(put(app, &run, name, form).await, 202);
    }
    let photo = images::png(100).len() as u64;
    one.gate.open();
    eventually!(
        "the first score",
        one.get(&format!("/v1/runs/{run}")).await.ok()["counts"]["scored"] == 1
    );
    assert!(one.runs.spool().used() > photo, "the second sample may still need it");
    two.gate.open();
    eventually!(
        "the second score",
        one.get(&format!("/v1/runs/{run}")).await.ok()["counts"]["scored"] == 2
    );
    for app in [&one, &two] {
        eventually!("the end of the image", app.runs.spool().used() == photo);
    }
}

async fn a_deletion_evicts_the_caches_of_the_other_instance(database: Database) {
    let (one, two) = (start(&database).await, start(&database).await);
    let image = images::png(1);
    let form = || Form::new().file("image", image.clone()).field("metrics", "aesthetic");
    assert_eq!(one.score(form()).await.ok()["cached"], false);
    assert_eq!(one.score(form()).await.ok()["cached"], true, "it is cached");
    let hash = blake3::hash(&image).to_hex();
    assert_eq!(delete(&two, &format!("/v1/images/{hash}")).await, 200);
    eventually!("the eviction", one.score(form()).await.ok()["cached"] == false);
}

crate::on_both_databases!(
    a_run_finished_by_the_other_instance_leaves_no_files,
    a_run_deleted_by_the_other_instance_leaves_no_files,
    an_image_deleted_by_the_other_instance_leaves_no_files,
    an_equal_image_on_both_instances_leaves_no_files,
    a_deletion_evicts_the_caches_of_the_other_instance,
);
