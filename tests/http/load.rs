//! Many clients, full queues, and clients that leave.

use std::{
    collections::HashSet,
    future::Future,
    task::{Context, Poll},
    time::Duration,
};

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

/// Requests being answered, the one that asks included.
const IN_FLIGHT: &str = "stellar_http_requests_in_flight";
const WAITING: &str = r#"stellar_engine_queue_depth{graph="clip_l.image"}"#;
const DROPPED: &str = r#"stellar_engine_items_total{graph="clip_l.image",outcome="dropped"}"#;

/// Polls a future once, as far as it gets without waiting.
async fn start<F: Future + Unpin>(future: &mut F) {
    std::future::poll_fn(|context: &mut Context<'_>| {
        assert!(std::pin::Pin::new(&mut *future).poll(context).is_pending(), "it did not wait");
        Poll::Ready(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_clients_at_once_get_their_scores_in_real_batches_and_no_row_is_lost() {
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
                client::send(address, "POST /v1/score", &headers, &whole.finish()).expect("an answer")
            })
        })
        .collect();
    // Every item is in its queue, or before the gate, before the first batch is through.
    for (graph, items, largest) in [("clip.image", 128, 16), ("clip.text", 64, 32), ("clip_l.image", 64, 16)]
    {
        app.until_at_least(&format!("stellar_engine_queue_depth{{graph=\"{graph}\"}}"), items - largest)
            .await;
    }
    app.gate.open();
    let mut samples = HashSet::new();
    let mut values = HashSet::new();
    for client in clients {
        let answer = client.await.unwrap();
        let document = answer.json();
        assert_eq!(answer.status, 200, "{document}");
        assert_eq!(document["outcome"], "created");
        samples.insert(document["sample"].as_str().unwrap().to_owned());
        values.insert(document["scores"]["aesthetic"]["value"].to_string());
    }
    assert_eq!((samples.len(), values.len()), (64, 64), "every client has its own sample and score");
    for metric in ["clip_t", "clip_i", "clip_n", "aesthetic"] {
        assert_eq!(app.counted("mine", metric).await, 64, "{metric}");
    }
    for (graph, items) in [("clip.image", 128.0), ("clip.text", 64.0), ("clip_l.image", 64.0)] {
        let count = app.number(&format!("stellar_engine_batch_size_count{{graph=\"{graph}\"}}")).await;
        let sum = app.number(&format!("stellar_engine_batch_size_sum{{graph=\"{graph}\"}}")).await;
        assert!((sum - items).abs() < f64::EPSILON, "{graph}: every item ran once, {sum}");
        assert!(sum >= 2.0 * count, "{graph}: {sum} items in {count} batches");
    }
}

#[tokio::test]
async fn one_request_too_many_is_refused_at_once_while_the_others_are_in_flight() {
    let app = App::with(|setup| setup.config.limits.requests = 2).await;
    app.gate.close();
    let (mut one, mut two) = (Box::pin(app.score(form(1))), Box::pin(app.score(form(2))));
    start(&mut one).await;
    start(&mut two).await;
    let refused = app.score(form(3)).await;
    tells(&refused.problem(429, "overloaded"), &["at once", "retry"]);
    // What is no work is still answered.
    app.get("/v1/leaderboard").await.ok();
    app.gate.open();
    one.await.ok();
    two.await.ok();
    assert_eq!(app.counted("mine", ONE_GRAPH).await, 2, "the refused request stored nothing");
    app.score(form(3)).await.ok();
}

#[tokio::test]
async fn uploads_beyond_the_memory_set_aside_are_refused() {
    let app = App::with(|setup| {
        let limits = &mut setup.config.limits;
        (limits.request_mib, limits.image_mib, limits.upload_memory_mib) = (1, 1, 1);
    })
    .await;
    app.gate.close();
    // Before the first boundary stands what nobody reads; the length is not announced.
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
async fn a_full_queue_of_a_graph_refuses_the_next_item() {
    let app = App::with(|setup| {
        setup.config.engine = EngineConfig { queue: 1, max_batch: 1, ..setup.config.engine.clone() };
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
            _ = &mut leaving => panic!("it cannot be answered while the gate is closed"),
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
async fn a_client_that_closes_its_connection_is_skipped_before_inference() {
    let app = App::start().await;
    let address = app.listen().await;
    app.gate.close();
    let headers = [("content-type", &*Form::content_type())];
    let begin = |seed| {
        let body = form(seed).finish();
        let mut exchange = Exchange::begin(address, "POST /v1/score", &headers, body.len()).unwrap();
        exchange.send(&body).unwrap();
        exchange
    };
    let mut staying = begin(1);
    app.gate.reached_by(1).await;
    let leaving = begin(2);
    app.until(WAITING, 1.0).await;
    drop(leaving);
    // The handler of the client that left is gone: what remains is the first and the one that asks.
    app.until(IN_FLIGHT, 2.0).await;
    app.gate.open();
    let answer = tokio::task::spawn_blocking(move || staying.receive()).await.unwrap().unwrap();
    assert_eq!(answer.status, 200);
    app.until(DROPPED, 1.0).await;
    assert_eq!(app.graphs.sizes(), [1], "the second image never ran");
}

/// An answer that comes before the body is read resets the connection on many systems, and the client sees
/// the reset instead of the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_client_can_send_its_whole_body_and_then_read_why() {
    let app = App::with(|setup| {
        let limits = &mut setup.config.limits;
        (limits.requests, limits.image_mib, limits.request_mib, limits.prompt_bytes) = (1, 1, 8, 100);
    })
    .await;
    let address = app.listen().await;
    let send = move |form: Form| async move {
        let sent = tokio::task::spawn_blocking(move || {
            let headers = [("content-type", &*Form::content_type())];
            client::send(address, "POST /v1/score", &headers, &form.finish())
        });
        sent.await.unwrap().expect("the whole body is taken and the answer arrives")
    };
    let large = || Form::new().file("image", vec![7; 7 << 20]);
    for (form, status) in [
        (large(), 413),
        (Form::new().field("prompt", vec![b'a'; 7 << 20]), 422),
        (Form::new().field("promt", vec![b'a'; 7 << 20]), 422),
        (Form::new().file("image", vec![7; 12 << 20]), 413),
    ] {
        let answer = send(form).await;
        assert_eq!(answer.status, status, "{}", answer.json());
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
async fn a_client_that_asks_before_it_sends_is_refused_without_sending() {
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
    assert_eq!(second.receive().unwrap().status, 429, "the second is told before it sends 64 MiB");
    app.gate.open();
    assert_eq!(first.receive().unwrap().status, 200);
}

#[tokio::test]
async fn clients_that_leave_at_any_moment_neither_break_the_store_nor_count_twice() {
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
