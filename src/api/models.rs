//! `GET /v1/models`: which graphs are resident, where, and how busy.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use crate::engine::LaneStatus;
use crate::pack_id::PackId;

/// What is resident.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelsAnswer {
    /// The loaded model pack.
    pack: PackId,
    /// Every graph that is loaded.
    lanes: Vec<LaneStatus>,
}

/// Lists the resident graphs with their device, batch size, queue and work done.
#[utoipa::path(
    get, path = "/v1/models", operation_id = "list_models", tag = "catalogue",
    responses((status = 200, description = "Every resident graph", body = ModelsAnswer))
)]
pub(super) async fn list(State(app): Shared) -> Json<ModelsAnswer> {
    Json(ModelsAnswer { pack: app.scoring.pack().id(), lanes: app.scoring.engine().status() })
}
