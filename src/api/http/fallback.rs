//! Responses to requests that no handler completes: unknown routes and methods, and panics.

use std::any::Any;

use axum::{
    http::StatusCode,
    response::{IntoResponse as _, Response},
};

use super::error::{ApiError, Code};

pub(crate) async fn no_route() -> ApiError {
    ApiError::new(Code::NotFound, "no such route: GET /docs lists all routes")
}

pub(crate) async fn no_method() -> ApiError {
    ApiError::new(
        Code::MethodNotAllowed,
        "the route does not accept this method: GET /docs lists all routes",
    )
}

/// Turns a panic, which is a defect, into an error response like any other; only its request ends.
#[expect(clippy::needless_pass_by_value, reason = "the shape of a panic handler")]
pub(crate) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown panic");
    let response = ApiError::internal(&message).into_response();
    debug_assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    response
}
