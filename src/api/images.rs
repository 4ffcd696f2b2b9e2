//! `/v1/images/{hash}`: deletion of everything derived from an image.

use axum::{
    Json,
    extract::{Path, State},
    response::Redirect,
};

use crate::api::deletion::{self, DeletedResponse};
use crate::api::http::{ApiError, InPath};
use crate::api::state::Shared;
use crate::content::ContentHash;

/// Deletes everything derived from one image: its faces, its thumbnail, the evidence of samples
/// that have it, its enrolments and its cached features.
///
/// Samples and scores of the image remain: they have its hash and no personal data derived from it.
/// Pending samples that need the image fail, and its spooled file is deleted.
#[utoipa::path(
    delete, path = "/v1/images/{hash}", operation_id = "delete_image", tag = "privacy",
    params(("hash" = String, Path, description = "BLAKE3 hash of the image file, 64 hexadecimal \
        digits, as shown by samples and datasets")),
    responses(
        (status = 200, description = "Deleted", body = DeletedResponse),
        (status = 404, description = "No such image"),
    )
)]
pub(super) async fn delete(
    State(app): Shared,
    hash: InPath<String>,
) -> Result<Json<DeletedResponse>, ApiError> {
    let what = "image with this hash";
    let hash = hash
        .ok()
        .and_then(|Path(hash)| ContentHash::from_hex(&hash))
        .ok_or_else(|| deletion::deleted_already(what))?;
    let store = app.store.clone();
    deletion::delete(app, what, Some(hash), async move { store.delete_image(hash).await }).await
}

/// Redirects the route's old name from version 0.1; to be removed in 0.3.
pub(super) async fn redirect(Path(hash): Path<String>) -> Redirect {
    tracing::warn!(
        "deprecated route /v1/pictures was used; use /v1/images, the old route is removed in 0.3"
    );
    // Other characters are never part of a hash and must not reach the header.
    let hash: String = hash.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    Redirect::permanent(&format!("/v1/images/{hash}"))
}
