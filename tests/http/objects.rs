//! Objects of the prompt (`goa`) with the real graphs of the demo pack.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    harness::{App, tells},
    support::{
        form::Form,
        images::{png, png_of},
    },
};

fn form(image: Vec<u8>, detectables: &[&str]) -> Form {
    let metadata = json!({ "detectables": detectables }).to_string();
    Form::new()
        .file("image", image)
        .field("metadata", metadata)
        .field("metrics", "goa")
        .field("evidence", "true")
}

fn value(response: &Value) -> f64 {
    response["scores"]["goa"]["value"]
        .as_f64()
        .unwrap_or_else(|| panic!("no number: {}", response["scores"]))
}

/// The evidence for one label.
fn object<'a>(response: &'a Value, label: &str) -> &'a Value {
    let objects = response["evidence"]["objects"].as_array().expect("evidence of objects");
    objects
        .iter()
        .find(|object| object["label"] == label)
        .unwrap_or_else(|| panic!("no {label}: {objects:?}"))
}

#[tokio::test]
async fn the_mean_over_labels_comes_with_each_score_and_box() {
    let app = App::real().await;
    let response = app.score(form(png(1), &["skateboard", "helmet"])).await.ok();
    let scores =
        ["skateboard", "helmet"].map(|label| object(&response, label)["score"].as_f64().unwrap());
    assert!((value(&response) - f64::midpoint(scores[0], scores[1])).abs() < 1e-12);
    assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)), "{scores:?}");
    let best = if scores[0] > 0.0 { "skateboard" } else { "helmet" };
    assert_eq!(object(&response, best)["box"].as_array().unwrap().len(), 4);
    assert_eq!(response["scores"]["goa"].get("flags"), None);
}

#[tokio::test]
async fn roles_blanks_and_duplicates_are_skipped_and_reported() {
    let app = App::real().await;
    let alone = value(&app.score(form(png(1), &["skis"])).await.ok());
    let given = ["SKIS", "Clown", "skis", " ", ""];
    let response = app.score(form(png(1), &given)).await.ok();
    assert!((value(&response) - alone).abs() < 1e-12, "skipped labels do not change the score");
    assert_eq!(object(&response, "Clown")["skipped"], "role");
    assert_eq!(object(&response, " ")["skipped"], "empty");
    assert_eq!(object(&response, "skis")["skipped"], "duplicate");
    assert_eq!(object(&response, "Clown")["score"], Value::Null);
}

#[tokio::test]
async fn an_image_without_labels_scores_null_with_the_reason() {
    let app = App::real().await;
    for detectables in [&[][..], &["astronaut", ""]] {
        let response = app.score(form(png(1), detectables)).await.ok();
        assert_eq!(response["scores"]["goa"]["value"], Value::Null);
        assert_eq!(response["scores"]["goa"]["reason"], "no_detectables");
    }
}

#[tokio::test]
async fn an_overlong_label_is_flagged_as_truncated() {
    let app = App::real().await;
    let long =
        "a very long label of an object that nobody would ever call by so many words as here";
    let response = app.score(form(png(1), &[long])).await.ok();
    assert!(value(&response) > 0.0);
    assert_eq!(response["scores"]["goa"]["flags"], json!(["truncated"]));
    assert_eq!(object(&response, long)["truncated"], true);
}

#[tokio::test]
async fn many_labels_are_scored_and_too_many_refused() {
    let app = App::real().await;
    let labels: Vec<String> = (0..257).map(|at| format!("thing {at}")).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let response = app.score(form(png(1), &labels[..200])).await.ok();
    assert_eq!(response["evidence"]["objects"].as_array().unwrap().len(), 200);
    assert!((0.0..=1.0).contains(&value(&response)));
    let problem = app.score(form(png(1), &labels)).await.problem(422, "invalid_field");
    tells(&problem, &["257", "256", "detectables"]);
}

#[tokio::test]
async fn images_of_any_shape_are_scored() {
    let app = App::real().await;
    for (width, height) in [(2, 2), (5000, 200), (3, 500)] {
        let response = app.score(form(png_of(width, height, 7), &["dog"])).await.ok();
        assert!((0.0..=1.0).contains(&value(&response)), "{width}×{height}");
    }
}

#[tokio::test]
async fn scores_do_not_depend_on_batches_or_order() {
    let samples: [(u32, &[&str]); 4] = [
        (1, &["dog"]),
        (2, &["skis", "helmet", "snow"]),
        (3, &["cup of coffee", "table"]),
        (1, &["dog", "cat"]),
    ];
    let mut alone = Vec::new();
    let app = App::real().await;
    for (seed, labels) in samples {
        alone.push(value(&app.score(form(png(seed), labels)).await.ok()));
    }
    for reversed in [false, true] {
        let app = App::real().await;
        let forms = samples.map(|(seed, labels)| {
            let mut labels = labels.to_vec();
            if reversed {
                labels.reverse();
            }
            form(png(seed), &labels)
        });
        let together = join_all(forms.map(|form| app.score(form))).await;
        for (response, alone) in together.iter().zip(&alone) {
            let batched = value(&response.ok());
            assert!((batched - alone).abs() < 1e-5, "{alone} alone, {batched} in a batch");
        }
    }
}
