//! Relations of the prompt (`rfs` and its kin) over the demo pack's real graphs.

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

/// An image with a prompt and metadata, to be scored by these metrics.
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

fn value(answer: &Value, metric: &str) -> f64 {
    let value = answer["scores"][metric]["value"].as_f64();
    value.unwrap_or_else(|| panic!("{metric} has no number: {}", answer["scores"]))
}

#[track_caller]
fn is_null(answer: &Value, metric: &str, reason: &str) {
    let score = &answer["scores"][metric];
    assert_eq!((&score["value"], &score["reason"]), (&Value::Null, &json!(reason)), "{metric}: {score}");
    assert!(score["help"].as_str().is_some_and(|help| help.contains("relations")), "{score}");
}

/// The relations of the evidence.
fn evidence(answer: &Value) -> Vec<Value> {
    answer["evidence"]["relations"].as_array().cloned().unwrap_or_default()
}

#[track_caller]
fn near(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-12, "{a} is not {b}");
}

/// Where the image was looked at for this feature.
fn origin<'a>(answer: &'a Value, graph: &str) -> &'a str {
    let features = answer["features"].as_array().unwrap();
    let used = features.iter().find(|feature| feature["graph"] == graph && feature["of"] != "predicates");
    used.unwrap_or_else(|| panic!("{graph} was not asked: {features:?}"))["origin"].as_str().unwrap()
}

#[tokio::test]
async fn the_relations_of_a_prompt_are_scored_with_everything_they_stand_on() {
    let app = App::real().await;
    let answer = app.score(prompted("a person riding a horse near Saturn")).await.ok();
    let relations = evidence(&answer);
    let words: Vec<_> =
        relations.iter().map(|r| [&r["predicate"], &r["object"], &r["kind"], &r["source"]]).collect();
    assert_eq!(
        json!(words),
        json!([["riding", "horse", "interaction", "parsed"], ["near", "saturn", "location", "parsed"]])
    );
    assert_eq!(relations[0]["seen_as"], json!(["riding", "on", "using"]));
    assert_eq!(relations[0]["classes"], json!(["horse"]));
    assert_eq!(relations[1]["classes"], json!([]), "found by its words alone");
    let scores: Vec<f64> = relations.iter().map(|r| r["score"].as_f64().unwrap()).collect();
    for relation in &relations {
        let factor = |name: &str| relation["factors"][name].as_f64().unwrap();
        near(relation["score"].as_f64().unwrap(), factor("person") * factor("predicate") * factor("object"));
        assert!((0.0..=1.0).contains(&relation["grounding"]["score"].as_f64().unwrap()));
        for sides in ["subject_box", "object_box"] {
            assert_eq!(relation[sides].as_array().unwrap().len(), 4, "{relation}");
        }
        assert_ne!(relation["subject_box"], relation["object_box"]);
    }
    assert!(scores.iter().all(|score| (0.0..=1.0).contains(score) && *score > 0.0), "{scores:?}");
    near(value(&answer, "rfs"), f64::midpoint(scores[0], scores[1]));
    near(value(&answer, "rfs_interaction"), scores[0]);
    near(value(&answer, "rfs_location"), scores[1]);
    let strict: Vec<f64> = relations.iter().map(|r| r["strict"].as_f64().unwrap()).collect();
    near(value(&answer, "rfs_strict"), f64::midpoint(strict[0], strict[1]));
    assert!(strict[0] <= scores[0], "riding alone is no more than riding, on or using");
    assert_eq!(answer["scores"]["rfs"].get("flags"), None);
    // The scene graph is named, so that nobody averages over two.
    assert_eq!(answer["provenance"]["graphs"]["relations"]["checkpoint"], "naver-ai/egtr");
    assert_eq!(answer["evidence"]["checkpoints"]["rfs"], "naver-ai/egtr");
}

#[tokio::test]
async fn annotated_relations_win_over_the_prompt_and_detectables_choose_from_it() {
    let app = App::real().await;
    let image = || png_of(40, 60, 1);
    let prompt = Some("a person as a clown skiing next to a dog");
    let both = json!({ "relations": [["person", "Holding", "cup"]], "detectables": ["dog"] });
    let answer = app.score(form(image(), prompt, &both, METRICS)).await.ok();
    let [relation] = evidence(&answer).try_into().unwrap_or_else(|all| panic!("one relation: {all:?}"));
    assert_eq!((&relation["predicate"], &relation["source"]), (&json!("Holding"), &json!("annotation")));
    assert_eq!(relation["seen_as"], json!(["holding", "carrying"]), "whatever its case");
    is_null(&answer, "rfs_location", "no_relations");

    let named = json!({ "detectables": ["clown", "skis", "DOG", "dog"] });
    let answer = app.score(form(image(), prompt, &named, METRICS)).await.ok();
    let words: Vec<_> = evidence(&answer).iter().map(|r| json!([r["object"], r["source"]])).collect();
    assert_eq!(
        words,
        [json!(["skis", "implied"]), json!(["dog", "parsed"])],
        "copies and roles are no relation"
    );
}

#[tokio::test]
async fn without_relations_there_is_no_number_and_the_reason() {
    let app = App::real().await;
    for prompt in ["", "a person", "a person on a sunny day", "a person as an astronaut", "{}", "👍"] {
        let answer = app.score(prompted(prompt)).await.ok();
        METRICS.split(',').for_each(|metric| is_null(&answer, metric, "no_relations"));
        assert_eq!(evidence(&answer), [] as [Value; 0], "{prompt}");
    }
    let none = app.score(form(png(1), None, &json!({}), METRICS)).await.ok();
    is_null(&none, "rfs", "no_relations");
    let role = json!({ "detectables": ["Clown", "", " "] });
    let answer = app.score(form(png(1), Some("a person as a clown skiing"), &role, METRICS)).await.ok();
    is_null(&answer, "rfs", "no_relations");
    assert!(none["features"].as_array().unwrap().is_empty(), "and no graph ran for it");
}

#[tokio::test]
async fn words_that_the_graph_does_not_know_are_mapped_by_the_nearest_or_not_at_all() {
    let app = App::real().await;
    let unknown = ["yodelling", "quarrelling", "zzz", "sneezing", "philosophising"];
    let relations: Vec<[&str; 3]> = unknown.map(|predicate| ["person", predicate, "dog"]).to_vec();
    let answer = app.score(annotated(&relations)).await.ok();
    let relations = evidence(&answer);
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
                assert_eq!((&relation["unmapped"], &relation["score"]), (&json!("predicate"), &Value::Null));
            }
        }
    }
    let mapped: Vec<f64> = relations.iter().filter_map(|r| r["score"].as_f64()).collect();
    if mapped.is_empty() {
        is_null(&answer, "rfs", "no_mapped_relations");
    } else {
        near(value(&answer, "rfs"), mapped.iter().sum::<f64>() / mapped.len() as f64);
        assert_eq!(answer["scores"]["rfs"]["flags"], json!(["approximate_predicate"]));
    }
    is_null(&answer, "rfs_strict", "no_mapped_relations");
    assert!(answer["provenance"]["graphs"]["clip.text"].is_object(), "its text tower decided");
    let again = app.score(annotated(&[["person", "yodelling", "dog"]])).await.ok();
    assert_eq!(again["cached"], true, "its words are not read again");
}

/// The fake text tower's features of different words are far from each other, and there is no OWL-ViT.
#[tokio::test]
async fn without_owl_vit_classes_alone_count_and_predicates_far_from_all_are_unmapped() {
    let scene_graph = |graph: &GraphSpec| graph.role == "relations";
    let app =
        App::with(|setup| setup.graphs.extend(demo_pack().graphs.into_iter().filter(scene_graph))).await;
    let relations = [["person", "riding", "horse"], ["person", "yodelling", "dog"]];
    let answer = app.score(annotated(&relations)).await.ok();
    assert_eq!(answer["scores"]["rfs"]["flags"], json!(["ungrounded"]));
    let [riding, yodelling] = evidence(&answer).try_into().unwrap_or_else(|all| panic!("two: {all:?}"));
    assert_eq!((riding.get("grounding"), &riding["classes"]), (None, &json!(["horse"])));
    assert_eq!((&yodelling["unmapped"], &yodelling["score"]), (&json!("predicate"), &Value::Null));
    near(value(&answer, "rfs"), riding["score"].as_f64().unwrap());

    let answer = app.score(annotated(&relations[1..])).await.ok();
    METRICS.split(',').filter(|metric| *metric != "rfs_location").for_each(|metric| {
        is_null(&answer, metric, "no_mapped_relations");
    });
    let looked = answer["features"].as_array().unwrap();
    assert!(looked.iter().all(|feature| feature["graph"] != "relations"), "it has no use: {looked:?}");
    // The tokenizer decodes it, so its feature is that of the graph's own word.
    let same = app.score(annotated(&[["person", "ri&#100;ing", "horse"]])).await.ok();
    let [same] = evidence(&same).try_into().unwrap_or_else(|all| panic!("one: {all:?}"));
    assert_eq!((&same["seen_as"], &same["strict"]), (&json!(["riding"]), &Value::Null));
    assert!((same["nearest"].as_f64().unwrap() - 1.0).abs() < 1e-9);
}

#[tokio::test]
async fn blanks_copies_case_and_other_subjects_have_documented_answers() {
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
        let answer = app.score(annotated(same)).await.ok();
        near(value(&answer, "rfs"), alone);
    }
    let answer = app.score(annotated(&[["dog", "near", "tree"], ["person", "", "tree"]])).await.ok();
    let why: Vec<_> = evidence(&answer).iter().map(|r| r["unmapped"].clone()).collect();
    assert_eq!(why, ["subject", "predicate"]);
    is_null(&answer, "rfs", "no_mapped_relations");
    // An object without words has no class and fits no box: it is looked for all the same.
    let nothing = app.score(annotated(&[["person", "riding", ""]])).await.ok();
    assert!((0.0..=1.0).contains(&value(&nothing, "rfs")));
}

#[tokio::test]
async fn over_long_words_are_cut_with_a_flag_and_too_many_relations_refused() {
    let app = App::real().await;
    let long = "very ".repeat(40) + "old horse";
    let answer = app.score(annotated(&[["person", "riding", &long]])).await.ok();
    assert_eq!(answer["scores"]["rfs"]["flags"], json!(["truncated"]));
    assert_eq!(evidence(&answer)[0]["truncated"], true);
    assert_eq!(evidence(&answer)[0]["classes"], json!(["horse"]), "classes are found by the head");

    let objects: Vec<String> = (0..257).map(|at| format!("thing{at}")).collect();
    let many: Vec<[&str; 3]> = objects.iter().map(|object| ["person", "near", object.as_str()]).collect();
    let answer = app.score(annotated(&many[..200])).await.ok();
    assert_eq!(evidence(&answer).len(), 200);
    let problem = app.score(annotated(&many)).await.problem(422, "invalid_field");
    tells(&problem, &["257", "256", "relations"]);

    let prompt = format!("a person near {}", objects[..200].join(", near "));
    let named = json!({ "detectables": objects[..200] });
    let answer = app.score(form(png(1), Some(&prompt), &named, "rfs,goa")).await.ok();
    assert_eq!(evidence(&answer).len(), 200);
    assert_eq!(answer["evidence"]["objects"].as_array().unwrap().len(), 200);
    assert!((0.0..=1.0).contains(&value(&answer, "rfs")));
}

#[tokio::test]
async fn images_of_any_shape_have_a_number_and_single_pixels_are_refused() {
    let app = App::real().await;
    for (width, height) in [(2, 2), (5000, 200), (3, 500)] {
        let image = png_of(width, height, 7);
        let answer = app.score(form(image, Some("a person riding a horse"), &json!({}), "rfs")).await.ok();
        assert!((0.0..=1.0).contains(&value(&answer, "rfs")), "{width}×{height}");
        let corners = &evidence(&answer)[0]["object_box"];
        assert!(corners.as_array().unwrap().iter().all(|side| side.as_f64().unwrap().is_finite()));
    }
    let image = png_of(1, 1, 7);
    let answer = app.score(form(image, Some("a person riding a horse"), &json!({}), "rfs")).await;
    assert_eq!(answer.status.as_u16(), 422, "{}", String::from_utf8_lossy(&answer.body));
}

#[tokio::test]
async fn another_prompt_for_the_same_image_does_not_run_the_scene_graph_again() {
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
async fn objects_and_relations_share_one_question_and_neither_changes_the_other() {
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
    let looked = both["features"].as_array().unwrap().iter().filter(|f| f["graph"] == "owlvit.image").count();
    assert_eq!(looked, 1);
    assert_eq!(both["evidence"]["objects"].as_array().unwrap().len(), 2, "labels of goa only");
    assert_eq!(rfs["evidence"].get("objects"), None);
}

#[tokio::test]
async fn neighbours_order_and_batches_change_nothing() {
    let samples: [(u32, u32, &[[&str; 3]]); 5] = [
        (1, 40, &[["person", "riding", "horse"]]),
        (2, 40, &[["person", "near", "Saturn"], ["person", "holding", "cup"], ["person", "wearing", "hat"]]),
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
    let numbers = |answer: &Value| {
        let scores = ["rfs", "rfs_strict"].map(|metric| answer["scores"][metric]["value"].as_f64());
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
        for (answer, alone) in together.iter().zip(&alone) {
            for (beside, alone) in numbers(&answer.ok()).iter().zip(alone) {
                assert!((beside - alone).abs() < 1e-5, "{alone} alone, {beside} beside others");
            }
        }
    }
}
