//! `GET /v1/metrics`: what can be computed, what it means, and what it needs.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use crate::metrics::{Direction, Metric, Need, REGISTRY};
use crate::pack_id::PackId;

/// Every metric.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MetricsResponse {
    /// The loaded model pack.
    pack: PackId,
    /// In the order of the documentation.
    metrics: Vec<MetricEntry>,
}

/// One metric.
#[derive(Debug, Serialize, ToSchema)]
struct MetricEntry {
    /// Code used in requests and answers.
    #[schema(example = "clip_t")]
    code: &'static str,
    /// Name for people.
    title: &'static str,
    /// Which end is better.
    direction: Direction,
    /// Smallest possible value; null where unbounded.
    minimum: Option<f64>,
    /// Largest possible value; null where unbounded.
    maximum: Option<f64>,
    /// Version of the definition; scores of different versions are never averaged.
    version: u32,
    /// What the number is.
    definition: &'static str,
    /// How to read a value or a difference.
    interpretation: &'static str,
    /// Who defined it.
    source: &'static str,
    /// Licence of the official weights, as far as their authors state one.
    licence: &'static str,
    /// The features it is computed from.
    needs: &'static [Need],
    /// Whether the loaded pack can compute it.
    available: bool,
    /// The graphs that the pack lacks for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_graphs: Vec<String>,
}

/// Lists every metric with its meaning and whether the loaded pack can compute it.
#[utoipa::path(
    get, path = "/v1/metrics", operation_id = "list_metrics", tag = "catalogue",
    responses((status = 200, description = "Every metric", body = MetricsResponse))
)]
pub(super) async fn list(State(app): Shared) -> Json<MetricsResponse> {
    let describe = |metric: &'static Metric| {
        let missing_graphs = app.scoring.missing_graphs(metric);
        MetricEntry {
            code: metric.code,
            title: metric.title,
            direction: metric.direction,
            minimum: metric.range.0,
            maximum: metric.range.1,
            version: metric.version,
            definition: metric.definition,
            interpretation: metric.interpretation,
            source: metric.source,
            licence: metric.licence,
            needs: metric.needs,
            available: missing_graphs.is_empty(),
            missing_graphs,
        }
    };
    Json(MetricsResponse { pack: app.scoring.pack().id(), metrics: REGISTRY.iter().map(describe).collect() })
}
