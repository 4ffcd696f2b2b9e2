//! `GET /v1/samples/{id}`: a stored sample with its scores and their provenance.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{ApiError, App, Code, Problem, Query, Shared};
use crate::analysis::{Place, place};
use crate::pack_id::PackId;
use crate::store::{SampleRecord, ScoreRecord, ScoreValue};

/// A stored sample.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct SampleResponse {
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
    /// The generated image; null where the scores were imported.
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

/// What is kept of a generated image.
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
    /// Where it stands among the scores of its pack, on request.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<Place>,
    /// The version of the service that computed it.
    service_version: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    created: OffsetDateTime,
}

/// Reads a stored sample with its scores.
#[utoipa::path(
    get, path = "/v1/samples/{id}", operation_id = "read_sample", tag = "scores",
    params(("id" = Uuid, Path, description = "The `sample` of a score's answer"), ReadParameters),
    responses(
        (status = 200, description = "The sample", body = SampleResponse),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such sample", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn read(
    State(app): Shared,
    id: Result<Path<String>, PathRejection>,
    Query(parameters): Query<ReadParameters>,
) -> Result<Json<SampleResponse>, ApiError> {
    let missing = || ApiError::new(Code::NotFound, "there is no sample of this id");
    // What is no id is the id of no sample.
    let id = id.ok().and_then(|Path(id)| id.parse().ok()).ok_or_else(missing)?;
    let record = app.store.sample(id).await?.ok_or_else(missing)?;
    let mut answer = SampleResponse::from(record);
    if parameters.percentiles.unwrap_or_default() {
        add_places(&app, &mut answer.scores).await?;
    }
    Ok(Json(answer))
}

/// Looks up where each score stands among those of all summarised runs with its pack and version.
async fn add_places(app: &App, scores: &mut [StoredScore]) -> Result<(), ApiError> {
    let mut populations = BTreeMap::new();
    for score in scores {
        let digest = &score.pack.digest;
        if !populations.contains_key(digest) {
            populations.insert(digest.clone(), app.store.run_quantiles(digest).await?);
        }
        let of_metric = populations[digest]
            .iter()
            .map(|(_, of)| of)
            .filter(|of| of.metric == score.metric && of.version == score.metric_version);
        score.place = score.value.and_then(|value| place(&score.metric, value, of_metric));
    }
    Ok(())
}

/// What else to tell.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReadParameters {
    /// Adds to each number its place among the scores of all summarised runs with the same pack and version of the metric.
    /// Default: false.
    percentiles: Option<bool>,
}

impl From<SampleRecord> for SampleResponse {
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
            place: None,
        }
    }
}
