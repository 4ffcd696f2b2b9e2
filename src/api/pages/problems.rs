//! Errors for people: a browser gets a page in place of a problem document.

use axum::{
    body::to_bytes,
    extract::Request,
    http::{HeaderMap, header},
    middleware::Next,
    response::Response,
};

use super::view;
use crate::api::http::Problem;

/// Limit of a problem document, in bytes.
const MOST_BYTES: usize = 64 << 10;

/// Turns problem documents into pages, for requests by which a browser opens a page.
pub(crate) async fn render(request: Request, next: Next) -> Response {
    let is_page = wants_page(request.headers()) && !request.uri().path().starts_with("/v1/");
    let response = next.run(request).await;
    let is_problem = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/problem+json"));
    if !(is_page && is_problem) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, MOST_BYTES).await.unwrap_or_default();
    let Ok(problem) = serde_json::from_slice::<Problem>(&body) else {
        return Response::from_parts(parts, body.into());
    };
    let page = view::error(parts.status, &problem.title, &problem.detail, &problem.request_id);
    let (mut page_parts, body) = page.into_parts();
    // Challenges, `Retry-After` and limits of the key are for browsers, too.
    for (name, value) in &parts.headers {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            page_parts.headers.append(name, value.clone());
        }
    }
    page_parts.extensions = parts.extensions;
    Response::from_parts(page_parts, body)
}

/// Returns whether a browser opens a page with this request.
pub(super) fn wants_page(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|accept| {
        accept.split(',').any(|kind| kind.trim_start().starts_with("text/html"))
    })
}
