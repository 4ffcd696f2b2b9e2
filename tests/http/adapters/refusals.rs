//! Routes that are not configured, waits, keys, failures: each in the form of its client.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Request, header},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use stellar_pickle::Value as Pickled;
use stellar_score::{
    engine::fake::Trouble,
    key::{KeyLimits, Scope},
};

use super::{adapters, data, encoded, outputs, start, told};
use crate::{
    harness::{App, tells},
    keys::new_key,
    support::client::Exchange,
};

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
async fn clients_that_leave_free_their_turn_and_their_place() {
    let app = App::with(|setup| {
        setup.config.rewards.adapter = adapters();
        (setup.config.rewards.concurrency, setup.config.rewards.queue) = (1, 1);
    })
    .await;
    app.gate.close();
    {
        let first = app.post_bytes("/rl/pickle/aesthetic", data("one.p4.pkl"));
        let second = app.post_bytes("/rl/pickle/aesthetic", data("one.p5.pkl"));
        tokio::select! {
            answers = async { tokio::join!(first, second) } => panic!("{answers:?}"),
            () = app.gate.reached_by(1) => {}
        }
    }
    app.gate.open();
    // With the turn held, this would wait for 100 s; with the place held, it would be refused.
    let both =
        ["one.p2.pkl", "one.p3.pkl"].map(|name| app.post_bytes("/rl/pickle/aesthetic", data(name)));
    let answered = futures_util::future::join_all(both);
    for answer in tokio::time::timeout(Duration::from_mins(1), answered).await.unwrap() {
        outputs(&answer);
    }
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
    assert!(matches!(scores, [Pickled::Float(score)] if score.to_bits() == expected[0].to_bits()));
}
