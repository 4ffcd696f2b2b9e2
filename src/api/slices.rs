//! `GET /v1/analysis/slices`: on what is a run good, and for whom?

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

use super::csv::{self, Format};
use super::{ApiError, Code, Problem, Query, Shared};
use crate::{
    analysis::{NoInterval, Policy},
    metrics,
    stats::FEW_CLUSTERS,
    store::{Slice, SliceSummary},
};

/// Which slices of which run.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Parameters {
    /// The run.
    run: Uuid,
    /// Digest of a model pack. Default: the loaded pack.
    pack: Option<String>,
    /// Only slices of this kind.
    kind: Option<KindWord>,
    /// Only these metrics, codes separated by commas.
    #[param(example = "ips,clip_t")]
    metrics: Option<String>,
    /// What happens to samples whose image does not follow the prompt. Default: `stellar`.
    policy: Option<Policy>,
    /// Slices of fewer samples are left out, at least 5. Default: 20.
    min_samples: Option<u64>,
    /// `json` (default) or `csv`.
    format: Option<Format>,
}

/// What slices tell apart.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum KindWord {
    /// The kind of the prompt.
    #[serde(rename = "prompt_kind")]
    Prompt,
    /// A category of the prompt.
    Category,
    /// A kind of relation that the prompt asks for.
    Relation,
    /// An attribute of the subject, present or (with `!`) absent.
    Attribute,
    /// The class of the image's shorter side.
    Size,
}

impl KindWord {
    fn word(self) -> &'static str {
        match self {
            Self::Prompt => Slice::PROMPT_KIND,
            Self::Category => Slice::CATEGORY,
            Self::Relation => Slice::RELATION,
            Self::Attribute => Slice::ATTRIBUTE,
            Self::Size => Slice::SIZE,
        }
    }
}

/// A run by its slices.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "run": "0197a7c6-6f00-7000-8000-000000000001", "pack": "…", "policy": "stellar", "samples": 1000, "stale": false,
    "computed": "2026-03-20T12:00:00Z",
    "slices": [{"kind": "attribute", "label": "!Young", "samples": 310, "penalised": 12, "undecided": 0, "metrics": {"ips": {
        "version": 1, "n": 300, "nulls": 10, "coverage": 0.967, "faceless": 6, "face_failure_rate": 0.02, "mean": 0.55,
        "std": 0.14, "low": 0.51, "high": 0.58, "clusters": 62, "few_clusters": false}}}]}))]
pub(super) struct SlicesResponse {
    /// The run.
    run: Uuid,
    /// Digest of the pack.
    pack: String,
    /// The penalty policy in force.
    policy: Policy,
    /// Samples in the run when it was summarised.
    samples: u64,
    /// When that was.
    #[serde(with = "time::serde::rfc3339")]
    computed: OffsetDateTime,
    /// Whether the run has changed since; it is summarised anew within seconds.
    stale: bool,
    /// All samples first, then by kind and label.
    slices: Vec<SliceEntry>,
}

/// A slice.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct SliceEntry {
    /// What is told apart; empty for all samples.
    kind: String,
    /// Which of them.
    label: String,
    /// Samples in it.
    samples: u64,
    /// Samples that the penalty hit.
    penalised: u64,
    /// Samples of which the penalty cannot be decided.
    undecided: u64,
    /// By metric.
    metrics: BTreeMap<String, SliceMetric>,
}

/// A metric over a slice.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct SliceMetric {
    /// Version of its definition.
    version: u32,
    /// Samples with a number.
    n: u64,
    /// Samples that were measured and have none.
    nulls: u64,
    /// Share of the measured samples that have a number.
    coverage: f64,
    /// Samples in whose image no face was found, where the metric looks for one.
    faceless: u64,
    /// Their share of the measured samples.
    face_failure_rate: f64,
    /// Mean of the numbers; null where `n` is 0. Of `aps` the mean share of a sample's right answers, the `sample_mean` of a run's report.
    mean: Option<f64>,
    /// Standard deviation, ddof 1; null below two.
    std: Option<f64>,
    /// Lower end of the mean's 95 % interval, by identity.
    low: Option<f64>,
    /// Upper end.
    high: Option<f64>,
    /// Why a mean has no interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    no_interval: Option<NoInterval>,
    /// Identities among the samples with a number; a sample without one counts as one.
    clusters: u64,
    /// Whether these are so few that the interval rests on little: fewer than 8, where it covers less often than it says if scores are skewed.
    few_clusters: bool,
}

/// Reads what each metric says of each slice of a run: scores, nulls, and images without a face.
#[utoipa::path(
    get, path = "/v1/analysis/slices", operation_id = "read_slices", tag = "analysis", params(Parameters),
    responses(
        (status = 200, description = "The slices; with `format=csv` the same as text/csv, a line a slice and metric", body = SlicesResponse),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such run, or it is not summarised with this pack", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Unknown metric", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn read(
    State(app): Shared,
    Query(parameters): Query<Parameters>,
) -> Result<Response, ApiError> {
    let wanted = parameters.metrics.as_deref().map(metrics::parse_list).transpose()?;
    let policy = parameters.policy.unwrap_or_default();
    let min_samples = parameters.min_samples.unwrap_or(20);
    if min_samples < 5 {
        return Err(ApiError::new(
            Code::MalformedRequest,
            format!("min_samples is {min_samples}: send at least 5, smaller slices are not kept"),
        ));
    }
    let pack = app.digest_of(parameters.pack.as_deref()).await?;
    let kept = app.store.run_slices(parameters.run, &pack).await?.ok_or_else(|| {
        ApiError::new(
            Code::NotFound,
            "there is no run of this id with scores of this pack, or it came within the last seconds and is not summarised yet",
        )
    })?;
    let kind = parameters.kind.map(KindWord::word);
    let mut slices: Vec<SliceEntry> = Vec::new();
    for row in kept.rows {
        let of_policy = if Policy::concerns(&row.metric) { policy } else { Policy::None };
        let chosen = row.policy == of_policy.as_str()
            && (row.slice.is_all() || row.samples >= min_samples)
            && (row.slice.is_all() || kind.is_none_or(|kind| row.slice.kind == kind))
            && wanted.as_ref().is_none_or(|wanted| wanted.iter().any(|metric| metric.code == row.metric));
        if chosen {
            add(&mut slices, row);
        }
    }
    let answer = SlicesResponse {
        run: parameters.run,
        pack,
        policy,
        samples: kept.samples,
        computed: kept.computed,
        stale: kept.stale,
        slices,
    };
    Ok(match parameters.format.unwrap_or_default() {
        Format::Json => Json(answer).into_response(),
        Format::Csv => csv::answer("slices.csv", &HEADER, answer.lines(), None),
    })
}

fn add(slices: &mut Vec<SliceEntry>, row: SliceSummary) {
    if slices.last().is_none_or(|last| last.kind != row.slice.kind || last.label != row.slice.label) {
        slices.push(SliceEntry {
            kind: row.slice.kind,
            label: row.slice.label,
            samples: row.samples,
            penalised: 0,
            undecided: row.undecided,
            metrics: BTreeMap::new(),
        });
    }
    let last = slices.last_mut().expect("one was pushed if there was none");
    // Metrics that the penalty does not concern count nobody.
    last.penalised = last.penalised.max(row.penalised);
    let measured = row.n + row.nulls;
    let share = |count: u64| if measured == 0 { 0.0 } else { count as f64 / measured as f64 };
    last.metrics.insert(
        row.metric,
        SliceMetric {
            version: row.version,
            n: row.n,
            nulls: row.nulls,
            coverage: share(row.n),
            faceless: row.faceless,
            face_failure_rate: share(row.faceless),
            mean: row.mean,
            std: row.std,
            low: row.low,
            high: row.high,
            no_interval: NoInterval::of_mean(row.mean, row.low, row.clusters as usize),
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
        let number = |number: Option<f64>| number.map(|number| number.to_string()).unwrap_or_default();
        let mut lines = Vec::new();
        for slice in &self.slices {
            for (metric, of) in &slice.metrics {
                lines.push(vec![
                    slice.kind.clone(),
                    slice.label.clone(),
                    slice.samples.to_string(),
                    slice.penalised.to_string(),
                    slice.undecided.to_string(),
                    metric.clone(),
                    of.version.to_string(),
                    of.n.to_string(),
                    of.nulls.to_string(),
                    of.faceless.to_string(),
                    number(of.mean),
                    number(of.std),
                    number(of.low),
                    number(of.high),
                    of.clusters.to_string(),
                ]);
            }
        }
        lines
    }
}
