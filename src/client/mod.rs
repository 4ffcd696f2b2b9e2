//! The HTTP client of the command line: one server, asked with patience.
//!
//! Every request of ours may be repeated: what was done by the first is found by the second. So a connection that
//! breaks, a server that is at its limit and one that is being restarted are waited for, as long as there is patience.
//! Why a server that answers is waited for is said once, and a client of which nothing more is accepted gives up.

mod datasets;
mod runs;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use reqwest::{RequestBuilder, StatusCode, Url, header, multipart::Part};
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

/// Reasons to wait that are told apart.
const REASONS: usize = 64;

/// A server, cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    patience: Duration,
    patience_when_full: Duration,
    tell: Tell,
    /// Of all clones: requests that run at the same time wait for the same.
    waiting: Arc<Mutex<Waiting>>,
}

/// Who is told why a server is waited for.
#[derive(Clone)]
struct Tell(Arc<dyn Fn(&str) + Send + Sync>);

impl fmt::Debug for Tell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tell")
    }
}

/// What the requests of a client know of each other.
#[derive(Debug)]
struct Waiting {
    succeeded: Instant,
    told: BTreeSet<String>,
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
    /// The server has had no room for anything for as long as there was patience.
    #[error(
        "{url} has had no room for {seconds} s: {cause}; nothing that was answered is lost, so the same command goes on from here"
    )]
    Full {
        /// The server.
        url: Url,
        /// How long nothing was accepted.
        seconds: u64,
        /// What it says.
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
    /// To be tried again, after the pause that the server asks for.
    Again {
        cause: String,
        pause: Option<Duration>,
        /// Whether it has no room, and says so.
        full: bool,
    },
}

/// A file of a form, whose length is sent with it.
pub(crate) fn file_part(bytes: &Bytes, name: &'static str) -> Part {
    Part::stream_with_length(bytes.clone(), bytes.len() as u64).file_name(name)
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
        let waiting = Waiting { succeeded: Instant::now(), told: BTreeSet::new() };
        Ok(Self {
            http,
            base,
            patience,
            patience_when_full: patience,
            tell: Tell(Arc::new(|reason| tracing::warn!(reason, "the server is waited for"))),
            waiting: Arc::new(Mutex::new(waiting)),
        })
    }

    /// The same, but for so long a server may have no room for any request of this client.
    #[must_use]
    pub fn patient_when_full(self, patience: Duration) -> Self {
        Self { patience_when_full: patience, ..self }
    }

    /// The same, which tells why it waits for a server that has no room: each reason once.
    #[must_use]
    pub fn telling(self, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { tell: Tell(Arc::new(tell)), ..self }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells why the server is waited for, unless that was told; counts in it may differ.
    fn tell_once(&self, reason: &str) {
        let alike = reason.split(|char: char| char.is_ascii_digit()).filter(|part| !part.is_empty());
        let alike = alike.collect::<Vec<_>>().join("#");
        let is_new = {
            let told = &mut self.waiting().told;
            told.len() < REASONS && told.insert(alike)
        };
        if is_new {
            (self.tell.0)(reason);
        }
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
        let mut full_since: Option<Instant> = None;
        let mut pause = FIRST_PAUSE;
        loop {
            match attempt(request(&self.http, url.clone()), &url).await {
                Attempt::Done(answer) => {
                    self.waiting().succeeded = Instant::now();
                    return Ok(answer);
                }
                Attempt::Failed(error) => return Err(error),
                Attempt::Again { cause, pause: asked, full: true } => {
                    silent_since = None;
                    self.tell_once(&cause);
                    // As long as other requests get through, this one will.
                    let since = *full_since.get_or_insert_with(Instant::now);
                    let waited = since.max(self.waiting().succeeded).elapsed();
                    if waited > self.patience_when_full {
                        return Err(ClientError::Full {
                            url: self.base.clone(),
                            seconds: waited.as_secs(),
                            cause,
                        });
                    }
                    tokio::time::sleep(asked.unwrap_or(pause)).await;
                }
                Attempt::Again { cause, pause: asked, full: false } => {
                    full_since = None;
                    tracing::debug!(%url, cause, "tried again");
                    if silent_since.get_or_insert_with(Instant::now).elapsed() > self.patience {
                        return Err(ClientError::Silent { url: self.base.clone(), cause });
                    }
                    tokio::time::sleep(asked.unwrap_or(pause)).await;
                }
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
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
        Attempt::Again { cause: cause.to_string(), pause: None, full: false }
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
            Attempt::Again { cause: format!("{status}: {}", words()), pause: retry_after, full: true }
        }
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Attempt::Again { cause: format!("{status}: {}", words()), pause: retry_after, full: false }
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

    /// What a client was told, and the client.
    fn listening(url: &str, patience: Duration) -> (Client, Arc<Mutex<Vec<String>>>) {
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let hears = Arc::clone(&told);
        let client = Client::new(url, patience).unwrap();
        (client.telling(move |reason| hears.lock().unwrap().push(reason.to_owned())), told)
    }

    #[tokio::test]
    async fn each_reason_to_wait_is_told_once_whatever_the_retries_and_the_requests_at_once() {
        let full = r#"{"type": "urn:x", "title": "t", "status": 507, "detail": "the 5 MiB are used up", "code": "storage_full",
            "request_id": "r"}"#;
        let busy = |waiting: &'static str| (429, waiting);
        let (url, script) =
            server(&[busy("7 wait"), (507, full), busy("8 wait"), (507, full), busy("19 wait"), (507, full)])
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
    async fn a_server_that_has_room_for_nothing_is_given_up_with_its_reason() {
        let (url, script) = server(&vec![(507, "finish runs"); 50_000]).await;
        let (client, told) = listening(&url, Duration::from_mins(1));
        let error = ask(&client.patient_when_full(Duration::from_millis(50))).await.unwrap_err();
        assert!(matches!(&error, ClientError::Full { .. }), "{error}");
        let words = error.to_string();
        assert!(
            words.contains("507") && words.contains("finish runs") && words.contains("goes on"),
            "{error}"
        );
        assert_eq!(told.lock().unwrap().len(), 1);
        assert!(!script.lock().unwrap().is_empty(), "it was asked without end");
    }

    #[tokio::test]
    async fn as_long_as_other_requests_succeed_a_full_server_is_waited_for() {
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
        assert!(!waiting.is_finished(), "others got through");
        assert!(matches!(waiting.await.unwrap(), Err(ClientError::Full { .. })));
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
