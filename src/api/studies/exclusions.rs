//! `/v1/studies/{id}/exclusions/{annotator}`: annotators whose answers no analysis counts.

use axum::{
    extract::{Path, Request, State},
    http::StatusCode,
};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::api::http::form::clean_label;
use crate::api::http::{ApiError, Id, InPath, body, not_found};
use crate::api::state::{App, Shared};
use crate::api::studies::{MOST_BYTES, find};
use crate::{clock, label, store::StudyRecord};

/// Why an annotator is left out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewExclusion {
    /// The reason, which results and exports show.
    #[schema(max_length = 256, example = "said afterwards that the images did not load")]
    pub(crate) reason: String,
}

/// Leaves an annotator of the study out: the answers stay, and no analysis counts them.
#[utoipa::path(
    put, path = "/v1/studies/{id}/exclusions/{annotator}", operation_id = "exclude_annotator",
    tag = "studies",
    params(
        ("id" = Uuid, Path, description = "Id of the study"),
        ("annotator" = String, Path, description = "Name of the annotator"),
    ),
    request_body(content = NewExclusion),
    responses(
        (status = 204, description = "Left out"),
        (status = 400, description = "Malformed body"),
        (status = 404, description = "No such study, or nobody of this name has answered in it"),
        (status = 422, description = "The name or the reason is invalid"),
    )
)]
pub(crate) async fn add(
    State(app): Shared,
    path: InPath<(String, String)>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let NewExclusion { reason } = body::json(request, MOST_BYTES).await?;
    let Path((id, annotator)) = path.unwrap_or_else(|_| Path(Default::default()));
    exclude(&app, Id::parse(&id)?, &annotator, &reason).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Leaves an annotator out.
pub(crate) async fn exclude(
    app: &App,
    id: Id<StudyRecord>,
    annotator: &str,
    reason: &str,
) -> Result<(), ApiError> {
    let study = find(app, id).await?;
    let (annotator, reason) =
        (clean_label("annotator", annotator)?, clean_label("reason", reason)?);
    // A misspelt name would leave nobody out.
    if app.store.own_study_answers(study.id, &annotator).await?.is_empty() {
        return Err(not_found(
            "annotator of this name who has answered in this study: GET /v1/studies/{id} lists \
             its annotators",
        ));
    }
    let now = clock::now();
    Ok(app.store.exclude_annotator(study.id, &annotator, &reason, now).await?)
}

/// Counts the answers of an annotator again whom the operator left out.
#[utoipa::path(
    delete, path = "/v1/studies/{id}/exclusions/{annotator}", operation_id = "include_annotator",
    tag = "studies",
    params(
        ("id" = Uuid, Path, description = "Id of the study"),
        ("annotator" = String, Path, description = "Name of the annotator"),
    ),
    responses(
        (status = 204, description = "Counted again"),
        (status = 404, description = "No such study, or the operator left nobody of this name out"),
    )
)]
pub(crate) async fn delete(
    State(app): Shared,
    path: InPath<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let Path((id, annotator)) = path.unwrap_or_else(|_| Path(Default::default()));
    if include(&app, Id::parse(&id)?, &annotator).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(not_found("annotator of this name whom the operator left out of this study"))
}

/// Counts an annotator again; `false` if the operator left nobody of this name out.
pub(crate) async fn include(
    app: &App,
    id: Id<StudyRecord>,
    annotator: &str,
) -> Result<bool, ApiError> {
    let study = find(app, id).await?;
    // No such name is stored.
    let Ok(annotator) = label::clean(annotator) else { return Ok(false) };
    Ok(app.store.include_annotator(study.id, &annotator).await?)
}
