//! `GET /v1/leaderboard`: methods by their mean scores.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{ApiError, Code, Problem, Query, Shared};
use crate::{
    metrics::{self, Direction},
    pack_id::PackId,
    store::{Grouping, LeaderboardQuery, LeaderboardRow, MAX_PAGE, Sort},
};

/// What to rank and how.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Parameters {
    /// Only this method.
    method: Option<String>,
    /// Only runs of this name.
    run: Option<String>,
    /// Only these metrics, codes separated by commas.
    #[param(example = "clip_t,clip_i")]
    metrics: Option<String>,
    /// Digest of a model pack. Default: the loaded pack; `all` for every pack, each in rows of its own.
    pack: Option<String>,
    /// `method` (default) merges a method's runs; `run` has a row for each.
    by: Option<By>,
    /// Code of the metric to rank by, best first. Default: by name.
    #[param(example = "clip_t")]
    sort: Option<String>,
    /// Rows of a page, 1 to 1000. Default: 100.
    limit: Option<u32>,
    /// `next` of the page before.
    after: Option<String>,
}

/// What a row stands for.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum By {
    /// A method over all its runs.
    Method,
    /// A run.
    Run,
}

/// One page of the leaderboard.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct LeaderboardAnswer {
    /// Methods or runs, in order.
    rows: Vec<Row>,
    /// Send as `after` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A method or run with one pack: scores of different packs are never averaged.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct Row {
    /// The method.
    method: String,
    /// The run, where rows are runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    /// The pack of all scores in the row.
    pack: PackId,
    /// Each metric by code.
    metrics: BTreeMap<String, Summary>,
}

/// One metric over a method's or run's samples.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct Summary {
    /// Version of the metric's definition.
    version: u32,
    /// Samples with a number.
    n: u64,
    /// Samples without one.
    nulls: u64,
    /// Share of samples with a number.
    coverage: f64,
    /// Mean of the numbers.
    mean: Option<f64>,
    /// Standard deviation of the numbers, ddof 1; null below two.
    std: Option<f64>,
}

/// Ranks methods by the mean of a metric, or lists them by name.
#[utoipa::path(
    get, path = "/v1/leaderboard", tag = "leaderboard", params(Parameters),
    responses(
        (status = 200, description = "One page", body = LeaderboardAnswer),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Unknown metric", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn read(
    State(app): Shared,
    Query(parameters): Query<Parameters>,
) -> Result<Json<LeaderboardAnswer>, ApiError> {
    let loaded = app.scoring.pack().digest.to_string();
    let page = app.store.leaderboard(&parameters.into_query(loaded)?).await?;
    Ok(Json(LeaderboardAnswer { rows: page.rows.into_iter().map(Into::into).collect(), next: page.next }))
}

impl Parameters {
    fn into_query(self, loaded_pack: String) -> Result<LeaderboardQuery, ApiError> {
        let mut query = LeaderboardQuery {
            method: self.method,
            run: self.run,
            pack: match self.pack {
                None => Some(loaded_pack),
                Some(pack) if pack == "all" => None,
                pack => pack,
            },
            by: match self.by {
                None | Some(By::Method) => Grouping::Method,
                Some(By::Run) => Grouping::Run,
            },
            after: self.after,
            ..LeaderboardQuery::default()
        };
        if let Some(limit) = self.limit {
            if !(1..=MAX_PAGE).contains(&limit) {
                return Err(ApiError::new(
                    Code::MalformedRequest,
                    format!("limit is {limit}: send 1 to {MAX_PAGE}"),
                ));
            }
            query.limit = limit;
        }
        if let Some(codes) = &self.metrics {
            query.metrics =
                metrics::parse_list(codes)?.into_iter().map(|metric| metric.code.to_owned()).collect();
        }
        if let Some(code) = &self.sort {
            let metric = metrics::find(code).ok_or_else(|| metrics::ListError::unknown(code))?;
            if !query.metrics.is_empty() && !query.metrics.iter().any(|listed| listed == metric.code) {
                query.metrics.push(metric.code.to_owned());
            }
            query.sort = Sort::Metric {
                metric: metric.code.to_owned(),
                version: metric.version,
                descending: metric.direction != Direction::LowerIsBetter,
            };
        }
        Ok(query)
    }
}

impl From<LeaderboardRow> for Row {
    fn from(row: LeaderboardRow) -> Self {
        // The newest version of a metric stands for it; older ones are read with the sample.
        let mut metrics: BTreeMap<String, Summary> = BTreeMap::new();
        for summary in row.metrics {
            let counted = summary.n + summary.nulls;
            let entry = Summary {
                version: summary.version,
                n: summary.n,
                nulls: summary.nulls,
                coverage: if counted == 0 { 0.0 } else { summary.n as f64 / counted as f64 },
                mean: summary.mean,
                std: summary.std,
            };
            if metrics.get(&summary.metric).is_none_or(|have| have.version < entry.version) {
                metrics.insert(summary.metric, entry);
            }
        }
        Self { method: row.method, run: row.run, pack: row.pack, metrics }
    }
}
