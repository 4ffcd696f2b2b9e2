//! `GET /v1/leaderboard`: methods ranked by their mean scores, with intervals.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use crate::api::analysis::board_csv::HEADER;
use crate::api::analysis::numbers::{Numbers, share};
use crate::api::analysis::published::{self, Reference};
use crate::api::http::csv::{self, Format};
use crate::api::http::filters::{Filters, SliceFilter};
use crate::api::http::{ApiError, Code, Query, page};
use crate::api::state::{App, Shared};
use crate::{
    analysis::{
        self, Area, CommonError, Grouping, LeaderboardRow, NoInterval, Policy, RankedMetric,
        Samples, Sort,
    },
    metrics::{self, Direction},
    pack_id::PackId,
    stats::FEW_CLUSTERS,
    store::{Slice, StandingsFilter},
};

/// Filters and options of the leaderboard.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LeaderboardQuery {
    /// Only rows of this method.
    method: Option<String>,
    /// Only runs with this name.
    run: Option<String>,
    /// Only these metrics, codes separated by commas.
    #[param(example = "clip_t,clip_i")]
    metrics: Option<String>,
    /// Digest of a model pack, or `all` for every pack, each in rows of its own. Default: the
    /// loaded pack.
    pack: Option<String>,
    /// Only runs over this dataset.
    #[param(example = "Stellar-T")]
    dataset: Option<String>,
    /// Only runs over this split.
    split: Option<String>,
    /// Only runs created at this time or later (RFC 3339).
    #[param(example = "2026-03-01T00:00:00Z")]
    since: Option<String>,
    /// Only runs created before this time (RFC 3339).
    until: Option<String>,
    /// Only runs that declare (`true`) or do not declare (`false`) training by cross-validation.
    cross_validated_training: Option<bool>,
    /// Only runs that declare (`true`) or do not declare (`false`) training on photos of the
    /// evaluation.
    trained_on_evaluation_photos: Option<bool>,
    /// Only the benchmark of this kind of prompt: each run is treated as if it had no other samples,
    /// with its own penalty, intervals, ranks and `aps` area. Stellar-T is `T`, Stellar-H is `H`. At
    /// most one of this and the following slice filters may be set.
    #[param(example = "T")]
    prompt_kind: Option<String>,
    /// Only samples with a prompt of this category.
    category: Option<String>,
    /// Only samples with a prompt that asks for this kind of relation: `interaction`, `location` or
    /// `none`.
    relation: Option<String>,
    /// Only samples of subjects with this attribute; `!` before it selects subjects without it.
    #[param(example = "!Young")]
    attribute: Option<String>,
    /// Only images of this size by their shorter side: `under_512`, `512_to_1023` or
    /// `1024_and_more`.
    size: Option<String>,
    /// Only samples whose prompt names this object.
    #[param(example = "horse")]
    detectable: Option<String>,
    /// Only samples with a prompt that asks for a relation with this predicate.
    #[param(example = "riding")]
    predicate: Option<String>,
    /// Only samples with a prompt of this template: its text with `[object]` for each object.
    #[param(example = "a person riding a [object]")]
    template: Option<String>,
    /// Only samples of subjects with this level of a fine-grained attribute.
    #[param(example = "Smiling=3")]
    fine_attribute: Option<String>,
    /// Only `aps`, over the predictions of this attribute.
    #[param(example = "Young")]
    aps_attribute: Option<String>,
    /// Metrics with fewer samples are left out of a row. Default: 20 for a slice, 0 for all samples
    /// and for a benchmark.
    min_samples: Option<u64>,
    /// Penalty policy for images that do not follow their prompt. Default: `stellar`.
    policy: Option<Policy>,
    /// `method` (default) merges the runs of a method; `run` lists each run in a row of its own.
    by: Option<Grouping>,
    /// Code of the metric to rank by, or `mean_rank`; rows are sorted best first. Default: by name.
    #[param(example = "clip_t")]
    sort: Option<String>,
    /// `all` (default): each row covers all its samples, and only rows over the same samples are
    /// ranked against each other. `common`: each row covers the samples whose names all listed rows
    /// of its pack have, all rows are ranked against each other, and the penalty is decided over
    /// these samples alone; this reads the scores of at most 200 runs.
    on: Option<Samples>,
    /// If true, adds the results published in the Stellar paper, marked as such. Default: false.
    published: Option<bool>,
    /// `json` (default) or `csv`.
    format: Option<Format>,
    /// Rows per page, 1 to 1000. Default: 100.
    limit: Option<u32>,
    /// `next` of the previous page.
    after: Option<String>,
}

/// One page of the leaderboard.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"policy": "stellar", "on": "all", "total": 1, "rows": [{
    "method": "mine", "runs": ["0197a7c6-6f00-7000-8000-000000000000"], "mean_rank": 1.0,
    "pack": {"name": "official", "digest": "…", "weights": "official"},
    "metrics": {"ips": {"version": 1, "n": 980, "nulls": 20, "coverage": 0.98, "mean": 0.61, "std": 0.12, "low": 0.59,
                        "high": 0.63, "rank": 1, "last_rank": 2, "samples": 1000, "clusters": 200, "few_clusters": false, "penalised": 31, "penalty_rate": 0.031, "undecided": 0,
                        "faceless": 4, "pending": false}}}]}))]
pub(crate) struct LeaderboardResponse {
    /// The penalty policy that was applied.
    pub(crate) policy: Policy,
    /// The samples that rows cover.
    #[serde(default)]
    pub(crate) on: Samples,
    /// Number of rows on all pages.
    pub(crate) total: usize,
    /// Methods or runs, sorted as requested.
    pub(crate) rows: Vec<Row>,
    /// Published results, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) published: Option<Reference>,
    /// Cursor of the next page, to be sent as `after`; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

/// A method or run with one pack: scores of different packs are never averaged or ranked together.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Row {
    /// The method.
    pub(crate) method: String,
    /// Name of the run, if rows are runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<String>,
    /// Ids of the runs that the row covers.
    pub(crate) runs: Vec<uuid::Uuid>,
    /// Flags declared by any of these runs.
    pub(crate) flags: BTreeMap<String, bool>,
    /// The pack of all scores in the row. With the weights `demo` the scores are meaningless.
    pub(crate) pack: PackId,
    /// Identifies the row's samples: rows with the same value are over the same samples. Null until
    /// the row's runs are summarised, which takes seconds.
    #[serde(default)]
    pub(crate) sample_set: Option<String>,
    /// True if the row is over the samples that most rows of its pack are over. Only rows with the
    /// same `sample_set` are ranked against each other: means over different samples are not
    /// comparable. Null until the row's runs are summarised.
    #[serde(default)]
    pub(crate) comparable: Option<bool>,
    /// Mean of the row's places in all metrics that rank, among rows with the same `sample_set`; a
    /// metric without a number counts as the last place. Null if no metric that ranks has a number.
    pub(crate) mean_rank: Option<f64>,
    /// Summaries of the metrics, by code.
    pub(crate) metrics: BTreeMap<String, Summary>,
}

/// Summary of one metric over the samples of a method or run.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Summary {
    /// Mean and interval.
    #[serde(flatten)]
    pub(crate) numbers: Numbers,
    /// 1 + the number of rows with the same pack and `sample_set` whose interval lies entirely on
    /// the better side of this one's. Null without an interval, and for metrics without a better
    /// end.
    pub(crate) rank: Option<usize>,
    /// Last place that the intervals leave open: the number of ranked rows less those whose
    /// interval lies entirely on the worse side of this one's. Rows between `rank` and `last_rank`
    /// are not separable.
    #[serde(default)]
    pub(crate) last_rank: Option<usize>,
    /// Number of samples in the row, measured or not. This and the following counts are null while
    /// pending.
    pub(crate) samples: Option<u64>,
    /// Number of identities among the samples with a number; a sample without an identity counts as
    /// one.
    pub(crate) clusters: Option<u64>,
    /// True if there are fewer than 8 such identities: with skewed scores, the coverage of the
    /// interval is then lower than stated.
    pub(crate) few_clusters: Option<bool>,
    /// Number of penalised samples.
    pub(crate) penalised: Option<u64>,
    /// Share of the samples that are penalised.
    pub(crate) penalty_rate: Option<f64>,
    /// Number of samples for which the penalty cannot be decided because `clip_t` or `clip_n` is
    /// missing.
    pub(crate) undecided: Option<u64>,
    /// Number of samples whose image has no face, for metrics that look for one.
    pub(crate) faceless: Option<u64>,
    /// `aps` as the area under the ROC curve, as in the report of a run and in the paper. Null for
    /// other metrics, for slices that are no benchmark, and for a row over several runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) area: Option<AreaNumbers>,
    /// True if the run changed within the last seconds: counts and mean are current, but without
    /// interval and penalty.
    pub(crate) pending: bool,
}

/// `aps` as the mean over attributes of the area under the ROC curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = ApsArea)]
pub(crate) struct AreaNumbers {
    /// The area in [0, 1], 0.5 for chance; null if every attribute is constant.
    pub(crate) mean: Option<f64>,
    /// Lower end of its 95 % interval (BCa, by identity); null below three identities.
    pub(crate) low: Option<f64>,
    /// Upper end of the interval.
    pub(crate) high: Option<f64>,
    /// Reason why the area has no interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) no_interval: Option<NoInterval>,
    /// Number of samples with a prediction that counts.
    pub(crate) n: u64,
    /// Number of identities among them.
    pub(crate) clusters: u64,
}

impl From<Area> for AreaNumbers {
    fn from(of: Area) -> Self {
        Self {
            mean: of.mean,
            low: of.interval.map(|ends| ends.low),
            high: of.interval.map(|ends| ends.high),
            no_interval: of.no_interval(),
            n: of.n,
            clusters: of.clusters,
        }
    }
}

/// Ranks methods by the mean of a metric or by their mean rank, or lists them by name.
#[utoipa::path(
    get, path = "/v1/leaderboard", operation_id = "read_leaderboard", tag = "leaderboard",
    params(LeaderboardQuery),
    responses(
        (status = 200, description = "One page; with `format=csv` as text/csv, with one line for \
            each row and metric", body = LeaderboardResponse),
        (status = 409, description = "With `on=common`: the listed rows have no sample names in \
            common"),
        (status = 422, description = "Unknown metric"),
        (status = 429, description = "Limit reached; retry after `Retry-After` seconds"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    Query(parameters): Query<LeaderboardQuery>,
) -> Result<Response, ApiError> {
    let format = parameters.format.unwrap_or_default();
    let response = respond(&app, parameters).await?;
    Ok(match format {
        Format::Json => Json(response).into_response(),
        Format::Csv => {
            csv::answer("leaderboard.csv", &HEADER, response.lines(), response.next.as_deref())
        }
    })
}

/// Returns one page of the leaderboard.
pub(crate) async fn respond(
    app: &App,
    parameters: LeaderboardQuery,
) -> Result<LeaderboardResponse, ApiError> {
    let with_published = parameters.published.unwrap_or_default();
    let query = parameters.into_query(app).await?;
    query.check()?;
    let rows = rows(app, &query).await?;
    let reference = with_published.then(|| published::reference(&query, &rows));
    let page = query.page(rows)?;
    Ok(LeaderboardResponse {
        policy: query.policy,
        on: query.on,
        total: page.total,
        rows: page.rows.into_iter().map(Into::into).collect(),
        published: reference,
        next: page.next,
    })
}

/// Returns all rows of a query, with their ranks.
pub(crate) async fn rows(
    app: &App,
    query: &analysis::LeaderboardQuery,
) -> Result<Vec<LeaderboardRow>, ApiError> {
    if query.on == Samples::All {
        return Ok(analysis::leaderboard_rows(&app.store, query).await?);
    }
    let runs = app.store.standings(&query.standings()).await?;
    let work = analysis::rows_on_common(&app.store, query, &runs);
    let rows = app.caches.boards.get(analysis::common_key(query, &runs), work).await?;
    Ok(rows.to_vec())
}

impl From<CommonError> for ApiError {
    fn from(error: CommonError) -> Self {
        match error {
            CommonError::Store(error) => error.into(),
            CommonError::TooManyRuns(_) => Self::new(Code::MalformedRequest, error.to_string()),
            CommonError::Nothing { .. } => Self::new(Code::NothingToCompare, error.to_string()),
        }
    }
}

impl LeaderboardQuery {
    /// Validates the parameters, except page size and cursor.
    pub(crate) async fn into_query(
        self,
        app: &App,
    ) -> Result<analysis::LeaderboardQuery, ApiError> {
        let pack = app.digest_or_all(self.pack.as_deref()).await?;
        let slice = SliceFilter {
            prompt_kind: self.prompt_kind,
            category: self.category,
            relation: self.relation,
            attribute: self.attribute,
            size: self.size,
            detectable: self.detectable,
            predicate: self.predicate,
            template: self.template,
            fine_attribute: self.fine_attribute,
            aps_attribute: self.aps_attribute,
        }
        .slice()?;
        let filters = Filters { since: self.since.as_deref(), until: self.until.as_deref() };
        let (since, until): (Option<OffsetDateTime>, _) = filters.times()?;
        let flags = [
            ("cross_validated_training", self.cross_validated_training),
            ("trained_on_evaluation_photos", self.trained_on_evaluation_photos),
        ];
        let is_whole = slice.is_all() || slice.kind == Slice::PROMPT_KIND;
        let default_least = if is_whole { 0 } else { 20 };
        let mut query = analysis::LeaderboardQuery {
            filter: StandingsFilter {
                method: self.method,
                run: self.run,
                pack,
                weights: None,
                dataset: self.dataset,
                split: self.split,
                since,
                until,
                slice,
            },
            flags: flags
                .into_iter()
                .filter_map(|(flag, set)| Some((flag.to_owned(), set?)))
                .collect(),
            min_samples: self.min_samples.unwrap_or(default_least),
            on: self.on.unwrap_or_default(),
            policy: self.policy.unwrap_or_default(),
            by: self.by.unwrap_or_default(),
            limit: page(self.limit)?,
            after: self.after,
            ..analysis::LeaderboardQuery::default()
        };
        if let Some(codes) = &self.metrics {
            query.metrics = metrics::parse_list(codes)?
                .into_iter()
                .map(|metric| metric.code.to_owned())
                .collect();
        }
        match self.sort.as_deref() {
            None => {}
            Some("mean_rank") => query.sort = Sort::MeanRank,
            Some(code) => {
                let metric =
                    metrics::find(code).ok_or_else(|| metrics::ListError::unknown(code))?;
                if !query.metrics.is_empty()
                    && !query.metrics.iter().any(|listed| listed == metric.code)
                {
                    query.metrics.push(metric.code.to_owned());
                }
                query.sort = Sort::Metric {
                    metric: metric.code.to_owned(),
                    version: metric.version,
                    descending: metric.direction != Direction::LowerIsBetter,
                };
            }
        }
        Ok(query)
    }
}

impl From<LeaderboardRow> for Row {
    fn from(row: LeaderboardRow) -> Self {
        // A metric is shown in its newest version; older ones are read with the sample.
        let newest =
            row.metrics.into_iter().map(|of| (of.summary.metric.clone(), Summary::from(of)));
        let LeaderboardRow {
            method, run, runs, flags, pack, sample_set, set_place, mean_rank, ..
        } = row;
        let comparable = set_place.map(|place| place == 0);
        Self {
            method,
            run,
            runs,
            flags,
            pack,
            sample_set,
            comparable,
            mean_rank,
            metrics: newest.collect(),
        }
    }
}

impl From<RankedMetric> for Summary {
    fn from(of: RankedMetric) -> Self {
        let no_interval = of.no_interval();
        let RankedMetric { summary, detail, area, rank, last_rank } = of;
        let interval = detail.as_ref().and_then(|detail| detail.interval);
        Self {
            numbers: Numbers {
                version: summary.version,
                n: summary.n,
                nulls: summary.nulls,
                coverage: share(summary.n, summary.n + summary.nulls),
                mean: summary.mean,
                std: summary.std,
                low: interval.map(|ends| ends.low),
                high: interval.map(|ends| ends.high),
                no_interval,
            },
            rank,
            last_rank,
            samples: detail.as_ref().map(|detail| detail.samples),
            clusters: detail.as_ref().map(|detail| detail.clusters),
            few_clusters: detail.as_ref().map(|detail| detail.clusters < FEW_CLUSTERS as u64),
            penalised: detail.as_ref().map(|detail| detail.penalised),
            penalty_rate: detail
                .as_ref()
                .filter(|detail| detail.samples > 0)
                .map(|detail| detail.penalised as f64 / detail.samples as f64),
            undecided: detail.as_ref().map(|detail| detail.undecided),
            faceless: detail.as_ref().map(|detail| detail.faceless),
            area: area.map(Into::into),
            pending: detail.is_none(),
        }
    }
}
