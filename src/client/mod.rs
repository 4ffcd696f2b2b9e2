//! The HTTP client of the command line: one server, asked with patience.
//!
//! Every request of ours may be repeated: what was done by the first is found by the second. So a connection that
//! breaks, a server that is at its limit and one that is being restarted are waited for, and only an answer that says
//! what is wrong with the request ends it.

mod datasets;
mod runs;

use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::{RequestBuilder, StatusCode, Url, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use datasets::{EnrolledPhoto, NewPrompt, RegisteredPrompts};
pub use runs::{Counts, NewRun, Run, RunFlags, RunState, SubmittedSample, SubmittedState};

/// No answer takes longer: the service's own deadline is two minutes by default.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after the first failure of a series; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A server, cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    patience: Duration,
}

/// Why a request has no answer that could be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none.
    #[error("{url} is no address of a server: {reason}; give one like http://127.0.0.1:8080")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server says what is wrong.
    #[error("the server answers {status} {code}: {detail}")]
    Problem {
        /// The HTTP status.
        status: u16,
        /// The problem's code.
        code: String,
        /// What is wrong and what to do about it.
        detail: String,
    },
    /// Nobody answers, or an answer breaks off, and did so for as long as there was patience.
    #[error(
        "{url} does not answer: {cause}; nothing that was answered is lost, so the same command goes on from here"
    )]
    Silent {
        /// The server.
        url: Url,
        /// The last failure.
        cause: String,
    },
    /// An answer that is not the service's.
    #[error("{url} answers {status} with something that is not stellar-score's: {what}")]
    Foreign {
        /// What was asked.
        url: Url,
        /// The HTTP status.
        status: u16,
        /// The beginning of it, or why it cannot be read.
        what: String,
    },
}

impl ClientError {
    /// The problem's code, where the server gave one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Problem { code, .. } => Some(code),
            _ => None,
        }
    }
}

/// The part of a problem document that a client needs. Codes are text, since a newer server may have more.
#[derive(Deserialize)]
struct Problem {
    detail: String,
    code: String,
}

/// A successful answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status, 2xx.
    pub status: u16,
    /// The body.
    pub body: Bytes,
    url: Url,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// It is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|error| self.foreign(&error.to_string()))
    }

    /// The body as text.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub fn text(&self) -> Result<String, ClientError> {
        String::from_utf8(self.body.to_vec()).map_err(|error| self.foreign(&error.to_string()))
    }

    fn foreign(&self, what: &str) -> ClientError {
        ClientError::Foreign { url: self.url.clone(), status: self.status, what: what.to_owned() }
    }
}

/// What one attempt came to.
enum Attempt {
    Done(Answer),
    Failed(ClientError),
    /// To be tried again, after the pause that the server asks for. A busy server is alive and waited for without end.
    Again {
        cause: String,
        pause: Option<Duration>,
        alive: bool,
    },
}

impl Client {
    /// A client of the server at `url`, which may be silent for as long as `patience` before it is given up.
    ///
    /// # Errors
    /// The address cannot be one of a server.
    pub fn new(url: &str, patience: Duration) -> Result<Self, ClientError> {
        let wrong = |reason: &str| ClientError::Address { url: url.to_owned(), reason: reason.to_owned() };
        let base = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
        match base.scheme() {
            "http" if base.has_host() => {}
            "https" => {
                return Err(wrong("TLS is not spoken; reach a remote server through a tunnel (ssh -L)"));
            }
            _ => return Err(wrong("it does not begin with http://")),
        }
        let http = reqwest::Client::builder()
            .timeout(ANSWER_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("stellar-score/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| wrong(&error.to_string()))?;
        Ok(Self { http, base, patience })
    }

    /// The address of a route; each part is encoded as it needs to be.
    #[must_use]
    pub fn url(&self, parts: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        url
    }

    /// Asks with GET and reads JSON.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(
        &self,
        parts: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, ClientError> {
        self.send(parts, |http, url| http.get(url).query(query)).await?.json()
    }

    /// Sends a request, again and again until there is an answer.
    ///
    /// # Errors
    /// The server says what is wrong with the request, or is silent for longer than there is patience.
    pub async fn send(
        &self,
        parts: &[&str],
        request: impl Fn(&reqwest::Client, Url) -> RequestBuilder,
    ) -> Result<Answer, ClientError> {
        let url = self.url(parts);
        let mut silent_since: Option<Instant> = None;
        let mut pause = FIRST_PAUSE;
        loop {
            match attempt(request(&self.http, url.clone()), &url).await {
                Attempt::Done(answer) => return Ok(answer),
                Attempt::Failed(error) => return Err(error),
                Attempt::Again { cause, pause: asked, alive } => {
                    tracing::debug!(%url, cause, "tried again");
                    if alive {
                        silent_since = None;
                    } else if silent_since.get_or_insert_with(Instant::now).elapsed() > self.patience {
                        return Err(ClientError::Silent { url: self.base.clone(), cause });
                    }
                    tokio::time::sleep(asked.unwrap_or(pause)).await;
                    pause = (2 * pause).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

async fn attempt(request: RequestBuilder, url: &Url) -> Attempt {
    let broken = |error: &reqwest::Error| {
        // The outer words of a failure say only that there was one.
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        Attempt::Again { cause: cause.to_string(), pause: None, alive: false }
    };
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_builder() => {
            let what = error.to_string();
            return Attempt::Failed(ClientError::Foreign { url: url.clone(), status: 0, what });
        }
        Err(error) => return broken(&error),
    };
    let (status, retry_after) = (response.status(), retry_after(response.headers()));
    let body = match response.bytes().await {
        Ok(body) => body,
        Err(error) => return broken(&error),
    };
    if status.is_success() {
        return Attempt::Done(Answer { status: status.as_u16(), body, url: url.clone() });
    }
    let problem = serde_json::from_slice::<Problem>(&body).ok();
    let words = || match &problem {
        Some(problem) => problem.detail.clone(),
        None => String::from_utf8_lossy(&body).chars().take(200).collect(),
    };
    match status {
        // A disk that is full empties as samples are scored.
        StatusCode::TOO_MANY_REQUESTS | StatusCode::INSUFFICIENT_STORAGE => {
            Attempt::Again { cause: words(), pause: retry_after, alive: true }
        }
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Attempt::Again { cause: format!("{status}: {}", words()), pause: retry_after, alive: false }
        }
        _ => Attempt::Failed(match problem {
            Some(Problem { detail, code }) => ClientError::Problem { status: status.as_u16(), code, detail },
            None => ClientError::Foreign { url: url.clone(), status: status.as_u16(), what: words() },
        }),
    }
}

/// How long the server asks to wait, in whole seconds; a date, which is allowed too, is one that nobody sends us.
fn retry_after(headers: &header::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(Duration::from_mins(1)))
}

#[cfg(test)]
mod tests {
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

    /// A server that gives these answers in turn, then 200 with the path it was asked for.
    async fn server(answers: &[(u16, &'static str)]) -> (String, Script) {
        let script: Script = Arc::new(Mutex::new(answers.iter().copied().collect()));
        let router =
            axum::Router::new().route("/{*path}", axum::routing::any(answer)).with_state(Arc::clone(&script));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, router).into_future());
        (url, script)
    }

    async fn ask(client: &Client) -> Result<String, ClientError> {
        client.get(&["v1", "a name/with ?&%+ß"], &[]).await
    }

    #[tokio::test]
    async fn a_server_at_its_limit_is_asked_until_it_answers() {
        let (url, script) = server(&[(429, ""), (507, ""), (503, ""), (429, "")]).await;
        let client = Client::new(&url, Duration::from_secs(10)).unwrap();
        assert_eq!(ask(&client).await.unwrap(), "v1/a name/with ?&%+ß");
        assert!(script.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_problem_ends_it_with_its_code_and_words() {
        let problem = r#"{"type": "urn:x", "title": "t", "status": 409, "detail": "say less", "code": "run_finished",
            "request_id": "r"}"#;
        let (url, _) = server(&[(409, problem)]).await;
        let error = ask(&Client::new(&url, Duration::ZERO).unwrap()).await.unwrap_err();
        assert_eq!(error.code(), Some("run_finished"));
        assert!(error.to_string().contains("409 run_finished: say less"), "{error}");
    }

    #[tokio::test]
    async fn something_else_than_the_service_is_said_to_be_so() {
        let (url, _) = server(&[(404, "<html>"), (200, "<html>")]).await;
        let client = Client::new(&url, Duration::ZERO).unwrap();
        for _ in 0..2 {
            let error = ask(&client).await.unwrap_err();
            assert!(matches!(error, ClientError::Foreign { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn a_silent_server_is_given_up_after_the_patience_and_not_before() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let started = Instant::now();
        let error = ask(&Client::new(&url, Duration::from_millis(300)).unwrap()).await.unwrap_err();
        assert!(matches!(&error, ClientError::Silent { .. }), "{error}");
        assert!(started.elapsed() >= Duration::from_millis(300));
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[test]
    fn an_address_that_cannot_be_one_is_refused_with_an_example() {
        for (url, words) in [
            ("localhost", "relative URL"),
            ("localhost:8080", "does not begin with http://"),
            ("https://host", "TLS is not spoken"),
            ("ftp://host", "does not begin with http://"),
        ] {
            let error = Client::new(url, Duration::ZERO).map(drop).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("http://127.0.0.1:8080"), "{error}");
        }
    }
}
