//! `GET /v1/analysis/slices`: the metrics of a run by slice.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::analysis::numbers::{Numbers, share};
use crate::api::http::csv::{self, Format, optional};
use crate::api::http::{ApiError, Code, Query, not_found};
use crate::api::state::{App, Shared};
use crate::{
    analysis::{NoInterval, Policy},
    metrics,
    stats::FEW_CLUSTERS,
    store::{APS_AREA, Slice, SliceSummary},
};

/// Filters and options of slices.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SlicesQuery {
    /// Id of the run.
    pub(crate) run: Uuid,
    /// Digest of a model pack. Default: the loaded pack.
    pub(crate) pack: Option<String>,
    /// Only slices of this kind.
    pub(crate) kind: Option<KindWord>,
    /// Only these metrics, codes separated by commas.
    #[param(example = "ips,clip_t")]
    pub(crate) metrics: Option<String>,
    /// Penalty policy for images that do not follow their prompt. Default: `stellar`.
    pub(crate) policy: Option<Policy>,
    /// Slices with fewer samples are left out; at least 5. Default: 20.
    pub(crate) min_samples: Option<u64>,
    /// `json` (default) or `csv`.
    pub(crate) format: Option<Format>,
}

/// A kind of slice.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KindWord {
    /// Kind of the prompt.
    #[serde(rename = "prompt_kind")]
    Prompt,
    /// Category of the prompt.
    Category,
    /// Kind of relation that the prompt asks for.
    Relation,
    /// Attribute of the person, present or (with `!`) absent.
    Attribute,
    /// Class of the image's shorter side.
    Size,
    /// Object that the prompt names.
    Detectable,
    /// Predicate of a relation that the prompt asks for.
    Predicate,
    /// Template of the prompt: its text with `[object]` for each object.
    Template,
    /// Level of a fine-grained attribute of the person.
    FineAttribute,
    /// Attribute that `aps` predicts; only `aps` is summarised by it.
    ApsAttribute,
}

impl KindWord {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Prompt => Slice::PROMPT_KIND,
            Self::Category => Slice::CATEGORY,
            Self::Relation => Slice::RELATION,
            Self::Attribute => Slice::ATTRIBUTE,
            Self::Size => Slice::SIZE,
            Self::Detectable => Slice::DETECTABLE,
            Self::Predicate => Slice::PREDICATE,
            Self::Template => Slice::TEMPLATE,
            Self::FineAttribute => Slice::FINE_ATTRIBUTE,
            Self::ApsAttribute => Slice::APS_ATTRIBUTE,
        }
    }
}

/// The slices of a run.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "run": "0197a7c6-6f00-7000-8000-000000000001", "pack": "…", "policy": "stellar", "samples": 1000, "stale": false,
    "computed": "2026-03-20T12:00:00Z",
    "slices": [{"kind": "attribute", "label": "!Young", "samples": 310, "penalised": 12, "undecided": 0, "metrics": {"ips": {
        "version": 1, "n": 300, "nulls": 10, "coverage": 0.967, "faceless": 6, "face_failure_rate": 0.02, "mean": 0.55,
        "std": 0.14, "low": 0.51, "high": 0.58, "clusters": 62, "few_clusters": false}}}]}))]
pub(crate) struct SlicesResponse {
    /// Id of the run.
    pub(crate) run: Uuid,
    /// Digest of the pack.
    pub(crate) pack: String,
    /// The penalty policy that was applied.
    pub(crate) policy: Policy,
    /// Number of samples of the run when it was summarised.
    pub(crate) samples: u64,
    /// Time at which it was summarised.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) computed: OffsetDateTime,
    /// True if the run has changed since; it is summarised again within seconds.
    pub(crate) stale: bool,
    /// All samples first, then by kind and label.
    pub(crate) slices: Vec<SliceEntry>,
}

/// A slice.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct SliceEntry {
    /// Kind of the slice; empty for all samples.
    pub(crate) kind: String,
    /// Label of the slice within its kind.
    pub(crate) label: String,
    /// Number of samples in the slice.
    pub(crate) samples: u64,
    /// Number of penalised samples.
    pub(crate) penalised: u64,
    /// Number of samples for which the penalty cannot be decided.
    pub(crate) undecided: u64,
    /// Summaries of the metrics, by code.
    pub(crate) metrics: BTreeMap<String, SliceMetric>,
}

/// A metric over a slice.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct SliceMetric {
    /// Mean and interval.
    #[serde(flatten)]
    pub(crate) numbers: Numbers,
    /// Number of samples whose image has no face, for metrics that look for one.
    pub(crate) faceless: u64,
    /// Share of the measured samples that have no face.
    pub(crate) face_failure_rate: f64,
    /// Number of identities among the samples with a number; a sample without an identity counts as
    /// one.
    pub(crate) clusters: u64,
    /// True if there are fewer than 8 such identities: with skewed scores, the coverage of the
    /// interval is then lower than stated.
    pub(crate) few_clusters: bool,
}

/// Returns each metric for each slice of a run: scores, nulls, and images without a face.
#[utoipa::path(
    get, path = "/v1/analysis/slices", operation_id = "read_slices", tag = "analysis",
    params(SlicesQuery),
    responses(
        (status = 200, description = "The slices; with `format=csv` one line for \
            each slice and metric", content(
            (SlicesResponse = "application/json"), (String = "text/csv"))),
        (status = 404, description = "No such run, or no summary of it with this pack"),
        (status = 422, description = "Unknown metric"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    Query(parameters): Query<SlicesQuery>,
) -> Result<Response, ApiError> {
    let format = parameters.format.unwrap_or_default();
    let response = respond(&app, parameters).await?;
    Ok(match format {
        Format::Json => Json(response).into_response(),
        Format::Csv => csv::answer("slices.csv", &HEADER, response.lines(), None),
    })
}

/// Returns the slices of a run.
pub(crate) async fn respond(
    app: &App,
    parameters: SlicesQuery,
) -> Result<SlicesResponse, ApiError> {
    let wanted = parameters.metrics.as_deref().map(metrics::parse_list).transpose()?;
    let policy = parameters.policy.unwrap_or_default();
    let min_samples = parameters.min_samples.unwrap_or(20);
    if min_samples < 5 {
        return Err(ApiError::new(
            Code::MalformedRequest,
            format!("min_samples is {min_samples}: send at least 5, smaller slices are not stored"),
        ));
    }
    let pack = app.digest_of(parameters.pack.as_deref()).await?;
    let kept = app.store.run_slices(parameters.run, &pack).await?.ok_or_else(|| {
        not_found(
            "run with this id and scores of this pack, or it was created within the last \
            seconds and is not summarised yet",
        )
    })?;
    let kind = parameters.kind.map(KindWord::word);
    let mut slices: Vec<SliceEntry> = Vec::new();
    for row in kept.rows {
        let of_policy = if Policy::concerns(&row.metric) { policy } else { Policy::None };
        // The area is no mean of samples: reports and leaderboards have it.
        let chosen = row.metric != APS_AREA
            && row.policy == of_policy.as_str()
            && (row.slice.is_all() || row.samples >= min_samples)
            && (row.slice.is_all() || kind.is_none_or(|kind| row.slice.kind == kind))
            && wanted
                .as_ref()
                .is_none_or(|wanted| wanted.iter().any(|metric| metric.code == row.metric));
        if chosen {
            add(&mut slices, row);
        }
    }
    Ok(SlicesResponse {
        run: parameters.run,
        pack,
        policy,
        samples: kept.samples,
        computed: kept.computed,
        stale: kept.stale,
        slices,
    })
}

fn add(slices: &mut Vec<SliceEntry>, row: SliceSummary) {
    if slices.last().is_none_or(|last| last.kind != row.slice.kind || last.label != row.slice.label)
    {
        slices.push(SliceEntry {
            kind: row.slice.kind,
            label: row.slice.label,
            samples: row.samples,
            penalised: 0,
            undecided: row.undecided,
            metrics: BTreeMap::new(),
        });
    }
    let last = slices.last_mut().expect("a slice was pushed if there was none");
    // Metrics that the penalty does not concern count no penalised samples.
    last.penalised = last.penalised.max(row.penalised);
    let measured = row.n + row.nulls;
    last.metrics.insert(
        row.metric,
        SliceMetric {
            numbers: Numbers {
                version: row.version,
                n: row.n,
                nulls: row.nulls,
                coverage: share(row.n, measured),
                mean: row.mean,
                std: row.std,
                low: row.low,
                high: row.high,
                no_interval: NoInterval::of_mean(row.mean, row.low, row.clusters as usize),
            },
            faceless: row.faceless,
            face_failure_rate: share(row.faceless, measured),
            clusters: row.clusters,
            few_clusters: row.clusters < FEW_CLUSTERS as u64,
        },
    );
}

const HEADER: [&str; 15] = [
    "kind",
    "label",
    "samples",
    "penalised",
    "undecided",
    "metric",
    "version",
    "n",
    "nulls",
    "faceless",
    "mean",
    "std",
    "low",
    "high",
    "clusters",
];

impl SlicesResponse {
    fn lines(&self) -> Vec<Vec<String>> {
        let mut lines = Vec::new();
        for slice in &self.slices {
            for (metric, of) in &slice.metrics {
                let numbers = &of.numbers;
                lines.push(vec![
                    slice.kind.clone(),
                    slice.label.clone(),
                    slice.samples.to_string(),
                    slice.penalised.to_string(),
                    slice.undecided.to_string(),
                    metric.clone(),
                    numbers.version.to_string(),
                    numbers.n.to_string(),
                    numbers.nulls.to_string(),
                    of.faceless.to_string(),
                    optional(numbers.mean),
                    optional(numbers.std),
                    optional(numbers.low),
                    optional(numbers.high),
                    of.clusters.to_string(),
                ]);
            }
        }
        lines
    }
}
