//! `GET /v1/runs/{id}/toolkit`: a run's scores as the files of the reference toolkit.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::header,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    ApiError, App, Code, Problem, Query, Shared, report,
    runs::{find, missing},
};
use crate::{
    pack_id::PackId,
    toolkit::{self, Predictions, Scores},
};

/// Whose scores.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Parameters {
    /// Digest of the pack, or the name of an import's source. Default: the run's pack, or the only one that it has
    /// scores of.
    pack: Option<String>,
}

/// The files that a run's scores fill.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FilesResponse {
    /// Their names, as the toolkit gives them.
    #[schema(example = json!(["identity_preservation.csv"]))]
    files: Vec<String>,
}

/// Lists the reference toolkit's files that a run's scores fill.
#[utoipa::path(
    get, path = "/v1/runs/{id}/toolkit", operation_id = "list_toolkit_files", tag = "runs",
    params(("id" = uuid::Uuid, Path, description = "The run's `run_id`"), Parameters),
    responses(
        (status = 200, description = "The files", body = FilesResponse),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Scores of several packs, none of which is named", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(app): Shared,
    id: Result<Path<String>, PathRejection>,
    Query(parameters): Query<Parameters>,
) -> Result<Json<FilesResponse>, ApiError> {
    let Some(found) = Found::read(&app, id, parameters.pack.as_deref()).await? else {
        return Ok(Json(FilesResponse { files: Vec::new() }));
    };
    let files = toolkit::files(&found.scores, &found.predictions);
    Ok(Json(FilesResponse { files: files.iter().map(|file| file.file_name(&found.clip)).collect() }))
}

/// A run's scores as one of the reference toolkit's files, which its analysis reads.
#[utoipa::path(
    get, path = "/v1/runs/{id}/toolkit/{file}", operation_id = "read_toolkit_file", tag = "runs",
    params(
        ("id" = uuid::Uuid, Path, description = "The run's `run_id`"),
        ("file" = String, Path, description = "A name of GET /v1/runs/{id}/toolkit"),
        Parameters,
    ),
    responses(
        (status = 200, description = "The file", body = String, content_type = "text/csv"),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such run, or no scores for this file", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Scores of several packs, none of which is named", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn read(
    State(app): Shared,
    path: Result<Path<(String, String)>, PathRejection>,
    Query(parameters): Query<Parameters>,
) -> Result<Response, ApiError> {
    let Ok(Path((id, name))) = path else { return Err(missing()) };
    let found = Found::read(&app, Ok(Path(id)), parameters.pack.as_deref()).await?;
    let file = found.as_ref().and_then(|found| {
        let files = toolkit::files(&found.scores, &found.predictions);
        files.into_iter().find(|file| file.file_name(&found.clip) == name)
    });
    let (Some(found), Some(file)) = (found, file) else {
        let problem =
            "the run has no scores for a file of this name: GET /v1/runs/{id}/toolkit lists those it has";
        return Err(ApiError::new(Code::NotFound, problem));
    };
    let table = toolkit::fill(file, found.names, found.scores, found.predictions);
    Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], table.write()).into_response())
}

/// What a run's files are made of.
struct Found {
    names: Vec<String>,
    scores: Scores,
    predictions: Predictions,
    /// What the file of CLIP's scores is called after.
    clip: String,
}

impl Found {
    /// Reads a run's columns; none where it has no scores.
    async fn read(
        app: &App,
        id: Result<Path<String>, PathRejection>,
        pack: Option<&str>,
    ) -> Result<Option<Self>, ApiError> {
        let run = find(app, id).await?;
        let Some(pack) = report::pack(app, &run, pack).await? else { return Ok(None) };
        let data = app.store.run_data(run.id, Some(&pack.digest)).await?.ok_or_else(missing)?;
        let predictions = app.store.outcomes(run.id, &pack.digest, &data.names).await?;
        let scores = data.metrics.into_iter().map(|(code, column)| (code, column.values)).collect();
        Ok(Some(Self { names: data.names, scores, predictions, clip: clip(app, &pack) }))
    }
}

/// The checkpoint of the CLIP where the scores are the loaded pack's, whoever computed them elsewhere.
fn clip(app: &App, pack: &PackId) -> String {
    let loaded = app.scoring.pack();
    let graph = loaded.graph("clip.image").filter(|_| loaded.digest.to_string() == pack.digest);
    graph.map_or_else(|| pack.name.clone(), |graph| graph.source.checkpoint.clone())
}
