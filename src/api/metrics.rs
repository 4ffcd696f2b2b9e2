//! `GET /v1/metrics`: the available metrics, their meaning and their needs.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::state::Shared;
use crate::{
    metrics::{Direction, Family, Metric, Need, REGISTRY},
    pack_id::PackId,
};

/// All metrics.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MetricsResponse {
    /// The loaded model pack.
    pack: PackId,
    /// Metrics in the order of the documentation.
    metrics: Vec<MetricEntry>,
}

/// One metric.
#[derive(Debug, Serialize, ToSchema)]
struct MetricEntry {
    /// Code used in requests and responses.
    #[schema(example = "clip_t")]
    code: &'static str,
    /// Name for people.
    title: &'static str,
    /// Name in a word or two, for tables.
    #[schema(example = "Identity")]
    name: &'static str,
    /// Abbreviation as in papers.
    short: &'static str,
    /// What the metric compares with what.
    family: Family,
    /// The better end of the scale.
    direction: Direction,
    /// Smallest possible value; null where unbounded.
    minimum: Option<f64>,
    /// Largest possible value; null where unbounded.
    maximum: Option<f64>,
    /// Version of the definition; scores of different versions are never averaged.
    version: u32,
    /// Definition of the score.
    definition: &'static str,
    /// How to interpret a value or a difference.
    interpretation: &'static str,
    /// Cases in which the number misleads.
    failure_modes: &'static [&'static str],
    /// Publication or code that defines the metric.
    source: &'static str,
    /// Licence of the official weights, if their authors state one.
    licence: &'static str,
    /// Features from which the metric is computed.
    needs: &'static [Need],
    /// True if the loaded pack can compute the metric.
    available: bool,
    /// Graphs that the metric needs and the loaded pack lacks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_graphs: Vec<&'static str>,
}

/// Lists all metrics with their meaning, and whether the loaded pack can compute them.
#[utoipa::path(
    get, path = "/v1/metrics", operation_id = "list_metrics", tag = "catalogue",
    responses((status = 200, description = "All metrics", body = MetricsResponse))
)]
pub(super) async fn list(State(app): Shared) -> Json<MetricsResponse> {
    let describe = |metric: &'static Metric| {
        let missing_graphs = app.scoring.missing_graphs(metric);
        MetricEntry {
            code: metric.code,
            title: metric.title,
            name: metric.guide.name,
            short: metric.guide.short,
            family: metric.family,
            direction: metric.direction,
            minimum: metric.range.0,
            maximum: metric.range.1,
            version: metric.version,
            definition: metric.definition,
            interpretation: metric.interpretation,
            failure_modes: metric.guide.failure_modes,
            source: metric.source,
            licence: metric.licence,
            needs: metric.needs,
            available: missing_graphs.is_empty(),
            missing_graphs,
        }
    };
    Json(MetricsResponse {
        pack: app.scoring.pack().id(),
        metrics: REGISTRY.iter().map(describe).collect(),
    })
}
