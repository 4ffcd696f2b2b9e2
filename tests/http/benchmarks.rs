//! Benchmarks, categories and correlations within prompts over HTTP.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use stellar_score::{
    analysis::refresh_stale,
    content::ContentHash,
    store::{
        Extras, NewSample, NewScore, PackId, RunName, RunWideScore, RunWideScores, SampleInputs,
        ScoreValue,
    },
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::harness::{App, tells};

/// Stores a run of 48 samples of eight people, of two kinds of prompt; only of these kinds.
async fn record(app: &App, method: &str, kinds: &[&str], shift: f64) -> Uuid {
    let metrics = app.get("/v1/metrics").await.ok();
    let pack: PackId = serde_json::from_value(metrics["pack"].clone()).unwrap();
    let score = |metric: &str, value: f64| NewScore {
        metric: metric.into(),
        metric_version: 1,
        value: ScoreValue::Number(value),
        flags: vec![],
    };
    let (mut run, mut samples) = (None, Vec::new());
    for place in 0..48_u32 {
        let kind = if place % 2 == 0 { "T" } else { "H" };
        if !kinds.contains(&kind) {
            continue;
        }
        let noise = f64::from(place * 7919 % 48) / 48.0;
        let spread = if kind == "T" { 0.01 } else { 0.3 };
        let object = if place % 4 < 2 { "horse" } else { "cow" };
        let mut scores = vec![
            score("ips", noise * 0.5 + shift),
            score("clip_n", 0.2 + spread * noise),
            score("dino", f64::from(place * 31 % 48) / 48.0 - shift * noise),
        ];
        if place % 9 != 4 {
            scores.push(score("clip_t", 0.2 + f64::from(place * 17 % 48) / 240.0));
        }
        let new = NewSample {
            id: Uuid::now_v7(),
            created: OffsetDateTime::now_utc(),
            run: Some(RunName::new(method, None)),
            name: Some(format!("{place:02}")),
            width: 600,
            height: 800,
            pack: pack.clone(),
            service_version: "0.1.0".into(),
            scores,
            extras: Extras::default(),
            inputs: SampleInputs {
                content: ContentHash::of(format!("{method} {place}").as_bytes()),
                prompt: Some(format!("a person riding a {object}")),
                image: ContentHash::of(b"image"),
                references: vec![],
                auxiliary: vec![],
                metadata: json!({
                    "identity": format!("person {}", place * 3 % 8),
                    "prompt_kind": kind,
                    "detectables": [object],
                    "finegrained_attributes": {"Smiling": place % 3},
                }),
            },
        };
        let recorded = app.store.record(&new).await.unwrap();
        run = recorded.run;
        samples.push((recorded.sample, place));
    }
    let run = run.unwrap();
    let right = |place: u32| place * 13 % 48 < 30;
    let outcome = |place: u32| {
        let target = place % 8 < 4;
        BTreeMap::from([("Young".to_owned(), (target, target == right(place)))])
    };
    let wide = RunWideScores {
        run,
        created: OffsetDateTime::now_utc(),
        pack,
        service_version: "0.1.0".into(),
        metric: "aps".into(),
        metric_version: 1,
        graphs: None,
        scores: samples
            .iter()
            .map(|(id, place)| RunWideScore {
                sample: *id,
                value: ScoreValue::Number(f64::from(u8::from(right(*place)))),
                outcomes: Some(outcome(*place)),
                images: vec![],
            })
            .collect(),
    };
    app.store.add_run_wide(&wide).await.unwrap();
    refresh_stale(&app.store).await.unwrap();
    run
}

/// Removes what differs between two runs with the same samples.
fn without_names(mut value: Value) -> Value {
    for key in ["run_id", "method", "run", "counts", "a", "b"] {
        value.as_object_mut().unwrap().remove(key);
    }
    value
}

#[tokio::test]
async fn reports_and_comparisons_of_a_benchmark_are_those_of_a_run_of_its_own() {
    let app = App::start().await;
    let both = record(&app, "both", &["T", "H"], 0.0).await;
    let others = record(&app, "others", &["T", "H"], 0.1).await;
    for kind in ["T", "H"] {
        let alone = record(&app, &format!("alone {kind}"), &[kind], 0.0).await;
        let other = record(&app, &format!("other {kind}"), &[kind], 0.1).await;
        for policy in ["stellar", "toolkit", "none"] {
            let part = format!("/v1/runs/{both}/report?policy={policy}&prompt_kind={kind}");
            let whole = format!("/v1/runs/{alone}/report?policy={policy}");
            let (part, whole) = (app.get(&part).await.ok(), app.get(&whole).await.ok());
            assert_eq!(without_names(part.clone()), without_names(whole), "{kind} {policy}");
            let rows = part["rows"].as_array().unwrap();
            let aps = rows.iter().find(|row| row["metric"] == "aps").unwrap();
            assert!(aps["mean"].is_f64() && aps["low"].is_f64(), "{aps}");
            // The column of the leaderboard is the same area.
            let board = format!(
                "/v1/leaderboard?method=both&metrics=aps&policy={policy}&prompt_kind={kind}"
            );
            let area = app.get(&board).await.ok()["rows"][0]["metrics"]["aps"]["area"].clone();
            for field in ["mean", "low", "high", "n", "clusters"] {
                assert_eq!(area[field], aps[field], "{field}");
            }

            let part =
                format!("/v1/runs/{both}/compare/{others}?policy={policy}&prompt_kind={kind}");
            let whole = format!("/v1/runs/{alone}/compare/{other}?policy={policy}");
            let (part, whole) = (app.get(&part).await.ok(), app.get(&whole).await.ok());
            assert_eq!(without_names(part), without_names(whole), "{kind} {policy}");
        }
    }
    let detail = app
        .get(&format!("/v1/runs/{both}/report?prompt_kind=X"))
        .await
        .problem(409, "nothing_to_compare");
    tells(&detail, &["prompt_kind", "X"]);
    let path = format!("/v1/runs/{both}/compare/{others}?prompt_kind=X");
    tells(&app.get(&path).await.problem(409, "nothing_to_compare"), &["prompt_kind", "X"]);
}

#[tokio::test]
async fn a_matrix_has_methods_by_any_kind_of_category() {
    let app = App::start().await;
    record(&app, "=better", &["T", "H"], 0.3).await;
    record(&app, "worse", &["T", "H"], 0.0).await;
    let of = async |query: &str| app.get(&format!("/v1/analysis/matrix?{query}")).await.ok();
    for (kind, labels) in [
        ("detectable", vec!["cow", "horse"]),
        ("predicate", vec!["riding"]),
        ("template", vec!["a person riding a [object]"]),
        ("fine_attribute", vec!["Smiling=0", "Smiling=1", "Smiling=2"]),
        ("prompt_kind", vec!["H", "T"]),
    ] {
        let found = of(&format!("kind={kind}&policy=none&min_samples=5")).await;
        let rows = found["rows"].as_array().unwrap();
        let mut seen: Vec<&str> =
            rows.iter().map(|row| row["category"].as_str().unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, labels, "{kind}");
        assert_eq!(found["columns"].as_array().unwrap().len(), 2);
        for row in rows {
            let best: Vec<bool> = row["cells"]
                .as_array()
                .unwrap()
                .iter()
                .map(|cell| cell["best"].as_bool().unwrap())
                .collect();
            assert_eq!(best, [true, false], "{kind} {row}");
        }
        // A cell is the row of the leaderboard with that filter.
        let label = labels[0].replace(' ', "%20").replace('[', "%5B").replace(']', "%5D");
        let board = format!("/v1/leaderboard?policy=none&min_samples=5&{kind}={label}");
        let board = app.get(&board).await.ok();
        let row = rows.iter().find(|row| row["category"] == labels[0]).unwrap();
        for (place, cell) in row["cells"].as_array().unwrap().iter().enumerate() {
            let of = &board["rows"][place]["metrics"]["ips"];
            for field in ["n", "mean", "low", "high", "rank", "samples", "clusters"] {
                assert_eq!(cell[field], of[field], "{kind} {field}");
            }
        }
    }
    let attributes = of("kind=aps_attribute").await;
    assert_eq!((&attributes["metric"], &attributes["categories"]), (&json!("aps"), &json!(1)));
    assert_eq!(attributes["rows"][0]["category"], "Young");
    assert_eq!(of("kind=detectable&limit=1&min_samples=5").await["categories"], 2);

    let csv = app.get("/v1/analysis/matrix?kind=detectable&min_samples=5&format=csv").await;
    assert_eq!(csv.headers["content-type"], "text/csv; charset=utf-8");
    let text = String::from_utf8(csv.body.to_vec()).unwrap();
    assert_eq!(text.lines().count(), 1 + 2 * 2);
    assert!(text.contains("detectable,cow,'=better,"), "{text}");

    for (query, code, words) in [
        ("kind=aps_attribute&metric=ips", 400, vec!["aps"]),
        ("limit=0", 400, vec!["limit", "100"]),
        ("kind=colour", 400, vec!["colour", "category"]),
    ] {
        let detail = app
            .get(&format!("/v1/analysis/matrix?{query}"))
            .await
            .problem(code, "malformed_request");
        tells(&detail, &words);
    }
    let unknown = app.get("/v1/analysis/matrix?metric=beauty").await;
    tells(&unknown.problem(422, "unknown_metric"), &["beauty", "ips"]);
}

#[tokio::test]
async fn correlations_are_grouped_by_family_and_may_be_within_prompts() {
    let app = App::start().await;
    record(&app, "a", &["T", "H"], 0.3).await;
    let one = app.get("/v1/analysis/correlations?within=prompt").await.ok();
    assert_eq!(one["matrix"][0][1]["reason"], "too_few_samples", "one image for each prompt");
    record(&app, "b", &["T", "H"], 0.0).await;
    let found = app.get("/v1/analysis/correlations?intervals=true").await.ok();
    assert_eq!(found["metrics"], json!(["ips", "aps", "clip_t", "dino", "clip_n"]));
    let families: Vec<&str> = found["families"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| of["family"].as_str().unwrap())
        .collect();
    let expected = ["personalised", "attribute", "text_to_image", "image_to_image", "support"];
    assert_eq!(families, expected);
    assert!(!found["family_pairs"].as_array().unwrap().is_empty());
    let within = app.get("/v1/analysis/correlations?within=prompt&intervals=true").await.ok();
    assert_eq!(within["within"], "prompt");
    let (ips, dino) = (0, 3);
    let cell = &within["matrix"][ips][dino];
    assert_eq!((&cell["n"], &cell["prompts"]), (&json!(96), &json!(48)));
    // Within a prompt, the method with the higher ips has the lower dino, or an equal one at 00.
    assert!(cell["value"].as_f64().unwrap() < -0.9, "{cell}");
    assert_ne!(cell["value"], found["matrix"][ips][dino]["value"]);
    app.get("/v1/analysis/correlations?within=person").await.problem(400, "malformed_request");
}

#[tokio::test]
async fn pages_offer_benchmarks_categories_and_published_numbers_in_words() {
    let app = App::start().await;
    record(&app, "<b>mine</b>", &["T", "H"], 0.3).await;
    record(&app, "other", &["T", "H"], 0.0).await;
    let page = async |path: &str| {
        let response = app.get(path).await;
        assert_eq!(response.status, 200, "{path}");
        String::from_utf8(response.body.to_vec()).unwrap()
    };
    let board = page("/leaderboard?prompt_kind=T&published=true&dataset=").await;
    for words in [
        "aria-label=\"Benchmark\"",
        ">Stellar-T</a>",
        ">Stellar-H</a>",
        "as if the runs had no others",
        "APS, area",
        "does not compare",
        "area under the ROC curve",
        "user study",
        "78.1 %",
        "trained on evaluation photos",
        "href=\"/matrix\"",
    ] {
        assert!(board.contains(words), "{words}");
    }
    assert!(!board.contains("<b>mine"), "names stay text");
    let csv = page("/leaderboard?download=csv:leaderboard&published=true").await;
    let head = csv.lines().next().unwrap();
    assert!(head.contains("aps_area,aps_area_low") && head.ends_with(",comparable"), "{head}");

    let matrix = page("/matrix?kind=detectable&min_samples=5&policy=none").await;
    for words in ["cow", "horse", ">best</span>", "Object in the prompt"] {
        assert!(matrix.contains(words), "{words}");
    }
    assert!(!matrix.contains("<b>mine"), "names stay text");
    let latex =
        page("/matrix?kind=detectable&min_samples=5&policy=none&download=latex:matrix").await;
    assert!(latex.contains("\\textbf{") && latex.contains("\\toprule"), "{latex}");
    assert!(page("/matrix?kind=category").await.contains("No category has enough images"));

    let correlations = page("/correlations?within=prompt").await;
    for words in ["Within prompts", "By family", "Text to image", "Prompts"] {
        assert!(correlations.contains(words), "{words}");
    }
    assert!(page("/metrics-guide").await.contains("Family"));
}
