//! Limits of every request body: a minimum rate, a deadline, memory counted as bytes arrive, and no
//! compression.
//!
//! One middleware around all routes, so that no handler can omit it. Only the time in which the
//! service waits for the client counts, not the time in which the client waits for the service.

use std::{
    error::Error,
    future::Future as _,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep},
};

use super::{
    admission::{self, Admission, UploadMemory},
    drain,
    error::{ApiError, Code},
    keys, model_routes,
};
use crate::{
    config::{Config, Rewards},
    telemetry::Bound,
};

/// Minimum speed of a request body.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Total waiting time that a client has in addition to the rate, from before its first bytes.
    grace: Duration,
    /// Bytes per second that the client must send beyond the grace period.
    bytes_per_second: u32,
    /// Maximum total waiting time for a body.
    deadline: Duration,
}

/// Limits of all request bodies.
#[derive(Clone)]
pub(crate) struct BodyLimits {
    pace: Pace,
    most_bytes: usize,
    admission: Arc<Admission>,
    /// The section `[rewards]`, for the times that requests wait for memory.
    rewards: Arc<Rewards>,
}

impl BodyLimits {
    pub(crate) fn new(config: &Config, admission: Arc<Admission>) -> Self {
        let pace = Pace {
            grace: Duration::from_secs(config.server.body_seconds),
            bytes_per_second: config.server.body_bytes_per_second,
            deadline: config.server.deadline(),
        };
        let most_bytes = config.limits.request_bytes();
        Self { pace, most_bytes, admission, rewards: Arc::new(config.rewards.clone()) }
    }
}

/// The memory of a body, in the extensions of a request that may hold it until it is answered.
#[derive(Debug, Clone)]
pub(crate) struct HeldMemory {
    _permit: Arc<OwnedSemaphorePermit>,
    arrived: Instant,
}

impl HeldMemory {
    /// Returns the time at which the request began to wait for the memory.
    pub(crate) fn arrived(&self) -> std::time::Instant {
        self.arrived.into_std()
    }
}

/// Returns how long a request may wait: `Prefer: wait=SECONDS` (RFC 7240) shortens the time.
pub(crate) fn wait_of(headers: &HeaderMap, longest: Duration) -> Duration {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let seconds = preferences
        .flat_map(|value| value.split([',', ';']))
        .filter_map(|preference| preference.trim().strip_prefix("wait="))
        .find_map(|seconds| seconds.trim_matches('"').parse().ok());
    seconds.map_or(longest, |seconds| Duration::from_secs(seconds).min(longest))
}

impl BodyLimits {
    /// Takes or begins to count the memory of a body. A client of a route that queues waits for it.
    async fn memory(
        &self,
        queued: Option<(&str, Duration)>,
        announced: Option<usize>,
    ) -> Result<(UploadMemory, Option<HeldMemory>), ApiError> {
        // A body over the size limit is refused by its route, with a more precise error.
        let most = self.most_bytes;
        let Some((client, wait)) = queued else {
            let announced = announced.unwrap_or(0).min(most);
            return Ok((self.admission.upload(announced)?, None));
        };
        let arrived = Instant::now();
        // Bytes are counted twice: as they arrive, and as images until the response is ready.
        let announced = 2 * announced.unwrap_or(most).min(most);
        let waits = self.admission.upload_when_free(client, announced);
        let (memory, permit) =
            tokio::time::timeout(wait, waits).await.unwrap_or_else(|_| Err(busy(wait)))?;
        Ok((memory, Some(HeldMemory { _permit: Arc::new(permit), arrived })))
    }
}

/// Creates the error for a request that has waited in vain.
pub(crate) fn busy(wait: Duration) -> ApiError {
    ApiError::unavailable(format!(
        "no capacity became free within {} s: retry after a moment, or send less at once",
        wait.as_secs()
    ))
    .at(Bound::Rewards)
}

impl Pace {
    /// Returns the total waiting time for a client that has sent this many bytes.
    fn allows(self, received: usize) -> Duration {
        let earned = Duration::from_secs_f64(received as f64 / f64::from(self.bytes_per_second));
        self.grace.saturating_add(earned).min(self.deadline)
    }
}

/// Reason why a body was cut off; its error replaces the handler's response to the broken body.
#[derive(Debug, Default)]
struct Verdict(AtomicU8);

const SLOW: u8 = 1;
const NO_MEMORY: u8 = 2;

/// Runs the request with limits on its body.
pub(crate) async fn bound(
    State(limits): State<BodyLimits>,
    request: Request,
    next: Next,
) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let response = drain::whole(request, |request| async move {
        let headers = request.headers();
        no_coding(headers)?;
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        let verdict = Arc::new(Verdict::default());
        let work = model_routes::work(&request);
        let longest = work.and_then(|work| work.wait(&limits.rewards));
        let client =
            longest.map(|longest| (keys::client(&request), wait_of(request.headers(), longest)));
        let queued = client.as_ref().map(|(client, wait)| (&**client, *wait));
        let (mut parts, body) = request.into_parts();
        let mut body = Bounded::new(body, limits.pace, Arc::clone(&verdict));
        // A client that announces a body and sends nothing keeps no memory from others.
        if client.is_some() && !body.begins().await {
            return Ok(refusal(&too_slow(limits.pace)));
        }
        let (memory, held) = limits.memory(queued, announced).await?;
        body.memory = Some(memory);
        if let Some(held) = held {
            parts.extensions.insert(held);
        }
        let response = next.run(Request::from_parts(parts, Body::new(body))).await;
        match verdict.0.load(Ordering::Relaxed) {
            // `Ok` skips the drain: a client that is too slow is not waited for any longer.
            SLOW => Ok(refusal(&too_slow(limits.pace))),
            NO_MEMORY => Err(admission::no_memory()),
            _ => Ok(response),
        }
    })
    .await;
    response.unwrap_or_else(|error: ApiError| refusal(&error))
}

/// Creates an error response that closes the connection: the rest of the body must not be read as
/// the next request.
fn refusal(error: &ApiError) -> Response {
    let mut response = error.clone().into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    if response.status() == axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE {
        response
            .headers_mut()
            .insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    response
}

/// Refuses compressed bodies: they would be read as they are, and the error would mislead.
fn no_coding(headers: &HeaderMap) -> Result<(), ApiError> {
    let codings: Vec<_> = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|coding| String::from_utf8_lossy(coding).trim().to_lowercase())
        .filter(|coding| !coding.is_empty() && coding != "identity")
        .collect();
    if codings.is_empty() {
        return Ok(());
    }
    let named: String = codings.join(", ").chars().take(80).collect();
    Err(ApiError::new(
        Code::UnsupportedMediaType,
        format!(
            "the body has Content-Encoding `{named}`: send it uncompressed, without this header"
        ),
    ))
}

fn too_slow(pace: Pace) -> ApiError {
    ApiError::new(
        Code::RequestTimeout,
        format!(
            "the body arrived too slowly: after {} s at least {} bytes a second are required, and \
                the whole body within {} s of waiting; send it again",
            pace.grace.as_secs(),
            pace.bytes_per_second,
            pace.deadline.as_secs()
        ),
    )
}

/// A body that fails as soon as its client is too slow or no memory is left for its bytes.
struct Bounded {
    body: Body,
    /// The first frame, if it was awaited.
    first: Option<Result<Frame<Bytes>, axum::Error>>,
    /// Set before the body is read.
    memory: Option<UploadMemory>,
    pace: Pace,
    received: usize,
    /// Total time that the service has waited for the client.
    waited: Duration,
    waiting_since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    verdict: Arc<Verdict>,
}

impl Bounded {
    fn new(body: Body, pace: Pace, verdict: Arc<Verdict>) -> Self {
        Self {
            body,
            first: None,
            memory: None,
            pace,
            received: 0,
            waited: Duration::ZERO,
            waiting_since: None,
            timer: Box::pin(tokio::time::sleep(pace.grace)),
            verdict,
        }
    }

    /// Waits for the first bytes, and returns false if the client is too slow. The server has a
    /// buffer for them anyway.
    async fn begins(&mut self) -> bool {
        let since = Instant::now();
        let Ok(first) = tokio::time::timeout(self.pace.grace, self.body.frame()).await else {
            return false;
        };
        (self.first, self.waited) = (first, since.elapsed());
        true
    }

    fn cut_off(&self, why: u8) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.verdict.0.store(why, Ordering::Relaxed);
        Poll::Ready(Some(Err("the body was cut off".into())))
    }
}

type BodyError = Box<dyn Error + Send + Sync>;

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.verdict.0.load(Ordering::Relaxed) != 0 {
            return Poll::Ready(None);
        }
        // Before the timer: arrived bytes count, however late this task is polled.
        let polled = match this.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut this.body).poll_frame(context),
        };
        if let Poll::Ready(frame) = polled {
            this.waited +=
                this.waiting_since.take().map_or(Duration::ZERO, |since| since.elapsed());
            let Some(Ok(frame)) = frame else {
                return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
            };
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            this.received += bytes;
            if !this.memory.as_mut().is_none_or(|memory| memory.grow(bytes)) {
                return this.cut_off(NO_MEMORY);
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        let since = *this.waiting_since.get_or_insert_with(Instant::now);
        let end = since + this.pace.allows(this.received).saturating_sub(this.waited);
        if this.timer.deadline() != end {
            this.timer.as_mut().reset(end);
        }
        match this.timer.as_mut().poll(context) {
            Poll::Ready(()) => this.cut_off(SLOW),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        grace: Duration::from_secs(10),
        bytes_per_second: 1000,
        deadline: Duration::from_secs(100),
    };

    #[test]
    fn a_client_may_wait_less_than_the_limit() {
        let longest = Duration::from_secs(45);
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("prefer", value.parse().unwrap());
            wait_of(&headers, longest).as_secs()
        };
        assert_eq!(wait_of(&HeaderMap::new(), longest), longest);
        assert_eq!(of("wait=10"), 10);
        assert_eq!(of("respond-async, wait=\"10\""), 10);
        assert_eq!((of("wait=600"), of("wait=x"), of("wait=-1")), (45, 45, 45));
    }

    #[test]
    fn time_is_earned_with_bytes_up_to_the_deadline() {
        assert_eq!(PACE.allows(0), Duration::from_secs(10));
        assert_eq!(PACE.allows(5000), Duration::from_secs(15));
        assert_eq!(PACE.allows(1 << 30), Duration::from_secs(100));
    }

    #[test]
    fn compressed_bodies_are_refused_and_identity_is_accepted() {
        let coded = |value: &'static str| {
            no_coding(&HeaderMap::from_iter([(
                header::CONTENT_ENCODING,
                HeaderValue::from_static(value),
            )]))
        };
        for fine in ["identity", "", " Identity , identity"] {
            assert!(coded(fine).is_ok(), "{fine}");
        }
        for bad in ["gzip", "br, identity", "x-strange"] {
            assert!(coded(bad).is_err(), "{bad}");
        }
        assert!(no_coding(&HeaderMap::new()).is_ok());
    }
}
