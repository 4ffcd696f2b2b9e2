//! The service with the real graphs of the demo pack.

use std::path::Path;

use crate::{
    harness::App,
    support::{form::Form, images::png},
};

fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packs/demo/goldens").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn portrait() -> Form {
    Form::new()
        .file("image", golden("astronaut.jpg"))
        .field("prompt", "a person in an orange space suit")
        .file("reference", golden("astronaut-face.jpg"))
        .field("metrics", "clip_t,clip_i,clip_n,aesthetic")
        .field("method", "mine")
}

#[tokio::test]
async fn a_portrait_gets_four_scores_and_a_row_on_the_leaderboard() {
    let app = App::real().await;
    let response = app.score(portrait()).await.ok();
    for metric in ["clip_t", "clip_i", "clip_n"] {
        let value = response["scores"][metric]["value"].as_f64().unwrap();
        assert!((-1.0..=1.0).contains(&value), "{metric}: {value}");
    }
    assert!(response["scores"]["aesthetic"]["value"].is_f64());
    assert_eq!(response["weights"], "demo");
    let again = app.score(portrait()).await.ok();
    assert_eq!(again["cached"], true);
    assert_eq!(again["scores"], response["scores"]);
    assert_eq!(app.counted("mine", "clip_t").await, 1);
}

#[tokio::test]
async fn a_score_does_not_depend_on_its_batch() {
    let form = |seed| Form::new().file("image", png(seed)).field("metrics", "aesthetic");
    let value =
        |response: &serde_json::Value| response["scores"]["aesthetic"]["value"].as_f64().unwrap();
    let alone = value(&App::real().await.score(form(0)).await.ok());
    let app = App::real().await;
    let together = futures_util::future::join_all((0..12).map(|seed| app.score(form(seed)))).await;
    let batched = value(&together[0].ok());
    assert!(
        (alone - batched).abs() < 1e-5,
        "{alone} alone, {batched} in a batch with eleven others"
    );
    for pair in together.windows(2) {
        assert!(
            (value(&pair[0].ok()) - value(&pair[1].ok())).abs() > 0.0,
            "different images have different scores"
        );
    }
}
