//! `GET /v1/leaderboard`: methods ranked by their mean scores, with intervals.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use time::OffsetDateTime;
use utoipa::IntoParams;

pub(crate) use crate::api::analysis::board::{LeaderboardResponse, Row, Summary};
use crate::api::analysis::board_csv::{HEADER, lines};
use crate::api::analysis::published;
use crate::api::http::csv::{self, Format};
use crate::api::http::filters::{Filters, SliceFilter};
use crate::api::http::{ApiError, Code, Query, page};
use crate::api::state::{App, Shared};
use crate::{
    analysis::{self, CommonError, Grouping, LeaderboardRow, Policy, Samples, Sort},
    metrics::{self, Direction},
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
    /// Only the benchmark of this kind of prompt: each run is treated as if it had no other
    /// samples, with its own penalty, intervals, ranks and `aps` area. Stellar-T is `T`, Stellar-H
    /// is `H`. At most one of this and the following slice filters may be set.
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

/// Ranks methods by the mean of a metric or by their mean rank, or lists them by name.
#[utoipa::path(
    get, path = "/v1/leaderboard", operation_id = "read_leaderboard", tag = "leaderboard",
    params(LeaderboardQuery),
    responses(
        (status = 200, description = "One page; with `format=csv` one line for \
            each row and metric", content(
            (LeaderboardResponse = "application/json"), (String = "text/csv"))),
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
            csv::answer("leaderboard.csv", &HEADER, lines(&response), response.next.as_deref())
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
