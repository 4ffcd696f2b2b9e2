//! Deletion, and how long faces are kept: see `docs/PRIVACY.md`.

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

/// The store as the face finder sees it.
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

/// What was deleted.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct DeletedResponse {
    /// Samples.
    samples: u64,
    /// Their scores.
    scores: u64,
    /// Photos enrolled in a dataset.
    photos: u64,
    /// Prompts registered in a dataset.
    prompts: u64,
    /// Images whose faces were stored, once for each set of face graphs.
    faces: u64,
    /// Features in memory, of all models.
    cached: u64,
}

/// Deletes, and empties the memory of what is gone, to the end: whether or not the client waits for it. An image is forgotten
/// also where the store knows nothing of it: one of a request that failed is in memory only.
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
        let answer = app.forget(deleted.unwrap_or_else(unknown)).await;
        if known || answer.cached > 0 { Ok(answer) } else { Err(missing(what)) }
    });
    deleting.await.map_err(|panic| ApiError::internal(&panic))?
}

impl App {
    /// Empties the memory of what is gone from the store.
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

/// What is no id is the id of nothing.
pub(super) fn id(path: Result<Path<String>, PathRejection>, what: &str) -> Result<Uuid, ApiError> {
    path.ok().and_then(|Path(id)| id.parse().ok()).ok_or_else(|| missing(what))
}

/// Deletes a sample with its scores, also one that waits to be scored or failed, and the faces of its images if nothing else stands on them.
///
/// Means on the leaderboard are those of the samples that remain. What is in memory of its images is forgotten.
#[utoipa::path(
    delete, path = "/v1/samples/{id}", tag = "privacy",
    params(("id" = Uuid, Path, description = "The `sample` of a score's answer")),
    responses(
        (status = 200, description = "Deleted", body = DeletedResponse),
        (status = 404, description = "No such sample", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete_sample(
    State(app): Shared,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<DeletedResponse>, ApiError> {
    let id = id(path, "sample of this id")?;
    let store = app.store.clone();
    delete(app, "sample of this id", None, async move { store.delete_sample(id).await }).await
}

/// Deletes a run with its samples, also those that wait, their scores and means, the files that are kept for it, and the faces of its images if nothing else stands on them.
#[utoipa::path(
    delete, path = "/v1/runs/{id}", tag = "privacy",
    params(("id" = Uuid, Path, description = "The `run_id` of a score's answer")),
    responses(
        (status = 200, description = "Deleted", body = DeletedResponse),
        (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete_run(
    State(app): Shared,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<DeletedResponse>, ApiError> {
    let id = id(path, "run of this id")?;
    let store = app.store.clone();
    delete(app, "run of this id", None, async move { store.delete_run(id).await }).await
}

/// Deletes a dataset with its enrolled photos, and their faces if nothing else stands on them. Scores stay.
#[utoipa::path(
    delete, path = "/v1/datasets/{dataset}", tag = "privacy",
    params(("dataset" = String, Path, description = "The dataset's name")),
    responses(
        (status = 200, description = "Deleted", body = DeletedResponse),
        (status = 404, description = "No such dataset", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete_dataset(
    State(app): Shared,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<DeletedResponse>, ApiError> {
    let what = "dataset of this name";
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

/// Deletes everything derived from one image: its faces, its enrolments in datasets, and what is in memory of it.
///
/// Samples and scores that stand on the image stay; they hold its hash and no personal data derived from it. Samples that
/// wait to be scored with it fail, and the file that is kept for them goes.
#[utoipa::path(
    delete, path = "/v1/images/{hash}", tag = "privacy",
    params(("hash" = String, Path, description = "BLAKE3 of the image's file, 64 hexadecimal digits, as samples and datasets show it")),
    responses(
        (status = 200, description = "Deleted", body = DeletedResponse),
        (status = 404, description = "Nothing is known of such an image", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete_image(
    State(app): Shared,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<DeletedResponse>, ApiError> {
    let what = "image of this hash";
    let hash = path.ok().and_then(|Path(hash)| ContentHash::from_hex(&hash)).ok_or_else(|| missing(what))?;
    let store = app.store.clone();
    delete(app, what, Some(hash), async move { store.delete_image(hash).await }).await
}
