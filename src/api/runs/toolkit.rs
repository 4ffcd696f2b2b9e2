//! `GET /v1/runs/{id}/toolkit`: export of a run's scores as files of the reference toolkit.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::header,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::http::{ApiError, Code, Id, InPath, Query};
use crate::api::runs::{find, report, unknown_run};
use crate::api::state::{App, Shared};
use crate::{
    pack_id::PackId,
    store::{RunData, RunRecord},
    toolkit::{self, Predictions, Scores},
};

/// Selects the pack of the scores.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ToolkitQuery {
    /// Digest of the pack, or the name of an import's source. Default: the run's pack, or the only
    /// pack that the run has scores of.
    pack: Option<String>,
}

/// The files for which a run has scores.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FilesResponse {
    /// Names of the files, as in the toolkit.
    #[schema(example = json!(["identity_preservation.csv"]))]
    files: Vec<String>,
}

/// Lists the files of the reference toolkit for which a run has scores.
#[utoipa::path(
    get, path = "/v1/runs/{id}/toolkit", operation_id = "list_toolkit_files", tag = "runs",
    params(("id" = uuid::Uuid, Path, description = "Id of the run (`run_id`)"), ToolkitQuery),
    responses(
        (status = 200, description = "The files", body = FilesResponse),
        (status = 422, description = "The run has scores of several packs, and `pack` is missing"),
    )
)]
pub(crate) async fn list(
    State(app): Shared,
    Query(parameters): Query<ToolkitQuery>,
    id: Id<RunRecord>,
) -> Result<Json<FilesResponse>, ApiError> {
    let Some(found) = Found::read(&app, id, parameters.pack.as_deref()).await? else {
        return Ok(Json(FilesResponse { files: Vec::new() }));
    };
    let files = toolkit::files(&found.scores, &found.predictions);
    Ok(Json(FilesResponse {
        files: files.iter().map(|file| file.file_name(&found.clip)).collect(),
    }))
}

/// Returns a run's scores as one of the reference toolkit's files, for its analysis.
#[utoipa::path(
    get, path = "/v1/runs/{id}/toolkit/{file}", operation_id = "read_toolkit_file", tag = "runs",
    params(
        ("id" = uuid::Uuid, Path, description = "Id of the run (`run_id`)"),
        ("file" = String, Path, description = "Name of the file, as listed by GET \
            /v1/runs/{id}/toolkit"),
        ToolkitQuery,
    ),
    responses(
        (status = 200, description = "The file", body = String, content_type = "text/csv"),
        (status = 404, description = "No such run, or no scores for this file"),
        (status = 422, description = "The run has scores of several packs, and `pack` is missing"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    path: InPath<(String, String)>,
    Query(parameters): Query<ToolkitQuery>,
) -> Result<Response, ApiError> {
    let Ok(Path((id, name))) = path else { return Err(unknown_run()) };
    let found = Found::read(&app, Id::parse(&id)?, parameters.pack.as_deref()).await?;
    let file = found.as_ref().and_then(|found| {
        let files = toolkit::files(&found.scores, &found.predictions);
        files.into_iter().find(|file| file.file_name(&found.clip) == name)
    });
    let (Some(found), Some(file)) = (found, file) else {
        let problem = "the run has no scores for a file with this name: GET /v1/runs/{id}/toolkit \
            lists its files";
        return Err(ApiError::new(Code::NotFound, problem));
    };
    let table = toolkit::fill(file, found.names, found.scores, found.predictions);
    Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], table.write()).into_response())
}

/// The contents of a run's files.
struct Found {
    names: Vec<String>,
    scores: Scores,
    predictions: Predictions,
    /// The model name in the name of the file with CLIP's scores.
    clip: String,
}

impl Found {
    /// Reads a run's columns; returns `None` if it has no scores.
    async fn read(
        app: &App,
        id: Id<RunRecord>,
        pack: Option<&str>,
    ) -> Result<Option<Self>, ApiError> {
        let run = find(app, id).await?;
        let Some(pack) = report::pack(app, &run, pack).await? else { return Ok(None) };
        let data = app.store.run_data(run.id, Some(&pack.digest)).await?.ok_or_else(unknown_run)?;
        let predictions = app.store.outcomes(run.id, &pack.digest, &data.names).await?;
        let RunData { names, metrics, .. } = Arc::unwrap_or_clone(data);
        let scores = metrics.into_iter().map(|(code, column)| (code, column.values)).collect();
        Ok(Some(Self { names, scores, predictions, clip: clip(app, &pack) }))
    }
}

/// Returns the checkpoint of CLIP if the scores are the loaded pack's, otherwise the name of the
/// pack.
fn clip(app: &App, pack: &PackId) -> String {
    let loaded = app.scoring.pack();
    let graph = loaded.graph("clip.image").filter(|_| loaded.digest.to_string() == pack.digest);
    graph.map_or_else(|| pack.name.clone(), |graph| graph.source.checkpoint.clone())
}
