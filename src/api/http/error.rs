//! The only error body: RFC 9457 `application/problem+json` with a code from a closed set, a
//! request id, and what to do.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{check::Check, request_id};
use crate::{
    engine::EngineError,
    metrics::ListError,
    scoring::{AttributesError, ScoringError},
    service::ProbesError,
    store::StoreError,
    telemetry::Bound,
    vision::DecodeError,
};

/// Machine-readable error code. The set is closed: a client may match on it exhaustively.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The body is not the multipart form that the route takes, or a parameter is malformed.
    MalformedRequest,
    /// The route or the resource does not exist.
    NotFound,
    /// The route does not accept this method.
    MethodNotAllowed,
    /// The name is taken by a sample with other content.
    SampleConflict,
    /// The name is taken by a photo with other content or attributes.
    PhotoConflict,
    /// The run exists with other properties.
    RunConflict,
    /// The run is finished and accepts no more samples.
    RunFinished,
    /// The run's samples are scored with a pack other than the loaded one.
    PackConflict,
    /// The study exists with another plan.
    StudyConflict,
    /// The study takes no answers now, or no more of this annotator.
    StudyClosed,
    /// The submission is in another state.
    SubmissionConflict,
    /// Images given by hash are not stored for the run; the detail lists their hashes.
    ImageUnknown,
    /// The disk space for accepted samples is used up; retry after the time in `Retry-After`.
    StorageFull,
    /// The service is configured not to store faces.
    FacesNotStored,
    /// The runs have no scores of a common pack, or no sample names in common.
    NothingToCompare,
    /// The body, an image file or its number of pixels exceeds a limit.
    PayloadTooLarge,
    /// The content type is not the one that the route takes.
    UnsupportedMediaType,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The request is for a host that the service is not configured for.
    WrongHost,
    /// The request was sent by a page of another site.
    CrossSite,
    /// The API key is missing, unknown, expired or revoked.
    Unauthorized,
    /// The API key does not have the scope that the route needs.
    ScopeMissing,
    /// A limit of the API key is reached; retry after the time in `Retry-After`.
    KeyLimit,
    /// A required field is missing.
    MissingField,
    /// A field that may be sent only once was sent twice.
    RepeatedField,
    /// The route does not have this field.
    UnknownField,
    /// The content of a field is invalid.
    InvalidField,
    /// The metric does not exist.
    UnknownMetric,
    /// The prompt is longer than any text model can read.
    PromptTooLong,
    /// The image file is empty.
    ImageEmpty,
    /// The file is not an image, or its format is not supported.
    ImageUnsupported,
    /// The file ends before the image does.
    ImageTruncated,
    /// The image file is inconsistent.
    ImageCorrupt,
    /// The image has too few pixels to be scored.
    ImageTooSmall,
    /// The service is at its limit; retry after the time in `Retry-After`.
    Overloaded,
    /// The service is starting, stopping, or cannot reach its store.
    Unavailable,
    /// The models are offloaded (`POST /v1/engine/offload`); retry after the time in `Retry-After`.
    EngineOffloaded,
    /// The deadline passed before the response was ready.
    DeadlineExceeded,
    /// Internal error; the log has the cause under the request id.
    Internal,
}

impl Code {
    /// Returns the code as in the body of a problem.
    pub(crate) fn name(self) -> String {
        let name = serde_json::to_value(self).expect("codes serialise to strings");
        name.as_str().unwrap_or_default().to_owned()
    }

    /// Returns the HTTP status of the code.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::MalformedRequest => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::SampleConflict
            | Self::PhotoConflict
            | Self::FacesNotStored
            | Self::RunConflict
            | Self::RunFinished
            | Self::PackConflict
            | Self::StudyConflict
            | Self::StudyClosed
            | Self::SubmissionConflict
            | Self::NothingToCompare => StatusCode::CONFLICT,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType | Self::ImageUnsupported => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::WrongHost => StatusCode::MISDIRECTED_REQUEST,
            Self::CrossSite | Self::ScopeMissing => StatusCode::FORBIDDEN,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::MissingField
            | Self::RepeatedField
            | Self::UnknownField
            | Self::InvalidField
            | Self::UnknownMetric
            | Self::PromptTooLong
            | Self::ImageEmpty
            | Self::ImageTruncated
            | Self::ImageCorrupt
            | Self::ImageTooSmall
            | Self::ImageUnknown => StatusCode::UNPROCESSABLE_ENTITY,
            Self::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
            Self::Overloaded | Self::KeyLimit => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable | Self::EngineOffloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::MalformedRequest => "Malformed request",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Method not allowed",
            Self::SampleConflict => "The name is taken by another sample",
            Self::PhotoConflict => "The name is taken by another photo",
            Self::RunConflict => "The run exists with other properties",
            Self::RunFinished => "The run is finished",
            Self::PackConflict => "The run belongs to another pack",
            Self::StudyConflict => "The study exists with another plan",
            Self::StudyClosed => "The study takes no such answers",
            Self::SubmissionConflict => "The submission is in another state",
            Self::ImageUnknown => "Unknown image",
            Self::StorageFull => "Storage full",
            Self::NothingToCompare => "Nothing to compare",
            Self::FacesNotStored => "Faces are not stored",
            Self::PayloadTooLarge => "Payload too large",
            Self::UnsupportedMediaType => "Unsupported media type",
            Self::RequestTimeout => "The body did not arrive in time",
            Self::WrongHost => "Wrong host",
            Self::CrossSite => "Cross-site request",
            Self::Unauthorized => "API key required",
            Self::ScopeMissing => "The API key lacks a scope",
            Self::KeyLimit => "The API key is at its limit",
            Self::MissingField => "Missing field",
            Self::RepeatedField => "Repeated field",
            Self::UnknownField => "Unknown field",
            Self::InvalidField => "Invalid field",
            Self::UnknownMetric => "Unknown metric",
            Self::PromptTooLong => "The prompt is too long",
            Self::ImageEmpty => "The image is empty",
            Self::ImageUnsupported => "Unsupported image",
            Self::ImageTruncated => "The image is truncated",
            Self::ImageCorrupt => "The image is corrupt",
            Self::ImageTooSmall => "The image is too small",
            Self::Overloaded => "The service is at its limit",
            Self::Unavailable => "The service is not available",
            Self::EngineOffloaded => "The models are offloaded",
            Self::DeadlineExceeded => "Deadline exceeded",
            Self::Internal => "Internal error",
        }
    }
}

/// An error that becomes a problem response.
#[derive(Debug, Clone)]
pub struct ApiError {
    code: Code,
    detail: String,
    retry_after_seconds: Option<u32>,
    bound: Option<Bound>,
    checks: Vec<Check>,
}

/// What the service metrics count of a problem response, in its extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reported {
    pub(crate) code: Code,
    /// The bound that was reached, if the request was refused at one.
    pub(crate) bound: Option<Bound>,
}

/// The body of every error response (RFC 9457).
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// URN of the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:stellar-score:problem:image_truncated")]
    pub kind: String,
    /// Title of the code, for people.
    #[schema(example = "The image is truncated")]
    pub title: String,
    /// HTTP status.
    #[schema(example = 422)]
    pub status: u16,
    /// Explanation of what is wrong with this request and what to do about it.
    pub detail: String,
    /// Machine-readable code.
    pub code: Code,
    /// Id of this request in the log.
    pub request_id: String,
    /// All checks, in responses of `/readyz` and `/startupz`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
}

impl ApiError {
    /// Creates an error; the detail says what is wrong and what to do.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            retry_after_seconds: None,
            bound: None,
            checks: Vec::new(),
        }
    }

    /// Creates an error for a limit that is reached; the client may retry after a second.
    pub fn overloaded(detail: impl Into<String>) -> Self {
        Self { retry_after_seconds: Some(1), ..Self::new(Code::Overloaded, detail) }
    }

    /// Creates an error for a limit of the key; the client may retry after so many seconds.
    pub fn key_limit(detail: impl Into<String>, seconds: u32) -> Self {
        Self { retry_after_seconds: Some(seconds.max(1)), ..Self::new(Code::KeyLimit, detail) }
    }

    /// Creates an error for a full spool; space is freed as samples are scored and runs finish.
    pub fn storage_full(detail: impl Into<String>) -> Self {
        Self { retry_after_seconds: Some(10), ..Self::new(Code::StorageFull, detail) }
            .at(Bound::Disk)
    }

    /// Creates an error for a service that cannot work now; another instance may, or this one
    /// later.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self { retry_after_seconds: Some(5), ..Self::new(Code::Unavailable, detail) }
    }

    /// Creates an error for work that needs the models while they are offloaded.
    #[must_use]
    pub fn offloaded(error: &EngineError) -> Self {
        Self {
            retry_after_seconds: Some(10),
            ..Self::new(Code::EngineOffloaded, error.to_string())
        }
    }

    /// Creates an internal error: the cause is logged, and the client gets the id to ask for it.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(error = %cause, "request failed");
        Self::new(Code::Internal, "internal error; report this request id to the operator")
    }

    /// Names the bound at which the request was refused, for the service metrics.
    #[must_use]
    pub fn at(self, bound: Bound) -> Self {
        Self { bound: Some(bound), ..self }
    }

    /// Returns what is wrong and what to do about it.
    #[must_use]
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// Returns the code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// Adds the checks of a probe.
    #[must_use]
    pub fn with_checks(self, checks: Vec<Check>) -> Self {
        Self { checks, ..self }
    }

    /// Puts the name of a part of the request before the detail.
    #[must_use]
    pub fn within(self, part: &str) -> Self {
        Self { detail: format!("{part}: {}", self.detail), ..self }
    }

    /// Creates an error about an image, named as in the request (`image`, `reference[0]`).
    #[must_use]
    pub fn image(of: &str, error: &DecodeError) -> Self {
        let code = serde_json::Value::from(error.problem());
        let code =
            serde_json::from_value(code).expect("every decode problem is a code, as a test shows");
        Self::new(code, format!("{of}: {error}"))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let problem = Problem {
            kind: format!("urn:stellar-score:problem:{}", self.code.name()),
            title: self.code.title().to_owned(),
            status: status.as_u16(),
            detail: self.detail,
            code: self.code,
            request_id: request_id::current(),
            checks: self.checks,
        };
        let mut response = (status, Json(problem)).into_response();
        response.extensions_mut().insert(Reported { code: self.code, bound: self.bound });
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<ScoringError> for ApiError {
    fn from(error: ScoringError) -> Self {
        match &error {
            ScoringError::Decode { of, source } => Self::image(of, source),
            ScoringError::Engine { source: EngineError::Overloaded { .. }, .. } => {
                Self::overloaded(format!(
                    "{error}; retry after a moment or send fewer concurrent requests"
                ))
                .at(Bound::Queue)
            }
            ScoringError::Engine {
                source: EngineError::Hangs { .. } | EngineError::Rebuilding { .. },
                ..
            } => {
                tracing::warn!(%error, "request refused");
                Self::unavailable(error.to_string())
            }
            ScoringError::Engine {
                source: source @ (EngineError::Stopping | EngineError::Offloaded),
                ..
            } => source.clone().into(),
            ScoringError::Engine { .. } => Self::internal(&error),
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match &error {
            EngineError::Offloaded => Self::offloaded(&error),
            EngineError::Overloaded { .. } => {
                Self::overloaded(format!("{error}; retry after a moment")).at(Bound::Queue)
            }
            EngineError::Hangs { .. } | EngineError::Rebuilding { .. } => {
                tracing::warn!(%error, "request refused");
                Self::unavailable(error.to_string())
            }
            EngineError::Stopping => {
                Self::unavailable("the service is stopping; send the request to another instance")
            }
            EngineError::NotDrained { .. } | EngineError::NotReloaded { .. } => {
                tracing::error!(%error, "engine");
                Self::unavailable(error.to_string())
            }
            _ => Self::internal(&error),
        }
    }
}

impl From<ListError> for ApiError {
    fn from(error: ListError) -> Self {
        let code = match error {
            ListError::Unknown { .. } => Code::UnknownMetric,
            ListError::Empty => Code::InvalidField,
        };
        Self::new(code, error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::SampleConflict { .. } => Self::new(Code::SampleConflict, error.to_string()),
            StoreError::PhotoConflict { .. } => Self::new(Code::PhotoConflict, error.to_string()),
            StoreError::SubmissionState { .. } => {
                Self::new(Code::SubmissionConflict, error.to_string())
            }
            StoreError::RunConflict { .. } | StoreError::RunExists { .. } => {
                Self::new(Code::RunConflict, error.to_string())
            }
            StoreError::RunFinished { .. } => Self::new(Code::RunFinished, error.to_string()),
            StoreError::PackConflict { .. } => Self::new(Code::PackConflict, error.to_string()),
            StoreError::RunFull { .. } => {
                Self::overloaded(error.to_string()).at(Bound::PendingSamples)
            }
            StoreError::ImageUnknown { .. } => Self::new(Code::ImageUnknown, error.to_string()),
            StoreError::Invalid { .. } => Self::new(Code::InvalidField, error.to_string()),
            StoreError::Cursor => Self::new(Code::MalformedRequest, error.to_string()),
            StoreError::Unavailable(_) => {
                tracing::error!(%error, "store unavailable");
                Self::unavailable("the store cannot be reached; nothing was saved, retry later")
            }
            StoreError::Contended(_) => {
                tracing::warn!(%error, "store contended");
                Self::unavailable("the store is too busy; nothing was saved, retry later")
            }
            _ => Self::internal(&error),
        }
    }
}

impl From<ProbesError> for ApiError {
    fn from(error: ProbesError) -> Self {
        match error {
            ProbesError::NoDataset => Self::new(Code::NotFound, error.to_string()),
            ProbesError::Store(error) => error.into(),
            ProbesError::Attributes(error) => error.into(),
        }
    }
}

impl From<AttributesError> for ApiError {
    fn from(error: AttributesError) -> Self {
        if let AttributesError::Storage(cause) = &error
            && matches!(
                cause.downcast_ref(),
                Some(StoreError::Unavailable(_) | StoreError::Contended(_))
            )
        {
            tracing::error!(%error, "store unavailable");
            return Self::unavailable("the store cannot be reached; retry later");
        }
        Self::internal(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_decode_error_has_its_code() {
        let (format, detail) = (crate::vision::Format::Png, String::new());
        for (error, code) in [
            (DecodeError::Empty, Code::ImageEmpty),
            (DecodeError::UnknownFormat, Code::ImageUnsupported),
            (DecodeError::NoPixels { width: 0, height: 1 }, Code::ImageTooSmall),
            (DecodeError::TooManyBytes { bytes: 2, limit: 1 }, Code::PayloadTooLarge),
            (DecodeError::Truncated { format, detail: detail.clone() }, Code::ImageTruncated),
            (DecodeError::Corrupt { format, detail }, Code::ImageCorrupt),
        ] {
            assert_eq!(ApiError::image("image", &error).code(), code, "{error}");
        }
    }
}
