//! `GET /v1/models`: resident graphs, their devices and load, and the drift of the pack's scores
//! from another pack's.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::state::Shared;
use crate::{
    blocking::blocking,
    engine::{Batching, LaneStatus, Pack, Residency},
    pack_id::PackId,
    verify::DriftCertificate,
};

/// The resident graphs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelsResponse {
    /// The loaded model pack.
    pack: PackId,
    /// Drift of the pack's scores from another pack's, if it was measured and stored with
    /// `stellar-score pack verify`.
    #[serde(skip_serializing_if = "Option::is_none")]
    drift: Option<DriftCertificate>,
    /// Whether the graphs are loaded.
    state: Residency,
    /// How many rows the runs of graphs have.
    batching: Batching,
    /// Threads of each run.
    threads: usize,
    /// One entry for each graph of the pack.
    lanes: Vec<LaneStatus>,
}

/// Lists the resident graphs with their device, batch size, queue and work done.
#[utoipa::path(
    get, path = "/v1/models", operation_id = "list_models", tag = "catalogue",
    responses((status = 200, description = "All resident graphs", body = ModelsResponse))
)]
pub(super) async fn list(State(app): Shared) -> Json<ModelsResponse> {
    let pack = Arc::clone(app.scoring.pack());
    let drift = blocking(move || drift(&pack)).await;
    let engine = app.scoring.engine();
    Json(ModelsResponse {
        pack: app.scoring.pack().id(),
        drift,
        state: engine.residency(),
        batching: engine.batching(),
        threads: engine.parallelism().threads,
        lanes: engine.status(),
    })
}

/// Reads the pack's own certificate each time, since it may be stored while the pack is loaded.
fn drift(pack: &Pack) -> Option<DriftCertificate> {
    DriftCertificate::stored(pack).unwrap_or_else(|error| {
        tracing::warn!(error = format!("{error:#}"), "failed to read the pack's drift certificate");
        None
    })
}
