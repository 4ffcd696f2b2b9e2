//! `UniRL`, Flow-Factory and cosmos-rl.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{PROMPTS, adapters, close, encoded, image, start, told};
use crate::{
    harness::{App, tells},
    support::form::Form,
};

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
async fn cosmos_refuses_too_many_images() {
    let app = App::with(|setup| {
        setup.config.rewards.adapter = adapters();
        setup.config.rewards.items = 1;
    })
    .await;
    let line = json!({"prompts": ["a", "b"], "reward_fn": {"clip": 1.0}});
    let answer =
        app.post_bytes(ENQUEUE, enqueued(&line, "(2, 4, 4, 3)", &[7; 2 * 4 * 4 * 3])).await;
    assert_eq!(answer.status, 422);
    tells(&told(ENQUEUE, &answer), &["more than 1 images"]);
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
