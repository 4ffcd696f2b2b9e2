//! `GET /v1/runs/{id}/attributes`: attribute preservation of a whole run.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::http::{ApiError, Id, PageQuery, Query, page};
use crate::api::runs::judged::{JudgedRun, JudgedSample};
use crate::api::runs::{find, unknown_run};
use crate::api::state::{App, Shared};
use crate::{
    metrics::{AttributePrediction, AttributeSummary, share_right},
    pack_id::PackId,
    scoring::{Metadata, RunFaces},
    store::{ImagesOf, RunRecord},
};

/// Attribute preservation of a run.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct AttributesResponse {
    /// The loaded pack; only faces found with it are judged.
    pack: PackId,
    /// Mean area under the ROC curve over the attributes that have one; 0.5 is chance. Null if none
    /// has one.
    auc: Option<f64>,
    /// Number of judged samples.
    judged: usize,
    /// Number of judged samples whose reference image has no face: nothing is learnt from them.
    faceless_references: usize,
    /// Number of samples that are not judged because they have no reference image, or no generated
    /// image because their scores were imported.
    without_reference: usize,
    /// Number of samples that are not judged because their faces are not stored: they expired, were
    /// deleted, or were found with another pack. Score these samples again.
    unknown_faces: usize,
    /// One entry for each attribute.
    attributes: Vec<AttributeSummary>,
    /// One page of the judged samples, by name.
    samples: Vec<SampleEntry>,
}

/// The predictions for one sample.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct SampleEntry {
    /// Id of the sample.
    id: Uuid,
    /// Name of the sample in its run.
    name: String,
    /// Share of the attributes that are predicted correctly; null if none counts.
    value: Option<f64>,
    /// One prediction for each attribute.
    predictions: Vec<AttributePrediction>,
}

/// Judges facial attributes in a run's images with classifiers fitted on its reference images.
///
/// This is the method of the reference toolkit. A reference image counts once for each of its
/// samples. Only stored faces are judged: no image is searched for faces again.
#[utoipa::path(
    get, path = "/v1/runs/{id}/attributes", operation_id = "read_run_attributes", tag = "scores",
    params(("id" = Uuid, Path, description = "Id of the run (`run_id`)"), PageQuery),
    responses(
        (status = 200, description = "The run's attributes", body = AttributesResponse),
        (status = 429, description = "Limit reached; retry after `Retry-After` seconds"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    Query(parameters): Query<PageQuery>,
    id: Id<RunRecord>,
) -> Result<Json<AttributesResponse>, ApiError> {
    let limit = page(parameters.limit)? as usize;
    let run = find(&app, id).await?;
    let work = Box::pin(judge(&app, &run));
    let run = app.of_faces(&app.caches.judged, ImagesOf::Run(run.id), run.revision, work).await?;
    Ok(Json(AttributesResponse {
        pack: app.scoring.pack().id(),
        auc: run.auc,
        judged: run.samples.len(),
        faceless_references: run.faceless_references,
        without_reference: run.without_reference,
        unknown_faces: run.unknown_faces,
        attributes: run.attributes.clone(),
        samples: run
            .samples
            .iter()
            .skip(parameters.offset.unwrap_or(0))
            .take(limit)
            .map(SampleEntry::from)
            .collect(),
    }))
}

impl From<&JudgedSample> for SampleEntry {
    fn from(sample: &JudgedSample) -> Self {
        let predictions = sample.predictions.iter().map(|said| AttributePrediction {
            attribute: said.attribute.to_owned(),
            target: said.target,
            prediction: said.prediction,
            decision: said.decision,
            left_out: said.left_out,
        });
        let predictions: Vec<_> = predictions.collect();
        Self {
            id: sample.id,
            name: sample.name.clone().into(),
            value: share_right(&predictions),
            predictions,
        }
    }
}

async fn judge(app: &App, run: &RunRecord) -> Result<JudgedRun, ApiError> {
    let samples = app.store.run_samples(run.id).await?.ok_or_else(unknown_run)?;
    let all = samples.len();
    let mut rows = Vec::with_capacity(all);
    let mut named = Vec::with_capacity(all);
    for sample in samples {
        let (Some(image), Some(reference)) = (sample.image, sample.reference) else { continue };
        let metadata: Metadata =
            serde_json::from_value(sample.metadata).map_err(|error| ApiError::internal(&error))?;
        let Metadata { attributes, prompt_kind, .. } = metadata;
        rows.push(RunFaces { image, reference, attributes, prompt_kind });
        named.push((sample.id, sample.name));
    }
    let without_reference = all - rows.len();
    let (run, known) = app.scoring.run_attributes(rows).await?;
    let unknown_faces = known.len() - run.predictions.len();
    let named = named.into_iter().zip(known).filter_map(|(named, known)| known.then_some(named));
    let samples =
        named.zip(run.predictions).map(|((id, name), said)| JudgedSample::new(id, name, said));
    Ok(JudgedRun {
        auc: run.auc,
        faceless_references: run.faceless_references,
        without_reference,
        unknown_faces,
        attributes: run.attributes,
        samples: samples.collect(),
    })
}
