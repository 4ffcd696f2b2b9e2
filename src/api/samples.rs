//! `GET /v1/samples/{id}`: a stored sample with its scores and their provenance.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{ApiError, Code, Problem, Shared};
use crate::pack_id::PackId;
use crate::store::{SampleRecord, ScoreRecord, ScoreValue};

/// A stored sample.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct SampleAnswer {
    /// Its id.
    id: Uuid,
    /// The method it counts for, if any.
    method: Option<String>,
    /// The method's run.
    run: Option<String>,
    /// The run's id.
    run_id: Option<Uuid>,
    /// Its name in the run.
    name: String,
    /// BLAKE3 address of all inputs together.
    content: String,
    /// The prompt.
    prompt: Option<String>,
    /// The generated picture; null where the scores were imported.
    image: Option<StoredImage>,
    /// BLAKE3 addresses of the reference photos' files.
    references: Vec<String>,
    /// BLAKE3 addresses of the auxiliary photos' files.
    auxiliary: Vec<String>,
    /// What was said about prompt and subject.
    metadata: serde_json::Value,
    /// When it was recorded.
    #[serde(with = "time::serde::rfc3339")]
    created: OffsetDateTime,
    /// Its scores, of every pack that scored it.
    scores: Vec<StoredScore>,
}

/// What is kept of a generated picture.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct StoredImage {
    /// BLAKE3 address of the file.
    hash: String,
    /// Pixels, after orientation.
    width: u32,
    /// Pixels, after orientation.
    height: u32,
}

/// A stored score with its provenance.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct StoredScore {
    /// Code of the metric.
    metric: String,
    /// Version of its definition.
    metric_version: u32,
    /// The number; null where there is none.
    value: Option<f64>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What to know when reading the number.
    flags: Vec<String>,
    /// The pack it was computed with.
    pack: PackId,
    /// The version of the service that computed it.
    service_version: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    created: OffsetDateTime,
}

/// Reads a stored sample with its scores.
#[utoipa::path(
    get, path = "/v1/samples/{id}", tag = "scores",
    params(("id" = Uuid, Path, description = "The `sample` of a score's answer")),
    responses(
        (status = 200, description = "The sample", body = SampleAnswer),
        (status = 404, description = "No such sample", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn read(
    State(app): Shared,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<SampleAnswer>, ApiError> {
    let missing = || ApiError::new(Code::NotFound, "there is no sample of this id");
    // What is no id is the id of no sample.
    let id = id.ok().and_then(|Path(id)| id.parse().ok()).ok_or_else(missing)?;
    let record = app.store.sample(id).await?.ok_or_else(missing)?;
    Ok(Json(record.into()))
}

impl From<SampleRecord> for SampleAnswer {
    fn from(record: SampleRecord) -> Self {
        let (method, run) = record.run.map(|run| (run.method, run.run)).unzip();
        Self {
            id: record.id,
            method,
            run,
            run_id: record.run_id,
            name: record.name,
            content: record.content,
            prompt: record.prompt,
            image: record.image.map(|image| StoredImage {
                hash: image.hash.to_hex(),
                width: image.width,
                height: image.height,
            }),
            references: record.references,
            auxiliary: record.auxiliary,
            metadata: record.metadata,
            created: record.created,
            scores: record.scores.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<ScoreRecord> for StoredScore {
    fn from(record: ScoreRecord) -> Self {
        let (value, reason) = match record.value {
            ScoreValue::Number(value) => (Some(value), None),
            ScoreValue::Null { reason } => (None, Some(reason)),
        };
        Self {
            metric: record.metric,
            metric_version: record.metric_version,
            value,
            reason,
            flags: record.flags,
            pack: record.pack,
            service_version: record.service_version,
            created: record.created,
        }
    }
}
