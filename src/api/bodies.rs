//! Every request's body on its way in: a minimum rate, a deadline, memory counted as it arrives, and no coding.
//!
//! One middleware around all routes, so that no handler can forget it. The time that counts is that in which the service waits
//! for the client, not that in which the client waits for the service.

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
use tokio::time::{Instant, Sleep};

use super::{
    ApiError, App, Code,
    admission::{self, UploadMemory},
    drain,
};

/// How slowly a body may arrive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// What a client may wait in all before its first bytes, and on top of the rate.
    pub(super) grace: Duration,
    /// Bytes a second that it must send beyond that.
    pub(super) bytes_per_second: u32,
    /// The longest that a body may take.
    pub(super) deadline: Duration,
}

impl Pace {
    /// How long the service waits for a client from which so many bytes have come.
    fn allows(self, received: usize) -> Duration {
        let earned = Duration::from_secs_f64(received as f64 / f64::from(self.bytes_per_second));
        self.grace.saturating_add(earned).min(self.deadline)
    }
}

/// Why a body was cut off; what the handler makes of the broken body is replaced by it.
#[derive(Debug, Default)]
struct Verdict(AtomicU8);

const SLOW: u8 = 1;
const NO_MEMORY: u8 = 2;

/// Lets the request through with its body held to the limits.
pub(super) async fn bound(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let answer = drain::whole(request, |request| async {
        let headers = request.headers();
        no_coding(headers)?;
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        // A body that is too large is refused for that, by its route.
        let announced = announced.unwrap_or(0).min(app.limits.request_bytes());
        let memory = app.admission.upload(announced)?;
        let verdict = Arc::new(Verdict::default());
        let request =
            request.map(|body| Body::new(Bounded::new(body, memory, app.pace, Arc::clone(&verdict))));
        let response = next.run(request).await;
        match verdict.0.load(Ordering::Relaxed) {
            // Whoever is too slow is not waited for any longer.
            SLOW => Ok(refusal(&too_slow(app.pace))),
            NO_MEMORY => Err(admission::no_memory()),
            _ => Ok(response),
        }
    })
    .await;
    answer.unwrap_or_else(|error: ApiError| refusal(&error))
}

/// An answer behind which the connection ends: the rest of the body, if it ever comes, is nobody's.
fn refusal(error: &ApiError) -> Response {
    let mut response = error.clone().into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    if response.status() == axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE {
        response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    response
}

/// A body that was compressed would be read as it is, and the error would be about anything but that.
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
        format!("the body has Content-Encoding `{named}`: send it uncompressed, without this header"),
    ))
}

fn too_slow(pace: Pace) -> ApiError {
    ApiError::new(
        Code::RequestTimeout,
        format!(
            "the body did not arrive: after {} s at least {} bytes a second are expected, and all of it within {} s of waiting; send it again",
            pace.grace.as_secs(),
            pace.bytes_per_second,
            pace.deadline.as_secs()
        ),
    )
}

/// A body that ends with an error as soon as its client is too slow or its bytes have no room.
struct Bounded {
    body: Body,
    memory: UploadMemory,
    pace: Pace,
    received: usize,
    /// All the time that the service has waited for the client.
    waited: Duration,
    waiting_since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    verdict: Arc<Verdict>,
}

impl Bounded {
    fn new(body: Body, memory: UploadMemory, pace: Pace, verdict: Arc<Verdict>) -> Self {
        Self {
            body,
            memory,
            pace,
            received: 0,
            waited: Duration::ZERO,
            waiting_since: None,
            timer: Box::pin(tokio::time::sleep(pace.grace)),
            verdict,
        }
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
        // Before the time: what has arrived counts, however late this task comes to look.
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.waited += this.waiting_since.take().map_or(Duration::ZERO, |since| since.elapsed());
            let Some(Ok(frame)) = frame else {
                return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
            };
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            this.received += bytes;
            if !this.memory.grow(bytes) {
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
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace =
        Pace { grace: Duration::from_secs(10), bytes_per_second: 1000, deadline: Duration::from_secs(100) };

    #[test]
    fn time_is_earned_with_bytes_up_to_the_deadline() {
        assert_eq!(PACE.allows(0), Duration::from_secs(10));
        assert_eq!(PACE.allows(5000), Duration::from_secs(15));
        assert_eq!(PACE.allows(1 << 30), Duration::from_secs(100));
    }

    #[test]
    fn a_coding_is_named_and_identity_is_none() {
        let coded = |value: &'static str| {
            no_coding(&HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(value))]))
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
