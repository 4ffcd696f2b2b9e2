//! Closes connections, one response after the other, while the service is about to stop.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderValue, header},
    middleware::Next,
    response::Response,
};

/// Returns whether the service is about to stop.
pub(crate) type IsLeaving = Arc<dyn Fn() -> bool + Send + Sync>;

/// Tells clients to open another connection, which a load balancer sends to another instance.
///
/// A connection that is closed without a word may have a request on its way, which then fails.
pub(crate) async fn close(
    State(is_leaving): State<IsLeaving>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    if is_leaving() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
