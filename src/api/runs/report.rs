//! `GET /v1/runs/{id}/report`: the table of a run under a penalty policy.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::http::{ApiError, Code, Id, Query};
use crate::api::runs::table::{KindKey, Table, TableKey, tabulate};
use crate::api::runs::{Counts, find, unknown_run};
use crate::api::state::{App, Shared};
use crate::{
    analysis::{self, Caption, NoInterval, Place, Policy, ReportRow, Statistic, place},
    pack_id::{PackId, Weights},
    stats::FEW_CLUSTERS,
    store::{RunRecord, RunState},
};

/// Options of a report.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReportQuery {
    /// Penalty policy for images that follow the prompt hardly better than the reference image
    /// does. Default: `stellar`.
    #[serde(default)]
    pub(crate) policy: Policy,
    /// Format of the table. Default: `json`.
    #[serde(default)]
    pub(crate) format: Format,
    /// Digest of the pack whose scores are shown, or the name of an import's source. Default: the
    /// run's pack, or the only pack that the run has scores of.
    pub(crate) pack: Option<String>,
    /// If true, adds to each mean its place among the scores of single samples of all summarised
    /// runs with the same pack and version of the metric; in JSON only. Default: false.
    #[serde(default)]
    pub(crate) percentiles: bool,
    /// Ids of at most 16 other runs, separated by commas. The table then covers the samples whose
    /// names all these runs have, and the penalty is decided over these alone. The tables of these
    /// runs, each requested with the others, are comparable.
    pub(crate) common_with: Option<String>,
    /// Only the samples with this kind of prompt, as if the run had no others: Stellar-T is `T`,
    /// Stellar-H is `H`.
    #[param(example = "T")]
    pub(crate) prompt_kind: Option<String>,
}

impl ReportQuery {
    /// Returns the query without options but this policy.
    pub(crate) fn of(policy: Policy) -> Self {
        Self {
            policy,
            format: Format::Json,
            pack: None,
            percentiles: false,
            common_with: None,
            prompt_kind: None,
        }
    }
}

/// Maximum number of runs in `common_with`.
const MOST_OTHERS: usize = 16;

/// Format of a table.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = TableFormat)]
pub(crate) enum Format {
    /// JSON with all details.
    #[default]
    Json,
    /// CSV with one line for each metric, at full precision.
    Csv,
    /// Markdown, for reading.
    Markdown,
    /// LaTeX for papers, with the package `booktabs`.
    Latex,
}

/// The table of a run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReportResponse {
    /// Id of the run.
    pub(crate) run_id: Uuid,
    /// Method of the run.
    pub(crate) method: String,
    /// Name of the run, unique within its method.
    pub(crate) run: String,
    /// Dataset that the prompts are from.
    pub(crate) dataset: Option<String>,
    /// Split of the dataset.
    pub(crate) split: Option<String>,
    /// State of the run. Until it is finished, `aps` is missing and the other metrics cover the
    /// samples scored so far.
    pub(crate) state: RunState,
    /// Number of samples by state.
    pub(crate) counts: Counts,
    /// The pack of the scores; null without scores.
    pub(crate) pack: Option<PackId>,
    /// The penalty policy that was applied.
    pub(crate) policy: Policy,
    /// Number of samples in the table.
    pub(crate) samples: usize,
    /// Identifies these samples: tables with the same value are over the same samples.
    pub(crate) sample_set: String,
    /// Number of penalised samples; null under the policy `none`, and if the policy concerns no
    /// metric.
    pub(crate) penalised: Option<usize>,
    /// Number of samples for which the penalty cannot be decided because `clip_t` or `clip_n` is
    /// missing.
    pub(crate) undecided: usize,
    /// One row for each metric, sorted by code.
    pub(crate) rows: Vec<Line>,
}

/// A row of the table.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Line {
    /// The statistic with its interval.
    #[serde(flatten)]
    pub(crate) row: ReportRow,
    /// True if there are fewer than 8 such identities: with skewed scores, the coverage of the
    /// interval is then lower than stated.
    pub(crate) few_clusters: bool,
    /// Reason why there is no interval: `too_few_people` or `no_variation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) no_interval: Option<NoInterval>,
    /// If requested: place of the mean (`sample_mean` for `aps`) among the scores, without penalty,
    /// of single samples of all summarised runs with the same pack and version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<Place>,
    /// Number of samples without a score, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) nulls: BTreeMap<String, usize>,
}

/// Returns the table of a run: means, deviations, intervals and the penalty.
///
/// Intervals are resampled by identity, since samples of one person are alike. With
/// `policy=toolkit` the numbers are those of the reference toolkit's analysis.
#[utoipa::path(
    get, path = "/v1/runs/{id}/report", operation_id = "read_report", tag = "runs",
    params(("id" = Uuid, Path, description = "Id of the run (`run_id`)"), ReportQuery),
    responses(
        (status = 200, description = "The table", content(
            (ReportResponse = "application/json"), (String = "text/csv"),
            (String = "text/markdown"), (String = "application/x-latex"))),
        (status = 409, description = "With `common_with`: the runs have no sample names in \
            common; with `prompt_kind`: the run has no samples of that kind"),
        (status = 422, description = "The penalty cannot be decided, or the run has scores of \
            several packs"),
        (status = 429, description = "Limit reached; retry after `Retry-After` seconds"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    Query(parameters): Query<ReportQuery>,
    id: Id<RunRecord>,
) -> Result<Response, ApiError> {
    let tabulated = tabulated(&app, id, &parameters).await?;
    let places = places(&app, &tabulated, &parameters).await?;
    let Tabulated { run, pack, table } = tabulated;
    let Table { report, sample_set, .. } = &*table;
    let caption = || Caption {
        run: run.name.to_string(),
        pack: match &pack {
            Some(pack) if pack.weights == Weights::Demo => {
                format!("{} (demo weights: its numbers are meaningless)", pack.name)
            }
            Some(pack) => pack.name.clone(),
            None => "none".to_owned(),
        },
        sample_set: sample_set.clone(),
        failed: run.counts.failed,
        pending: run.counts.waiting,
    };
    let text =
        |kind: &'static str, text: String| ([(header::CONTENT_TYPE, kind)], text).into_response();
    Ok(match parameters.format {
        Format::Csv => text("text/csv; charset=utf-8", analysis::csv(report)),
        Format::Markdown => {
            text("text/markdown; charset=utf-8", analysis::markdown(report, &caption()))
        }
        Format::Latex => {
            text("application/x-latex; charset=utf-8", analysis::latex(report, &caption()))
        }
        Format::Json => Json(answer(run, pack, &table, places)).into_response(),
    })
}

/// The table of a run with what it is of.
pub(crate) struct Tabulated {
    pub(crate) run: RunRecord,
    pub(crate) pack: Option<PackId>,
    pub(crate) table: Arc<Table>,
}

/// Reads or computes the table that a query asks for.
pub(crate) async fn tabulated(
    app: &App,
    id: Id<RunRecord>,
    parameters: &ReportQuery,
) -> Result<Tabulated, ApiError> {
    let run = find(app, id).await?;
    let pack = pack(app, &run, parameters.pack.as_deref()).await?;
    let policy = parameters.policy;
    let digest = pack.as_ref().map(|pack| pack.digest.clone());
    let others = others(app, parameters.common_with.as_deref()).await?;
    let key = TableKey {
        run: run.id,
        revision: run.revision,
        pack: digest.clone(),
        policy,
        others: others.clone(),
        prompt_kind: parameters.prompt_kind.as_deref().map(KindKey::of),
    };
    let work = app.caches.reports.get(key, async {
        let mut data =
            app.store.run_data(run.id, digest.as_deref()).await?.ok_or_else(unknown_run)?;
        for (other, _) in &others {
            Arc::make_mut(&mut data).restrict(&app.store.sample_names(*other, usize::MAX).await?);
        }
        if data.names.is_empty() && !others.is_empty() {
            let problem = "the runs have no sample names in common: samples are matched by name";
            return Err(ApiError::new(Code::NothingToCompare, problem));
        }
        if let Some(kind) = &parameters.prompt_kind {
            Arc::make_mut(&mut data).restrict_to_kind(kind);
            if data.names.is_empty() {
                return Err(no_benchmark(kind));
            }
        }
        let outcomes = match &digest {
            Some(digest) => app.store.outcomes(run.id, digest, &data.names).await?,
            None => BTreeMap::new(),
        };
        tabulate(data, outcomes, policy).await.map_err(|error| {
            ApiError::new(Code::InvalidField, format!("the report cannot be computed: {error}"))
        })
    });
    let table = work.await?;
    Ok(Tabulated { run, pack, table })
}

/// Creates the error for a run without samples of a kind of prompt.
pub(crate) fn no_benchmark(kind: &str) -> ApiError {
    let kind: String = kind.chars().take(80).collect();
    let problem = format!(
        "there are no samples with the prompt_kind `{kind}`: GET /v1/analysis/slices lists the \
         kinds of a run"
    );
    ApiError::new(Code::NothingToCompare, problem)
}

/// Returns the requested places of the means. They are not cached with the table, since other runs
/// change.
async fn places(
    app: &App,
    of: &Tabulated,
    parameters: &ReportQuery,
) -> Result<BTreeMap<String, Place>, ApiError> {
    let Table { report, versions, .. } = &*of.table;
    let population = match &of.pack {
        Some(pack) if parameters.percentiles && matches!(parameters.format, Format::Json) => {
            app.store.run_quantiles(&pack.digest).await?
        }
        _ => Vec::new(),
    };
    let places = report.rows.iter().filter_map(|row| {
        let of_metric = population
            .iter()
            .map(|(_, of)| of)
            .filter(|of| of.metric == row.metric && versions.get(&row.metric) == Some(&of.version));
        Some((row.metric.clone(), place(&row.metric, row.sample_mean?, of_metric)?))
    });
    Ok(places.collect())
}

impl Tabulated {
    /// Returns the table as the API has it.
    pub(crate) fn response(&self) -> ReportResponse {
        answer(self.run.clone(), self.pack.clone(), &self.table, BTreeMap::new())
    }
}

fn answer(
    run: RunRecord,
    pack: Option<PackId>,
    table: &Table,
    mut places: BTreeMap<String, Place>,
) -> ReportResponse {
    let Table { report, sample_set, mut nulls, .. } = table.clone();
    let line = |mut row: ReportRow| {
        let no_interval = row.no_interval();
        let place = places.remove(&row.metric);
        row.sample_mean = row.sample_mean.filter(|_| row.statistic != Statistic::SampleMean);
        let nulls = nulls.remove(&row.metric).unwrap_or_default();
        let few_clusters = row.clusters < FEW_CLUSTERS;
        Line { row, few_clusters, no_interval, place, nulls }
    };
    ReportResponse {
        run_id: run.id,
        method: run.name.method,
        run: run.name.run,
        dataset: run.facts.dataset,
        split: run.facts.split,
        state: run.state,
        counts: run.counts.into(),
        pack,
        policy: report.policy,
        samples: report.samples,
        sample_set,
        penalised: report.penalised,
        undecided: report.undecided,
        rows: report.rows.into_iter().map(line).collect(),
    }
}

/// Parses the other runs for common samples, with their revisions.
async fn others(app: &App, asked: Option<&str>) -> Result<Vec<(Uuid, u64)>, ApiError> {
    let mut others = Vec::new();
    for id in asked.unwrap_or_default().split(',').map(str::trim).filter(|id| !id.is_empty()) {
        if others.len() == MOST_OTHERS {
            let problem = format!("common_with names more than {MOST_OTHERS} runs: name fewer");
            return Err(ApiError::new(Code::MalformedRequest, problem));
        }
        let other = find(app, Id::parse(id)?).await?;
        others.push((other.id, other.revision));
    }
    others.sort_unstable();
    others.dedup();
    Ok(others)
}

/// Returns the pack whose scores are shown.
pub(crate) async fn pack(
    app: &App,
    run: &RunRecord,
    asked: Option<&str>,
) -> Result<Option<PackId>, ApiError> {
    let mut packs = app.store.run_packs(run.id).await?;
    let list = |packs: &[PackId]| {
        let named = packs.iter().map(|pack| format!("{} ({})", pack.name, pack.digest));
        named.collect::<Vec<_>>().join(", ")
    };
    if let Some(asked) = asked {
        let is_asked = |pack: &PackId| pack.digest == asked || pack.name == asked;
        return packs.iter().find(|pack| is_asked(pack)).cloned().map(Some).ok_or_else(|| {
            let problem =
                format!("the run has no scores of the pack {asked:?}: it has {}", list(&packs));
            ApiError::new(Code::InvalidField, problem)
        });
    }
    if let Some(own) = &run.pack
        && let Some(own) = packs.iter().find(|pack| pack.digest == own.digest)
    {
        return Ok(Some(own.clone()));
    }
    match packs.len() {
        0 | 1 => Ok(packs.pop()),
        _ => {
            let problem = format!(
                "the run has scores of several packs, choose one with `pack`: {}",
                list(&packs)
            );
            Err(ApiError::new(Code::InvalidField, problem))
        }
    }
}
