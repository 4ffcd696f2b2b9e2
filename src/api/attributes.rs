//! `GET /v1/runs/{id}/attributes`: attribute preservation of a whole run.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    ApiError, Code, Problem, Query, Shared,
    datasets::{PageParameters, attributes_error, page},
    privacy,
};
use crate::{
    metrics::{AttributePrediction, AttributeSummary, share_right},
    pack_id::PackId,
    scoring::{Metadata, RunFaces},
};

/// Attribute preservation of a run.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct AttributesAnswer {
    /// The loaded pack, whose faces are judged.
    pack: PackId,
    /// Mean area under the ROC curve over the attributes that have one; 0.5 is chance. Null where none has.
    auc: Option<f64>,
    /// Samples that are judged.
    judged: usize,
    /// Of these, samples whose reference photo has no face: nothing is learnt from them.
    faceless_references: usize,
    /// Samples without a reference photo, or without a picture of their own because their scores were imported: not judged.
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

/// Judges the facial attributes in a run's pictures by what its own reference photos teach, as the reference toolkit does.
///
/// A reference photo counts once for each of its samples. Only faces that are kept are judged: nothing is detected again.
#[utoipa::path(
    get, path = "/v1/runs/{id}/attributes", tag = "scores",
    params(("id" = Uuid, Path, description = "The `run_id` of a score's answer"), PageParameters),
    responses(
        (status = 200, description = "The run's attributes", body = AttributesAnswer),
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
) -> Result<Json<AttributesAnswer>, ApiError> {
    let limit = page(parameters.limit)? as usize;
    let what = "run of this id";
    let id = privacy::id(id, what)?;
    let missing = || ApiError::new(Code::NotFound, format!("there is no {what}"));
    let samples = app.store.run_samples(id).await?.ok_or_else(missing)?;
    let _permit = app.admission.enter_without_body()?;
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
    let work = async { app.scoring.run_attributes(rows).await.map_err(attributes_error) };
    let (run, known) = app.before_deadline(work).await?;
    let judged = run.predictions.len();
    let unknown_faces = known.len() - judged;
    let named = named.into_iter().zip(known).filter(|(_, known)| *known).map(|(named, _)| named);
    let samples = named.zip(run.predictions).skip(parameters.offset.unwrap_or(0)).take(limit);
    Ok(Json(AttributesAnswer {
        pack: app.scoring.pack().id(),
        auc: run.auc,
        judged,
        faceless_references: run.faceless_references,
        without_reference,
        unknown_faces,
        attributes: run.attributes,
        samples: samples
            .map(|((id, name), predictions)| SampleEntry {
                id,
                name,
                value: share_right(&predictions),
                predictions,
            })
            .collect(),
    }))
}
