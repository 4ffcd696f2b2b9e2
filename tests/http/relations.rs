//! Relations of the prompt (`rfs` and its variants) with the real graphs of the demo pack.

use futures_util::future::join_all;
use serde_json::{Value, json};
use stellar_score::engine::GraphSpec;

use crate::{
    harness::{App, demo_pack, tells},
    support::{
        form::Form,
        images::{png, png_of},
    },
};

const METRICS: &str = "rfs,rfs_strict,rfs_interaction,rfs_location";

/// A form with an image, a prompt, metadata and metrics.
fn form(image: Vec<u8>, prompt: Option<&str>, metadata: &Value, metrics: &str) -> Form {
    let form = Form::new()
        .file("image", image)
        .field("metadata", metadata.to_string())
        .field("metrics", metrics)
        .field("evidence", "true");
    match prompt {
        Some(prompt) => form.field("prompt", prompt),
        None => form,
    }
}

fn prompted(prompt: &str) -> Form {
    form(png_of(40, 60, 1), Some(prompt), &json!({}), METRICS)
}

fn annotated(relations: &[[&str; 3]]) -> Form {
    form(png_of(40, 60, 1), None, &json!({ "relations": relations }), METRICS)
}

fn value(response: &Value, metric: &str) -> f64 {
    let value = response["scores"][metric]["value"].as_f64();
    value.unwrap_or_else(|| panic!("{metric} has no number: {}", response["scores"]))
}

#[track_caller]
fn is_null(response: &Value, metric: &str, reason: &str) {
    let score = &response["scores"][metric];
    assert_eq!(
        (&score["value"], &score["reason"]),
        (&Value::Null, &json!(reason)),
        "{metric}: {score}"
    );
    assert!(score["help"].as_str().is_some_and(|help| help.contains("relations")), "{score}");
}

/// The relations in the evidence.
fn evidence(response: &Value) -> Vec<Value> {
    response["evidence"]["relations"].as_array().cloned().unwrap_or_default()
}

#[track_caller]
fn near(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-12, "{a} is not {b}");
}

/// The origin of this graph's feature, such as `computed` or `cached`.
fn origin<'a>(response: &'a Value, graph: &str) -> &'a str {
    let features = response["features"].as_array().unwrap();
    let used =
        features.iter().find(|feature| feature["graph"] == graph && feature["of"] != "predicates");
    used.unwrap_or_else(|| panic!("{graph} was not used: {features:?}"))["origin"].as_str().unwrap()
}

#[tokio::test]
async fn the_relations_of_a_prompt_are_scored_with_their_evidence() {
    let app = App::real().await;
    let response = app.score(prompted("a person riding a horse near Saturn")).await.ok();
    let relations = evidence(&response);
    let words: Vec<_> = relations
        .iter()
        .map(|r| [&r["predicate"], &r["object"], &r["kind"], &r["source"]])
        .collect();
    assert_eq!(
        json!(words),
        json!([
            ["riding", "horse", "interaction", "parsed"],
            ["near", "saturn", "location", "parsed"]
        ])
    );
    assert_eq!(relations[0]["seen_as"], json!(["riding", "on", "using"]));
    assert_eq!(relations[0]["classes"], json!(["horse"]));
    assert_eq!(relations[1]["classes"], json!([]), "it is found by its words only");
    let scores: Vec<f64> = relations.iter().map(|r| r["score"].as_f64().unwrap()).collect();
    for relation in &relations {
        let factor = |name: &str| relation["factors"][name].as_f64().unwrap();
        near(
            relation["score"].as_f64().unwrap(),
            factor("person") * factor("predicate") * factor("object"),
        );
        assert!((0.0..=1.0).contains(&relation["grounding"]["score"].as_f64().unwrap()));
        for sides in ["subject_box", "object_box"] {
            assert_eq!(relation[sides].as_array().unwrap().len(), 4, "{relation}");
        }
        assert_ne!(relation["subject_box"], relation["object_box"]);
    }
    assert!(scores.iter().all(|score| (0.0..=1.0).contains(score) && *score > 0.0), "{scores:?}");
    near(value(&response, "rfs"), f64::midpoint(scores[0], scores[1]));
    near(value(&response, "rfs_interaction"), scores[0]);
    near(value(&response, "rfs_location"), scores[1]);
    let strict: Vec<f64> = relations.iter().map(|r| r["strict"].as_f64().unwrap()).collect();
    near(value(&response, "rfs_strict"), f64::midpoint(strict[0], strict[1]));
    assert!(strict[0] <= scores[0], "riding alone scores at most as high as riding, on or using");
    assert_eq!(response["scores"]["rfs"].get("flags"), None);
    // The scene graph's checkpoint is named, so that scores of two are not averaged.
    assert_eq!(response["provenance"]["graphs"]["relations"]["checkpoint"], "naver-ai/egtr");
    assert_eq!(response["evidence"]["checkpoints"]["rfs"], "naver-ai/egtr");
}

#[tokio::test]
async fn annotated_relations_override_the_prompt_and_detectables_filter_it() {
    let app = App::real().await;
    let image = || png_of(40, 60, 1);
    let prompt = Some("a person as a clown skiing next to a dog");
    let both = json!({ "relations": [["person", "Holding", "cup"]], "detectables": ["dog"] });
    let response = app.score(form(image(), prompt, &both, METRICS)).await.ok();
    let [relation] =
        evidence(&response).try_into().unwrap_or_else(|all| panic!("one relation: {all:?}"));
    assert_eq!(
        (&relation["predicate"], &relation["source"]),
        (&json!("Holding"), &json!("annotation"))
    );
    assert_eq!(relation["seen_as"], json!(["holding", "carrying"]), "case is ignored");
    is_null(&response, "rfs_location", "no_relations");

    let named = json!({ "detectables": ["clown", "skis", "DOG", "dog"] });
    let response = app.score(form(image(), prompt, &named, METRICS)).await.ok();
    let words: Vec<_> =
        evidence(&response).iter().map(|r| json!([r["object"], r["source"]])).collect();
    assert_eq!(
        words,
        [json!(["skis", "implied"]), json!(["dog", "parsed"])],
        "duplicates and roles are not relations"
    );
}

#[tokio::test]
async fn a_sample_without_relations_scores_null_with_the_reason() {
    let app = App::real().await;
    for prompt in
        ["", "a person", "a person on a sunny day", "a person as an astronaut", "{}", "👍"]
    {
        let response = app.score(prompted(prompt)).await.ok();
        METRICS.split(',').for_each(|metric| is_null(&response, metric, "no_relations"));
        assert_eq!(evidence(&response), [] as [Value; 0], "{prompt}");
    }
    let none = app.score(form(png(1), None, &json!({}), METRICS)).await.ok();
    is_null(&none, "rfs", "no_relations");
    let role = json!({ "detectables": ["Clown", "", " "] });
    let response =
        app.score(form(png(1), Some("a person as a clown skiing"), &role, METRICS)).await.ok();
    is_null(&response, "rfs", "no_relations");
    assert!(none["features"].as_array().unwrap().is_empty(), "no graph runs without relations");
}

#[tokio::test]
async fn unknown_predicates_map_to_the_nearest_class_or_stay_unmapped() {
    let app = App::real().await;
    let unknown = ["yodelling", "quarrelling", "zzz", "sneezing", "philosophising"];
    let relations: Vec<[&str; 3]> = unknown.map(|predicate| ["person", predicate, "dog"]).to_vec();
    let response = app.score(annotated(&relations)).await.ok();
    let relations = evidence(&response);
    assert_eq!(relations.len(), unknown.len());
    for relation in &relations {
        match relation.get("nearest").and_then(Value::as_f64) {
            Some(cosine) => {
                assert!((0.8..=1.0 + 1e-9).contains(&cosine), "{relation}");
                assert_eq!(relation["seen_as"].as_array().unwrap().len(), 1);
                assert!(relation["score"].is_f64());
                assert_eq!(relation["strict"], Value::Null);
            }
            None => {
                assert_eq!(
                    (&relation["unmapped"], &relation["score"]),
                    (&json!("predicate"), &Value::Null)
                );
            }
        }
    }
    let mapped: Vec<f64> = relations.iter().filter_map(|r| r["score"].as_f64()).collect();
    if mapped.is_empty() {
        is_null(&response, "rfs", "no_mapped_relations");
    } else {
        near(value(&response, "rfs"), mapped.iter().sum::<f64>() / mapped.len() as f64);
        assert_eq!(response["scores"]["rfs"]["flags"], json!(["approximate_predicate"]));
    }
    is_null(&response, "rfs_strict", "no_mapped_relations");
    assert!(
        response["provenance"]["graphs"]["clip.text"].is_object(),
        "its text tower maps the predicates"
    );
    let again = app.score(annotated(&[["person", "yodelling", "dog"]])).await.ok();
    assert_eq!(again["cached"], true, "its words are not encoded again");
}

/// The fake text tower maps different words to distant features, and the pack has no OWL-ViT.
#[tokio::test]
async fn without_owlvit_only_classes_count_and_distant_predicates_stay_unmapped() {
    let scene_graph = |graph: &GraphSpec| graph.role == "relations";
    let app =
        App::with(|setup| setup.graphs.extend(demo_pack().graphs.into_iter().filter(scene_graph)))
            .await;
    let relations = [["person", "riding", "horse"], ["person", "yodelling", "dog"]];
    let response = app.score(annotated(&relations)).await.ok();
    assert_eq!(response["scores"]["rfs"]["flags"], json!(["ungrounded"]));
    let [riding, yodelling] =
        evidence(&response).try_into().unwrap_or_else(|all| panic!("two: {all:?}"));
    assert_eq!((riding.get("grounding"), &riding["classes"]), (None, &json!(["horse"])));
    assert_eq!((&yodelling["unmapped"], &yodelling["score"]), (&json!("predicate"), &Value::Null));
    near(value(&response, "rfs"), riding["score"].as_f64().unwrap());

    let response = app.score(annotated(&relations[1..])).await.ok();
    METRICS.split(',').filter(|metric| *metric != "rfs_location").for_each(|metric| {
        is_null(&response, metric, "no_mapped_relations");
    });
    let looked = response["features"].as_array().unwrap();
    assert!(
        looked.iter().all(|feature| feature["graph"] != "relations"),
        "the scene graph is not needed: {looked:?}"
    );
    // The tokenizer decodes the entity, so the feature equals that of the class name.
    let same = app.score(annotated(&[["person", "ri&#100;ing", "horse"]])).await.ok();
    let [same] = evidence(&same).try_into().unwrap_or_else(|all| panic!("one: {all:?}"));
    assert_eq!((&same["seen_as"], &same["strict"]), (&json!(["riding"]), &Value::Null));
    assert!((same["nearest"].as_f64().unwrap() - 1.0).abs() < 1e-9);
}

#[tokio::test]
async fn blanks_duplicates_case_and_other_subjects_behave_as_documented() {
    let app = App::real().await;
    let alone = value(&app.score(annotated(&[["person", "riding", "horse"]])).await.ok(), "rfs");
    for same in [
        &[["person", "riding", "horse"], ["person", "riding", "horse"]][..],
        &[["PERSON", " RIDING", "HORSE"]],
        &[["the man", "riding", "horse"]],
        &[["astronaut", "riding", "horse"]],
        &[["person", "riding", "horse"], ["dog", "near", "tree"]],
        &[["person", "riding", "horse"], ["person", " ", "horse"]],
    ] {
        let response = app.score(annotated(same)).await.ok();
        near(value(&response, "rfs"), alone);
    }
    let response =
        app.score(annotated(&[["dog", "near", "tree"], ["person", "", "tree"]])).await.ok();
    let why: Vec<_> = evidence(&response).iter().map(|r| r["unmapped"].clone()).collect();
    assert_eq!(why, ["subject", "predicate"]);
    is_null(&response, "rfs", "no_mapped_relations");
    // An object without words has no class and matches no box, but it is still scored.
    let nothing = app.score(annotated(&[["person", "riding", ""]])).await.ok();
    assert!((0.0..=1.0).contains(&value(&nothing, "rfs")));
}

#[tokio::test]
async fn overlong_words_are_flagged_as_truncated_and_too_many_relations_refused() {
    let app = App::real().await;
    let long = "very ".repeat(40) + "old horse";
    let response = app.score(annotated(&[["person", "riding", &long]])).await.ok();
    assert_eq!(response["scores"]["rfs"]["flags"], json!(["truncated"]));
    assert_eq!(evidence(&response)[0]["truncated"], true);
    assert_eq!(
        evidence(&response)[0]["classes"],
        json!(["horse"]),
        "classes are found by the head noun"
    );

    let objects: Vec<String> = (0..257).map(|at| format!("thing{at}")).collect();
    let many: Vec<[&str; 3]> =
        objects.iter().map(|object| ["person", "near", object.as_str()]).collect();
    let response = app.score(annotated(&many[..200])).await.ok();
    assert_eq!(evidence(&response).len(), 200);
    let problem = app.score(annotated(&many)).await.problem(422, "invalid_field");
    tells(&problem, &["257", "256", "relations"]);

    let prompt = format!("a person near {}", objects[..200].join(", near "));
    let named = json!({ "detectables": objects[..200] });
    let response = app.score(form(png(1), Some(&prompt), &named, "rfs,goa")).await.ok();
    assert_eq!(evidence(&response).len(), 200);
    assert_eq!(response["evidence"]["objects"].as_array().unwrap().len(), 200);
    assert!((0.0..=1.0).contains(&value(&response, "rfs")));
}

#[tokio::test]
async fn images_of_any_shape_are_scored_and_single_pixels_are_refused() {
    let app = App::real().await;
    for (width, height) in [(2, 2), (5000, 200), (3, 500)] {
        let image = png_of(width, height, 7);
        let response =
            app.score(form(image, Some("a person riding a horse"), &json!({}), "rfs")).await.ok();
        assert!((0.0..=1.0).contains(&value(&response, "rfs")), "{width}×{height}");
        let corners = &evidence(&response)[0]["object_box"];
        assert!(corners.as_array().unwrap().iter().all(|side| side.as_f64().unwrap().is_finite()));
    }
    let image = png_of(1, 1, 7);
    let response = app.score(form(image, Some("a person riding a horse"), &json!({}), "rfs")).await;
    assert_eq!(response.status.as_u16(), 422, "{}", String::from_utf8_lossy(&response.body));
}

#[tokio::test]
async fn a_new_prompt_reuses_the_scene_graph_of_its_image() {
    let app = App::real().await;
    let first = app.score(prompted("a person riding a horse")).await.ok();
    assert_eq!(origin(&first, "relations"), "computed");
    let second = app.score(prompted("a person next to a shark")).await.ok();
    assert_eq!(origin(&second, "relations"), "cached");
    let again = app.score(prompted("a person riding a horse")).await.ok();
    assert_eq!(again["cached"], true);
    near(value(&again, "rfs"), value(&first, "rfs"));
}

#[tokio::test]
async fn objects_and_relations_share_one_request_and_neither_changes_the_other() {
    let metadata = json!({
        "detectables": ["dog", "helmet"],
        "relations": [["person", "holding", "cup of tea"], ["person", "near", "Dog"]],
    });
    let ask = |metrics: &'static str| {
        let metadata = metadata.clone();
        async move {
            let app = App::real().await;
            app.score(form(png_of(40, 60, 1), None, &metadata, metrics)).await.ok()
        }
    };
    let (both, goa, rfs) = (ask("goa,rfs").await, ask("goa").await, ask("rfs").await);
    assert!((value(&both, "goa") - value(&goa, "goa")).abs() < 1e-6);
    assert!((value(&both, "rfs") - value(&rfs, "rfs")).abs() < 1e-6);
    let looked = both["features"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|f| f["graph"] == "owlvit.image")
        .count();
    assert_eq!(looked, 1);
    assert_eq!(both["evidence"]["objects"].as_array().unwrap().len(), 2, "labels of goa only");
    assert_eq!(rfs["evidence"].get("objects"), None);
}

#[tokio::test]
async fn scores_do_not_depend_on_batches_or_order() {
    let samples: [(u32, u32, &[[&str; 3]]); 5] = [
        (1, 40, &[["person", "riding", "horse"]]),
        (
            2,
            40,
            &[
                ["person", "near", "Saturn"],
                ["person", "holding", "cup"],
                ["person", "wearing", "hat"],
            ],
        ),
        (3, 40, &[["person", "hugging", "bear"], ["person", "in", "garden"]]),
        (4, 90, &[["person", "riding", "horse"]]),
        (1, 40, &[["person", "riding", "horse"], ["person", "on", "moon"]]),
    ];
    let sample = |(seed, width, relations): &(u32, u32, &[[&str; 3]]), reversed: bool| {
        let mut relations = relations.to_vec();
        if reversed {
            relations.reverse();
        }
        form(png_of(*width, 60, *seed), None, &json!({ "relations": relations }), "rfs,rfs_strict")
    };
    let numbers = |response: &Value| {
        let scores =
            ["rfs", "rfs_strict"].map(|metric| response["scores"][metric]["value"].as_f64());
        scores.map(|score| score.unwrap_or(-1.0))
    };
    let app = App::real().await;
    let mut alone = Vec::new();
    for of in &samples {
        alone.push(numbers(&app.score(sample(of, false)).await.ok()));
    }
    for (reversed, max_batch) in [(false, 0), (true, 0), (false, 1), (true, 2)] {
        let app = App::real_with(|config| config.engine.max_batch = max_batch).await;
        let together = join_all(samples.iter().map(|of| app.score(sample(of, reversed)))).await;
        for (response, alone) in together.iter().zip(&alone) {
            for (batched, alone) in numbers(&response.ok()).iter().zip(alone) {
                assert!((batched - alone).abs() < 1e-5, "{alone} alone, {batched} in a batch");
            }
        }
    }
}
