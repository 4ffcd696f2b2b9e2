//! The HTTP client of the command line, with retries.
//!
//! All requests of this client are idempotent. It therefore retries after broken connections,
//! backpressure and restarts of the server, within a time limit. Each reason for waiting is
//! reported once, and the client gives up if no request is accepted within the limit.

mod datasets;
mod runs;
mod submission;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use bytes::Bytes;
use reqwest::header::HeaderValue;
use reqwest::{RequestBuilder, StatusCode, Url, header, multipart::Part};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::key::Key;
use crate::sync::lock;

pub use datasets::{EnrolledPhoto, NewPrompt, RegisteredPrompts};
pub use runs::{AcceptedSample, Counts, NewRun, Run, RunFlags, RunState, SampleState};
pub use submission::{
    RunDetails, ScoredEntry, StoredFile, StoredSample, StoredScore, Submission, VerificationReport,
};

/// Timeout of a request. The service's own deadline is two minutes by default.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after the first failure of a request; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Maximum number of different reasons reported.
const REASONS: usize = 64;

/// Client of one server, cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    patience: Duration,
    patience_when_full: Duration,
    tell: Tell,
    /// The API key as a header, which debug output does not show.
    key: Option<HeaderValue>,
    /// Shared by all clones, since concurrent requests wait for the same reasons.
    waiting: Arc<Mutex<Waiting>>,
}

/// Callback for the reasons of waiting for a server.
#[derive(Clone)]
struct Tell(Arc<dyn Fn(&str) + Send + Sync>);

impl fmt::Debug for Tell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tell")
    }
}

/// State shared by the requests of a client.
#[derive(Debug)]
struct Waiting {
    succeeded: Instant,
    told: BTreeSet<String>,
}

/// A text that is not an API key.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error(
    "it is not an API key: `stellar-score keys create` prints one, which begins with `stellar_`"
)]
pub struct InvalidKey;

/// Errors of a request.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is invalid.
    #[error("{url} is not a server address: {reason}; use one like http://127.0.0.1:8080")]
    Address {
        /// The given address.
        url: String,
        /// Why it is invalid.
        reason: String,
    },
    /// The server responded with a problem.
    #[error("the server responded with {status} {code}: {detail}")]
    Problem {
        /// The HTTP status.
        status: u16,
        /// The problem's code.
        code: String,
        /// What is wrong and what to do about it.
        detail: String,
    },
    /// The server was unreachable or broke off responses until the time limit.
    #[error(
        "{url} does not respond: {cause}; samples that it has accepted are not lost, repeat the \
            command later"
    )]
    Silent {
        /// The server.
        url: Url,
        /// The last failure.
        cause: String,
        /// The HTTP status, if the server responded with one.
        status: Option<u16>,
    },
    /// The server refused all requests with backpressure until the time limit.
    #[error(
        "{url} has accepted no requests for {seconds} s: {cause}; samples that it has \
            accepted are not lost, repeat the command to resume"
    )]
    Full {
        /// The server.
        url: Url,
        /// Seconds without an accepted request.
        seconds: u64,
        /// The server's reason.
        cause: String,
    },
    /// A response that is not from this service.
    #[error("{url} responded with {status}, but not as stellar-score does: {what}")]
    Foreign {
        /// The requested address.
        url: Url,
        /// The HTTP status.
        status: u16,
        /// The beginning of the response, or the error of reading it.
        what: String,
    },
}

impl ClientError {
    /// Returns the problem's code, if the server sent one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Problem { code, .. } => Some(code),
            _ => None,
        }
    }
}

/// The part of a problem document that a client needs. Codes are text, since a newer server may
/// have more.
#[derive(Deserialize)]
struct Problem {
    detail: String,
    code: String,
}

/// A successful response.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status, 2xx.
    pub status: u16,
    /// The body.
    pub body: Bytes,
    url: Url,
}

impl Answer {
    /// Parses the body as JSON.
    ///
    /// # Errors
    /// The body does not have the expected form.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|error| self.foreign(&error.to_string()))
    }

    /// Returns the body as text.
    ///
    /// # Errors
    /// The body is not UTF-8.
    pub fn text(&self) -> Result<String, ClientError> {
        String::from_utf8(self.body.to_vec()).map_err(|error| self.foreign(&error.to_string()))
    }

    fn foreign(&self, what: &str) -> ClientError {
        ClientError::Foreign { url: self.url.clone(), status: self.status, what: what.to_owned() }
    }
}

/// Outcome of one attempt.
enum Attempt {
    Done(Answer),
    Failed(ClientError),
    /// To be retried after the pause requested by the server.
    Again {
        cause: String,
        pause: Option<Duration>,
        /// Whether the server refused the request with backpressure.
        full: bool,
        status: Option<u16>,
    },
}

/// Creates a file part of a form with its length.
pub(crate) fn file_part(bytes: &Bytes, name: &'static str) -> Part {
    Part::stream_with_length(bytes.clone(), bytes.len() as u64).file_name(name)
}

/// Returns an address as messages show it: without user name and password, which may be an API key.
pub(crate) fn shown(url: &Url) -> Url {
    let mut url = url.clone();
    // Fails only for an address that has none.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url
}

/// Returns a word of a command as files and messages show it: without what may be an API key in an
/// address, which may come after a flag and `=`.
pub(crate) fn shown_word(word: &str) -> String {
    let (flag, address) = match word.split_once('=') {
        Some((flag, address)) if flag.starts_with('-') => (format!("{flag}="), address),
        _ => (String::new(), word),
    };
    match Url::parse(address) {
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            format!("{flag}{}", shown(&url))
        }
        // It is no address, but is meant as one.
        Err(_) if address.contains("://") => match address.rsplit_once('@') {
            Some((_, host)) => format!("{flag}…@{host}"),
            None => word.to_owned(),
        },
        _ => word.to_owned(),
    }
}

impl Client {
    /// Creates a client of the server at `url`, which retries for as long as `patience`.
    ///
    /// # Errors
    /// The address is invalid.
    pub fn new(url: &str, patience: Duration) -> Result<Self, ClientError> {
        let wrong =
            |reason: &str| ClientError::Address { url: shown_word(url), reason: reason.to_owned() };
        let base = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
        match base.scheme() {
            "http" if base.has_host() => {}
            "https" => {
                return Err(wrong(
                    "TLS is not supported; reach a remote server through a tunnel (ssh -L)",
                ));
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
            key: None,
            tell: Tell(Arc::new(|reason| tracing::warn!(reason, "waiting for the server"))),
            waiting: Arc::new(Mutex::new(waiting)),
        })
    }

    /// Sets the API key to send with every request.
    ///
    /// # Errors
    /// The text is not a key.
    pub fn with_key(self, key: &str) -> Result<Self, InvalidKey> {
        // Anything else in the header would only be refused later, by the server.
        let key = Key::parse(key.trim()).ok_or(InvalidKey)?;
        let mut value =
            HeaderValue::from_str(&format!("Bearer {}", key.reveal())).map_err(|_| InvalidKey)?;
        value.set_sensitive(true);
        Ok(Self { key: Some(value), ..self })
    }

    /// Sets the time limit for backpressure: how long the server may refuse all requests of this
    /// client.
    #[must_use]
    pub fn patient_when_full(self, patience: Duration) -> Self {
        Self { patience_when_full: patience, ..self }
    }

    /// Sets a callback for the reasons of waiting, such as backpressure or a server that does not
    /// respond. It is called once for each reason.
    #[must_use]
    pub fn telling(self, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { tell: Tell(Arc::new(tell)), ..self }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }

    /// Reports a reason for waiting, unless it was reported before. Reasons that differ only in
    /// numbers are the same.
    fn tell_once(&self, reason: &str) {
        let parts =
            reason.split(|char: char| char.is_ascii_digit()).filter(|part| !part.is_empty());
        let normalised = parts.collect::<Vec<_>>().join("#");
        let is_new = {
            let told = &mut self.waiting().told;
            told.len() < REASONS && told.insert(normalised)
        };
        if is_new {
            (self.tell.0)(reason);
        }
    }

    /// Returns the address of a route; each part is percent-encoded.
    #[must_use]
    pub fn url(&self, parts: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        url
    }

    /// Returns the header with the API key, for requests that must not be repeated.
    pub(crate) fn authorization(&self) -> header::HeaderMap {
        self.key.iter().map(|key| (header::AUTHORIZATION, key.clone())).collect()
    }

    /// Sends a GET request and parses the response as JSON.
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

    /// Sends a request, with retries until there is a response.
    ///
    /// # Errors
    /// The server responds with a problem, or the time limit for retries is exceeded.
    pub async fn send(
        &self,
        parts: &[&str],
        request: impl Fn(&reqwest::Client, Url) -> RequestBuilder,
    ) -> Result<Answer, ClientError> {
        let url = self.url(parts);
        let named = shown(&url);
        let mut silent_since: Option<Instant> = None;
        let mut full_since: Option<Instant> = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let mut builder = request(&self.http, url.clone());
            if let Some(key) = &self.key {
                builder = builder.header(header::AUTHORIZATION, key.clone());
            }
            match attempt(builder, &named).await {
                Attempt::Done(answer) => {
                    self.waiting().succeeded = Instant::now();
                    return Ok(answer);
                }
                Attempt::Failed(error) => return Err(error),
                Attempt::Again { cause, pause: asked, full: true, .. } => {
                    silent_since = None;
                    self.tell_once(&cause);
                    // While other requests are accepted, this one will be too.
                    let since = *full_since.get_or_insert_with(Instant::now);
                    let waited = since.max(self.waiting().succeeded).elapsed();
                    if waited > self.patience_when_full {
                        return Err(ClientError::Full {
                            url: shown(&self.base),
                            seconds: waited.as_secs(),
                            cause,
                        });
                    }
                    tokio::time::sleep(asked.unwrap_or(pause)).await;
                }
                Attempt::Again { cause, pause: asked, full: false, status } => {
                    full_since = None;
                    tracing::debug!(url = %named, cause, "retrying request");
                    if silent_since.get_or_insert_with(Instant::now).elapsed() > self.patience {
                        let url = shown(&self.base);
                        return Err(ClientError::Silent { url, cause, status });
                    }
                    let seconds = self.patience.as_secs();
                    self.tell_once(&format!("{cause}; retrying for up to {seconds} s"));
                    tokio::time::sleep(asked.unwrap_or(pause)).await;
                }
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }
}

async fn attempt(request: RequestBuilder, url: &Url) -> Attempt {
    let broken = |error: &reqwest::Error| {
        // The outer errors only say that there was a failure.
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        Attempt::Again { cause: cause.to_string(), pause: None, full: false, status: None }
    };
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_builder() => {
            let what = error.without_url().to_string();
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
        // Space is freed as samples are scored.
        StatusCode::TOO_MANY_REQUESTS | StatusCode::INSUFFICIENT_STORAGE => Attempt::Again {
            cause: format!("{status}: {}", words()),
            pause: retry_after,
            full: true,
            status: Some(status.as_u16()),
        },
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Attempt::Again {
                cause: format!("{status}: {}", words()),
                pause: retry_after,
                full: false,
                status: Some(status.as_u16()),
            }
        }
        _ => Attempt::Failed(match problem {
            Some(Problem { detail, code }) => {
                ClientError::Problem { status: status.as_u16(), code, detail }
            }
            None => {
                ClientError::Foreign { url: url.clone(), status: status.as_u16(), what: words() }
            }
        }),
    }
}

/// Reads `Retry-After` in seconds, at most a minute. The header may also be a date, which this
/// service never sends.
fn retry_after(headers: &header::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(Duration::from_mins(1)))
}

#[cfg(test)]
mod tests;
