//! Opens a body as a multipart form, and explains what is wrong with one.

use axum::{
    extract::{FromRequest as _, Multipart, Request, multipart::MultipartError},
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
};

use super::error::{ApiError, Code};
use crate::config::Limits;

/// Checks the headers that describe the body before any of it is read.
fn check_head(headers: &HeaderMap, limits: &Limits) -> Result<(), ApiError> {
    let value = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = value(CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("multipart/form-data") {
        return Err(ApiError::new(
            Code::UnsupportedMediaType,
            "the body is not a multipart form: send the fields as multipart/form-data (curl -F \
                does)",
        ));
    }
    if value(CONTENT_LENGTH).parse::<usize>().is_ok_and(|length| length > limits.request_bytes()) {
        return Err(too_large());
    }
    Ok(())
}

fn too_large() -> ApiError {
    ApiError::new(
        Code::PayloadTooLarge,
        "the request body is too large: send fewer or smaller files",
    )
}

/// Opens the body as multipart without reading any part.
pub(crate) async fn multipart(request: Request, limits: &Limits) -> Result<Multipart, ApiError> {
    check_head(request.headers(), limits)?;
    Multipart::from_request(request, &()).await.map_err(|_| {
        ApiError::new(
            Code::MalformedRequest,
            "the Content-Type has no usable boundary: let the client library write it (curl -F \
                does)",
        )
    })
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err")]
pub(crate) fn malformed(error: MultipartError) -> ApiError {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return too_large();
    }
    ApiError::new(Code::MalformedRequest, format!("the form is malformed: {}", error.body_text()))
}
