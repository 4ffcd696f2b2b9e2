//! `GET /v1/runs/{id}/attributes`: attribute preservation of a whole run.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    ApiError, App, Problem, Query, Shared,
    datasets::attributes_error,
    page::{PageParameters, page},
    response_cache::{FacesKey, ResponseCache},
    runs::{find, missing},
};
use crate::{
    metrics::{ATTRIBUTES, AttributePrediction, AttributeSummary, LeftOut, share_right},
    pack_id::PackId,
    scoring::{Metadata, RunFaces},
    store::{ImagesOf, RunRecord},
};

/// Attribute preservation of a run.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct AttributesResponse {
    /// The loaded pack, whose faces are judged.
    pack: PackId,
    /// Mean area under the ROC curve over the attributes that have one; 0.5 is chance. Null where none has.
    auc: Option<f64>,
    /// Samples that are judged.
    judged: usize,
    /// Of these, samples whose reference photo has no face: nothing is learnt from them.
    faceless_references: usize,
    /// Samples without a reference photo, or without an image of their own because their scores were imported: not judged.
    without_reference: usize,
    /// Samples whose faces are not kept, because they expired, were deleted, or were found with another pack: not
    /// judged. Score them again.
    unknown_faces: usize,
    /// Each attribute.
    attributes: Vec<AttributeSummary>,
    /// One page of the judged samples, by name.
    samples: Vec<SampleEntry>,
}

/// What is predicted of a sample.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct SampleEntry {
    /// Its id.
    id: Uuid,
    /// Its name in the run.
    name: String,
    /// Share of the attributes that are predicted rightly; null where none counts.
    value: Option<f64>,
    /// Each attribute.
    predictions: Vec<AttributePrediction>,
}

/// Judges the facial attributes in a run's images by what its own reference photos teach, as the reference toolkit does.
///
/// A reference photo counts once for each of its samples. Only faces that are kept are judged: nothing is detected again.
#[utoipa::path(
    get, path = "/v1/runs/{id}/attributes", operation_id = "read_run_attributes", tag = "scores",
    params(("id" = Uuid, Path, description = "The `run_id` of a score's answer"), PageParameters),
    responses(
        (status = 200, description = "The run's attributes", body = AttributesResponse),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "At the limit: retry after `Retry-After` seconds", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "Not ready before the deadline", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn read(
    State(app): Shared,
    id: Result<Path<String>, PathRejection>,
    Query(parameters): Query<PageParameters>,
) -> Result<Json<AttributesResponse>, ApiError> {
    let limit = page(parameters.limit)? as usize;
    let run = find(&app, id).await?;
    let work = Box::pin(judge(&app, &run));
    let run = app.judged.of_faces(&app, ImagesOf::Run(run.id), run.revision, work).await?;
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
            .map(JudgedSample::entry)
            .collect(),
    }))
}

/// A run that was judged.
pub(super) struct JudgedRun {
    auc: Option<f64>,
    faceless_references: usize,
    without_reference: usize,
    unknown_faces: usize,
    attributes: Vec<AttributeSummary>,
    samples: Vec<JudgedSample>,
}

/// A sample of it, in a third of the memory of its entry.
struct JudgedSample {
    id: Uuid,
    name: Box<str>,
    predictions: Box<[Said]>,
}

struct Said {
    attribute: &'static str,
    target: Option<bool>,
    prediction: Option<bool>,
    decision: Option<f64>,
    left_out: Option<LeftOut>,
}

impl JudgedSample {
    fn new(id: Uuid, name: String, predictions: Vec<AttributePrediction>) -> Self {
        let said = predictions.into_iter().filter_map(|each| {
            let attribute = ATTRIBUTES.into_iter().find(|name| *name == each.attribute)?;
            let AttributePrediction { target, prediction, decision, left_out, .. } = each;
            Some(Said { attribute, target, prediction, decision, left_out })
        });
        Self { id, name: name.into(), predictions: said.collect() }
    }

    fn entry(&self) -> SampleEntry {
        let predictions = self.predictions.iter().map(|said| AttributePrediction {
            attribute: said.attribute.to_owned(),
            target: said.target,
            prediction: said.prediction,
            decision: said.decision,
            left_out: said.left_out,
        });
        let predictions: Vec<_> = predictions.collect();
        SampleEntry {
            id: self.id,
            name: self.name.clone().into(),
            value: share_right(&predictions),
            predictions,
        }
    }
}

/// Runs that were judged.
pub(super) type JudgedRuns = ResponseCache<FacesKey, JudgedRun>;

/// Some 200,000 samples.
pub(super) const KEPT_BYTES: u64 = 128 << 20;

pub(super) fn judged_runs() -> JudgedRuns {
    ResponseCache::new(KEPT_BYTES, |run| {
        let of_sample = |sample: &JudgedSample| {
            size_of::<JudgedSample>() + sample.name.len() + size_of_val(&*sample.predictions) + 32
        };
        run.samples.iter().map(of_sample).sum()
    })
}

async fn judge(app: &App, run: &RunRecord) -> Result<JudgedRun, ApiError> {
    let samples = app.store.run_samples(run.id).await?.ok_or_else(missing)?;
    let all = samples.len();
    let mut rows = Vec::with_capacity(all);
    let mut named = Vec::with_capacity(all);
    for sample in samples {
        let (Some(image), Some(reference)) = (sample.image, sample.reference) else { continue };
        let metadata: Metadata =
            serde_json::from_value(sample.metadata).map_err(|error| ApiError::internal(&error))?;
        rows.push(RunFaces { image, reference, attributes: metadata.attributes });
        named.push((sample.id, sample.name));
    }
    let without_reference = all - rows.len();
    let (run, known) = app.scoring.run_attributes(rows).await.map_err(attributes_error)?;
    let unknown_faces = known.len() - run.predictions.len();
    let named = named.into_iter().zip(known).filter_map(|(named, known)| known.then_some(named));
    let samples = named.zip(run.predictions).map(|((id, name), said)| JudgedSample::new(id, name, said));
    Ok(JudgedRun {
        auc: run.auc,
        faceless_references: run.faceless_references,
        without_reference,
        unknown_faces,
        attributes: run.attributes,
        samples: samples.collect(),
    })
}
