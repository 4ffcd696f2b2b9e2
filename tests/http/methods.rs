//! Methods: their cards, the settings of their images, and their pages.

use serde_json::{Value, json};

use crate::{
    harness::{App, tells},
    runs::post,
    support::{form::Form, images::png},
};

fn card() -> Value {
    json!({
        "paper": {"title": "<b>Stars</b>", "url": "https://arxiv.org/abs/2312.06116"},
        "code_url": "https://example.org/code", "licence": "MIT", "base_model": "sdxl",
        "photos_per_subject": 1, "subject_tuning": true, "tuning_steps": 800,
        "per_subject": {"seconds": 600.0, "gpu": "A100"}, "per_image": {"seconds": 3.5},
        "training": {"evaluation_photos_excluded": true, "trained_on_prompts": false}
    })
}

#[tokio::test]
async fn a_card_is_kept_until_another_one_is_sent() {
    let app = App::start().await;
    let made = app.send(post("/v1/methods", &json!({"name": "m", "card": card()}))).await;
    assert_eq!((made.status.as_u16(), &made.json()["card"]), (201, &card()));
    let described = app.send(post("/v1/methods", &json!({"name": "m", "description": "d"}))).await;
    assert_eq!(described.ok()["card"], card(), "an omitted card stays");
    let other = json!({"name": "m", "card": {"licence": "CC0-1.0"}});
    assert_eq!(app.send(post("/v1/methods", &other)).await.ok()["card"], other["card"]);
    let read = app.get("/v1/methods/m").await.ok();
    assert_eq!(
        (&read["method"]["card"], &read["method"]["description"], &read["runs"]),
        (&other["card"], &json!("d"), &json!([]))
    );
    assert_eq!(app.get("/v1/methods").await.ok()["methods"][0]["card"], other["card"]);
    app.get("/v1/methods/n").await.problem(404, "not_found");
    app.get("/v1/methods/%00").await.problem(400, "malformed_request");
}

#[tokio::test]
async fn an_invalid_card_is_refused_by_its_field() {
    let app = App::start().await;
    for (card, word) in [
        (json!({"code_url": "javascript:alert(1)"}), "card.code_url"),
        (json!({"paper": {"url": "ftp://example.org/"}}), "card.paper.url"),
        (json!({"per_image": {"seconds": -1}}), "card.per_image.seconds"),
        (json!({"licence": "x".repeat(300)}), "card.licence"),
        (json!({"tuning_steps": 3}), "subject_tuning"),
        (json!({"stars": 5}), "stars"),
    ] {
        let refused = app.send(post("/v1/methods", &json!({"name": "m", "card": card}))).await;
        tells(&refused.problem(422, "invalid_field"), &[word]);
    }
    app.get("/v1/methods/m").await.problem(404, "not_found");
}

#[tokio::test]
async fn flags_of_runs_are_read_in_the_terms_of_the_card() {
    let app = App::start().await;
    let run = |name: &str, flags: Value| {
        post("/v1/runs", &json!({"method": "m", "run": name, "flags": flags}))
    };
    let term = async || {
        app.get("/v1/methods/m").await.ok()["training"]["evaluation_photos_excluded"].clone()
    };
    app.send(run("plain", json!({}))).await;
    assert_eq!(term().await, json!({"value": null, "declared_by": null, "contradicted": false}));
    app.send(run("crossed", json!({"cross_validated_training": true}))).await;
    let by_flags = |value: bool, contradicted: bool| json!({"value": value, "declared_by": "run_flags", "contradicted": contradicted});
    assert_eq!(term().await, by_flags(true, false));
    app.send(run("trained", json!({"trained_on_evaluation_photos": true}))).await;
    assert_eq!(term().await, by_flags(false, true), "the weaker statement counts");
    app.send(post("/v1/methods", &json!({"name": "m", "card": card()}))).await;
    assert_eq!(term().await, json!({"value": true, "declared_by": "card", "contradicted": true}));
}

#[tokio::test]
async fn settings_of_images_are_counted_when_the_run_is_finished() {
    let app = App::start().await;
    let run = app.run_of("m").await;
    for (name, steps) in [("a", 50), ("b", 50), ("c", 20)] {
        let settings = json!({"settings": {"steps": steps, "seed": 42, "model": "x"}});
        let form = Form::new().file("image", png(steps)).field("metadata", settings.to_string());
        let form = form.field("prompt", format!("a person {name}"));
        assert_eq!(app.put(&run, name, form).await.status, 202);
    }
    let wrong = json!({"settings": {"guidance": 1e9}}).to_string();
    let form = Form::new().file("image", png(1)).field("metadata", wrong);
    tells(&app.put(&run, "d", form).await.problem(422, "invalid_field"), &["settings.guidance"]);
    assert_eq!(app.get("/v1/methods/m").await.ok()["runs"][0]["image_settings"], Value::Null);
    app.finish(&run).await;
    app.until_run(&run, "the end", |run| run["state"] == "finished").await;
    let read = app.get("/v1/methods/m").await.ok();
    let found = &read["runs"][0]["image_settings"];
    assert_eq!(found["samples"], 3);
    assert_eq!(
        found["settings"]["steps"],
        json!({"mixed": true, "distinct": 2, "missing": 0, "values": [
            {"value": "50", "samples": 2}, {"value": "20", "samples": 1}]})
    );
    assert_eq!(found["settings"]["seed"]["mixed"], false);
    let page = app.get("/methods/m").await;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    assert!(page.contains("mixed: 50 (2), 20 (1)"), "{page}");
}

#[tokio::test]
async fn the_page_of_a_method_shows_its_card_as_text() {
    let app = App::start().await;
    let name = "a/<i>b</i>";
    let card = json!({"name": name, "description": "<script>x</script>", "card": card()});
    app.send(post("/v1/methods", &card)).await;
    app.run_of(name).await;
    let answer = app.get("/methods/a%2F%3Ci%3Eb%3C%2Fi%3E").await;
    assert_eq!(answer.status, 200);
    let page = String::from_utf8_lossy(&answer.body).into_owned();
    for part in [
        "&lt;b&gt;Stars&lt;/b&gt;",
        "href=\"https://arxiv.org/abs/2312.06116\"",
        "noopener noreferrer",
        "3.5 s",
        "600 s on A100",
        "yes, 800 steps",
        "&lt;script&gt;",
    ] {
        assert!(page.contains(part), "{part} is missing in: {page}");
    }
    assert!(!page.contains("<b>Stars") && !page.contains("<i>b"), "{page}");
    let shared = app.get("/methods/a%2F%3Ci%3Eb%3C%2Fi%3E?share=html").await;
    assert!(!String::from_utf8_lossy(&shared.body).contains("<a "), "a file has no links");
    app.get("/methods/nobody").await.problem(404, "not_found");
    app.get("/methods/a%2F%3Ci%3Eb%3C%2Fi%3E?x=1").await.problem(400, "malformed_request");
}

#[tokio::test]
async fn the_leaderboard_links_to_the_card_of_a_method_with_several_runs() {
    let app = App::start().await;
    for run in ["1", "2"] {
        let form = Form::new().file("image", png(3)).field("method", "a b").field("prompt", "p");
        app.score(form.field("run", run)).await.ok();
    }
    let page = app.get("/leaderboard").await;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    assert!(page.contains("href=\"/methods/a%20b\""), "{page}");
}
