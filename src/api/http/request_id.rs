//! Request ids: taken from the client if acceptable, otherwise generated; in every response,
//! problem and log line.

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use tracing::{Instrument as _, Span};
use uuid::Uuid;

pub(super) static HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The request that a task serves.
#[derive(Clone)]
struct Served {
    id: String,
    /// Its span in the log.
    span: Span,
}

tokio::task_local! {
    static CURRENT: Served;
}

/// Returns the id of the request that the current task serves; empty outside of a request.
pub(crate) fn current() -> String {
    CURRENT.try_with(|served| served.id.clone()).unwrap_or_default()
}

/// Wraps work for another task so that it keeps the current request's id and spans.
pub(crate) fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let served = CURRENT
        .try_with(Clone::clone)
        .unwrap_or_else(|_| Served { id: String::new(), span: Span::none() });
    let span = served.span.clone();
    // The current span is one of a trace, which the log does not see, or again that of the log.
    CURRENT.scope(served, work).in_current_span().instrument(span)
}

/// Gives every request an id and a span, and every response the id.
pub(crate) async fn assign(request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(&HEADER)
        .and_then(|value| value.to_str().ok())
        .filter(|id| acceptable(id))
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    // Not the path: clients name samples and methods in it, sometimes after people.
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    let span = tracing::info_span!("request", request_id = id, method = %request.method(), route);
    let served = Served { id: id.clone(), span: span.clone() };
    let mut response = CURRENT.scope(served, next.run(request).instrument(span)).await;
    let value = HeaderValue::from_str(&id).expect("acceptable ids are visible ASCII");
    response.headers_mut().insert(HEADER.clone(), value);
    response
}

/// Returns true if a client's id is short and plain enough to be logged.
fn acceptable(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_forge_log_lines_are_rejected() {
        assert!(acceptable("run-7:photo_3.1"));
        assert!(!acceptable(""));
        assert!(!acceptable("a b"));
        assert!(!acceptable("a\nlevel=error"));
        assert!(!acceptable(&"a".repeat(129)));
    }
}
