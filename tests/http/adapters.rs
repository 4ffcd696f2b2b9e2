//! Clients of trainers, written from their protocols: real pickles, and bodies as they send them.
//!
//! Expected rewards are the metric's own value, as `POST /v1/score` returns it, and the trainer's
//! formula.

use std::{fs, path::Path, time::Duration};

use axum::{
    body::Body,
    http::{Request, header},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use stellar_pickle::Value as Pickled;
use stellar_score::{
    config::{Adapter, AdapterReward, Protocol},
    engine::fake::Trouble,
    key::{KeyLimits, Scope},
};

use crate::{
    harness::{Answer, App, ONE_GRAPH, tells},
    keys::new_key,
    support::{client::Exchange, form::Form},
};

/// The prompts of the pickles in `tests/data/pickle` (`scripts/pickle_fixtures.py`).
const PROMPTS: [&str; 3] = ["a horse", "größer, 猫 🐎", "xxxxx"];

fn data(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pickle");
    fs::read(folder.join(name)).unwrap()
}

fn image(at: usize) -> Vec<u8> {
    data(&format!("image{at}.jpg"))
}

fn by_path(protocol: Protocol, name: &str, reward: &str) -> Adapter {
    let reward = AdapterReward::One(reward.to_owned());
    Adapter { protocol, name: Some(name.to_owned()), reward }
}

fn by_request(protocol: Protocol) -> Adapter {
    let rewards =
        [("clip", "clip_t@flow_grpo"), ("aesthetic", "aesthetic@tenth"), ("ip", "clip_i")];
    let rewards = rewards.map(|(name, reward)| (name.to_owned(), reward.to_owned()));
    Adapter { protocol, name: None, reward: AdapterReward::Named(rewards.into()) }
}

fn adapters() -> Vec<Adapter> {
    vec![
        by_path(Protocol::Pickle, "clip", "clip_t@flow_grpo"),
        by_path(Protocol::Pickle, "aesthetic", "aesthetic@tenth"),
        by_path(Protocol::Pickle, "ip", "clip_i"),
        by_path(Protocol::FlowFactory, "clip", "clip_t@flow_grpo"),
        by_path(Protocol::FlowFactory, "ip", "clip_i"),
        by_request(Protocol::Unirl),
        by_request(Protocol::Cosmos),
    ]
}

async fn start() -> App {
    App::with(|setup| setup.config.rewards.adapter = adapters()).await
}

impl App {
    /// Sends a body without a media type, as requests does with bytes.
    async fn post_bytes(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.send(Request::post(path).body(body.into()).unwrap()).await
    }

    async fn post_json(&self, path: &str, body: &Value) -> Answer {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    async fn post_form(&self, path: &str, body: String) -> Answer {
        let kind = "application/x-www-form-urlencoded";
        let request = Request::post(path).header(header::CONTENT_TYPE, kind);
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    /// A metric's own value.
    async fn value(&self, metric: &str, form: Form) -> f64 {
        let scored = self.score(form.field("metrics", metric)).await.ok();
        scored["scores"][metric]["value"].as_f64().unwrap()
    }

    /// `clip_t@flow_grpo` of the images and prompts of the pickles.
    async fn clip_rewards(&self) -> Vec<f64> {
        let mut rewards = Vec::new();
        for (at, prompt) in PROMPTS.into_iter().enumerate() {
            let form = Form::new().file("image", image(at)).field("prompt", prompt);
            rewards.push(100.0 * self.value("clip_t", form).await / 30.0);
        }
        assert!(rewards.windows(2).all(|two| two[0] != two[1]), "{rewards:?}");
        rewards
    }
}

/// The numbers of a pickled answer: the same under both names, at a protocol of every Python 3.
#[track_caller]
fn outputs(answer: &Answer) -> Vec<f64> {
    assert_eq!(answer.status, 200, "{}", told("/rl/pickle/x", answer));
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/octet-stream");
    assert!(answer.body.starts_with(b"\x80\x03}"));
    let answer = stellar_pickle::read(&answer.body).unwrap();
    assert_eq!(answer.entries().unwrap().len(), 2);
    let [scores, outputs] = ["scores", "outputs"].map(|name| {
        let items = answer.get(name).and_then(Pickled::items).unwrap();
        let number =
            |item: &Pickled| if let Pickled::Float(number) = item { *number } else { panic!() };
        items.iter().map(number).collect::<Vec<_>>()
    });
    assert_eq!(scores, outputs);
    outputs
}

/// The text of an error in the form of the route's protocol.
#[track_caller]
pub(crate) fn told(path: &str, answer: &Answer) -> String {
    let transient = answer.status == 503 && answer.headers.contains_key(header::RETRY_AFTER);
    assert!(transient || !answer.headers.contains_key(header::RETRY_AFTER), "{answer:?}");
    assert!(!matches!(answer.status.as_u16(), 429 | 500), "{answer:?}");
    if path.starts_with("/rl/pickle/") {
        let pickle = stellar_pickle::read(&answer.body).unwrap();
        assert_eq!(pickle.entries().unwrap().len(), 1);
        return pickle.get("error").and_then(Pickled::text).unwrap().to_owned();
    }
    let field = match path.split('/').nth(2) {
        Some("unirl") => "detail",
        Some("flow-factory") => "error",
        Some("cosmos") => "message",
        other => panic!("{other:?}"),
    };
    answer.json()[field].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

#[track_caller]
fn close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }
}

#[tokio::test]
async fn pickles_of_every_client_and_protocol_are_scored() {
    let app = start().await;
    let expected = app.clip_rewards().await;
    let mut aesthetic = Vec::new();
    for at in 0..3 {
        let form = Form::new().file("image", image(at));
        aesthetic.push(app.value(ONE_GRAPH, form).await / 10.0);
    }
    for protocol in 2..=5 {
        let of = |name: &str| data(&format!("{name}.p{protocol}.pkl"));
        // verl-omni, deepgen with its slash, and flow_grpo with and without prompts.
        close(&outputs(&app.post_bytes("/rl/pickle/clip", of("one")).await), &expected[..1]);
        close(&outputs(&app.post_bytes("/rl/pickle/clip/", of("batch")).await), &expected);
        for numpy in ["1.26", "2.2"] {
            let body = of(&format!("unified.numpy{numpy}"));
            close(&outputs(&app.post_bytes("/rl/pickle/clip", body).await), &expected);
        }
        close(&outputs(&app.post_bytes("/rl/pickle/aesthetic", of("deqa")).await), &aesthetic);
        // deepgen's images before and after an edit: the former are references.
        let edited = outputs(&app.post_bytes("/rl/pickle/ip", of("edit")).await);
        let mut by_hand = Vec::new();
        for at in 0..2 {
            let form = Form::new().file("image", image(at + 1)).file("reference", image(at));
            by_hand.push(app.value("clip_i", form).await);
        }
        close(&edited, &by_hand);
    }
    // Nothing was stored but the samples of POST /v1/score.
    assert_eq!(app.get("/v1/runs").await.ok()["runs"].as_array().map(Vec::len), Some(0));
    let failed = r#"stellar_adapter_items_total{outcome="failed",protocol="pickle"}"#;
    assert!(app.number(failed).await.abs() < f64::EPSILON);
    let scored = r#"stellar_adapter_items_total{outcome="scored",protocol="pickle"}"#;
    assert!((app.number(scored).await - 60.0).abs() < f64::EPSILON);
}

/// The pickle of a dict with images and prompts, at protocol 4.
fn pickle(images: &[&[u8]], prompts: &[&str]) -> Vec<u8> {
    let mut bytes = b"\x80\x04}(\x8c\x06images](".to_vec();
    for image in images {
        bytes.push(b'B');
        bytes.extend(u32::try_from(image.len()).unwrap().to_le_bytes());
        bytes.extend(*image);
    }
    bytes.extend(b"e\x8c\x07prompts](");
    for prompt in prompts {
        bytes.push(b'X');
        bytes.extend(u32::try_from(prompt.len()).unwrap().to_le_bytes());
        bytes.extend(prompt.bytes());
    }
    bytes.extend(b"eu.");
    bytes
}

#[tokio::test]
async fn what_is_wrong_with_a_pickle_is_told_as_a_pickle() {
    let app = start().await;
    let one = image(0);
    let long = "x".repeat(10_000);
    let batch = |second: &[u8], prompt: &str| pickle(&[&one, second, &one], &["a", prompt, "c"]);
    let numbers = pickle(&[], &[]);
    for (body, words) in [
        (b"\x80\x04cposix\nsystem\nX\x02\0\0\0id\x85R.".to_vec(), &["posix system"][..]),
        (b"\x80\x02cbuiltins\neval\n)\x81.".to_vec(), &["builtins eval"]),
        (b"\x80\x04Px\n.".to_vec(), &["PERSID"]),
        (b"{\"images\": []}".to_vec(), &["protocol"]),
        (Vec::new(), &["truncated"]),
        (b"\x80\x04]. ".to_vec(), &["follow"]),
        (b"\x80\x04].".to_vec(), &["list", "dict"]),
        (b"\x80\x04}.".to_vec(), &["`images`"]),
        (b"\x80\x04}\x8c\x06images\x8c\x01xs.".to_vec(), &["`images`", "str"]),
        (b"\x80\x04}\x8c\x06images]\x8c\x01xas.".to_vec(), &["images[0]", "str"]),
        (pickle(&[&one], &["a", "b"]), &["`prompts`", "2", "1"]),
        (batch(b"no image", "b"), &["images[1]"]),
        (batch(&one[..300], "b"), &["images[1]", "truncated"]),
        (batch(&one, "nul \0"), &["images[1]", "U+0000"]),
        (batch(&one, &long), &["images[1]", "longer"]),
    ] {
        let answer = app.post_bytes("/rl/pickle/clip", body).await;
        assert_eq!(answer.status, 400, "{words:?}");
        tells(&told("/rl/pickle/", &answer), words);
    }
    let answer = app.post_bytes("/rl/pickle/clip", numbers).await;
    assert_eq!(answer.status, 422, "no images");
    // A metric that needs what the client does not send.
    let answer = app.post_bytes("/rl/pickle/ip", data("batch.p4.pkl")).await;
    tells(&told("/rl/pickle/", &answer), &["images[0]", "no_reference", "images[2]"]);
    // An adapter that is not there: what to add.
    for path in ["/rl/pickle/nope", "/rl/pickle/nope/"] {
        let answer = app.post_bytes(path, data("one.p4.pkl")).await;
        assert_eq!(answer.status, 404);
        tells(&told(path, &answer), &["`nope`", "[[rewards.adapter]]", "`aesthetic`", "`clip`"]);
    }
}

#[tokio::test]
async fn without_adapters_every_route_says_how_to_configure_one() {
    let app = App::start().await;
    for path in [
        "/rl/pickle/a",
        "/rl/unirl/score",
        "/rl/flow-factory/a/compute",
        "/rl/cosmos/api/reward/enqueue",
        "/rl/cosmos/api/reward/pull",
        "/rl/cosmos/api/reward/ping",
    ] {
        let answer = app.post_bytes(path, "x").await;
        assert_eq!(answer.status, 404, "{path}");
        tells(&told(path, &answer), &["[[rewards.adapter]]", "docs/REWARDS.md"]);
    }
    for path in ["/rl/unirl/health", "/rl/unirl/rewards", "/rl/flow-factory/a/health"] {
        let answer = app.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        tells(&told(path, &answer), &["[[rewards.adapter]]"]);
    }
}

fn encoded(at: usize) -> String {
    STANDARD.encode(image(at))
}

#[tokio::test]
async fn unirl_gets_every_reward_of_every_item_or_why_not() {
    let app = start().await;
    let health = app.get("/rl/unirl/health").await.ok();
    assert_eq!(health["status"], "ok");
    let names: Vec<_> = health["rewards"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["aesthetic", "clip", "ip"]);
    assert!(health["rewards"].as_object().unwrap().values().all(Value::is_array));
    assert_eq!(app.get("/rl/unirl/rewards").await.ok(), json!({"rewards": names}));

    let expected = app.clip_rewards().await;
    let of = |history: Value| json!({"history": history, "required_rewards": ["clip", "ip"], "metadata": {"policy_version": 3}});
    let turn = |text: &str, at: usize| json!({"text": text, "image_b64": encoded(at)});
    let body = json!({"requests": [
        of(json!([turn(PROMPTS[0], 0)])),
        of(json!([turn(PROMPTS[1], 0), turn(PROMPTS[1], 1)])),
        of(json!([{"text": "a", "image_b64": "not base64!"}])),
        of(json!([{"text": "a", "video_b64": "AAAA"}])),
        of(json!([turn("nul \u{0}", 0)])),
        of(json!([turn(&"x".repeat(10_000), 0)])),
        of(json!([{"text": "a", "image_b64": STANDARD.encode(&image(0)[..300])}])),
        of(json!([turn("a", 0), {"text": "b"}])),
    ]});
    let answer = app.post_json("/rl/unirl/score", &body).await.ok();
    let (results, errors) = (&answer["results"], &answer["errors"]);
    assert_eq!(
        (results.as_array().map(Vec::len), errors.as_array().map(Vec::len)),
        (Some(8), Some(8))
    );
    let clip = |at: usize| results[at]["clip"]["clip"].as_f64().unwrap();
    close(&[clip(0), clip(1)], &expected[..2]);
    tells(errors[0]["ip"].as_str().unwrap(), &["no_reference"]);
    assert_eq!(results[0].as_object().unwrap().len(), 1, "a failed reward is left out");
    let form = Form::new().file("image", image(1)).file("reference", image(0));
    let ip = app.value("clip_i", form).await;
    close(&[results[1]["ip"]["ip"].as_f64().unwrap()], &[ip]);
    assert_eq!(errors[1], json!({}));
    for (at, word) in
        [(2, "base64"), (3, "video"), (4, "U+0000"), (5, "longer"), (6, "truncated"), (7, "image")]
    {
        assert_eq!(results[at], json!({}), "{at}");
        for name in ["clip", "ip"] {
            tells(errors[at][name].as_str().unwrap(), &[word]);
        }
    }
    assert!(answer.get("identities").is_none());
    assert_eq!(
        app.post_json("/rl/unirl/score", &json!({"requests": []})).await.ok()["results"],
        json!([])
    );
}

#[tokio::test]
async fn unirl_identities_are_echoed_and_wrong_requests_refused_as_a_whole() {
    let app = start().await;
    let request = |more: &Value| {
        let mut item = json!({"history": [{"text": "a", "image_b64": encoded(0)}], "required_rewards": ["aesthetic"]});
        item.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"protocol_version": "1", "requests": [item]})
    };
    let identity = json!({"request_id": "r", "sample_id": "s", "group_id": null, "source_rank": 2,
        "policy_version": 7, "scorer_version": null, "idempotency_key": "k"});
    let answer = app.post_json("/rl/unirl/score", &request(&identity)).await.ok();
    assert_eq!(answer["protocol_version"], "1");
    assert_eq!(answer["identities"], json!([identity]));
    let digest = app.scoring.pack().id().digest;
    let pinned = json!({"request_id": "r", "scorer_version": digest});
    let answer = app.post_json("/rl/unirl/score", &request(&pinned)).await.ok();
    assert_eq!(answer["identities"][0]["scorer_version"], digest);
    for (body, words) in [
        (request(&json!({"scorer_version": "v1"})), &["v1", &*digest][..]),
        (request(&json!({"required_rewards": ["nope"]})), &["`nope`", "aesthetic, clip, ip"]),
        (request(&json!({"history": []})), &["requests[0].history"]),
        (json!({"protocol_version": "2", "requests": []}), &["protocol_version"]),
        (json!({"items": []}), &["requests"]),
    ] {
        let answer = app.post_json("/rl/unirl/score", &body).await;
        assert_eq!(answer.status, 400, "{words:?}");
        tells(&told("/rl/unirl/score", &answer), words);
    }
}

#[tokio::test]
async fn flow_factory_gets_numbers_or_an_error_that_it_does_not_repeat() {
    let app = start().await;
    assert_eq!(app.get("/rl/flow-factory/clip/health").await.status, 200);
    assert_eq!(app.get("/rl/flow-factory/nope/health").await.status, 404);
    let images = [encoded(0), encoded(1), encoded(2)];
    let body = json!({"prompt": PROMPTS, "image": images, "video": null,
        "condition_images": null, "condition_videos": null, "kwargs": {"step": [1, 2, 3]}});
    let answer = app.post_json("/rl/flow-factory/clip/compute", &body).await.ok();
    assert!(answer.get("error").is_none());
    let rewards: Vec<f64> = serde_json::from_value(answer["rewards"].clone()).unwrap();
    close(&rewards, &app.clip_rewards().await);
    let body =
        json!({"prompt": PROMPTS[..1], "image": images[..1], "condition_images": [[encoded(2)]]});
    let answer = app.post_json("/rl/flow-factory/ip/compute", &body).await.ok();
    let form = Form::new().file("image", image(0)).file("reference", image(2));
    close(&[answer["rewards"][0].as_f64().unwrap()], &[app.value("clip_i", form).await]);
    for (body, words) in [
        (json!({"prompt": ["a", "b"], "image": [encoded(0), "!"]}), &["images[1]", "base64"][..]),
        (json!({"prompt": ["a", "b\u{0}"], "image": images[..2]}), &["images[1]", "U+0000"]),
        (json!({"prompt": ["a"], "image": images}), &["3 entries", "1 prompts"]),
        (json!({"prompt": ["a"], "image": null}), &["`image` is null"]),
        (json!({"prompt": ["a"], "image": ["x"], "video": [["x"]]}), &["videos"]),
        (json!({"prompt": [], "image": []}), &["no images"]),
        (json!([]), &["Flow-Factory"]),
    ] {
        let answer = app.post_json("/rl/flow-factory/clip/compute", &body).await;
        assert_eq!(answer.status, 200, "{words:?}");
        tells(&told("/rl/flow-factory/", &answer), words);
        assert_eq!(answer.json()["rewards"], json!([]));
    }
}

/// The body of an enqueued batch: a line, and an array as `numpy.save` writes it.
fn enqueued(line: &Value, shape: &str, pixels: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}");
    // numpy pads with spaces up to a multiple of 64, and ends with a line break.
    let header = format!("{header:<117}\n");
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    let line = line.to_string();
    [line.as_bytes(), b"\n\x93NUMPY\x01\0", &length, header.as_bytes(), pixels].concat()
}

const ENQUEUE: &str = "/rl/cosmos/api/reward/enqueue";
const PULL: &str = "/rl/cosmos/api/reward/pull";

#[tokio::test(flavor = "multi_thread")]
async fn cosmos_pulls_each_reward_of_a_batch_when_it_is_ready() {
    let app = start().await;
    let ping =
        app.post_form("/rl/cosmos/api/reward/ping", "info_data=%7B%7D".to_owned()).await.ok();
    assert!(ping["message"].is_string());
    let pixels: Vec<u8> = (0..2 * 16 * 16 * 3).map(|at: u32| (at * 7 % 251) as u8).collect();
    let line = json!({"prompts": PROMPTS[..2], "reward_fn": {"clip": 1.0, "aesthetic": 0.5, "ip": 1}, "media_type": "image"});
    app.gate.close();
    let answer = app.post_bytes(ENQUEUE, enqueued(&line, "(2, 16, 16, 3)", &pixels)).await.ok();
    let uuid = answer["uuid"].as_str().unwrap().to_owned();
    let pull = |reward: &str| app.post_form(PULL, format!("uuid={uuid}&type={reward}"));
    let pending = pull("clip").await;
    assert_eq!(pending.status, 400);
    tells(&told(PULL, &pending), &["not ready"]);
    app.gate.open();
    let mut answer = pull("clip").await;
    while answer.status == 400 && told(PULL, &answer).contains("not ready") {
        tokio::time::sleep(Duration::from_millis(5)).await;
        answer = pull("clip").await;
    }
    let answer = answer.ok();
    let file = |at: usize| [b"P6\n16 16\n255\n", &pixels[at * 768..][..768]].concat();
    let mut expected = Vec::new();
    for (at, prompt) in PROMPTS[..2].iter().enumerate() {
        let form = Form::new().file("image", file(at)).field("prompt", *prompt);
        expected.push(100.0 * app.value("clip_t", form).await / 30.0);
    }
    let scores: Vec<f64> = serde_json::from_value(answer["scores"]["clip"].clone()).unwrap();
    close(&scores, &expected);
    assert_eq!(answer["type"], "clip");
    assert_eq!(
        answer["input_info"],
        json!({"shape": [2, 16, 16, 3], "dtype": "torch.uint8", "min": "0.000", "max": "250.000"})
    );
    assert!(answer["duration"].as_str().unwrap().parse::<f64>().is_ok(), "{answer}");
    // Another reward, and the same once more: a response may be lost.
    for _ in 0..2 {
        let answer = pull("aesthetic").await.ok();
        assert_eq!(answer["scores"]["aesthetic"].as_array().map(Vec::len), Some(2));
    }
    tells(&told(PULL, &pull("ip").await), &["no_reference"]);
    for form in [
        format!("uuid={uuid}&type=nope"),
        format!("uuid={uuid}"),
        "type=clip".to_owned(),
        "uuid=x&type=clip".to_owned(),
        "uuid=01a2080b-059b-72b5-877a-51b1e250e5a5&type=clip".to_owned(),
    ] {
        let answer = app.post_form(PULL, form).await;
        assert_eq!(answer.status, 400);
        assert!(!told(PULL, &answer).is_empty());
    }
}

#[tokio::test]
async fn cosmos_refuses_at_once_what_a_pull_could_not_tell() {
    let app = start().await;
    let pixels = [7; 2 * 4 * 4 * 3];
    let with = |change: Value| {
        let mut line = json!({"prompts": ["a", "b"], "reward_fn": {"clip": 1.0}});
        line.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        line
    };
    let shape = "(2, 4, 4, 3)";
    for (body, words) in [
        (
            enqueued(&with(json!({"prompts": ["a"]})), shape, &pixels),
            &["1 prompts", "2 images"][..],
        ),
        (
            enqueued(&with(json!({"prompts": ["a", "b\u{0}"]})), shape, &pixels),
            &["item 1", "U+0000"],
        ),
        (
            enqueued(&with(json!({"prompts": ["a", "x".repeat(10_000)]})), shape, &pixels),
            &["item 1"],
        ),
        (enqueued(&with(json!({"reward_fn": {"nope": 1}})), shape, &pixels), &["`nope`", "clip"]),
        (enqueued(&with(json!({"reward_fn": {}})), shape, &pixels), &["`reward_fn` is empty"]),
        (enqueued(&with(json!({"media_type": "latent"})), shape, &pixels), &["latent"]),
        (enqueued(&with(json!({})), "(2, 3, 4, 4)", &pixels), &["batch, height, width, 3"]),
        (enqueued(&with(json!({})), shape, &pixels[1..]), &["95 bytes"]),
        (b"no line".to_vec(), &["line"]),
        (b"{}\n".to_vec(), &["prompts"]),
        ([with(json!({})).to_string().as_bytes(), b"\nx"].concat(), &[".npy"]),
    ] {
        let answer = app.post_bytes(ENQUEUE, body).await;
        assert_eq!(answer.status, 400, "{words:?}");
        tells(&told(ENQUEUE, &answer), words);
    }
}

#[tokio::test]
async fn a_batch_that_waits_in_vain_gets_503_with_retry_after_in_every_form() {
    let app = App::with(|setup| {
        setup.config.rewards.adapter = adapters();
        setup.config.rewards.concurrency = 1;
    })
    .await;
    app.gate.close();
    let turn = json!([{"text": "a", "image_b64": encoded(1)}]);
    let item = json!({"history": turn, "required_rewards": ["aesthetic"]});
    let bodies = [
        ("/rl/pickle/aesthetic", data("one.p4.pkl")),
        ("/rl/unirl/score", json!({"requests": [item]}).to_string().into_bytes()),
        (
            "/rl/flow-factory/clip/compute",
            json!({"prompt": ["a"], "image": [encoded(1)]}).to_string().into_bytes(),
        ),
    ];
    let work = async {
        app.gate.reached_by(1).await;
        for (path, body) in bodies {
            let request = Request::post(path).header("prefer", "wait=1");
            let answer = app.send(request.body(Body::from(body)).unwrap()).await;
            assert_eq!(answer.status, 503, "{path}");
            assert!(answer.headers.contains_key(header::RETRY_AFTER), "{path}");
            tells(&told(path, &answer), &["capacity"]);
        }
        app.gate.open();
    };
    let first = app.post_bytes("/rl/pickle/aesthetic", data("one.p5.pkl"));
    outputs(&tokio::join!(first, work).0);
}

#[tokio::test]
async fn a_graph_that_fails_is_no_500_which_a_client_would_repeat_for_ever() {
    let app = start().await;
    app.graphs.always(Some(Trouble::Fails));
    let answer = app.post_bytes("/rl/pickle/aesthetic", data("one.p4.pkl")).await;
    assert_eq!(answer.status, 503);
    assert!(!answer.headers.contains_key(header::RETRY_AFTER), "not worth repeating at once");
    tells(&told("/rl/pickle/", &answer), &["request id"]);
}

#[tokio::test]
async fn a_key_is_a_bearer_or_a_password_and_its_limits_are_no_429() {
    let app = start().await;
    let one = KeyLimits { images_per_minute: Some(1), ..KeyLimits::default() };
    let (key, record) = new_key("trainer", &[Scope::Score], one);
    assert!(app.store.create_key(&record).await.unwrap());
    let (reader, record) = new_key("reader", &[Scope::Read], KeyLimits::default());
    assert!(app.store.create_key(&record).await.unwrap());
    let send = |authorization: Option<String>| {
        let mut request = Request::post("/rl/pickle/clip");
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        app.send(request.body(Body::from(data("batch.p4.pkl"))).unwrap())
    };
    // A user and a password in the URL arrive as Basic.
    let basic = |key: &str| Some(format!("Basic {}", STANDARD.encode(format!("any:{key}"))));
    for (authorization, status, word) in [
        (None, 401, "API key"),
        (Some("Bearer nonsense".to_owned()), 401, "API key"),
        (basic(&reader), 403, "score"),
    ] {
        let answer = send(authorization).await;
        assert_eq!(answer.status, status);
        tells(&told("/rl/pickle/", &answer), &[word]);
    }
    assert_eq!(outputs(&send(basic(&key)).await).len(), 3);
    let answer = send(Some(format!("Bearer {key}"))).await;
    assert_eq!(answer.status, 503);
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
    tells(&told("/rl/pickle/", &answer), &["images"]);
}

#[tokio::test]
async fn a_scale_of_another_checkpoint_or_a_body_that_is_too_large_is_permanent() {
    let app = App::with(|setup| {
        setup.config.rewards.adapter = adapters();
        setup.config.rewards.items = 2;
        setup.config.limits.request_mib = 1;
    })
    .await;
    let answer = app.post_bytes("/rl/pickle/clip", data("batch.p4.pkl")).await;
    assert_eq!(answer.status, 422);
    tells(&told("/rl/pickle/", &answer), &["more than 2 images"]);
    let answer = app.post_bytes("/rl/pickle/clip", vec![0; 2 << 20]).await;
    assert_eq!(answer.status, 413);
    tells(&told("/rl/pickle/", &answer), &["bytes"]);
    let answer = app.post_bytes("/rl/flow-factory/clip/compute", vec![0; 2 << 20]).await;
    assert_eq!(answer.status, 200);
    tells(&told("/rl/flow-factory/", &answer), &["bytes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_expects_to_be_asked_for_its_body_is_asked() {
    let app = start().await;
    let address = app.listen().await;
    let expected = outputs(&app.post_bytes("/rl/pickle/clip", data("one.p4.pkl")).await);
    let answer = tokio::task::spawn_blocking(move || {
        let body = data("one.p4.pkl");
        let headers = [("expect", "100-continue")];
        let mut exchange = Exchange::begin(address, "POST /rl/pickle/clip", &headers, body.len())?;
        assert_eq!(exchange.receive()?.status, 100);
        exchange.send(&body)?;
        exchange.receive()
    });
    let answer = answer.await.unwrap().unwrap();
    assert_eq!(answer.status, 200);
    let pickle = stellar_pickle::read(&answer.body).unwrap();
    let scores = pickle.get("scores").and_then(Pickled::items).unwrap();
    assert!(matches!(scores, [Pickled::Float(score)] if *score == expected[0]));
}
