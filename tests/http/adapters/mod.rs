//! Clients of trainers, written from their protocols: real pickles, and bodies as they send them.
//!
//! Expected rewards are the metric's own value, as `POST /v1/score` returns it, and the trainer's
//! formula.

mod pickles;
mod protocols;
mod refusals;

use std::{fs, path::Path};

use axum::{
    body::Body,
    http::{Request, header},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use stellar_pickle::Value as Pickled;
use stellar_score::config::{Adapter, AdapterReward, Protocol};

use crate::{
    harness::{Answer, App},
    support::form::Form,
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
        assert!(rewards.windows(2).all(|two| two[0].to_bits() != two[1].to_bits()), "{rewards:?}");
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

fn encoded(at: usize) -> String {
    STANDARD.encode(image(at))
}
