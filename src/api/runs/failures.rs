//! `GET /v1/runs/{id}/failures`: why samples of a run failed.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::http::{ApiError, Id};
use crate::api::runs::find;
use crate::api::state::{App, Shared};
use crate::store::RunRecord;

/// The failed samples of a run by reason.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct FailuresResponse {
    /// Id of the run.
    pub(crate) run_id: Uuid,
    /// Number of failed samples.
    pub(crate) failed: u64,
    /// The reasons, most frequent first.
    pub(crate) reasons: Vec<FailureCount>,
}

/// A reason and the number of samples that failed for it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct FailureCount {
    /// Machine-readable code: one of the problem documents, `image_deleted` or `file_lost`.
    #[schema(example = "image_corrupt")]
    pub(crate) code: String,
    /// Number of samples.
    pub(crate) samples: u64,
}

/// Counts the failed samples of a run by reason.
#[utoipa::path(
    get, path = "/v1/runs/{id}/failures", operation_id = "count_failures", tag = "runs",
    params(("id" = Uuid, Path, description = "Id of the run (`run_id`)")),
    responses((status = 200, description = "The counts", body = FailuresResponse))
)]
pub(crate) async fn read(
    State(app): Shared,
    id: Id<RunRecord>,
) -> Result<Json<FailuresResponse>, ApiError> {
    let run = find(&app, id).await?;
    respond(&app, run.id).await.map(Json)
}

/// Counts the failed samples of a run by reason.
pub(crate) async fn respond(app: &App, run: Uuid) -> Result<FailuresResponse, ApiError> {
    let counts = app.store.failure_counts(run).await?;
    let failed = counts.iter().map(|(_, samples)| samples).sum();
    let reasons = counts.into_iter().map(|(code, samples)| FailureCount { code, samples });
    Ok(FailuresResponse { run_id: run, failed, reasons: reasons.collect() })
}
