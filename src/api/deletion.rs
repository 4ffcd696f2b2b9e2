//! Deletion of data: see `docs/PRIVACY.md`.

use std::sync::Arc;

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::http::{ApiError, not_found};
use crate::api::state::App;
use crate::{
    content::ContentHash,
    service,
    store::{Deleted, StoreError},
};

/// Counts of deleted data.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct DeletedResponse {
    /// Rows of the database.
    #[serde(flatten)]
    deleted: Deleted,
    /// Number of features that were evicted from the feature cache.
    cached: u64,
}

/// Runs a deletion and then evicts cached data, to the end even if the client disconnects. Features
/// of an image are also evicted if the store does not know it: the image of a failed request is in
/// memory only.
pub(super) async fn delete(
    app: Arc<App>,
    what: &'static str,
    image: Option<ContentHash>,
    deletion: impl Future<Output = Result<Option<Deleted>, StoreError>> + Send + 'static,
) -> Result<Json<DeletedResponse>, ApiError> {
    let deleting = tokio::spawn(async move {
        let deleted = deletion.await?;
        let known = deleted.is_some();
        if !known && image.is_none() {
            return Err(deleted_already(what));
        }
        let unknown = || Deleted { images: image.into_iter().collect(), ..Deleted::default() };
        let response = forget(&app, deleted.unwrap_or_else(unknown)).await;
        if known || response.cached > 0 { Ok(response) } else { Err(deleted_already(what)) }
    });
    deleting.await.map_err(|panic| ApiError::internal(&panic))?
}

/// Evicts everything that is derived from deleted data.
pub(super) async fn forget(app: &App, mut deleted: Deleted) -> Json<DeletedResponse> {
    app.runs.spool().release(deleted.images.iter().copied());
    let images = std::mem::take(&mut deleted.images);
    let cached = service::forget(&app.store, &app.scoring, images).await;
    app.runs.scrub().await;
    let Deleted { samples, scores, photos, prompts, faces, .. } = deleted;
    tracing::info!(samples, scores, photos, prompts, faces, cached, "deleted on request");
    Json(DeletedResponse { deleted, cached })
}

/// Creates the error for something that is not there to be deleted.
pub(super) fn deleted_already(what: &str) -> ApiError {
    not_found(&format!("{what}: it may have been deleted already"))
}
