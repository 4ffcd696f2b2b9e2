//! `GET /v1/analysis/trade-off`: two metrics, by default identity and prompt following, or a metric
//! and a cost, as a Pareto front.

use std::collections::HashMap;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::analysis::leaderboard;
use crate::api::http::filters::SliceFilter;
use crate::api::http::{ApiError, Code, Query};
use crate::api::state::{App, Shared};
use crate::{
    analysis::{Axis, Cost, Grouping, LeaderboardQuery, Policy, Samples, TradeOffPoint, trade_off},
    metrics::{self, Direction},
    store::StandingsFilter,
};

/// Metrics, filters and options of a trade-off.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct TradeOffQuery {
    /// The first metric. Default: `ips` (identity). `seconds_per_image` and `seconds_per_subject`
    /// are costs that methods declare in their cards.
    #[param(example = "ips")]
    x: Option<String>,
    /// The second metric or cost. Default: `clip_t` (prompt following).
    #[param(example = "clip_t")]
    y: Option<String>,
    /// Digest of a model pack, or `all` for every pack, each with a front of its own. Default: the
    /// loaded pack.
    pack: Option<String>,
    /// Only runs over this dataset.
    dataset: Option<String>,
    /// Only runs over this split.
    split: Option<String>,
    /// Only samples with this kind of prompt.
    prompt_kind: Option<String>,
    /// Only samples with a prompt of this category.
    category: Option<String>,
    /// Penalty policy for images that do not follow their prompt. Default: `stellar`.
    policy: Option<Policy>,
    /// `all` (default): each point covers all its samples, and only points over the same samples
    /// are compared. `common`: each point covers the samples whose names all listed points of its
    /// pack have.
    on: Option<Samples>,
    /// If true, each run is a point; if false (default), each method.
    by_run: Option<bool>,
}

/// The points in the plane of two axes.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"x": "ips", "y": "clip_t", "policy": "stellar", "on": "all", "points": [{
    "method": "mine", "runs": ["0197a7c6-6f00-7000-8000-000000000001"],
    "pack": {"name": "official", "digest": "…", "weights": "official"},
    "x": {"mean": 0.61, "low": 0.59, "high": 0.63, "n": 1000}, "y": {"mean": 0.27, "low": 0.268, "high": 0.272, "n": 1000},
    "on_front": true, "dominated_by": []}]}))]
pub(crate) struct TradeOffResponse {
    /// Code of the first metric, or the first cost.
    pub(crate) x: String,
    /// Code of the second metric, or the second cost.
    pub(crate) y: String,
    /// The penalty policy that was applied.
    pub(crate) policy: Policy,
    /// The samples that points cover.
    #[serde(default)]
    pub(crate) on: Samples,
    /// Methods or runs with both numbers, by pack and then by `x`, best first.
    pub(crate) points: Vec<TradeOffPoint>,
}

/// Compares methods on two metrics, or on a metric and a declared cost, and finds those that no
/// other method beats in both.
#[utoipa::path(
    get, path = "/v1/analysis/trade-off", operation_id = "read_trade_off", tag = "analysis",
    params(TradeOffQuery),
    responses(
        (status = 200, description = "The points", body = TradeOffResponse),
        (status = 409, description = "With `on=common`: the listed points have no sample names in \
            common"),
        (status = 422, description = "Unknown metric"),
        (status = 429, description = "Limit reached; retry after `Retry-After` seconds"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    Query(parameters): Query<TradeOffQuery>,
) -> Result<Json<TradeOffResponse>, ApiError> {
    let filter = SliceFilter {
        prompt_kind: parameters.prompt_kind,
        category: parameters.category,
        ..SliceFilter::default()
    };
    let query = LeaderboardQuery {
        filter: StandingsFilter {
            pack: app.digest_or_all(parameters.pack.as_deref()).await?,
            dataset: parameters.dataset,
            split: parameters.split,
            slice: filter.slice()?,
            ..StandingsFilter::default()
        },
        on: parameters.on.unwrap_or_default(),
        policy: parameters.policy.unwrap_or_default(),
        by: if parameters.by_run.unwrap_or_default() { Grouping::Run } else { Grouping::Method },
        ..LeaderboardQuery::default()
    };
    respond(&app, parameters.x, parameters.y, query).await.map(Json)
}

/// Returns the points of the leaderboard's rows in the plane of two axes.
pub(crate) async fn respond(
    app: &App,
    x: Option<String>,
    y: Option<String>,
    query: LeaderboardQuery,
) -> Result<TradeOffResponse, ApiError> {
    let (x, y) = (axis(x, "ips")?, axis(y, "clip_t")?);
    let metrics: Vec<String> = [x, y]
        .into_iter()
        .filter(|axis| matches!(axis, Axis::Metric(_)))
        .map(|axis| axis.code().to_owned())
        .collect();
    if metrics.is_empty() {
        let detail = "both axes are costs: choose a metric for one of them";
        return Err(ApiError::new(Code::MalformedRequest, detail));
    }
    let cards = if metrics.len() < 2 { app.store.cards().await? } else { HashMap::new() };
    let query = LeaderboardQuery { metrics, ..query };
    let points = trade_off(&leaderboard::rows(app, &query).await?, &cards, x, y);
    let (x, y) = (x.code().to_owned(), y.code().to_owned());
    Ok(TradeOffResponse { x, y, policy: query.policy, on: query.on, points })
}

/// Returns the axis with this code.
fn axis(given: Option<String>, default: &str) -> Result<Axis, ApiError> {
    let code = given.unwrap_or_else(|| default.to_owned());
    axis_of(&code)
}

/// Returns the axis of a metric that ranks, or of a cost.
pub(crate) fn axis_of(code: &str) -> Result<Axis, ApiError> {
    if let Some(cost) = Cost::find(code) {
        return Ok(Axis::Cost(cost));
    }
    let metric = metrics::find(code).ok_or_else(|| metrics::ListError::unknown(code))?;
    if metric.direction == Direction::Support {
        let detail = format!("{code} has no better end: choose a metric that ranks");
        return Err(ApiError::new(Code::MalformedRequest, detail));
    }
    Ok(Axis::Metric(metric))
}
