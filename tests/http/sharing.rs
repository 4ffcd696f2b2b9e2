//! How often models run: every feature once, whatever number of metrics and requests stand on it.

use std::collections::BTreeMap;

use crate::{
    harness::{App, demo_pack},
    support::{form::Form, images::png},
};

async fn every_graph() -> App {
    App::with(|setup| setup.graphs = demo_pack().graphs).await
}

/// Items that each graph has been run on so far, by role.
async fn runs(app: &App) -> BTreeMap<String, u64> {
    let models = app.get("/v1/models").await.ok();
    let lanes = models["lanes"].as_array().expect("a list of lanes");
    let entry = |lane: &serde_json::Value| {
        let role = lane["roles"][0].as_str().expect("a role").to_owned();
        (role, lane["items"].as_u64().expect("a count"))
    };
    lanes.iter().map(entry).collect()
}

/// What a request added.
async fn added_by(app: &App, form: Form) -> BTreeMap<String, u64> {
    let before = runs(app).await;
    app.score(form).await.ok();
    let after = runs(app).await;
    after.into_iter().map(|(role, n)| (role.clone(), n - before[&role])).filter(|(_, n)| *n > 0).collect()
}

fn sample(image: u32, prompt: &str) -> Form {
    Form::new().file("image", png(image)).field("prompt", prompt).file("reference", png(200))
}

fn counts(expected: &[(&str, u64)]) -> BTreeMap<String, u64> {
    expected.iter().map(|(role, n)| ((*role).to_owned(), *n)).collect()
}

#[tokio::test]
async fn all_metrics_of_a_new_sample_run_each_model_once_for_each_input() {
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
        // What the prompt's relations name, and who does what in the image.
        ("owlvit.image", 1),
        ("owlvit.text", 1),
        ("relations", 1),
        // The first search asks the graphs, of one piece and seven crops, whether the code of its own says the same; such small
        // images have no level.
        ("faces.pnet", 1),
        ("faces.rnet", 7),
        ("faces.onet", 7),
    ]);
    assert_eq!(added_by(&app, sample(1, "a person on a horse")).await, expected);
}

#[tokio::test]
async fn another_prompt_for_the_same_images_runs_what_reads_the_prompt_only() {
    let app = every_graph().await;
    app.score(sample(1, "a person on a horse")).await.ok();
    let expected = counts(&[
        ("clip.text", 1),
        ("hpsv1.text", 1),
        ("hpsv2.text", 1),
        ("pick.text", 1),
        ("image_reward.score", 1),
        // What the prompt's relations name is looked for in the image.
        ("owlvit.image", 1),
        ("owlvit.text", 1),
    ]);
    assert_eq!(added_by(&app, sample(1, "a person in a boat")).await, expected);
}

#[tokio::test]
async fn another_image_for_the_same_prompt_and_reference_runs_each_image_model_once() {
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
async fn a_prompt_that_cleans_to_the_same_tokens_is_the_same_prompt() {
    let app = every_graph().await;
    app.score(sample(1, "a person on a horse")).await.ok();
    assert_eq!(added_by(&app, sample(1, "A  Person on a HORSE ")).await, counts(&[]));
}
