//! `GET /v1/analysis/trade-off`: identity against prompt following, or any two metrics, as a Pareto front.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::filters::SliceFilter;
use super::{ApiError, Code, Problem, Query, Shared, leaderboard};
use crate::{
    analysis::{Grouping, LeaderboardQuery, Policy, Samples, TradeOffPoint, trade_off},
    metrics::{self, Direction},
};

/// Which metrics of which runs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Parameters {
    /// The first metric. Default: `ips`, identity.
    #[param(example = "ips")]
    x: Option<String>,
    /// The second metric. Default: `clip_t`, following the prompt.
    #[param(example = "clip_t")]
    y: Option<String>,
    /// Digest of a model pack. Default: the loaded pack; `all` for every pack, each with a front of its own.
    pack: Option<String>,
    /// Only runs over this dataset.
    dataset: Option<String>,
    /// Only runs over this split.
    split: Option<String>,
    /// Only samples whose prompt is of this kind.
    prompt_kind: Option<String>,
    /// Only samples whose prompt is of this category.
    category: Option<String>,
    /// What happens to samples whose image does not follow the prompt. Default: `stellar`.
    policy: Option<Policy>,
    /// `all` (default): each point over all samples that it has, and only points over the same samples are compared. `common`: each over the
    /// samples whose names all listed points of its pack have.
    on: Option<Samples>,
    /// Whether each run is a point (`true`) or each method (default).
    by_run: Option<bool>,
}

/// The points in the plane of two metrics.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"x": "ips", "y": "clip_t", "policy": "stellar", "on": "all", "points": [{
    "method": "mine", "runs": ["0197a7c6-6f00-7000-8000-000000000001"],
    "pack": {"name": "official", "digest": "…", "weights": "official"},
    "x": {"mean": 0.61, "low": 0.59, "high": 0.63, "n": 1000}, "y": {"mean": 0.27, "low": 0.268, "high": 0.272, "n": 1000},
    "on_front": true, "dominated_by": []}]}))]
pub(super) struct TradeOffResponse {
    /// Code of the first metric.
    x: String,
    /// Code of the second metric.
    y: String,
    /// The penalty policy in force.
    policy: Policy,
    /// Which samples of its runs a point stands on.
    #[serde(default)]
    on: Samples,
    /// Rows that have both, by pack and from the best `x` on.
    points: Vec<TradeOffPoint>,
}

/// Reads where methods stand between two metrics, and which of them no other beats in both.
#[utoipa::path(
    get, path = "/v1/analysis/trade-off", operation_id = "read_trade_off", tag = "analysis", params(Parameters),
    responses(
        (status = 200, description = "The points", body = TradeOffResponse),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "With `on=common`: the listed points share no sample", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Unknown metric", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "At the limit: retry after `Retry-After` seconds", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "Not ready before the deadline", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn read(
    State(app): Shared,
    Query(parameters): Query<Parameters>,
) -> Result<Json<TradeOffResponse>, ApiError> {
    let metric = |given: Option<String>, default: &str| {
        let code = given.unwrap_or_else(|| default.to_owned());
        let metric = metrics::find(&code).ok_or_else(|| metrics::ListError::unknown(&code))?;
        if metric.direction == Direction::Support {
            let detail = format!("{code} has no better and no worse end: choose a metric that ranks");
            return Err(ApiError::new(Code::MalformedRequest, detail));
        }
        Ok(code)
    };
    let (x, y) = (metric(parameters.x, "ips")?, metric(parameters.y, "clip_t")?);
    let filter = SliceFilter {
        prompt_kind: parameters.prompt_kind,
        category: parameters.category,
        ..SliceFilter::default()
    };
    let query = LeaderboardQuery {
        metrics: vec![x.clone(), y.clone()],
        pack: app.digest_or_all(parameters.pack.as_deref()).await?,
        dataset: parameters.dataset,
        split: parameters.split,
        slice: filter.slice()?,
        on: parameters.on.unwrap_or_default(),
        policy: parameters.policy.unwrap_or_default(),
        by: if parameters.by_run.unwrap_or_default() { Grouping::Run } else { Grouping::Method },
        ..LeaderboardQuery::default()
    };
    let points = trade_off(&leaderboard::rows(&app, &query).await?, &x, &y);
    Ok(Json(TradeOffResponse { x, y, policy: query.policy, on: query.on, points }))
}
