//! `GET /v1/samples/{id}`: a stored sample with its scores and their provenance.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::deletion::{self, DeletedResponse};
use crate::api::http::{ApiError, Id, Query, Resource, not_found};
use crate::api::state::{App, Shared};
use crate::{
    analysis::{Place, place},
    pack_id::PackId,
    service::Evidence,
    store::{EvidenceRecord, SampleRecord, ScoreRecord, ScoreValue},
};

impl Resource for SampleRecord {
    const NAME: &'static str = "sample";
}

/// A stored sample.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct SampleResponse {
    /// Id of the sample.
    pub(crate) id: Uuid,
    /// Method that the sample belongs to, if any.
    pub(crate) method: Option<String>,
    /// Name of the method's run.
    pub(crate) run: Option<String>,
    /// Id of the run.
    pub(crate) run_id: Option<Uuid>,
    /// Name of the sample in the run.
    pub(crate) name: String,
    /// BLAKE3 hash of all inputs together.
    pub(crate) content: String,
    /// The prompt that the image was generated from.
    pub(crate) prompt: Option<String>,
    /// The generated image; null if the scores were imported.
    pub(crate) image: Option<StoredImage>,
    /// BLAKE3 hashes of the files of the reference images.
    pub(crate) references: Vec<String>,
    /// BLAKE3 hashes of the files of the auxiliary images.
    pub(crate) auxiliary: Vec<String>,
    /// Metadata of the sample.
    pub(crate) metadata: serde_json::Value,
    /// Time at which it was recorded.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created: OffsetDateTime,
    /// Scores of all packs that scored the sample.
    pub(crate) scores: Vec<StoredScore>,
    /// Evidence behind the scores, one entry a pack, if requested. Empty if none was stored or it
    /// has expired (`store.evidence_retention_days`). It never has embeddings, and numbers have six
    /// digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) evidence: Option<Vec<StoredEvidence>>,
}

/// Stored evidence behind the scores of one pack.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct StoredEvidence {
    /// Digest of the pack.
    pub(crate) pack: String,
    #[serde(flatten)]
    pub(crate) evidence: Evidence,
}

/// Stored properties of a generated image.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct StoredImage {
    /// BLAKE3 hash of the file.
    pub(crate) hash: String,
    /// Width in pixels, after orientation.
    pub(crate) width: u32,
    /// Height in pixels, after orientation.
    pub(crate) height: u32,
}

/// A stored score with its provenance.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct StoredScore {
    /// Code of the metric.
    pub(crate) metric: String,
    /// Version of the metric's definition.
    pub(crate) metric_version: u32,
    /// The score; null if there is none.
    pub(crate) value: Option<f64>,
    /// Reason why the score is null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Flags that a reader of the number must know.
    pub(crate) flags: Vec<String>,
    /// The pack that computed the score.
    pub(crate) pack: PackId,
    /// Place of the score among the scores of its pack, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<Place>,
    /// Version of the service that computed it.
    pub(crate) service_version: String,
    /// Time at which it was computed.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created: OffsetDateTime,
}

/// Returns a stored sample with its scores.
#[utoipa::path(
    get, path = "/v1/samples/{id}", operation_id = "read_sample", tag = "scores",
    params(("id" = Uuid, Path, description = "Id of the sample, `sample` in a score \
        response"), SampleQuery),
    responses(
        (status = 200, description = "The sample", body = SampleResponse),
        (status = 404, description = "No such sample"),
    )
)]
pub(super) async fn read(
    State(app): Shared,
    id: Result<Id<SampleRecord>, ApiError>,
    Query(parameters): Query<SampleQuery>,
) -> Result<Json<SampleResponse>, ApiError> {
    respond(&app, id, &parameters).await.map(Json)
}

/// Looks up a sample.
pub(crate) async fn respond(
    app: &App,
    id: Result<Id<SampleRecord>, ApiError>,
    parameters: &SampleQuery,
) -> Result<SampleResponse, ApiError> {
    let missing = || not_found("sample with this id");
    let id = id.map_err(|_| missing())?.0;
    let record = app.store.sample(id).await?.ok_or_else(missing)?;
    let mut response = SampleResponse::from(record);
    if parameters.percentiles.unwrap_or_default() {
        add_places(app, &mut response.scores).await?;
    }
    if parameters.evidence.unwrap_or_default() {
        response.evidence = Some(evidence(app, id).await?);
    }
    Ok(response)
}

/// Reads the stored evidence of a sample. Several rows of one pack are those of further metrics.
async fn evidence(app: &App, sample: Uuid) -> Result<Vec<StoredEvidence>, ApiError> {
    let mut all: Vec<StoredEvidence> = Vec::new();
    for EvidenceRecord { pack, evidence } in app.store.evidence(sample).await? {
        let evidence = match Evidence::from_stored(&evidence) {
            Ok(evidence) => evidence,
            Err(error) => {
                // The scores are readable without it.
                tracing::warn!(%error, %sample, "failed to read stored evidence");
                continue;
            }
        };
        match all.iter_mut().find(|of| of.pack == pack) {
            Some(of) => of.evidence.merge(evidence),
            None => all.push(StoredEvidence { pack, evidence }),
        }
    }
    Ok(all)
}

/// Deletes a sample with its scores, and the faces of its images unless other data needs them.
///
/// Pending and failed samples can be deleted too. The leaderboard is recomputed from the remaining
/// samples. Cached features of the sample's images are evicted.
#[utoipa::path(
    delete, path = "/v1/samples/{id}", operation_id = "delete_sample", tag = "privacy",
    params(("id" = Uuid, Path, description = "Id of the sample, `sample` in a score response")),
    responses(
        (status = 200, description = "Deleted", body = DeletedResponse),
        (status = 404, description = "No such sample"),
    )
)]
pub(super) async fn delete(
    State(app): Shared,
    id: Id<SampleRecord>,
) -> Result<Json<DeletedResponse>, ApiError> {
    let store = app.store.clone();
    deletion::delete(
        app,
        "sample with this id",
        None,
        async move { store.delete_sample(id.0).await },
    )
    .await
}

/// Adds to each score its place among those of all summarised runs with the same pack and version.
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

/// Options of reading a sample.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SampleQuery {
    /// If true, adds to each score its place among the scores of all summarised runs with the same
    /// pack and version of the metric. Default: false.
    pub(crate) percentiles: Option<bool>,
    /// If true, adds the stored evidence behind the scores. Default: false.
    pub(crate) evidence: Option<bool>,
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
            evidence: None,
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
