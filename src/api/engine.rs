//! `POST /v1/engine/offload` and `/v1/engine/reload`: the memory of the models is lent to a trainer
//! on the same device between its scoring phases.

use std::{future::Future, sync::Arc};

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::{
    http::ApiError,
    state::{App, Shared},
};
use crate::engine::{Batching, EngineError, Moved, Residency};

/// What an offload or a reload did.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EngineResponse {
    /// Whether the models are loaded now.
    state: Residency,
    /// Whether those of the generator are, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    generator: Option<Residency>,
    /// False if there was nothing to do.
    changed: bool,
    /// How many rows the runs of graphs have.
    batching: Batching,
    /// Time until the work in flight was finished.
    drain_seconds: f64,
    /// Time to close the sessions, or to open them and to warm them up.
    seconds: f64,
    /// Resident memory of the process before, in bytes; null if unknown. The memory of a GPU is not
    /// a part of it.
    resident_bytes_before: Option<u64>,
    /// Resident memory of the process after, in bytes; null if unknown.
    resident_bytes_after: Option<u64>,
}

/// Frees the models' memory, on a GPU and in the process.
///
/// Also those of the generator. Requests in flight are completed first, if a minute suffices; a
/// longer image gets 503 at its next step. Until `POST /v1/engine/reload`, requests that need a
/// model get 503 with the code `engine_offloaded`, accepted samples of runs wait, and `/readyz` is
/// 503. Sending it again is harmless.
#[utoipa::path(
    post, path = "/v1/engine/offload", operation_id = "offload_engine", tag = "rewards",
    responses(
        (status = 200, description = "The models are offloaded", body = EngineResponse),
        (status = 503, description = "A batch did not end in time: send it again after \
            `Retry-After` seconds"),
    )
)]
pub(super) async fn offload(State(app): Shared) -> Result<Json<EngineResponse>, ApiError> {
    has_models(&app)?;
    complete(&app, |app| async move {
        let Some(generation) = &app.generation else {
            return app.scoring.engine().offload().await;
        };
        let generator = generation.generator().engine().offload().await?;
        app.scoring.engine().offload().await.map(|scoring| generator.then(scoring))
    })
    .await
}

/// Loads the models again and warms them up. Sending it while they are loaded is harmless.
#[utoipa::path(
    post, path = "/v1/engine/reload", operation_id = "reload_engine", tag = "rewards",
    responses(
        (status = 200, description = "The models are loaded", body = EngineResponse),
        (status = 503, description = "A model could not be loaded; the service goes on trying, and \
            `/readyz` says when it works"),
    )
)]
pub(super) async fn reload(State(app): Shared) -> Result<Json<EngineResponse>, ApiError> {
    has_models(&app)?;
    complete(&app, |app| async move {
        let scoring = app.scoring.engine().reload().await?;
        let Some(generation) = &app.generation else { return Ok(scoring) };
        generation.generator().engine().reload().await.map(|generator| scoring.then(generator))
    })
    .await
}

/// Refuses what would do nothing: workers have the models.
fn has_models(app: &App) -> Result<(), ApiError> {
    if app.scoring.engine().has_graphs() {
        return Ok(());
    }
    let problem = "this instance has no models (dispatch.score_here = false): send the request to \
        each worker itself";
    Err(ApiError::unavailable(problem))
}

/// Runs a change to its end, also if the client leaves.
async fn complete<F>(
    app: &Arc<App>,
    change: impl FnOnce(Arc<App>) -> F,
) -> Result<Json<EngineResponse>, ApiError>
where
    F: Future<Output = Result<Moved, EngineError>> + Send + 'static,
{
    let change = tokio::spawn(change(Arc::clone(app)));
    let moved = change.await.map_err(|error| ApiError::internal(&error))??;
    Ok(Json(EngineResponse {
        state: app.scoring.engine().residency(),
        generator: app.generation.as_ref().map(|of| of.generator().engine().residency()),
        changed: moved.changed,
        batching: app.scoring.engine().batching(),
        drain_seconds: moved.drained.as_secs_f64(),
        seconds: moved.moved.as_secs_f64(),
        resident_bytes_before: moved.before,
        resident_bytes_after: moved.after,
    }))
}
