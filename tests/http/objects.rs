//! Objects of the prompt (`goa`) over the demo pack's real graphs.

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

fn value(answer: &Value) -> f64 {
    answer["scores"]["goa"]["value"].as_f64().unwrap_or_else(|| panic!("no number: {}", answer["scores"]))
}

/// The evidence of one label.
fn object<'a>(answer: &'a Value, label: &str) -> &'a Value {
    let objects = answer["evidence"]["objects"].as_array().expect("evidence of objects");
    objects
        .iter()
        .find(|object| object["label"] == label)
        .unwrap_or_else(|| panic!("no {label}: {objects:?}"))
}

#[tokio::test]
async fn the_mean_of_the_labels_comes_with_score_and_box_of_each() {
    let app = App::real().await;
    let answer = app.score(form(png(1), &["skateboard", "helmet"])).await.ok();
    let scores = ["skateboard", "helmet"].map(|label| object(&answer, label)["score"].as_f64().unwrap());
    assert!((value(&answer) - f64::midpoint(scores[0], scores[1])).abs() < 1e-12);
    assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)), "{scores:?}");
    let best = if scores[0] > 0.0 { "skateboard" } else { "helmet" };
    assert_eq!(object(&answer, best)["box"].as_array().unwrap().len(), 4);
    assert_eq!(answer["scores"]["goa"].get("flags"), None);
}

#[tokio::test]
async fn roles_blanks_and_copies_are_left_out_and_named() {
    let app = App::real().await;
    let alone = value(&app.score(form(png(1), &["skis"])).await.ok());
    let given = ["SKIS", "Clown", "skis", " ", ""];
    let answer = app.score(form(png(1), &given)).await.ok();
    assert!((value(&answer) - alone).abs() < 1e-12, "what is left out changes nothing");
    assert_eq!(object(&answer, "Clown")["skipped"], "role");
    assert_eq!(object(&answer, " ")["skipped"], "empty");
    assert_eq!(object(&answer, "skis")["skipped"], "duplicate");
    assert_eq!(object(&answer, "Clown")["score"], Value::Null);
}

#[tokio::test]
async fn an_image_without_labels_has_no_number_and_the_reason() {
    let app = App::real().await;
    for detectables in [&[][..], &["astronaut", ""]] {
        let answer = app.score(form(png(1), detectables)).await.ok();
        assert_eq!(answer["scores"]["goa"]["value"], Value::Null);
        assert_eq!(answer["scores"]["goa"]["reason"], "no_detectables");
    }
}

#[tokio::test]
async fn an_over_long_label_is_cut_with_a_flag() {
    let app = App::real().await;
    let long = "a very long label of an object that nobody would ever call by so many words as here";
    let answer = app.score(form(png(1), &[long])).await.ok();
    assert!(value(&answer) > 0.0);
    assert_eq!(answer["scores"]["goa"]["flags"], json!(["truncated"]));
    assert_eq!(object(&answer, long)["truncated"], true);
}

#[tokio::test]
async fn many_labels_are_scored_and_too_many_refused() {
    let app = App::real().await;
    let labels: Vec<String> = (0..257).map(|at| format!("thing {at}")).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let answer = app.score(form(png(1), &labels[..200])).await.ok();
    assert_eq!(answer["evidence"]["objects"].as_array().unwrap().len(), 200);
    assert!((0.0..=1.0).contains(&value(&answer)));
    let problem = app.score(form(png(1), &labels)).await.problem(422, "invalid_field");
    tells(&problem, &["257", "256", "detectables"]);
}

#[tokio::test]
async fn images_of_any_shape_have_a_number() {
    let app = App::real().await;
    for (width, height) in [(2, 2), (5000, 200), (3, 500)] {
        let answer = app.score(form(png_of(width, height, 7), &["dog"])).await.ok();
        assert!((0.0..=1.0).contains(&value(&answer)), "{width}×{height}");
    }
}

#[tokio::test]
async fn neighbours_and_order_change_nothing() {
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
        for (answer, alone) in together.iter().zip(&alone) {
            let beside = value(&answer.ok());
            assert!((beside - alone).abs() < 1e-5, "{alone} alone, {beside} beside others");
        }
    }
}
