//! Bundles as this service reads them.

use crate::api::http::{ApiError, Code};
use crate::store::RunFlags;
use crate::submission::{Bounds, Bundle, BundleError, BundleFacts};

/// Reads a bundle within the bounds of an upload.
pub(super) fn parse(file: &[u8]) -> Result<Bundle, ApiError> {
    Bundle::read(file, Bounds::UPLOAD).map_err(|error| match error {
        BundleError::TooLarge(problem) => {
            ApiError::new(Code::PayloadTooLarge, format!("the bundle is too large: {problem}"))
        }
        _ => invalid(format!("the bundle is refused: {error}")),
    })
}

/// Returns the flags of a run as the service knows them.
pub(super) fn flags(facts: &BundleFacts) -> Result<RunFlags, String> {
    let flags = serde_json::json!(facts.declarations.flags);
    serde_json::from_value(flags).map_err(|error| format!("the flags of the run: {error}"))
}

pub(super) fn invalid(problem: String) -> ApiError {
    ApiError::new(Code::InvalidField, problem)
}
