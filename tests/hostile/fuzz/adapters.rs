//! What trainers' reward clients send: pickles, and the bodies of the other protocols.

use axum::{body::Body, http::Request};
use serde_json::json;
use stellar_score::config::{Adapter, AdapterReward, Protocol};
use tokio::runtime::Runtime;

use super::{
    driver::fuzz,
    targets::{files, texts},
};
use crate::harness::{App, ONE_GRAPH};

/// A service with an adapter of every protocol.
fn start(runtime: &Runtime) -> App {
    let adapters = Protocol::ALL.map(|protocol| {
        let reward = ONE_GRAPH.to_owned();
        if protocol.names_rewards() {
            let reward = AdapterReward::Named([("a".to_owned(), reward)].into());
            Adapter { protocol, name: None, reward }
        } else {
            let name = Some("a".to_owned());
            Adapter { protocol, name, reward: AdapterReward::One(reward) }
        }
    });
    runtime.block_on(App::with(|setup| setup.config.rewards.adapter = adapters.into()))
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Sends a body, and checks that the route neither panics nor fails.
fn send(runtime: &Runtime, app: &App, path: &str, bytes: &[u8]) {
    let request = Request::post(path).body(Body::from(bytes.to_vec())).expect("a valid request");
    let response = runtime.block_on(app.send(request));
    let text = String::from_utf8_lossy(&response.body);
    // A panic is told as 503, since clients repeat a 500 for ever.
    assert!(response.status.as_u16() != 500 && !text.contains("internal error"), "{path}: {text}");
}

#[test]
fn pickles() {
    let runtime = runtime();
    let app = start(&runtime);
    let mut seeds = files("tests/data/pickle", 40 << 10);
    seeds.retain(|seed| seed.first() == Some(&0x80));
    let words: [&[u8]; 16] = [
        b"\x80\x04",
        b"\x95\x10\0\0\0\0\0\0\0",
        b"(",
        b"]\x94",
        b"}\x94",
        b"\x85",
        b"e",
        b"u",
        b"R\x94",
        b"b",
        b"h\0",
        b"r\xff\xff\xff\xff",
        b"cnumpy\ndtype\n",
        b"cnumpy._core.multiarray\n_reconstruct\n",
        b"c_codecs\nencode\n",
        b"\x8c\x06images",
    ];
    fuzz("pickles", seeds, &words, |bytes| {
        // Most inputs end here. Those that do not reach the rest of the route.
        if let Ok(value) = stellar_pickle::read(bytes) {
            assert!(format!("{value:?}").len() < 100);
            send(&runtime, &app, "/rl/pickle/a", bytes);
        }
    });
}

#[test]
fn adapter_bodies() {
    let runtime = runtime();
    let app = start(&runtime);
    let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2, 2, 3), }";
    let array =
        [b"\x93NUMPY\x01\0\x76\0", format!("{header:<117}\n").as_bytes(), &[9; 12]].concat();
    let line = json!({"prompts": ["a"], "reward_fn": {"a": 1.0}, "media_type": "image"});
    let item = json!({"history": [{"text": "a", "image_b64": "UDYKMSAxCjI1NQpyZ2I="}], "required_rewards": ["a"],
        "metadata": {"include": [{"class": "dog"}]}, "request_id": "r", "source_rank": 1});
    let unirl = json!({"protocol_version": "1", "requests": [item]}).to_string();
    let flow_factory =
        json!({"prompt": ["a"], "image": ["UDYKMSAxCjI1NQpyZ2I="], "video": null, "kwargs": {}});
    let mut seeds = texts(&[
        &unirl,
        &flow_factory.to_string(),
        "uuid=01a2080b-059b-72b5-877a-51b1e250e5a5&type=a",
    ]);
    seeds.push([line.to_string().as_bytes(), b"\n", &array].concat());
    let words: [&[u8]; 6] = [
        b"(1, 2, 2, 3)",
        b"'shape': ",
        b"image_b64",
        b"data:,",
        b"condition_images",
        b"4294967296, ",
    ];
    let paths = [
        "/rl/unirl/score",
        "/rl/flow-factory/a/compute",
        "/rl/cosmos/api/reward/enqueue",
        "/rl/cosmos/api/reward/pull",
    ];
    fuzz("adapter_bodies", seeds, &words, |bytes| {
        for path in paths {
            send(&runtime, &app, path, bytes);
        }
    });
}
