use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use super::*;

type Script = Arc<Mutex<VecDeque<(u16, &'static str)>>>;

async fn answer(State(script): State<Script>, Path(path): Path<String>) -> Response {
    let next = script.lock().unwrap().pop_front();
    let (status, body) =
        next.map_or((200, format!("{path:?}")), |(status, body)| (status, body.to_owned()));
    (StatusCode::from_u16(status).unwrap(), [("retry-after", "0")], body).into_response()
}

/// Starts a server that sends these responses in turn, then 200 with the requested path.
async fn server(answers: &[(u16, &'static str)]) -> (String, Script) {
    let script: Script = Arc::new(Mutex::new(answers.iter().copied().collect()));
    let router = axum::Router::new()
        .route("/{*path}", axum::routing::any(answer))
        .with_state(Arc::clone(&script));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router).into_future());
    (url, script)
}

async fn ask(client: &Client) -> Result<String, ClientError> {
    client.get(&["v1", "a name/with ?&%+ß"], &[]).await
}

#[tokio::test]
async fn requests_are_retried_under_backpressure() {
    let (url, script) = server(&[(429, ""), (507, ""), (503, ""), (429, "")]).await;
    let client = Client::new(&url, Duration::from_secs(10)).unwrap();
    assert_eq!(ask(&client).await.unwrap(), "v1/a name/with ?&%+ß");
    assert!(script.lock().unwrap().is_empty());
}

/// Creates a client and the list of the reasons that it reports.
fn listening(url: &str, patience: Duration) -> (Client, Arc<Mutex<Vec<String>>>) {
    let reasons: Arc<Mutex<Vec<String>>> = Arc::default();
    let reported = Arc::clone(&reasons);
    let client = Client::new(url, patience).unwrap();
    (client.telling(move |reason| reported.lock().unwrap().push(reason.to_owned())), reasons)
}

#[tokio::test]
async fn each_reason_to_wait_is_reported_once_across_retries_and_concurrent_requests() {
    let full = r#"{"type": "urn:x", "title": "t", "status": 507, "detail": "the 5 MiB are used up", "code": "storage_full",
        "request_id": "r"}"#;
    let busy = |waiting: &'static str| (429, waiting);
    let (url, script) = server(&[
        busy("7 wait"),
        (507, full),
        busy("8 wait"),
        (507, full),
        busy("19 wait"),
        (507, full),
    ])
    .await;
    let (client, told) = listening(&url, Duration::from_mins(1));
    let clone = client.clone();
    let (one, two) = tokio::join!(ask(&client), ask(&clone));
    assert!(one.is_ok() && two.is_ok() && script.lock().unwrap().is_empty());
    let mut told = told.lock().unwrap().clone();
    told.sort();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("429") && told[0].ends_with("wait"), "{told:?}");
    assert!(told[1].starts_with("507") && told[1].ends_with("the 5 MiB are used up"), "{told:?}");
}

#[tokio::test]
async fn a_client_gives_up_with_the_reason_if_no_request_is_accepted() {
    let (url, script) = server(&vec![(507, "finish runs"); 50_000]).await;
    let (client, told) = listening(&url, Duration::from_mins(1));
    let error = ask(&client.patient_when_full(Duration::from_millis(50))).await.unwrap_err();
    assert!(matches!(&error, ClientError::Full { .. }), "{error}");
    let words = error.to_string();
    assert!(
        words.contains("507") && words.contains("finish runs") && words.contains("resume"),
        "{error}"
    );
    assert_eq!(told.lock().unwrap().len(), 1);
    assert!(!script.lock().unwrap().is_empty(), "it retried without end");
}

#[tokio::test]
async fn a_client_waits_for_a_full_server_while_other_requests_succeed() {
    let (full, _) = server(&vec![(507, ""); 50_000]).await;
    let (client, _) = listening(&full, Duration::from_millis(100));
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { ask(&client).await }
    });
    let until = Instant::now() + Duration::from_millis(400);
    while Instant::now() < until {
        client.waiting().succeeded = Instant::now();
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished(), "other requests succeeded");
    assert!(matches!(waiting.await.unwrap(), Err(ClientError::Full { .. })));
}

#[tokio::test]
async fn a_problem_is_returned_with_its_code_and_detail() {
    let problem = r#"{"type": "urn:x", "title": "t", "status": 409, "detail": "say less", "code": "run_finished",
        "request_id": "r"}"#;
    let (url, _) = server(&[(409, problem)]).await;
    let error = ask(&Client::new(&url, Duration::ZERO).unwrap()).await.unwrap_err();
    assert_eq!(error.code(), Some("run_finished"));
    assert!(error.to_string().contains("409 run_finished: say less"), "{error}");
}

#[tokio::test]
async fn responses_of_other_programs_are_recognised() {
    let (url, _) = server(&[(404, "<html>"), (200, "<html>")]).await;
    let client = Client::new(&url, Duration::ZERO).unwrap();
    for _ in 0..2 {
        let error = ask(&client).await.unwrap_err();
        assert!(matches!(error, ClientError::Foreign { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_unreachable_server_is_retried_until_the_time_limit() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let started = Instant::now();
    let (client, told) = listening(&url, Duration::from_millis(1300));
    let error = ask(&client).await.unwrap_err();
    assert!(matches!(&error, ClientError::Silent { .. }), "{error}");
    assert!(started.elapsed() >= Duration::from_millis(1300));
    assert!(error.to_string().contains("refused"), "{error}");
    let told = told.lock().unwrap();
    let [told] = &told[..] else { panic!("{told:?}") };
    assert!(told.contains("refused") && told.ends_with("; retrying for up to 1 s"), "{told}");
}

#[test]
fn an_invalid_address_is_refused_with_an_example() {
    for (url, words) in [
        ("localhost", "relative URL"),
        ("localhost:8080", "does not begin with http://"),
        ("https://host", "TLS is not supported"),
        ("ftp://host", "does not begin with http://"),
    ] {
        let error = Client::new(url, Duration::ZERO).map(drop).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("http://127.0.0.1:8080"), "{error}");
    }
}

#[tokio::test]
async fn a_key_in_the_address_is_sent_and_never_shown() {
    let (server, _) = server(&[(404, "<html>"), (503, "busy")]).await;
    let with_key = |url: &str| url.replace("http://", "http://nobody:secret@");
    let (client, told) = listening(&with_key(&server), Duration::from_millis(1));
    let sent = client.url(&[]);
    assert_eq!(sent.password(), Some("secret"));
    let foreign = ask(&client).await.unwrap_err();
    let silent = ask(&client).await;
    let closed = Client::new("http://nobody:secret@127.0.0.1:1", Duration::ZERO).unwrap();
    let unreachable = ask(&closed).await.unwrap_err();
    let invalid = Client::new("https://nobody:secret@host", Duration::ZERO).unwrap_err();
    assert!(invalid.to_string().contains("https://host/ is not"), "{invalid}");
    let all = format!("{foreign} {silent:?} {unreachable} {invalid} {:?}", told.lock().unwrap());
    assert!(all.contains("127.0.0.1:1/ does not respond"), "{all}");
    assert!(!all.contains("secret") && !all.contains("nobody"), "{all}");
}
