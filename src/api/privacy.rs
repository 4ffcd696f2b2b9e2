//! Deletion of data and retention of faces: see `docs/PRIVACY.md`.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{ApiError, App, Code, Problem, Shared};
use crate::{
    content::ContentHash,
    label,
    scoring::{FaceMemory, FaceMemoryError},
    store::{Deleted, FacesRecord, Store, StoreError},
};

/// Adapts the store to the face finder.
pub(super) struct StoredFaces(pub(super) Store);

impl FaceMemory for StoredFaces {
    fn load<'a>(
        &'a self,
        images: &'a [ContentHash],
        graphs: ContentHash,
    ) -> BoxFuture<'a, Result<HashMap<ContentHash, Vec<u8>>, FaceMemoryError>> {
        Box::pin(async move {
            self.0.faces(images, graphs).await.map_err(|error| Arc::new(error) as FaceMemoryError)
        })
    }

    fn save(
        &self,
        image: ContentHash,
        graphs: ContentHash,
        faces: Vec<u8>,
        began: OffsetDateTime,
    ) -> BoxFuture<'_, Result<(), FaceMemoryError>> {
        Box::pin(async move {
            let record = FacesRecord { image, graphs, faces, created: OffsetDateTime::now_utc() };
            self.0.save_found_faces(&record, began).await.map_err(|error| Arc::new(error) as FaceMemoryError)
        })
    }
}

/// Counts of deleted data.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct DeletedResponse {
    /// Number of deleted samples.
    samples: u64,
    /// Number of deleted scores.
    scores: u64,
    /// Number of deleted photos of datasets.
    photos: u64,
    /// Number of deleted prompts of datasets.
    prompts: u64,
    /// Number of images whose faces were deleted, once for each set of face graphs.
    faces: u64,
    /// Number of features that were evicted from the feature cache.
    cached: u64,
}

/// Runs a deletion and then evicts cached data, to the end even if the client disconnects. Features
/// of an image are also evicted if the store does not know it: the image of a failed request is in
/// memory only.
async fn delete(
    app: Arc<App>,
    what: &'static str,
    image: Option<ContentHash>,
    deletion: impl Future<Output = Result<Option<Deleted>, StoreError>> + Send + 'static,
) -> Result<Json<DeletedResponse>, ApiError> {
    let deleting = tokio::spawn(async move {
        let deleted = deletion.await?;
        let known = deleted.is_some();
        if !known && image.is_none() {
            return Err(missing(what));
        }
        let unknown = || Deleted { images: image.into_iter().collect(), ..Deleted::default() };
        let response = app.forget(deleted.unwrap_or_else(unknown)).await;
        if known || response.cached > 0 { Ok(response) } else { Err(missing(what)) }
    });
    deleting.await.map_err(|panic| ApiError::internal(&panic))?
}

impl App {
    /// Evicts everything that is derived from deleted data.
    async fn forget(&self, deleted: Deleted) -> Json<DeletedResponse> {
        self.runs.spool().release(deleted.images.iter().copied());
        let cached = self.scoring.forget(deleted.images).await;
        self.reports.clear();
        self.boards.clear();
        self.judged.clear();
        self.datasets.clear();
        self.runs.scrub().await;
        let Deleted { samples, scores, photos, prompts, faces, .. } = deleted;
        tracing::info!(samples, scores, photos, prompts, faces, cached, "deleted on request");
        Json(DeletedResponse { samples, scores, photos, prompts, faces, cached })
    }
}

fn missing(what: &str) -> ApiError {
    ApiError::new(Code::NotFound, format!("there is no {what}: it may have been deleted already"))
}

/// Parses an id; malformed ids are reported as not found.
pub(super) fn id(path: Result<Path<String>, PathRejection>, what: &str) -> Result<Uuid, ApiError> {
    path.ok().and_then(|Path(id)| id.parse().ok()).ok_or_else(|| missing(what))
}

/// Deletes a sample with its scores, and the faces of its images unless other data needs them.
///
/// Pending and failed samples can be deleted too. The leaderboard is recomputed from the remaining
/// samples. Cached features of the sample's images are evicted.
#[utoipa::path(
    delete, path = "/v1/samples/{id}", tag = "privacy",
    params(("id" = Uuid, Path, description = "Id of the sample, `sample` in a score response")),
    responses(
        (status = 200, description = "Deleted", body = DeletedResponse),
        (status = 404, description = "No such sample", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "Internal error; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete_sample(
    State(app): Shared,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<DeletedResponse>, ApiError> {
    let id = id(path, "sample with this id")?;
    let store = app.store.clone();
    delete(app, "sample with this id", None, async move { store.delete_sample(id).await }).await
}

/// Deletes a run with its samples, scores and means, and the files spooled for it.
///
/// Pending samples are deleted too. The faces of its images are deleted unless other data needs
/// them.
#[utoipa::path(
    delete, path = "/v1/runs/{id}", tag = "privacy",
    params(("id" = Uuid, Path, description = "Id of the run (`run_id`)")),
    responses(
        (status = 200, description = "Deleted", body = DeletedResponse),
        (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "Internal error; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete_run(
    State(app): Shared,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<DeletedResponse>, ApiError> {
    let id = id(path, "run with this id")?;
    let store = app.store.clone();
    delete(app, "run with this id", None, async move { store.delete_run(id).await }).await
}

/// Deletes a dataset with its enrolled photos, and their faces unless other data needs them.
///
/// Scores are not deleted.
#[utoipa::path(
    delete, path = "/v1/datasets/{dataset}", tag = "privacy",
    params(("dataset" = String, Path, description = "Name of the dataset")),
    responses(
        (status = 200, description = "Deleted", body = DeletedResponse),
        (status = 404, description = "No such dataset", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "Internal error; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete_dataset(
    State(app): Shared,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<DeletedResponse>, ApiError> {
    let what = "dataset with this name";
    let Path(name) = path.map_err(|_| missing(what))?;
    let store = app.store.clone();
    let every_form = async move {
        for name in label::forms(&name) {
            if let Some(deleted) = store.delete_dataset(&name).await? {
                return Ok(Some(deleted));
            }
        }
        Ok(None)
    };
    delete(app, what, None, every_form).await
}

/// Deletes everything derived from one image: its faces, its enrolments and its cached features.
///
/// Samples and scores of the image remain: they have its hash and no personal data derived from it.
/// Pending samples that need the image fail, and its spooled file is deleted.
#[utoipa::path(
    delete, path = "/v1/images/{hash}", tag = "privacy",
    params(("hash" = String, Path, description = "BLAKE3 hash of the image file, 64 hexadecimal digits, as shown by samples and datasets")),
    responses(
        (status = 200, description = "Deleted", body = DeletedResponse),
        (status = 404, description = "No such image", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "Internal error; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete_image(
    State(app): Shared,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<DeletedResponse>, ApiError> {
    let what = "image with this hash";
    let hash = path.ok().and_then(|Path(hash)| ContentHash::from_hex(&hash)).ok_or_else(|| missing(what))?;
    let store = app.store.clone();
    delete(app, what, Some(hash), async move { store.delete_image(hash).await }).await
}
