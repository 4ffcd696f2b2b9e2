//! `GET /v1/analysis/correlations`: correlations between metrics.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::chosen::listed;
use crate::api::http::{ApiError, Code, Id, Query};
use crate::api::runs::unknown_run;
use crate::api::state::{App, Shared};
use crate::{
    analysis::{Cell, Coefficient, FamilyPair, add_intervals, correlations, family_pairs},
    blocking::blocking,
    metrics::{self, Family, by_family},
    store::{RunRecord, RunsQuery},
};

/// Maximum number of samples in a matrix: the coefficients are then within 0.01 of those over all
/// samples, and ready in about a second.
const MOST_SAMPLES: usize = 50_000;

/// Maximum number of samples in a matrix with intervals: each coefficient is then computed 20 times
/// more.
const MOST_WITH_INTERVALS: usize = 10_000;

/// Maximum number of runs that a request names.
pub(crate) const MOST_NAMED: usize = 200;

/// Maximum number of runs in a matrix.
const MOST_RUNS: u32 = 1_000;

/// The samples and metrics to correlate.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CorrelationsQuery {
    /// Only samples of this run. Default: all runs.
    run: Option<Uuid>,
    /// Only samples of these runs: at most 200 ids, separated by commas.
    runs: Option<String>,
    /// Only samples of this method's runs. Not allowed together with `run` or `runs`.
    method: Option<String>,
    /// Only these metrics, codes separated by commas. Default: all metrics with scores.
    #[param(example = "ips,clip_t")]
    metrics: Option<String>,
    /// Digest of a model pack. Default: the loaded pack.
    pack: Option<String>,
    /// `kendall` (tau-b, default), `spearman` or `pearson`.
    coefficient: Option<Coefficient>,
    /// `prompt`: only differences between images of one prompt count, so that easy prompts do not
    /// make two metrics agree. Images of one prompt are the samples of the same name in several
    /// runs. Default: all differences count.
    pub(crate) within: Option<Within>,
    /// If true, adds 95 % intervals by identity; at most 10,000 samples are then read. Default:
    /// false.
    pub(crate) intervals: Option<bool>,
}

/// Groups whose differences do not count in a correlation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Within {
    /// Samples of the same name.
    Prompt,
}

/// The metrics of one family in a matrix.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct FamilyEntry {
    /// The family: what its metrics compare with what.
    pub(crate) family: Family,
    /// Name for people.
    pub(crate) title: String,
    /// Codes of its metrics, which are neighbours in the matrix.
    pub(crate) metrics: Vec<String>,
}

/// A matrix of correlation coefficients.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "coefficient": "kendall", "pack": "…", "runs": 4, "samples": 4000, "of": 4000, "metrics": ["clip_t", "ips"],
    "matrix": [[{"value": 1.0, "n": 4000}, {"value": -0.08, "n": 3991}], [{"value": -0.08, "n": 3991}, {"value": 1.0, "n": 3991}]]}))]
pub(crate) struct CorrelationsResponse {
    /// The coefficient.
    pub(crate) coefficient: Coefficient,
    /// Groups whose differences do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) within: Option<Within>,
    /// Digest of the pack of the scores.
    pub(crate) pack: String,
    /// Number of runs that the samples belong to.
    pub(crate) runs: usize,
    /// Number of samples that were read: all, or an evenly spaced subset if there are too many.
    pub(crate) samples: usize,
    /// Number of scored samples in these runs.
    pub(crate) of: u64,
    /// Codes of the metrics, in the order of rows and columns: by family.
    pub(crate) metrics: Vec<String>,
    /// The families of these metrics, in the same order.
    #[serde(default)]
    pub(crate) families: Vec<FamilyEntry>,
    /// Mean absolute coefficients within families and between them.
    #[serde(default)]
    pub(crate) family_pairs: Vec<FamilyPair>,
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
    let mut named: BTreeSet<Uuid> = parameters.run.into_iter().collect();
    for id in listed(parameters.runs.as_deref()) {
        named.insert(Id::<RunRecord>::parse(id)?.0);
    }
    if named.len() > MOST_NAMED {
        let problem = format!("{} runs are named: name at most {MOST_NAMED}", named.len());
        return Err(ApiError::new(Code::MalformedRequest, problem));
    }
    if !named.is_empty() && parameters.method.is_some() {
        let problem = "runs are named, and a method too: leave out `method`, or `run` and `runs`";
        return Err(ApiError::new(Code::MalformedRequest, problem));
    }
    let runs = if named.is_empty() {
        let query =
            RunsQuery { method: parameters.method, limit: MOST_RUNS, ..RunsQuery::default() };
        app.store.runs(&query).await?
    } else {
        let mut runs = Vec::new();
        for run in named {
            runs.push(app.store.run(run).await?.ok_or_else(unknown_run)?);
        }
        runs
    };
    let has_intervals = parameters.intervals.unwrap_or_default();
    let at_most = if has_intervals { MOST_WITH_INTERVALS } else { MOST_SAMPLES };
    let of: u64 = runs.iter().map(|run| run.counts.scored).sum();
    let chosen = chosen(app, &runs, of, at_most, parameters.within, &pack).await?;
    let mut data = app.store.samples_data(&chosen, &pack).await?;
    if let Some(wanted) = wanted {
        data.metrics.retain(|code, _| wanted.iter().any(|metric| metric.code == code));
    }
    let samples = data.names.len();
    let codes: Vec<String> = by_family()
        .into_iter()
        .map(|metric| metric.code.to_owned())
        .filter(|code| data.metrics.contains_key(code))
        .collect();
    let order = codes.clone();
    let within = parameters.within;
    let matrix = blocking(move || {
        let columns: Vec<&[Option<f64>]> =
            order.iter().map(|code| &data.metrics[code].values[..]).collect();
        let prompts = within.map(|Within::Prompt| prompts(&data.names));
        let mut matrix = correlations(&columns, coefficient, prompts.as_deref());
        if has_intervals {
            // Images of one prompt stay together, whatever run they are of.
            let name = |at: usize| match within {
                Some(Within::Prompt) => prompt(&data.names[at]).to_owned(),
                None => data.names[at].clone(),
            };
            let identities = &data.identities;
            let prompts = prompts.as_deref();
            add_intervals(&mut matrix, &columns, coefficient, prompts, identities, name);
        }
        matrix
    });
    let matrix = matrix.await;
    let of_code = |code: &String| metrics::find(code).map_or(Family::Support, |of| of.family);
    let families: Vec<Family> = codes.iter().map(of_code).collect();
    Ok(CorrelationsResponse {
        coefficient,
        within,
        pack,
        runs: runs.len(),
        samples,
        of,
        families: entries(&codes, &families),
        family_pairs: family_pairs(&matrix, &families),
        metrics: codes,
        matrix,
    })
}

/// Chooses the samples to read: all, or evenly spaced ones. Within prompts, the same names are
/// chosen in every run.
async fn chosen(
    app: &App,
    runs: &[RunRecord],
    of: u64,
    at_most: usize,
    within: Option<Within>,
    pack: &str,
) -> Result<BTreeMap<Uuid, BTreeSet<String>>, ApiError> {
    let is_large = of as usize > at_most;
    let mut chosen = BTreeMap::new();
    for run in runs {
        let share = run.counts.scored as f64 / of.max(1) as f64;
        let names = match within {
            None if is_large => {
                let most = (share * at_most as f64).ceil() as usize;
                app.store.sample_names(run.id, most).await?
            }
            Some(_) if is_large => app.store.sample_names(run.id, usize::MAX).await?,
            _ => {
                // Reads the whole run into the cache, from which `samples_data` takes it.
                let data = app.store.run_data(run.id, Some(pack)).await?;
                data.map(|data| data.names.iter().cloned().collect()).unwrap_or_default()
            }
        };
        chosen.insert(run.id, names);
    }
    if within.is_some() && is_large {
        let all: BTreeSet<&String> = chosen.values().flatten().collect();
        let all: Vec<&String> = all.into_iter().collect();
        let most = (at_most / runs.len().max(1)).clamp(1, all.len().max(1));
        let kept = (0..most.min(all.len())).map(|at| all[at * all.len() / most].clone());
        let kept: BTreeSet<String> = kept.collect();
        for names in chosen.values_mut() {
            names.retain(|name| kept.contains(name));
        }
    }
    Ok(chosen)
}

/// Returns the prompt of a sample that is named `RUN_ID/NAME`: its name.
fn prompt(name: &str) -> &str {
    name.split_once('/').map_or(name, |(_, name)| name)
}

/// Numbers the prompts of the samples.
fn prompts(names: &[String]) -> Vec<usize> {
    let mut known = HashMap::new();
    let number = |name: &String| {
        let next = known.len();
        *known.entry(prompt(name).to_owned()).or_insert(next)
    };
    names.iter().map(number).collect()
}

/// Groups codes, which are sorted by family.
fn entries(codes: &[String], families: &[Family]) -> Vec<FamilyEntry> {
    let mut entries: Vec<FamilyEntry> = Vec::new();
    for (code, &family) in codes.iter().zip(families) {
        match entries.last_mut() {
            Some(last) if last.family == family => last.metrics.push(code.clone()),
            _ => entries.push(FamilyEntry {
                family,
                title: family.title().to_owned(),
                metrics: vec![code.clone()],
            }),
        }
    }
    entries
}
