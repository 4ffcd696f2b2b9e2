//! `GET /v1/analysis/matrix`: methods by category, for any kind of slice.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::analysis::slices::KindWord;
use crate::api::http::csv::{self, Format, optional};
use crate::api::http::{ApiError, Code, Query};
use crate::api::state::{App, Shared};
use crate::{
    analysis::{self, Grouping, LeaderboardQuery, NoInterval, Policy},
    blocking::blocking,
    metrics,
    pack_id::PackId,
    store::{Slice, StandingsFilter},
};

/// Maximum number of labels in a matrix.
const MOST_LABELS: u32 = 100;

/// Maximum number of runs whose summaries are read for one matrix.
const MOST_RUNS: usize = 200;

/// The metric, the kind of categories, and the runs of a matrix.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct MatrixQuery {
    /// Kind of the categories. Default: `category`. `aps_attribute` has the attributes of `aps`.
    pub(crate) kind: Option<KindWord>,
    /// Code of the metric. Default: `ips`; for `aps_attribute` it is `aps`.
    #[param(example = "ips")]
    pub(crate) metric: Option<String>,
    /// Only runs of this method.
    pub(crate) method: Option<String>,
    /// Only runs with this name.
    pub(crate) run: Option<String>,
    /// Digest of a model pack. Default: the loaded pack.
    pub(crate) pack: Option<String>,
    /// Only runs over this dataset.
    #[param(example = "Stellar-T")]
    pub(crate) dataset: Option<String>,
    /// Only runs over this split.
    pub(crate) split: Option<String>,
    /// Penalty policy for images that do not follow their prompt. Default: `stellar`.
    pub(crate) policy: Option<Policy>,
    /// `method` (default) merges the runs of a method; `run` lists each run in a column of its own.
    pub(crate) by: Option<Grouping>,
    /// Cells with fewer samples are left out. Default: 20; 0 for `prompt_kind`.
    pub(crate) min_samples: Option<u64>,
    /// Number of categories, those with most samples, 1 to 100. Default: 50.
    pub(crate) limit: Option<u32>,
    /// `json` (default) or `csv`.
    pub(crate) format: Option<Format>,
}

/// A metric of methods by category.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"kind": "category", "metric": "ips", "policy": "stellar", "categories": 1,
    "columns": [{"method": "mine", "runs": ["0197a7c6-6f00-7000-8000-000000000001"],
        "pack": {"name": "official", "digest": "…", "weights": "official"}}],
    "rows": [{"category": "sports", "samples": 210, "cells": [{"samples": 210, "n": 208,
        "mean": 0.61, "low": 0.58, "high": 0.64, "clusters": 40, "rank": 1, "best": false}]}]}))]
pub(crate) struct MatrixResponse {
    /// Kind of the categories.
    pub(crate) kind: String,
    /// Code of the metric.
    pub(crate) metric: String,
    /// The penalty policy that was applied. Except for `prompt_kind`, it is decided over all
    /// samples of a run.
    pub(crate) policy: Policy,
    /// Methods or runs, by name.
    pub(crate) columns: Vec<MatrixMethod>,
    /// Categories, those with most samples first.
    pub(crate) rows: Vec<MatrixCategory>,
    /// Number of categories, including those beyond `limit`.
    pub(crate) categories: usize,
}

/// A column of a matrix.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct MatrixMethod {
    /// The method.
    pub(crate) method: String,
    /// Name of the run, if columns are runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<String>,
    /// Ids of the runs.
    pub(crate) runs: Vec<Uuid>,
    /// The pack of all scores in the column.
    pub(crate) pack: PackId,
}

/// A row of a matrix.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct MatrixCategory {
    /// The category: a label of the kind.
    pub(crate) category: String,
    /// Largest number of samples of this category in a column.
    pub(crate) samples: u64,
    /// One cell for each column; null if the column has too few samples of this category.
    pub(crate) cells: Vec<Option<MatrixEntry>>,
}

/// A method in a category.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct MatrixEntry {
    /// Number of samples of the category, measured or not.
    pub(crate) samples: u64,
    /// Number of samples with a number.
    pub(crate) n: u64,
    /// Mean of the numbers; null without any.
    pub(crate) mean: Option<f64>,
    /// Lower end of the mean's 95 % interval, by identity.
    pub(crate) low: Option<f64>,
    /// Upper end of the interval.
    pub(crate) high: Option<f64>,
    /// Reason why the mean has no interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) no_interval: Option<NoInterval>,
    /// Number of identities among the numbers; a sample without an identity counts as one.
    pub(crate) clusters: u64,
    /// 1 + the number of columns over the same samples whose interval lies entirely on the better
    /// side of this one's. Null without an interval, and for metrics without a better end.
    pub(crate) rank: Option<usize>,
    /// True if no other column over the same samples has a better mean, and there is another one.
    pub(crate) best: bool,
}

/// Compares methods category by category in one metric.
///
/// A cell has the numbers of the leaderboard with that category as its filter. Intervals are not
/// corrected for the number of categories: of twenty categories without any difference, about one
/// is found to have one.
#[utoipa::path(
    get, path = "/v1/analysis/matrix", operation_id = "read_matrix", tag = "analysis",
    params(MatrixQuery),
    responses(
        (status = 200, description = "The matrix; with `format=csv` one line for \
            each cell", content(
            (MatrixResponse = "application/json"), (String = "text/csv"))),
        (status = 422, description = "Unknown metric"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    Query(parameters): Query<MatrixQuery>,
) -> Result<Response, ApiError> {
    let format = parameters.format.unwrap_or_default();
    let response = respond(&app, parameters).await?;
    Ok(match format {
        Format::Json => Json(response).into_response(),
        Format::Csv => csv::answer("matrix.csv", &HEADER, response.lines(), None),
    })
}

/// Returns a matrix.
pub(crate) async fn respond(
    app: &App,
    parameters: MatrixQuery,
) -> Result<MatrixResponse, ApiError> {
    let kind = parameters.kind.unwrap_or(KindWord::Category).word();
    let metric = metric(parameters.metric.as_deref(), kind)?;
    let limit = parameters.limit.unwrap_or(50);
    if !(1..=MOST_LABELS).contains(&limit) {
        let problem = format!("limit is {limit}: send 1 to {MOST_LABELS}");
        return Err(ApiError::new(Code::MalformedRequest, problem));
    }
    let policy = parameters.policy.unwrap_or_default();
    let least = if kind == Slice::PROMPT_KIND { 0 } else { 20 };
    let pack = app.digest_of(parameters.pack.as_deref()).await?;
    let query = LeaderboardQuery {
        filter: StandingsFilter {
            method: parameters.method,
            run: parameters.run,
            pack: Some(pack.clone()),
            dataset: parameters.dataset,
            split: parameters.split,
            ..StandingsFilter::default()
        },
        metrics: vec![metric.to_owned()],
        policy,
        min_samples: parameters.min_samples.unwrap_or(least),
        by: parameters.by.unwrap_or_default(),
        ..LeaderboardQuery::default()
    };
    let runs = app.store.standings(&query.standings()).await?;
    if runs.len() > MOST_RUNS {
        let problem = format!(
            "{} runs are selected, but a matrix has at most {MOST_RUNS}: select fewer with \
             `method`, `run`, `dataset` or `split`",
            runs.len()
        );
        return Err(ApiError::new(Code::MalformedRequest, problem));
    }
    let of_policy = if Policy::concerns(metric) { policy } else { Policy::None };
    let ids: Vec<Uuid> = runs.iter().map(|run| run.run).collect();
    let summaries =
        app.store.summaries_of_kind(&ids, &pack, kind, metric, of_policy.as_str()).await?;
    let work = move || analysis::matrix(&query, &runs, kind, metric, summaries, limit as usize);
    let found = blocking(work).await;
    let columns = found.columns.into_iter().map(|of| MatrixMethod {
        method: of.method,
        run: of.run,
        runs: of.runs,
        pack: of.pack,
    });
    let rows = found.rows.into_iter().map(|row| MatrixCategory {
        category: row.label,
        samples: row.samples,
        cells: row.cells.into_iter().map(|cell| cell.map(MatrixEntry::from)).collect(),
    });
    Ok(MatrixResponse {
        kind: kind.to_owned(),
        metric: metric.to_owned(),
        policy,
        columns: columns.collect(),
        rows: rows.collect(),
        categories: found.labels,
    })
}

/// Returns the metric of a matrix.
fn metric(given: Option<&str>, kind: &str) -> Result<&'static str, ApiError> {
    let of_attributes = kind == Slice::APS_ATTRIBUTE;
    let code = given.unwrap_or(if of_attributes { "aps" } else { "ips" });
    let found = metrics::find(code).ok_or_else(|| metrics::ListError::unknown(code))?;
    if of_attributes && found.code != "aps" {
        let problem = format!(
            "metric is {}: only aps is known by aps_attribute, so leave it out",
            found.code
        );
        return Err(ApiError::new(Code::MalformedRequest, problem));
    }
    Ok(found.code)
}

impl From<analysis::MatrixCell> for MatrixEntry {
    fn from(of: analysis::MatrixCell) -> Self {
        let low = of.interval.map(|ends| ends.low);
        Self {
            samples: of.samples,
            n: of.n,
            mean: of.mean,
            low,
            high: of.interval.map(|ends| ends.high),
            no_interval: NoInterval::of_mean(of.mean, low, of.clusters as usize),
            clusters: of.clusters,
            rank: of.rank,
            best: of.is_best,
        }
    }
}

const HEADER: [&str; 15] = [
    "kind", "category", "method", "run", "pack", "metric", "policy", "samples", "n", "mean", "low",
    "high", "clusters", "rank", "best",
];

impl MatrixResponse {
    fn lines(&self) -> Vec<Vec<String>> {
        let mut lines = Vec::new();
        for row in &self.rows {
            for (column, cell) in self.columns.iter().zip(&row.cells) {
                let Some(cell) = cell else { continue };
                lines.push(vec![
                    self.kind.clone(),
                    row.category.clone(),
                    column.method.clone(),
                    column.run.clone().unwrap_or_default(),
                    column.pack.digest.clone(),
                    self.metric.clone(),
                    self.policy.as_str().to_owned(),
                    cell.samples.to_string(),
                    cell.n.to_string(),
                    optional(cell.mean),
                    optional(cell.low),
                    optional(cell.high),
                    cell.clusters.to_string(),
                    optional(cell.rank),
                    cell.best.to_string(),
                ]);
            }
        }
        lines
    }
}
