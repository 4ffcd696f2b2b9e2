//! Many clients, full queues, and clients that disconnect.

use std::{collections::HashSet, time::Duration};

use axum::{
    body::Body,
    http::{Request, header},
};
use stellar_score::engine::EngineConfig;

use crate::{
    harness::{App, ONE_GRAPH, tells},
    support::{
        client::{self, Exchange},
        form::Form,
        images::png,
    },
};

fn form(seed: u32) -> Form {
    Form::new().file("image", png(seed)).field("metrics", ONE_GRAPH).field("method", "mine")
}

/// Requests in flight, including the one that reads the metric.
const IN_FLIGHT: &str = "stellar_http_requests_in_flight";
const WAITING: &str = r#"stellar_engine_queue_depth{graph="clip_l.image"}"#;
const DROPPED: &str = r#"stellar_engine_items_total{graph="clip_l.image",outcome="dropped"}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_concurrent_clients_are_batched_and_lose_no_row() {
    let app = App::start().await;
    let address = app.listen().await;
    app.gate.close();
    let clients: Vec<_> = (0..64)
        .map(|seed| {
            tokio::task::spawn_blocking(move || {
                let whole = Form::new()
                    .file("image", png(seed))
                    .field("prompt", format!("person number {seed}"))
                    .file("reference", png(1000 + seed))
                    .field("metrics", "clip_t,clip_i,clip_n,aesthetic")
                    .field("method", "mine");
                let headers = [("content-type", &*Form::content_type())];
                client::send(address, "POST /v1/score", &headers, &whole.finish())
                    .expect("a response")
            })
        })
        .collect();
    // All items are queued or held at the gate before the first batch completes.
    for (graph, items, largest) in
        [("clip.image", 128, 16), ("clip.text", 64, 32), ("clip_l.image", 64, 16)]
    {
        app.until_at_least(
            &format!("stellar_engine_queue_depth{{graph=\"{graph}\"}}"),
            items - largest,
        )
        .await;
    }
    app.gate.open();
    let mut samples = HashSet::new();
    let mut values = HashSet::new();
    for client in clients {
        let response = client.await.unwrap();
        let document = response.json();
        assert_eq!(response.status, 200, "{document}");
        assert_eq!(document["outcome"], "created");
        samples.insert(document["sample"].as_str().unwrap().to_owned());
        values.insert(document["scores"]["aesthetic"]["value"].to_string());
    }
    assert_eq!(
        (samples.len(), values.len()),
        (64, 64),
        "every client has its own sample and score"
    );
    for metric in ["clip_t", "clip_i", "clip_n", "aesthetic"] {
        assert_eq!(app.counted("mine", metric).await, 64, "{metric}");
    }
    for (graph, items) in [("clip.image", 128.0), ("clip.text", 64.0), ("clip_l.image", 64.0)] {
        let count =
            app.number(&format!("stellar_engine_batch_size_count{{graph=\"{graph}\"}}")).await;
        let sum = app.number(&format!("stellar_engine_batch_size_sum{{graph=\"{graph}\"}}")).await;
        assert!((sum - items).abs() < f64::EPSILON, "{graph}: every item ran once, {sum}");
        assert!(sum >= 2.0 * count, "{graph}: {sum} items in {count} batches");
    }
}

#[tokio::test]
async fn a_request_over_the_limit_is_refused_at_once() {
    let app = App::with(|setup| setup.config.limits.requests = 2).await;
    app.gate.close();
    let (mut one, mut two) = (Box::pin(app.score(form(1))), Box::pin(app.score(form(2))));
    let scored = async {
        while app.number("stellar_scoring_requests").await < 2.0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        _ = &mut one => panic!("the gate is closed"),
        _ = &mut two => panic!("the gate is closed"),
        () = scored => {}
    }
    let refused = app.score(form(3)).await;
    tells(&refused.problem(429, "overloaded"), &["concurrent requests", "retry"]);
    // Requests without model runs are still served.
    app.get("/v1/leaderboard").await.ok();
    app.gate.open();
    one.await.ok();
    two.await.ok();
    assert_eq!(app.counted("mine", ONE_GRAPH).await, 2, "the refused request stored nothing");
    app.score(form(3)).await.ok();
}

#[tokio::test]
async fn uploads_over_the_memory_budget_are_refused() {
    let app = App::with(|setup| {
        let limits = &mut setup.config.limits;
        (limits.request_mib, limits.image_mib, limits.upload_memory_mib) = (1, 1, 1);
    })
    .await;
    app.gate.close();
    // Parsers ignore everything before the first boundary. The request has no Content-Length.
    let large = |seed| [vec![b'.'; 700 << 10], b"\r\n".to_vec(), form(seed).finish()].concat();
    let request = |seed| {
        let body = Request::post("/v1/score").header(header::CONTENT_TYPE, Form::content_type());
        body.body(Body::from(large(seed))).expect("a valid request")
    };
    let (first, refused) = tokio::join!(app.send(request(1)), async {
        app.gate.reached_by(1).await;
        let refused = app.send(request(2)).await;
        app.gate.open();
        refused
    });
    first.ok();
    tells(&refused.problem(429, "overloaded"), &["memory", "retry"]);
    app.send(request(2)).await.ok();
}

#[tokio::test]
async fn a_full_queue_returns_429_with_retry_after() {
    let app = App::with(|setup| {
        setup.config.engine =
            EngineConfig { queue: 1, max_batch: 1, ..setup.config.engine.clone() };
    })
    .await;
    app.gate.close();
    let conduct = async {
        app.gate.reached_by(1).await;
        let second = app.score(form(2));
        let third = async {
            app.until(WAITING, 1.0).await;
            let refused = app.score(form(3)).await;
            app.gate.open();
            refused
        };
        tokio::join!(second, third)
    };
    let (first, (second, third)) = tokio::join!(app.score(form(1)), conduct);
    first.ok();
    second.ok();
    tells(&third.problem(429, "overloaded"), &["clip_l.image", "retry"]);
    assert_eq!(app.counted("mine", ONE_GRAPH).await, 2);
}

#[tokio::test]
async fn a_dropped_request_is_skipped_before_inference() {
    let app = App::start().await;
    app.gate.close();
    let conduct = async {
        app.gate.reached_by(1).await;
        let mut leaving = Box::pin(app.score(form(2)));
        tokio::select! {
            _ = &mut leaving => panic!("it cannot complete while the gate is closed"),
            () = app.until(WAITING, 1.0) => {}
        }
        drop(leaving);
        app.gate.open();
    };
    let (first, ()) = tokio::join!(app.score(form(1)), conduct);
    first.ok();
    app.score(form(3)).await.ok();
    assert_eq!(app.graphs.sizes(), [1, 1], "the second image never ran");
    assert!((app.number(DROPPED).await - 1.0).abs() < f64::EPSILON);
    assert_eq!(app.counted("mine", ONE_GRAPH).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_connection_is_skipped_before_inference() {
    let app = App::start().await;
    let address = app.listen().await;
    app.gate.close();
    let headers = [("content-type", &*Form::content_type())];
    let begin = |seed| {
        let body = form(seed).finish();
        let mut exchange =
            Exchange::begin(address, "POST /v1/score", &headers, body.len()).unwrap();
        exchange.send(&body).unwrap();
        exchange
    };
    let mut staying = begin(1);
    app.gate.reached_by(1).await;
    let leaving = begin(2);
    app.until(WAITING, 1.0).await;
    drop(leaving);
    // The handler of the disconnected client has ended; the first request and the one that reads
    // the metric remain.
    app.until(IN_FLIGHT, 2.0).await;
    app.gate.open();
    let response = tokio::task::spawn_blocking(move || staying.receive()).await.unwrap().unwrap();
    assert_eq!(response.status, 200);
    app.until(DROPPED, 1.0).await;
    assert_eq!(app.graphs.sizes(), [1], "the second image never ran");
}

/// On many systems, a response before the body is read resets the connection, and the client sees
/// the reset instead of the response.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_client_can_finish_sending_and_read_the_response() {
    let app = App::with(|setup| {
        let limits = &mut setup.config.limits;
        (limits.requests, limits.image_mib, limits.request_mib, limits.prompt_bytes) =
            (1, 1, 8, 100);
    })
    .await;
    let address = app.listen().await;
    let send = move |form: Form| async move {
        let sent = tokio::task::spawn_blocking(move || {
            let headers = [("content-type", &*Form::content_type())];
            client::send(address, "POST /v1/score", &headers, &form.finish())
        });
        sent.await.unwrap().expect("the whole body is read and the response arrives")
    };
    let large = || Form::new().file("image", vec![7; 7 << 20]);
    for (form, status) in [
        (large(), 413),
        (Form::new().field("prompt", vec![b'a'; 7 << 20]), 422),
        (Form::new().field("promt", vec![b'a'; 7 << 20]), 422),
        (Form::new().file("image", vec![7; 12 << 20]), 413),
    ] {
        let response = send(form).await;
        assert_eq!(response.status, status, "{}", response.json());
    }
    app.gate.close();
    let first = tokio::spawn(send(form(1)));
    app.gate.reached_by(1).await;
    let refused = send(large()).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("retry-after"), Some("1"));
    app.gate.open();
    assert_eq!(first.await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expect_100_continue_is_refused_before_the_body() {
    let app = App::with(|setup| setup.config.limits.requests = 1).await;
    let address = app.listen().await;
    let content_type = Form::content_type();
    let headers = [("content-type", &*content_type), ("expect", "100-continue")];
    let body = form(1).finish();
    let mut first = Exchange::begin(address, "POST /v1/score", &headers, body.len()).unwrap();
    assert_eq!(first.receive().unwrap().status, 100, "the first may send");
    app.gate.close();
    first.send(&body).unwrap();
    app.gate.reached_by(1).await;
    let mut second = Exchange::begin(address, "POST /v1/score", &headers, 64 << 20).unwrap();
    assert_eq!(
        second.receive().unwrap().status,
        429,
        "the second is refused before it sends 64 MiB"
    );
    app.gate.open();
    assert_eq!(first.receive().unwrap().status, 200);
}

#[tokio::test]
async fn disconnecting_clients_neither_break_the_store_nor_count_twice() {
    let app = App::start().await;
    for seed in 0..150 {
        // From before the body is read to after the sample is stored.
        let moment = Duration::from_micros(u64::from(seed % 50) * 100);
        let _ = tokio::time::timeout(moment, app.score(form(seed))).await;
    }
    for seed in 0..150 {
        let outcome = app.score(form(seed)).await.ok()["outcome"].clone();
        assert!(outcome == "created" || outcome == "repeated", "{outcome}");
    }
    assert_eq!(app.counted("mine", ONE_GRAPH).await, 150);
}
