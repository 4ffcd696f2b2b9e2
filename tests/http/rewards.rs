//! Rewards for training: formats, columns, combinations, groups, and requests that queue.

use std::{convert::Infallible, pin::pin};

use axum::{
    body::{Body, Bytes},
    http::Request,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::{poll, stream};
use serde_json::{Value, json};

use crate::{
    harness::{Answer, App, ONE_GRAPH},
    support::{client::Exchange, form::Form, images::png},
};

fn encoded(seed: u32) -> String {
    STANDARD.encode(png(seed))
}

fn request(kind: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post("/v1/rewards").header("content-type", kind).body(body.into()).unwrap()
}

impl App {
    async fn rewards(&self, body: &Value) -> Answer {
        self.send(request("application/json", body.to_string())).await
    }
}

/// A PPM file of the same pixels for every call with the same seed.
fn pixels(seed: u32, side: usize) -> Vec<u8> {
    (0..3 * side * side).map(|at| (at as u32).wrapping_mul(0x9e37_79b1 ^ seed) as u8).collect()
}

fn safetensors(document: &Value, tensors: &[(&str, &[usize], &[u8])]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, shape, data)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::U8, shape.to_vec(), data);
        (*name, view.unwrap())
    });
    let metadata = [("request".to_owned(), document.to_string())].into();
    safetensors::serialize(views, Some(metadata)).unwrap()
}

#[tokio::test]
async fn rewards_are_columns_in_the_order_of_the_items_and_nothing_is_stored() {
    let app = App::start().await;
    let body = json!({
        "rewards": ["clip_t", "clip_t@flow_grpo", "clip_i"],
        "items": [
            {"image": encoded(1), "prompt": "a horse", "references": [encoded(9)]},
            {"image": encoded(2), "prompt": "a horse"},
            {"image": encoded(3)},
        ],
    });
    let response = app.rewards(&body).await.ok();
    let column = |name: &str| response["rewards"][name].as_array().unwrap().clone();
    let scored = app.score(Form::new().file("image", png(1)).field("prompt", "a horse")).await.ok();
    let clip_t = scored["scores"]["clip_t"]["value"].as_f64().unwrap();
    assert_eq!(column("clip_t")[0].as_f64(), Some(clip_t));
    let scaled = column("clip_t@flow_grpo")[0].as_f64().unwrap();
    assert!((scaled - clip_t * 100.0 / 30.0).abs() < 1e-12);
    assert!(column("clip_i")[0].is_f64() && column("clip_i")[1].is_null());
    assert_eq!(response["reasons"]["clip_i"], json!({"1": "no_reference", "2": "no_reference"}));
    assert_eq!(response["reasons"]["clip_t"], json!({"2": "no_prompt"}));
    assert_eq!(response["errors"], json!({}));
    assert_eq!(response["provenance"]["scales"], json!({"clip_t@flow_grpo": "100 · s / 30"}));
    // Only the sample of POST /v1/score is there.
    let runs = app.get("/v1/runs").await.ok();
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(0), "{runs}");
}

#[tokio::test]
async fn all_forms_of_a_request_give_equal_rewards() {
    let app = App::start().await;
    let (one, two) = (pixels(1, 8), pixels(2, 8));
    let file = |pixels: &[u8]| [b"P6\n8 8\n255\n", pixels].concat();
    let of = |first: Value, second: Value| json!({"rewards": [ONE_GRAPH], "items": [{"image": first}, {"image": second}]});
    let base64 = of(STANDARD.encode(file(&one)).into(), STANDARD.encode(file(&two)).into());
    let from_json = app.rewards(&base64).await.ok()["rewards"].clone();
    assert!(from_json[ONE_GRAPH][0].is_f64());

    let stacked = [one.clone(), two.clone()].concat();
    let body = safetensors(
        &of(json!({"tensor": 0}), json!({"tensor": 1})),
        &[("images", &[2, 8, 8, 3], &stacked)],
    );
    let raw = app.send(request("application/x-safetensors", body)).await.ok()["rewards"].clone();
    assert_eq!(raw, from_json);

    let document = of(json!({"part": "a"}), json!({"part": "b"})).to_string();
    let form = Form::new().field("request", &document).file("a", file(&one)).file("b", file(&two));
    let kind = Form::content_type();
    let parts = app.send(request(&kind, form.finish())).await.ok()["rewards"].clone();
    assert_eq!(parts, from_json);
}

#[tokio::test]
async fn images_that_several_items_name_are_read_once() {
    let app = App::start().await;
    let item = json!({"image": {"tensor": 0}, "references": vec![json!({"tensor": 0}); 16]});
    let document = json!({"rewards": [ONE_GRAPH], "items": vec![item; 2000]});
    let (image, reference) = (pixels(1, 64), pixels(2, 64));
    let body = safetensors(
        &document,
        &[("images", &[1, 64, 64, 3], &image), ("references", &[1, 64, 64, 3], &reference)],
    );
    let response = app.send(request("application/x-safetensors", body)).await.ok();
    let column = response["rewards"][ONE_GRAPH].as_array().unwrap();
    assert_eq!(column.len(), 2000);
    assert!(column.iter().all(|reward| *reward == column[0] && reward.is_f64()));
}

#[tokio::test]
async fn a_broken_item_is_its_own_error() {
    let app = App::start().await;
    let items = json!([
        {"image": encoded(1), "prompt": "a", "group": "g"},
        {"image": "not base64!", "id": "mine", "group": "g"},
        {"image": STANDARD.encode(b"no image"), "group": "g"},
        {"image": encoded(4), "prompt": "nul \u{0}", "group": "g"},
        {"image": {"tensor": 0}, "group": "g"},
        {"image": encoded(5), "metadata": {"nonsense": 1}, "group": "g"},
    ]);
    let body = json!({"rewards": [ONE_GRAPH], "items": items, "statistics": true});
    let response = app.rewards(&body).await.ok();
    let errors = response["errors"].as_object().unwrap();
    assert_eq!(errors.keys().collect::<Vec<_>>(), ["1", "2", "3", "4", "5"]);
    assert_eq!(errors["1"]["id"], "mine");
    assert_eq!(errors["2"]["code"], "image_unsupported");
    let column = response["rewards"][ONE_GRAPH].as_array().unwrap();
    assert!(column[0].is_f64() && column[1..].iter().all(Value::is_null));
    assert_eq!(response["groups"]["g"]["n"], 1);
    assert_eq!(response["groups"]["g"]["advantage"][0], 0.0);
}

#[tokio::test]
async fn combinations_and_groups_are_computed() {
    let app = App::start().await;
    let item = |seed: u32, group: &str| json!({"image": encoded(seed), "prompt": "a horse", "group": group});
    let body = json!({
        "rewards": ["clip_t", ONE_GRAPH],
        "items": [item(1, "x"), item(2, "x"), item(3, "y")],
        "combine": {"weights": {"clip_t": 2.0, ONE_GRAPH: -1.0}, "on_null": "fail"},
        "statistics": true,
    });
    let response = app.rewards(&body).await.ok();
    let of = |name: &str, at: usize| response["rewards"][name][at].as_f64().unwrap();
    let expected: Vec<_> = (0..3).map(|at| 2.0 * of("clip_t", at) - of(ONE_GRAPH, at)).collect();
    for (at, expected) in expected.iter().enumerate() {
        let found = response["combined"][at].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-12);
    }
    let x = &response["groups"]["x"];
    assert_eq!(x["items"], json!([0, 1]));
    let mean = f64::midpoint(expected[0], expected[1]);
    assert!((x["mean"].as_f64().unwrap() - mean).abs() < 1e-12);
    let best = usize::from(expected[1] > expected[0]);
    assert_eq!(x["rank"][best], 1);
    assert_eq!(x["rank"][1 - best], 2);
    assert_eq!(response["groups"]["y"]["std"], 0.0);
}

#[tokio::test]
async fn wrong_requests_are_refused_as_a_whole() {
    let app = App::start().await;
    let item = json!({"image": encoded(1), "prompt": "a"});
    let refused = [
        (json!({"rewards": [], "items": [item]}), "invalid_field"),
        (json!({"rewards": ["clip_t"], "items": []}), "invalid_field"),
        (json!({"rewards": ["nonsense"], "items": [item]}), "unknown_metric"),
        (json!({"rewards": ["clip_t@nonsense"], "items": [item]}), "unknown_metric"),
        (json!({"rewards": ["clip_t", "clip_t"], "items": [item]}), "invalid_field"),
        (json!({"rewards": ["clip_t"], "items": [item], "more": 1}), "invalid_field"),
        (
            json!({"rewards": ["clip_t"], "items": [item],
                "combine": {"weights": {"ips": 1.0}, "on_null": "skip"}}),
            "invalid_field",
        ),
        (
            json!({"rewards": ["clip_t"], "items": [item], "combine": {"weights": {"clip_t": 1.0}}}),
            "invalid_field",
        ),
        (
            json!({"rewards": ["clip_t", ONE_GRAPH], "items": [item], "statistics": true}),
            "invalid_field",
        ),
    ];
    for (body, code) in refused {
        app.rewards(&body).await.problem(422, code);
    }
    // What a JSON value cannot hold: names that are repeated, and two sources of one image.
    for part in [
        r#""combine": {"weights": {"clip_t": 1, "clip_t": 2}, "on_null": "skip"}"#,
        r#""combine": {"weights": {"clip_t": 1e300}, "on_null": "skip"}"#,
    ] {
        let body = format!(r#"{{"rewards": ["clip_t"], "items": [{{"image": "x"}}], {part}}}"#);
        app.send(request("application/json", body)).await.problem(422, "invalid_field");
    }
    let body = r#"{"rewards": ["clip_t"], "items": [{"image": {"tensor": 0, "part": "x"}}]}"#;
    app.send(request("application/json", body)).await.problem(422, "invalid_field");
    app.send(request("text/plain", "x")).await.problem(415, "unsupported_media_type");
    app.send(request("application/x-safetensors", "x")).await.problem(400, "malformed_request");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_at_once_wait_and_are_all_answered() {
    let app = App::with(|setup| {
        setup.config.rewards.concurrency = 4;
        // Memory for one or two bodies at once.
        setup.config.rewards.memory_mib = 1;
        setup.config.limits.request_mib = 1;
    })
    .await;
    let requests = (0..200).map(|seed| {
        let body = json!({"rewards": [ONE_GRAPH], "items": [{"image": encoded(seed)}]});
        let app = &app;
        async move { app.rewards(&body).await.ok()["rewards"][ONE_GRAPH][0].is_f64() }
    });
    let answered = futures_util::future::join_all(requests).await;
    assert!(answered.into_iter().all(|is_number| is_number));
}

#[tokio::test]
async fn a_request_that_waits_in_vain_gets_503_and_leaves_the_queue() {
    let app = App::with(|setup| setup.config.rewards.concurrency = 1).await;
    app.gate.close();
    let body = |seed: u32| json!({"rewards": [ONE_GRAPH], "items": [{"image": encoded(seed)}]});
    let send = |seed: u32| {
        Request::post("/v1/rewards")
            .header("content-type", "application/json")
            .header("prefer", "wait=1")
            .body(Body::from(body(seed).to_string()))
            .unwrap()
    };
    let work = async {
        let second = async {
            // The first has its turn, and its graph is held back.
            app.gate.reached_by(1).await;
            let answer = app.send(send(2)).await;
            app.gate.open();
            answer
        };
        tokio::join!(app.send(send(1)), second)
    };
    let (first, second) = work.await;
    first.ok();
    assert!(second.headers.contains_key("retry-after"));
    second.problem(503, "unavailable");
    app.rewards(&body(3)).await.ok();
    for gauge in ["stellar_rewards_items", "stellar_rewards_waiting_items", "stellar_rewards_bytes"]
    {
        app.until(gauge, 0.0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_disconnects_frees_its_place_at_once() {
    let app = App::with(|setup| setup.config.rewards.concurrency = 2).await;
    let address = app.listen().await;
    app.gate.close();
    let begin = |seed: u32| {
        let body = json!({"rewards": [ONE_GRAPH], "items": [{"image": encoded(seed)}]}).to_string();
        let headers = [("content-type", "application/json")];
        let mut exchange =
            Exchange::begin(address, "POST /v1/rewards", &headers, body.len()).unwrap();
        exchange.send(body.as_bytes()).unwrap();
        exchange
    };
    let mut first = begin(1);
    app.gate.reached_by(1).await;
    // The second has the other place and is in the queue of its graph.
    let leaving = begin(2);
    app.until(r#"stellar_engine_queue_depth{graph="clip_l.image"}"#, 1.0).await;
    let mut third = begin(3);
    app.until("stellar_rewards_waiting_items", 1.0).await;
    drop(leaving);
    app.until("stellar_rewards_waiting_items", 0.0).await;
    app.gate.open();
    let answers = tokio::task::spawn_blocking(move || [first.receive(), third.receive()]).await;
    for answer in answers.unwrap() {
        assert_eq!(answer.unwrap().status, 200);
    }
    let dropped = r#"stellar_engine_items_total{graph="clip_l.image",outcome="dropped"}"#;
    app.until(dropped, 1.0).await;
    assert_eq!(app.graphs.sizes(), [1, 1], "the image of the client that left never ran");
    app.until("stellar_rewards_items", 0.0).await;
}

#[tokio::test]
async fn a_client_that_announces_a_body_and_sends_nothing_keeps_no_memory() {
    let app = App::with(|setup| {
        // Room for one body.
        setup.config.rewards.memory_mib = 1;
        setup.config.limits.request_mib = 1;
    })
    .await;
    let silent = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let idle = Request::post("/v1/rewards")
        .header("content-type", "application/json")
        .header("content-length", "1000000")
        .body(silent)
        .unwrap();
    let body = json!({"rewards": [ONE_GRAPH], "items": [{"image": encoded(1)}]});
    let mut idle = pin!(app.send(idle));
    assert!(poll!(&mut idle).is_pending());
    tokio::select! {
        _ = idle => panic!("the body never comes"),
        answer = app.rewards(&body) => drop(answer.ok()),
    }
}

#[tokio::test]
async fn refused_rewards_are_counted_at_their_own_bound() {
    let app = App::with(|setup| {
        (setup.config.rewards.concurrency, setup.config.rewards.queue) = (1, 1);
    })
    .await;
    let items: Vec<_> = (0..3).map(|seed| json!({"image": encoded(seed)})).collect();
    let body = json!({"rewards": [ONE_GRAPH], "items": items});
    // The first item keeps its place until the third has been refused.
    app.gate.close();
    app.rewards(&body).await.problem(503, "unavailable");
    app.gate.open();
    let refused = app.number(r#"stellar_refusals_total{reason="rewards"}"#).await;
    assert!((refused - 1.0).abs() < f64::EPSILON, "{refused}");
    let others = app.number(r#"stellar_refusals_total{reason="requests"}"#).await;
    assert!(others.abs() < f64::EPSILON, "{others}");
}
