//! `GET /v1/runs/{a}/compare/{b}`: a paired comparison of two runs over the same samples.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::http::{ApiError, Code, InPath, Query, not_found};
use crate::api::runs::report::no_benchmark;
use crate::api::state::{App, Shared};
use crate::{
    analysis::{CompareOptions, Comparison, Policy, compare, compare_benchmark},
    blocking::blocking,
    metrics,
    pack_id::PackId,
    store::{RunData, Store},
};

/// Options of a comparison.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CompareQuery {
    /// Only these metrics, codes separated by commas. P-values are corrected over these only.
    #[param(example = "ips,clip_t")]
    pub(crate) metrics: Option<String>,
    /// Name or digest of the pack whose scores are compared. Default: the pack of most of A's
    /// scores.
    pub(crate) pack: Option<String>,
    /// The penalty policy, applied to each run separately. Default: `stellar`.
    pub(crate) policy: Option<Policy>,
    /// Coverage of the intervals, 0.5 to 0.999. Default: 0.95.
    #[param(example = 0.95)]
    pub(crate) confidence: Option<f64>,
    /// Only the samples with this kind of prompt, as if the runs had no others: Stellar-T is `T`,
    /// Stellar-H is `H`.
    #[param(example = "T")]
    pub(crate) prompt_kind: Option<String>,
    /// If true, slices are compared too. Default: false.
    pub(crate) slices: Option<bool>,
    /// Slices with fewer pairs are left out. Default: 20.
    pub(crate) min_pairs: Option<usize>,
}

/// A comparison of two runs.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "a": {"id": "0197a7c6-6f00-7000-8000-000000000001", "method": "mine", "run": "step 2000"},
    "b": {"id": "0197a7c6-6f00-7000-8000-000000000002", "method": "mine", "run": "step 1000"},
    "pack": {"name": "official", "digest": "…", "weights": "official"},
    "policy": "stellar", "confidence": 0.95, "pairs": 1000, "only_a": 0, "only_b": 0, "not_compared": [],
    "slices": [{"kind": "", "label": "", "pairs": 1000, "metrics": [{
        "metric": "ips", "version": 1, "n": 998, "clusters": 200, "few_clusters": false, "mean_a": 0.61, "mean_b": 0.6, "difference": 0.01,
        "low": 0.002, "high": 0.018, "win_rate": 0.54, "p": 0.0143, "p_holm": 0.0143, "p_bh": 0.0143, "finding": "better"}]}]}))]
pub(crate) struct CompareResponse {
    /// Run A, which is judged.
    pub(crate) a: ComparedRun,
    /// Run B, the baseline.
    pub(crate) b: ComparedRun,
    /// The pack of all scores.
    pub(crate) pack: PackId,
    /// The findings.
    #[serde(flatten)]
    pub(crate) comparison: Comparison,
}

/// A compared run.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ComparedRun {
    /// Id of the run.
    pub(crate) id: Uuid,
    /// Method of the run.
    pub(crate) method: String,
    /// Name of the run.
    pub(crate) run: String,
}

/// Compares two runs on the samples that have the same name in both.
///
/// Differences are A − B, pair by pair. The intervals are a studentised bootstrap that resamples
/// whole identities. The test is a permutation test that flips the signs of whole identities; its
/// null hypothesis is that the two runs are exchangeable identity by identity. P-values are
/// corrected over the metrics of a slice. All scores are of one pack.
#[utoipa::path(
    get, path = "/v1/runs/{a}/compare/{b}", operation_id = "compare_runs", tag = "analysis",
    params(
        ("a" = Uuid, Path, description = "Id of run A, which is judged"),
        ("b" = Uuid, Path, description = "Id of run B, the baseline"),
        CompareQuery
    ),
    responses(
        (status = 200, description = "The comparison", body = CompareResponse),
        (status = 409, description = "The runs have no scores of a common pack, or no sample names \
            in common"),
        (status = 422, description = "Unknown metric"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    runs: InPath<(String, String)>,
    Query(parameters): Query<CompareQuery>,
) -> Result<Json<CompareResponse>, ApiError> {
    let (a, b) = runs.map(|Path(runs)| runs).unwrap_or_default();
    let pair = pair(&app, &a, &b, parameters.pack.as_deref()).await?;
    respond(&pair, &parameters).await.map(Json)
}

/// Two runs with scores of one pack.
pub(crate) struct Pair {
    pub(crate) a: Arc<RunData>,
    pub(crate) b: Arc<RunData>,
    pub(crate) pack: PackId,
}

/// Reads two runs with their scores of the named pack, or else of the one of most of A's scores.
pub(crate) async fn pair(
    app: &App,
    a: &str,
    b: &str,
    pack: Option<&str>,
) -> Result<Pair, ApiError> {
    let asked = match pack {
        Some(named) => Some(app.digest_of(Some(named)).await?),
        None => None,
    };
    let a = run_data(&app.store, a, asked.as_deref()).await?;
    let pack = a.pack.clone().ok_or_else(|| nothing(&a, asked.as_deref()))?;
    let b = run_data(&app.store, b, Some(&pack.digest)).await?;
    if b.pack.is_none() {
        return Err(nothing(&b, Some(&pack.digest)));
    }
    Ok(Pair { a, b, pack })
}

impl Pair {
    /// Returns the two runs as responses name them.
    pub(crate) fn named(&self) -> [ComparedRun; 2] {
        [&self.a, &self.b].map(|data| ComparedRun {
            id: data.run,
            method: data.name.method.clone(),
            run: data.name.run.clone(),
        })
    }
}

/// Creates the error for two runs without pairs.
pub(crate) fn no_pairs() -> ApiError {
    ApiError::new(
        Code::NothingToCompare,
        "the two runs have no sample names in common: samples are paired by name, so name the \
         samples of both runs after their prompts",
    )
}

/// Compares two runs.
pub(crate) async fn respond(
    pair: &Pair,
    parameters: &CompareQuery,
) -> Result<CompareResponse, ApiError> {
    let options = parameters.options()?;
    let metrics = parameters.metrics.as_deref().map(metrics::parse_list).transpose()?;
    let (a, b) = (Arc::clone(&pair.a), Arc::clone(&pair.b));
    let kind = parameters.prompt_kind.clone();
    let comparison = blocking(move || {
        let compare = |a: &RunData, b: &RunData| match &kind {
            Some(kind) => compare_benchmark(a, b, kind, &options),
            None => compare(a, b, &options),
        };
        let Some(chosen) = metrics else { return compare(&a, &b) };
        // The penalty needs its own metrics, even if they were not requested.
        let wanted = |code: &str| {
            matches!(code, "clip_t" | "clip_n") || chosen.iter().any(|metric| metric.code == code)
        };
        let (mut a, mut b) = (RunData::clone(&a), RunData::clone(&b));
        a.metrics.retain(|code, _| wanted(code));
        b.metrics.retain(|code, _| wanted(code));
        let mut comparison = compare(&a, &b);
        comparison.keep_metrics(|code| chosen.iter().any(|metric| metric.code == code));
        comparison
    });
    let comparison = comparison.await;
    if comparison.pairs == 0 {
        return Err(match &parameters.prompt_kind {
            Some(kind) if comparison.only_a == 0 && comparison.only_b == 0 => no_benchmark(kind),
            _ => no_pairs(),
        });
    }
    let [a, b] = pair.named();
    Ok(CompareResponse { a, b, pack: pair.pack.clone(), comparison })
}

impl CompareQuery {
    pub(crate) fn options(&self) -> Result<CompareOptions, ApiError> {
        let defaults = CompareOptions::default();
        let confidence = self.confidence.unwrap_or(defaults.confidence);
        if !(0.5..=0.999).contains(&confidence) {
            return Err(ApiError::new(
                Code::MalformedRequest,
                format!("confidence is {confidence}: send 0.5 to 0.999"),
            ));
        }
        Ok(CompareOptions {
            policy: self.policy.unwrap_or_default(),
            confidence,
            min_pairs: self.min_pairs.unwrap_or(defaults.min_pairs),
            slices: self.slices.unwrap_or_default(),
            ..defaults
        })
    }
}

/// Reads the columns of the run with this id.
pub(crate) async fn run_data(
    store: &Store,
    id: &str,
    pack: Option<&str>,
) -> Result<Arc<RunData>, ApiError> {
    let unknown = || {
        let id: String = id.chars().take(80).collect();
        not_found(&format!("run with the id {id}: GET /v1/runs lists all runs"))
    };
    store.run_data(id.parse().map_err(|_| unknown())?, pack).await?.ok_or_else(unknown)
}

/// Creates the error for a run without scores of a pack.
pub(crate) fn nothing(run: &RunData, pack: Option<&str>) -> ApiError {
    let of = pack.map_or_else(String::new, |pack| format!(" of the pack {pack}"));
    ApiError::new(
        Code::NothingToCompare,
        format!(
            "the run {} has no scores{of}: scores of different packs cannot be compared, so score \
                the run with that pack",
            run.name
        ),
    )
}
