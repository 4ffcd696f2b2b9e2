//! `GET /v1/analysis/correlations`: correlations between metrics.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::http::{ApiError, Query};
use crate::api::runs::unknown_run;
use crate::api::state::{App, Shared};
use crate::{
    analysis::{Cell, Coefficient, add_intervals, correlations},
    blocking::blocking,
    metrics,
    store::RunsQuery,
};

/// Maximum number of samples in a matrix: the coefficients are then within 0.01 of those over all
/// samples, and ready in about a second.
const MOST_SAMPLES: usize = 50_000;

/// Maximum number of samples in a matrix with intervals: each coefficient is then computed 20 times
/// more.
const MOST_WITH_INTERVALS: usize = 10_000;

/// Maximum number of runs in a matrix.
const MOST_RUNS: u32 = 1_000;

/// The samples and metrics to correlate.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CorrelationsQuery {
    /// Only samples of this run. Default: all runs.
    run: Option<Uuid>,
    /// Only samples of this method's runs.
    method: Option<String>,
    /// Only these metrics, codes separated by commas. Default: all metrics with scores.
    #[param(example = "ips,clip_t")]
    metrics: Option<String>,
    /// Digest of a model pack. Default: the loaded pack.
    pack: Option<String>,
    /// `kendall` (tau-b, default), `spearman` or `pearson`.
    coefficient: Option<Coefficient>,
    /// If true, adds 95 % intervals by identity; at most 10,000 samples are then read. Default:
    /// false.
    pub(crate) intervals: Option<bool>,
}

/// A matrix of correlation coefficients.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "coefficient": "kendall", "pack": "…", "runs": 4, "samples": 4000, "of": 4000, "metrics": ["clip_t", "ips"],
    "matrix": [[{"value": 1.0, "n": 4000}, {"value": -0.08, "n": 3991}], [{"value": -0.08, "n": 3991}, {"value": 1.0, "n": 3991}]]}))]
pub(crate) struct CorrelationsResponse {
    /// The coefficient.
    pub(crate) coefficient: Coefficient,
    /// Digest of the pack of the scores.
    pub(crate) pack: String,
    /// Number of runs that the samples belong to.
    pub(crate) runs: usize,
    /// Number of samples that were read: all, or an evenly spaced subset if there are too many.
    pub(crate) samples: usize,
    /// Number of scored samples in these runs.
    pub(crate) of: u64,
    /// Codes of the metrics, in the order of rows and columns.
    pub(crate) metrics: Vec<String>,
    /// Coefficients by row and column, each over the samples that have both scores.
    pub(crate) matrix: Vec<Vec<Cell>>,
}

/// Correlates metrics over the samples of a run, of a method, or of all runs.
#[utoipa::path(
    get, path = "/v1/analysis/correlations", operation_id = "read_correlations", tag = "analysis",
    params(CorrelationsQuery),
    responses(
        (status = 200, description = "The matrix", body = CorrelationsResponse),
        (status = 404, description = "No such run"),
        (status = 422, description = "Unknown metric"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    Query(parameters): Query<CorrelationsQuery>,
) -> Result<Json<CorrelationsResponse>, ApiError> {
    respond(&app, parameters).await.map(Json)
}

/// Returns the matrix of a run, a method or everything.
pub(crate) async fn respond(
    app: &App,
    parameters: CorrelationsQuery,
) -> Result<CorrelationsResponse, ApiError> {
    let wanted = parameters.metrics.as_deref().map(metrics::parse_list).transpose()?;
    let coefficient = parameters.coefficient.unwrap_or(Coefficient::Kendall);
    let pack = app.digest_of(parameters.pack.as_deref()).await?;
    let runs = if let Some(run) = parameters.run {
        vec![app.store.run(run).await?.ok_or_else(unknown_run)?]
    } else {
        let query =
            RunsQuery { method: parameters.method, limit: MOST_RUNS, ..RunsQuery::default() };
        app.store.runs(&query).await?
    };
    let has_intervals = parameters.intervals.unwrap_or_default();
    let at_most = if has_intervals { MOST_WITH_INTERVALS } else { MOST_SAMPLES };
    let of: u64 = runs.iter().map(|run| run.counts.scored).sum();
    let mut chosen = BTreeMap::new();
    for run in &runs {
        let names = if of as usize > at_most {
            let share = run.counts.scored as f64 / of as f64;
            app.store.sample_names(run.id, (share * at_most as f64).ceil() as usize).await?
        } else {
            // Reads the whole run into the cache, from which `samples_data` takes it.
            let run = app.store.run_data(run.id, Some(&pack)).await?;
            run.map(|run| run.names.iter().cloned().collect()).unwrap_or_default()
        };
        chosen.insert(run.id, names);
    }
    let mut data = app.store.samples_data(&chosen, &pack).await?;
    if let Some(wanted) = wanted {
        data.metrics.retain(|code, _| wanted.iter().any(|metric| metric.code == code));
    }
    let (samples, codes) = (data.names.len(), data.metrics.keys().cloned().collect());
    let matrix = blocking(move || {
        let columns: Vec<&[Option<f64>]> =
            data.metrics.values().map(|column| &column.values[..]).collect();
        let mut matrix = correlations(&columns, coefficient);
        if has_intervals {
            let name = |at: usize| data.names[at].clone();
            add_intervals(&mut matrix, &columns, coefficient, &data.identities, name);
        }
        matrix
    });
    let matrix = matrix.await;
    Ok(CorrelationsResponse {
        coefficient,
        pack,
        runs: runs.len(),
        samples,
        of,
        metrics: codes,
        matrix,
    })
}
