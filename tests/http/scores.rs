//! Scoring an image and reading the result back.

use serde_json::json;

use crate::{
    harness::{App, ONE_GRAPH},
    snapshot::stable,
    support::{form::Form, images::png},
};

/// A sample with everything that the four CLIP metrics need.
fn whole(seed: u32) -> Form {
    Form::new()
        .file("image", png(seed))
        .field("prompt", "a person riding a horse")
        .file("reference", png(seed + 1000))
}

#[tokio::test]
async fn a_complete_sample_gets_a_number_for_every_available_metric() {
    let app = App::start().await;
    let response = app.score(whole(1).field("method", "mine")).await.ok();
    for metric in ["clip_t", "clip_i", "clip_n", "aesthetic"] {
        let score = &response["scores"][metric];
        assert!(score["value"].is_f64(), "{metric}: {score}");
        assert!(score.get("reason").is_none(), "{metric}: {score}");
    }
    assert_eq!(response["outcome"], "created");
    assert_eq!(response["method"], "mine");
    assert_eq!(response["run"], "default");
    assert_eq!(response["weights"], "demo");
    assert_eq!(response["cached"], false);
    assert!(response.get("evidence").is_none());
    assert!(response["sample"].as_str().unwrap().parse::<uuid::Uuid>().is_ok());
}

#[tokio::test]
async fn the_response_has_the_provenance_of_every_score() {
    let app = App::start().await;
    let response = app.score(whole(1).field("metrics", "clip_t,clip_i")).await.ok();
    insta::assert_snapshot!(stable(response["provenance"].clone()));
    let timings = &response["timings"];
    let total = timings["total_ms"].as_f64().unwrap();
    let parts = ["read_ms", "score_ms", "store_ms"].map(|part| timings[part].as_f64().unwrap());
    assert!((parts.iter().sum::<f64>() - total).abs() < 1e-6, "{timings}");
    let mut features: Vec<_> = response["features"]
        .as_array()
        .unwrap()
        .iter()
        .map(|feature| {
            [&feature["graph"], &feature["of"], &feature["origin"]]
                .map(|text| text.as_str().unwrap())
        })
        .collect();
    features.sort_unstable();
    assert_eq!(
        features,
        [
            ["clip.image", "image", "computed"],
            ["clip.image", "reference[0]", "computed"],
            ["clip.text", "prompt", "computed"]
        ]
    );
}

#[tokio::test]
async fn an_identical_request_is_served_from_the_cache_and_counted_once() {
    let app = App::start().await;
    let first = app.score(whole(1).field("method", "mine")).await.ok();
    let runs = app.graphs.batches().len();
    let second = app.score(whole(1).field("method", "mine")).await.ok();
    assert_eq!(second["cached"], true);
    assert_eq!(second["outcome"], "repeated");
    assert_eq!(second["sample"], first["sample"]);
    assert_eq!(second["scores"], first["scores"]);
    assert_eq!(app.graphs.batches().len(), runs, "no model ran");
    assert_eq!(app.counted("mine", "clip_t").await, 1);
}

#[tokio::test]
async fn a_shared_reference_is_computed_once() {
    let app = App::start().await;
    for seed in 0..3 {
        let form = Form::new()
            .file("image", png(seed))
            .file("reference", png(77))
            .field("metrics", "clip_i");
        app.score(form).await.ok();
    }
    let items: usize = app.graphs.sizes().iter().sum();
    assert_eq!(items, 4, "three images and one reference");
}

#[tokio::test]
async fn further_metrics_of_the_same_sample_are_added_to_it() {
    let app = App::start().await;
    let first = app.score(whole(1).field("method", "mine").field("metrics", "clip_t")).await.ok();
    let second =
        app.score(whole(1).field("method", "mine").field("metrics", "aesthetic")).await.ok();
    assert_eq!(second["outcome"], "rescored");
    assert_eq!(second["sample"], first["sample"]);
    let stored = app.get(&format!("/v1/samples/{}", first["sample"].as_str().unwrap())).await.ok();
    let mut metrics: Vec<_> = stored["scores"]
        .as_array()
        .unwrap()
        .iter()
        .map(|score| score["metric"].as_str().unwrap())
        .collect();
    metrics.sort_unstable();
    assert_eq!(metrics, ["aesthetic", "clip_t"]);
}

#[tokio::test]
async fn a_missing_prompt_or_reference_gives_null_with_reason_and_help() {
    let app = App::start().await;
    let response = app.score(Form::new().file("image", png(1))).await.ok();
    let scores = &response["scores"];
    assert_eq!(scores["clip_t"]["value"], json!(null));
    assert_eq!(scores["clip_t"]["reason"], "no_prompt");
    assert!(scores["clip_t"]["help"].as_str().unwrap().contains("`prompt`"));
    assert_eq!(scores["clip_i"]["reason"], "no_reference");
    assert!(scores["clip_i"]["help"].as_str().unwrap().contains("`reference`"));
    assert!(scores["aesthetic"]["value"].is_f64());
}

#[tokio::test]
async fn an_empty_prompt_is_scored() {
    let app = App::start().await;
    let form = Form::new().file("image", png(1)).field("prompt", "").field("metrics", "clip_t");
    assert!(app.score(form).await.ok()["scores"]["clip_t"]["value"].is_f64());
}

#[tokio::test]
async fn a_metric_without_its_graph_is_unavailable_and_others_are_scored() {
    let app = App::with(|setup| setup.graphs.retain(|graph| graph.role != "clip_l.image")).await;
    let response = app.score(whole(1).field("metrics", "clip_t,aesthetic")).await.ok();
    assert_eq!(response["scores"]["aesthetic"]["reason"], "unavailable");
    assert!(response["scores"]["clip_t"]["value"].is_f64());
    let metrics = app.get("/v1/metrics").await.ok();
    let aesthetic = metrics["metrics"]
        .as_array()
        .unwrap()
        .iter()
        .find(|metric| metric["code"] == "aesthetic")
        .unwrap();
    assert_eq!(aesthetic["available"], false);
    assert_eq!(aesthetic["missing_graphs"], json!(["clip_l.image"]));
}

#[tokio::test]
async fn only_requested_metrics_are_returned_and_run() {
    let app = App::start().await;
    let response = app.score(whole(1).field("metrics", " aesthetic ")).await.ok();
    assert_eq!(response["scores"].as_object().unwrap().keys().collect::<Vec<_>>(), ["aesthetic"]);
    assert_eq!(app.graphs.sizes(), [1]);
}

#[tokio::test]
async fn evidence_reports_token_count_and_truncation() {
    let app = App::start().await;
    let long = "a person ".repeat(100);
    let form = |prompt: &str| {
        Form::new()
            .file("image", png(1))
            .field("prompt", prompt)
            .field("metrics", "clip_t")
            .field("evidence", "true")
    };
    let response = app.score(form("a person")).await.ok();
    assert_eq!(
        response["evidence"]["texts"],
        json!([{"graph": "clip.text", "tokens": 4, "context": 77, "truncated": false}])
    );
    let response = app.score(form(&long)).await.ok();
    assert_eq!(
        response["evidence"]["texts"],
        json!([{"graph": "clip.text", "tokens": 202, "context": 77, "truncated": true}])
    );
    assert_eq!(response["scores"]["clip_t"]["flags"], json!(["truncated"]));
}

#[tokio::test]
async fn a_stored_sample_reads_back_with_its_scores_and_their_provenance() {
    let app = App::start().await;
    let form = whole(1)
        .field("method", "mine")
        .field("run", "seed 7")
        .field("name", "0001")
        .field("metadata", r#"{"attributes": {"Young": true}, "detectables": ["horse"]}"#);
    let response = app.score(form).await.ok();
    let stored =
        app.get(&format!("/v1/samples/{}", response["sample"].as_str().unwrap())).await.ok();
    assert_eq!(stored["id"], response["sample"]);
    insta::assert_snapshot!(stable(json!({
        "method": stored["method"], "run": stored["run"], "name": stored["name"],
        "prompt": stored["prompt"], "image": stored["image"],
        "references": stored["references"], "metadata": stored["metadata"],
    })));
    for score in stored["scores"].as_array().unwrap() {
        let metric = score["metric"].as_str().unwrap();
        assert_eq!(
            score["value"], response["scores"][metric]["value"],
            "{metric}: to the last bit"
        );
        assert_eq!(score["pack"], response["provenance"]["pack"]);
        assert_eq!(score["service_version"], env!("CARGO_PKG_VERSION"));
    }
    assert_eq!(stored["scores"].as_array().unwrap().len(), 4, "what is unavailable leaves no row");
}

#[tokio::test]
async fn a_sample_without_a_method_is_stored_but_on_no_leaderboard() {
    let app = App::start().await;
    let response = app.score(whole(1)).await.ok();
    assert!(response.get("method").is_none());
    let stored =
        app.get(&format!("/v1/samples/{}", response["sample"].as_str().unwrap())).await.ok();
    assert_eq!(stored["method"], json!(null));
    assert_eq!(app.get("/v1/leaderboard").await.ok()["rows"], json!([]));
}

#[tokio::test]
async fn the_same_name_with_other_content_is_a_conflict() {
    let app = App::start().await;
    let named = |seed| {
        Form::new()
            .file("image", png(seed))
            .field("metrics", ONE_GRAPH)
            .field("method", "mine")
            .field("name", "0001")
    };
    app.score(named(1)).await.ok();
    let detail = app.score(named(2)).await.problem(409, "sample_conflict");
    assert!(detail.contains("0001") && detail.contains("mine"), "{detail}");
    assert_eq!(app.counted("mine", ONE_GRAPH).await, 1);
}

#[tokio::test]
async fn the_same_name_in_another_run_is_another_sample() {
    let app = App::start().await;
    for run in ["a", "b"] {
        let form = Form::new().file("image", png(1)).field("metrics", ONE_GRAPH);
        let response = app
            .score(form.field("method", "mine").field("run", run).field("name", "0001"))
            .await
            .ok();
        assert_eq!(response["outcome"], "created");
    }
    assert_eq!(app.counted("mine", ONE_GRAPH).await, 2);
}

#[tokio::test]
async fn responses_carry_the_request_id_of_the_client_or_a_new_one() {
    let app = App::start().await;
    let mut request = crate::harness::score_request(whole(1).field("metrics", ONE_GRAPH));
    request.headers_mut().insert("x-request-id", "run-7:0001".parse().unwrap());
    assert_eq!(app.send(request).await.headers["x-request-id"], "run-7:0001");
    let mut request = crate::harness::score_request(whole(1).field("metrics", ONE_GRAPH));
    request.headers_mut().insert("x-request-id", "not acceptable".parse().unwrap());
    let id = app.send(request).await.headers["x-request-id"].to_str().unwrap().to_owned();
    assert!(id.parse::<uuid::Uuid>().is_ok(), "{id}");
}
