//! Reports of runs, compared with the analysis of the reference toolkit.

use std::{collections::BTreeMap, fmt::Write as _};

use axum::{
    body::Body,
    http::{Request, header},
};
use serde::Deserialize;
use serde_json::{Value, json};
use stellar_score::content::ContentHash;

use crate::{
    harness::{Answer, App, tells},
    snapshot::stable,
    support::{form::Form, images::png},
};

/// The file that `scripts/analysis_fixtures.py` wrote.
#[derive(Deserialize)]
struct Goldens {
    sets: Vec<ResultSet>,
}

/// The files of one run and the toolkit's table for them: mean and deviation by metric code.
#[derive(Deserialize)]
struct ResultSet {
    seed: u64,
    names: Vec<String>,
    files: BTreeMap<String, BTreeMap<String, Vec<f64>>>,
    orders: BTreeMap<String, Vec<usize>>,
    excluded: u64,
    expected: BTreeMap<String, [Option<f64>; 2]>,
}

impl ResultSet {
    fn csv(&self, file: &str) -> String {
        let columns = &self.files[file];
        let mut text = format!(",name,{}\n", columns.keys().cloned().collect::<Vec<_>>().join(","));
        for (index, &at) in self.orders[file].iter().enumerate() {
            let cells: Vec<_> = columns.values().map(|values| values[at].to_string()).collect();
            let _ = writeln!(text, "{index},{},{}", self.names[at], cells.join(","));
        }
        text
    }
}

impl App {
    async fn new_run(&self, run: &str) -> String {
        let request = Request::post("/v1/runs")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(json!({"method": "A", "run": run}).to_string()))
            .unwrap();
        self.send(request).await.json()["run_id"].as_str().unwrap().to_owned()
    }

    async fn import(&self, run: &str, source: &str, csv: &str) -> Answer {
        let request = Request::post(format!("/v1/runs/{run}/import?source={source}"))
            .header(header::CONTENT_TYPE, "text/csv")
            .body(Body::from(csv.to_owned()))
            .unwrap();
        self.send(request).await
    }

    async fn close(&self, run: &str) {
        self.send(Request::post(format!("/v1/runs/{run}/finish")).body(Body::empty()).unwrap())
            .await;
        self.until_run(run, "its end", |run| run["state"] == "finished").await;
    }

    async fn report(&self, run: &str, query: &str) -> Answer {
        self.get(&format!("/v1/runs/{run}/report{query}")).await
    }
}

fn row<'a>(report: &'a Value, metric: &str) -> &'a Value {
    report["rows"].as_array().unwrap().iter().find(|row| row["metric"] == metric).unwrap()
}

#[track_caller]
fn close(ours: &Value, theirs: Option<f64>, what: &str) {
    match theirs {
        None => assert!(ours.is_null(), "{what}: {ours}, but the toolkit has no number"),
        Some(theirs) => {
            let ours = ours
                .as_f64()
                .unwrap_or_else(|| panic!("{what}: {ours}, but the toolkit has {theirs}"));
            assert!((ours - theirs).abs() <= 1e-6, "{what}: {ours}, but the toolkit has {theirs}");
        }
    }
}

#[tokio::test]
async fn imported_results_reproduce_the_toolkit_table_with_its_penalty() {
    let goldens: Goldens = serde_json::from_str(include_str!("../data/analysis/toolkit.json"))
        .expect("the script wrote it");
    assert_eq!(goldens.sets.len(), 20);
    let app = App::start().await;
    for set in goldens.sets {
        let what = format!("set {}", set.seed);
        let run = app.new_run(&what).await;
        for file in set.files.keys() {
            assert_eq!(
                app.import(&run, "toolkit", &set.csv(file)).await.ok()["rows"],
                set.names.len(),
                "{what}"
            );
        }
        app.close(&run).await;
        let report = app.report(&run, "?policy=toolkit").await.ok();
        assert!(set.excluded > 0 && report["penalised"] == set.excluded, "{what}: {report}");
        assert_eq!(report["samples"], set.names.len());
        let ours: Vec<_> =
            report["rows"].as_array().unwrap().iter().map(|row| row["metric"].clone()).collect();
        assert_eq!(ours, set.expected.keys().map(|code| json!(code)).collect::<Vec<_>>(), "{what}");
        for (code, [mean, std]) in &set.expected {
            let row = row(&report, code);
            close(&row["mean"], *mean, &format!("{what}, mean of {code}"));
            close(&row["std"], *std, &format!("{what}, deviation of {code}"));
            assert_eq!(row["n"], set.names.len());
            // Every resample of an area over two identities gives one of the same few numbers.
            if code == "aps" && row["clusters"] == 2 {
                assert_eq!(
                    (&row["low"], &row["no_interval"]),
                    (&json!(null), &json!("too_few_people")),
                    "{what}"
                );
                continue;
            }
            let (low, high) = (row["low"].as_f64().unwrap(), row["high"].as_f64().unwrap());
            assert!(low <= high && row["no_interval"].is_null(), "{what}: {row}");
        }
    }
}

const CLIP: &str = ",name,clip_t,clip_n,clip_i\n0,000-0-0,0.4,0.2,0.5\n1,000-0-1,0.4,0.2,0.5\n2,001-0-0,0.1,0.2,0.5\n";
const IPS: &str = ",name,identity_preservation\n0,000-0-0,0.5\n1,000-0-1,\n2,001-0-0,0.75\n";

#[tokio::test]
async fn each_policy_and_each_format_has_its_table() {
    let app = App::start().await;
    let run = app.new_run("r").await;
    app.import(&run, "them", CLIP).await.ok();
    app.import(&run, "them", IPS).await.ok();
    app.close(&run).await;
    insta::assert_snapshot!("report_json", stable(app.report(&run, "").await.ok()));
    let none = app.report(&run, "?policy=none").await.ok();
    assert_eq!((&row(&none, "ips")["mean"], &none["penalised"]), (&json!(0.625), &Value::Null));
    for (format, media_type) in [
        ("csv", "text/csv; charset=utf-8"),
        ("markdown", "text/markdown; charset=utf-8"),
        ("latex", "application/x-latex; charset=utf-8"),
    ] {
        let table = app.report(&run, &format!("?format={format}")).await;
        assert_eq!(table.headers[header::CONTENT_TYPE], media_type);
        let text = std::str::from_utf8(&table.body).unwrap();
        insta::assert_snapshot!(format!("report_{format}"), text);
    }
}

#[tokio::test]
async fn a_report_follows_every_change_even_with_unchanged_sums() {
    let app = App::start().await;
    let run = app.new_run("r").await;
    // Exactly one attribute of each sample is right, so the shares and all sums stay the same.
    let outcomes = |young_is_right: [bool; 3]| {
        let mut text = ",name,Young_target,Young_pred,Male_target,Male_pred\n".to_owned();
        for (at, (right, (young, male))) in
            young_is_right.into_iter().zip([(1, 1), (1, -1), (-1, -1)]).enumerate()
        {
            let (young_pred, male_pred) = if right { (young, -male) } else { (-young, male) };
            let _ = writeln!(text, "{at},00{at}-0-0,{young},{young_pred},{male},{male_pred}");
        }
        text
    };
    let table = || async { app.report(&run, "?policy=none").await.ok() };
    app.import(&run, "them", &outcomes([true, true, false])).await.ok();
    let first = table().await;
    assert_eq!(table().await, first);
    assert_eq!(row(&first, "aps")["mean"], 0.375);
    app.import(&run, "them", &outcomes([false, false, true])).await.ok();
    let second = table().await;
    assert_eq!(row(&second, "aps")["mean"], 0.625);
    app.import(&run, "them", ",name,aesthetic_score\n0,003-0-0,0.25\n").await.ok();
    assert_eq!((&table().await["samples"], &second["samples"]), (&json!(4), &json!(3)));
    let sample = app.get(&format!("/v1/runs/{run}/samples")).await.ok()["items"][3]["id"].clone();
    let path = format!("/v1/samples/{}", sample.as_str().unwrap());
    app.send(Request::delete(path).body(Body::empty()).unwrap()).await.ok();
    assert_eq!(table().await["rows"], second["rows"]);
    app.send(Request::delete(format!("/v1/runs/{run}")).body(Body::empty()).unwrap()).await.ok();
    app.report(&run, "?policy=none").await.problem(404, "not_found");
}

#[tokio::test]
async fn missing_reports_say_why() {
    let app = App::start().await;
    let run = app.new_run("r").await;
    let empty = app.report(&run, "").await.ok();
    assert_eq!(
        (&empty["rows"], &empty["pack"], &empty["samples"]),
        (&json!([]), &Value::Null, &json!(0))
    );
    app.import(&run, "them", IPS).await.ok();
    tells(&app.report(&run, "").await.problem(422, "invalid_field"), &["clip_t", "policy `none`"]);
    assert_eq!(app.report(&run, "?policy=none").await.ok()["samples"], 3);
    app.import(&run, "others", IPS).await.ok();
    tells(
        &app.report(&run, "?policy=none").await.problem(422, "invalid_field"),
        &["several packs", "them", "others"],
    );
    assert_eq!(app.report(&run, "?policy=none&pack=others").await.ok()["pack"]["name"], "others");
    tells(
        &app.report(&run, "?pack=nobody").await.problem(422, "invalid_field"),
        &["nobody", "them"],
    );
    app.report(&run, "?format=pdf").await.problem(400, "malformed_request");
    app.report(&run, "?policy=other").await.problem(400, "malformed_request");
    app.report("01900000-0000-7000-8000-000000000000", "").await.problem(404, "not_found");
}

#[tokio::test]
async fn a_finished_run_of_real_images_gets_aps_from_its_own_photos() {
    let app = App::real().await;
    let run = app.new_run("r").await;
    let golden = |name: &str| std::fs::read(format!("packs/demo/goldens/{name}")).unwrap();
    for (name, photo, male) in
        [("one", "astronaut-face.jpg", false), ("two", "astronaut.jpg", true)]
    {
        let metadata =
            json!({"identity": name, "attributes": {"Male": male, "Young": true}}).to_string();
        let form = Form::new()
            .file("image", golden("astronaut.jpg"))
            .file("reference", golden(photo))
            .field("prompt", "a person")
            .field("metadata", metadata);
        let response = app.send(crate::runs::put(&run, name, form)).await;
        assert_eq!(response.status, 202, "{response:?}");
    }
    // Their faces stay in the cache of the instance that scored them. They must be stored for the
    // instance that finishes a run.
    app.until_run(&run, "its first scores", |run| run["counts"]["scored"] == 2).await;
    let graphs = app.scoring.face_graphs().unwrap();
    let images: Vec<_> =
        ["astronaut.jpg", "astronaut-face.jpg"].map(|name| ContentHash::of(&golden(name))).to_vec();
    let stored = || async { app.store.faces(&images, graphs).await.unwrap().len() };
    assert_eq!(stored().await, 2);
    app.store.purge_faces(None).await.unwrap();
    let form = Form::new()
        .file("image", golden("astronaut.jpg"))
        .file("reference", golden("astronaut-face.jpg"))
        .field("metadata", json!({"attributes": {"Male": false, "Young": false}}).to_string());
    app.send(crate::runs::put(&run, "three", form)).await;
    app.until_run(&run, "the third score", |run| run["counts"]["scored"] == 3).await;
    assert_eq!(stored().await, 2, "the third sample was not recorded without them");

    // An image without a face counts as wrong.
    let form = Form::new().file("image", png(1)).file("reference", golden("astronaut-face.jpg"));
    let metadata = json!({"attributes": {"Male": false, "Young": true}}).to_string();
    app.send(crate::runs::put(&run, "none", form.field("metadata", metadata))).await;
    app.until_run(&run, "its scores", |run| run["counts"]["scored"] == 4).await;
    app.close(&run).await;

    let report = app.report(&run, "?policy=none").await.ok();
    let aps = row(&report, "aps");
    assert_eq!((&aps["n"], &aps["std"]), (&json!(4), &Value::Null), "{report}");
    let whole = app.get(&format!("/v1/runs/{run}/attributes")).await.ok();
    close(&aps["mean"], whole["auc"].as_f64(), "aps");
    let listed = app.get(&format!("/v1/runs/{run}/samples")).await.ok();
    let id = listed["items"][0]["id"].as_str().unwrap();
    let stored = app.get(&format!("/v1/samples/{id}")).await.ok();
    let scores = stored["scores"].as_array().unwrap();
    let value = scores.iter().find(|score| score["metric"] == "aps").expect("finishing wrote it");
    assert_eq!((&listed["items"][0]["name"], &value["value"]), (&json!("none"), &json!(0.0)));
}
