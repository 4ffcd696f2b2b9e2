//! Events of a run: its progress, sent to those who watch it.

use axum::{
    body::Body,
    http::{Request, header},
};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{harness::App, runs::form};

#[tokio::test]
async fn events_report_the_progress_until_the_end() {
    let app = App::start().await;
    let run = app.run_of("A").await;
    app.gate.close();
    app.put(&run, "one", form(1)).await;
    app.finish(&run).await;
    let watch = || {
        let request = Request::get(format!("/v1/runs/{run}/events")).body(Body::empty()).unwrap();
        let router = app.router.clone();
        tokio::spawn(async move {
            let response = router.oneshot(request).await.expect("infallible");
            assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            String::from_utf8(body.to_vec()).unwrap()
        })
    };
    let watchers: Vec<_> = (0..50).map(|_| watch()).collect();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    app.gate.open();
    for watcher in watchers {
        let text = watcher.await.unwrap();
        let events: Vec<(&str, Value)> = text
            .split("\n\n")
            .filter_map(|event| event.strip_prefix("event: ")?.split_once("\ndata: "))
            .map(|(name, data)| (name, serde_json::from_str(data).unwrap()))
            .collect();
        let (first, last) = (&events[0], events.last().unwrap());
        assert_eq!(first.1["counts"]["accepted"], 1, "{text}");
        assert_eq!((last.0, &last.1["state"]), ("finished", &json!("finished")), "{text}");
        assert_eq!(last.1["counts"]["scored"], 1, "{text}");
        assert!(events[..events.len() - 1].iter().all(|event| event.0 == "progress"), "{text}");
    }
}

#[tokio::test]
async fn event_streams_are_bounded_and_end_at_shutdown() {
    let app = App::with(|setup| setup.config.runs.watchers = 1).await;
    let run = app.run_of("A").await;
    let request = Request::get(format!("/v1/runs/{run}/events")).body(Body::empty()).unwrap();
    let response = app.router.clone().oneshot(request).await.expect("infallible");
    app.get(&format!("/v1/runs/{run}/events")).await.problem(429, "overloaded");
    let body = tokio::spawn(response.into_body().collect());
    app.runs.stop();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), body).await;
    ended.expect("the stream ends").unwrap().unwrap();
}
