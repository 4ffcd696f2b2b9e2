//! Number of model runs: every feature is computed once for all metrics and requests that use it.

use std::collections::BTreeMap;

use crate::{
    harness::{App, demo_pack},
    support::{form::Form, images::png},
};

async fn every_graph() -> App {
    App::with(|setup| setup.graphs = demo_pack().graphs).await
}

/// Number of items that each graph has processed so far, by role.
async fn runs(app: &App) -> BTreeMap<String, u64> {
    let models = app.get("/v1/models").await.ok();
    let lanes = models["lanes"].as_array().expect("a list of lanes");
    let entry = |lane: &serde_json::Value| {
        let role = lane["roles"][0].as_str().expect("a role").to_owned();
        (role, lane["items"].as_u64().expect("a count"))
    };
    lanes.iter().map(entry).collect()
}

/// Number of items that a request adds to each graph.
async fn added_by(app: &App, form: Form) -> BTreeMap<String, u64> {
    let before = runs(app).await;
    app.score(form).await.ok();
    let after = runs(app).await;
    after
        .into_iter()
        .map(|(role, n)| (role.clone(), n - before[&role]))
        .filter(|(_, n)| *n > 0)
        .collect()
}

fn sample(image: u32, prompt: &str) -> Form {
    Form::new().file("image", png(image)).field("prompt", prompt).file("reference", png(200))
}

fn counts(expected: &[(&str, u64)]) -> BTreeMap<String, u64> {
    expected.iter().map(|(role, n)| ((*role).to_owned(), *n)).collect()
}

#[tokio::test]
async fn all_metrics_of_a_new_sample_run_each_model_once_per_input() {
    let app = every_graph().await;
    let expected = counts(&[
        ("clip.image", 2),
        ("clip.text", 1),
        ("clip_l.image", 1),
        ("hpsv1.image", 1),
        ("hpsv1.text", 1),
        ("hpsv2.image", 1),
        ("hpsv2.text", 1),
        ("pick.image", 1),
        ("pick.text", 1),
        ("image_reward.image", 1),
        ("image_reward.score", 1),
        ("dreamsim.image", 2),
        ("dino.image", 2),
        // Objects of the prompt's relations, and the scene graph of the image.
        ("owlvit.image", 1),
        ("owlvit.text", 1),
        ("relations", 1),
        // The first detection checks the built-in network against the graphs on one tile and seven
        // crops; images this small have no pyramid level.
        ("faces.pnet", 1),
        ("faces.rnet", 7),
        ("faces.onet", 7),
    ]);
    assert_eq!(added_by(&app, sample(1, "a person on a horse")).await, expected);
}

#[tokio::test]
async fn a_new_prompt_runs_only_the_models_that_read_it() {
    let app = every_graph().await;
    app.score(sample(1, "a person on a horse")).await.ok();
    let expected = counts(&[
        ("clip.text", 1),
        ("hpsv1.text", 1),
        ("hpsv2.text", 1),
        ("pick.text", 1),
        ("image_reward.score", 1),
        // The objects of the prompt's relations are searched in the image.
        ("owlvit.image", 1),
        ("owlvit.text", 1),
    ]);
    assert_eq!(added_by(&app, sample(1, "a person in a boat")).await, expected);
}

#[tokio::test]
async fn a_new_image_runs_each_image_model_once() {
    let app = every_graph().await;
    app.score(sample(1, "a person on a horse")).await.ok();
    let expected = counts(&[
        ("clip.image", 1),
        ("clip_l.image", 1),
        ("hpsv1.image", 1),
        ("hpsv2.image", 1),
        ("pick.image", 1),
        ("image_reward.image", 1),
        ("image_reward.score", 1),
        ("dreamsim.image", 1),
        ("dino.image", 1),
        ("owlvit.image", 1),
        ("relations", 1),
    ]);
    assert_eq!(added_by(&app, sample(2, "a person on a horse")).await, expected);
}

#[tokio::test]
async fn prompts_with_the_same_tokens_share_features() {
    let app = every_graph().await;
    app.score(sample(1, "a person on a horse")).await.ok();
    assert_eq!(added_by(&app, sample(1, "A  Person on a HORSE ")).await, counts(&[]));
}
