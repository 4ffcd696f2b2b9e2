//! `GET /v1/models`: which graphs are resident, where, and how busy; and how far the pack's scores are from another's.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use crate::blocking::blocking;
use crate::engine::{LaneStatus, Pack};
use crate::pack_id::PackId;
use crate::parity::DriftCertificate;

/// What is resident.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelsResponse {
    /// The loaded model pack.
    pack: PackId,
    /// How far its scores are from another pack's, where that was measured and stored with `stellar-score pack verify`.
    #[serde(skip_serializing_if = "Option::is_none")]
    drift: Option<DriftCertificate>,
    /// Every graph that is loaded.
    lanes: Vec<LaneStatus>,
}

/// Lists the resident graphs with their device, batch size, queue and work done.
#[utoipa::path(
    get, path = "/v1/models", operation_id = "list_models", tag = "catalogue",
    responses((status = 200, description = "Every resident graph", body = ModelsResponse))
)]
pub(super) async fn list(State(app): Shared) -> Json<ModelsResponse> {
    let pack = Arc::clone(app.scoring.pack());
    let drift = blocking(move || drift(&pack)).await;
    Json(ModelsResponse { pack: app.scoring.pack().id(), drift, lanes: app.scoring.engine().status() })
}

/// The pack's own certificate; read anew, since it may be stored while the pack is loaded.
fn drift(pack: &Pack) -> Option<DriftCertificate> {
    DriftCertificate::stored(pack).unwrap_or_else(|error| {
        tracing::warn!(error = format!("{error:#}"), "the pack's drift certificate is not shown");
        None
    })
}
