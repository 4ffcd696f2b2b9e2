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
    generation::Generator,
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
    /// The generator of `POST /v1/generate`, if one is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    generator: Option<GeneratorModels>,
}

/// The graphs that generate images.
#[derive(Debug, Serialize, ToSchema)]
struct GeneratorModels {
    /// The generator pack.
    pack: PackId,
    /// Label of the system.
    system: String,
    /// Pixels that width and height are multiples of.
    side_multiple: usize,
    /// Width and height in pixels, unless requested.
    default_side: usize,
    /// Largest width and height in pixels.
    largest_side: usize,
    /// What the weights were trained on and without, if they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    training: Option<serde_json::Value>,
    /// One entry for each graph.
    lanes: Vec<LaneStatus>,
}

impl GeneratorModels {
    fn of(generator: &Generator) -> Self {
        let spec = generator.spec();
        Self {
            pack: generator.pack().id(),
            system: spec.system.clone(),
            side_multiple: spec.side_multiple,
            default_side: spec.default_side,
            largest_side: spec.largest_side,
            training: generator.training().cloned(),
            lanes: generator.engine().status(),
        }
    }
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
        generator: app.generation.as_ref().map(|of| GeneratorModels::of(of.generator())),
    })
}

/// Reads the pack's own certificate each time, since it may be stored while the pack is loaded.
fn drift(pack: &Pack) -> Option<DriftCertificate> {
    DriftCertificate::stored(pack).unwrap_or_else(|error| {
        tracing::warn!(error = format!("{error:#}"), "failed to read the pack's drift certificate");
        None
    })
}
