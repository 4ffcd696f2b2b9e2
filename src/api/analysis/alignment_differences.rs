//! `GET /v1/analysis/alignment/differences`: which metrics agree best with annotators, and which
//! cannot be distinguished from the best.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::alignment::{Judged, judged};
use crate::api::http::{ApiError, Code, Query};
use crate::api::preferences::selection::Selection;
use crate::api::questions::QuestionWord;
use crate::api::state::{App, Shared};
use crate::{
    analysis::{DifferenceOptions, SliceDifferences, tau_differences},
    blocking::blocking,
    metrics::{self, Direction, ListError},
};

/// Filters of preferences and scores, and the reference metric.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AlignmentDifferencesQuery {
    /// The question put to annotators. Default: `overall`.
    pub(crate) question: Option<QuestionWord>,
    /// Only these metrics, codes separated by commas. P-values are corrected over these only.
    #[param(example = "ips,clip_t")]
    pub(crate) metrics: Option<String>,
    /// Code of the reference metric that the others are compared with. Default: the one that agrees
    /// best, with a correction that allows for this choice.
    #[param(example = "clip_t")]
    pub(crate) against: Option<String>,
    /// Digest of a model pack. Default: the loaded pack.
    pub(crate) pack: Option<String>,
    /// Only preferences of this annotator.
    pub(crate) annotator: Option<String>,
    /// If true, metrics are also compared within slices. Default: false.
    pub(crate) slices: Option<bool>,
    /// Slices with fewer pairs are left out. Default: 20.
    pub(crate) min_pairs: Option<usize>,
    /// Only preferences of this study.
    pub(crate) study: Option<Uuid>,
    /// Only preferences about runs over this dataset.
    pub(crate) dataset: Option<String>,
    /// Only preferences about this run.
    pub(crate) run: Option<Uuid>,
    /// Only preferences about prompts of this kind (`metadata.prompt_kind`).
    pub(crate) kind: Option<String>,
}

/// Differences of metrics in their agreement with annotators.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "question": "overall", "pack": "…", "answers": 600, "against": null,
    "slices": [{"kind": "", "label": "", "pairs": 600, "reference": "ips", "comparisons": 1, "metrics": [
        {"metric": "ips", "version": 1, "pairs": 590, "clusters": 50, "few_clusters": false, "tau": 0.41, "tau_reference": 0.41,
         "difference": null, "low": null, "high": null, "p": null, "p_holm": null, "verdict": "reference", "best": true},
        {"metric": "clip_t", "version": 1, "pairs": 590, "clusters": 50, "few_clusters": false, "tau": 0.22, "tau_reference": 0.41,
         "difference": -0.19, "low": -0.31, "high": -0.08, "p": 0.0008, "p_holm": 0.0008, "verdict": "worse", "best": false}]}]}))]
pub(crate) struct AlignmentDifferencesResponse {
    /// The question put to annotators.
    pub(crate) question: QuestionWord,
    /// Digest of the pack of the scores.
    pub(crate) pack: String,
    /// Number of preferences.
    pub(crate) answers: usize,
    /// Code of the reference metric that was named; null if it is the one that agrees best.
    pub(crate) against: Option<String>,
    /// Comparisons over all pairs first, then by slice if that was requested.
    pub(crate) slices: Vec<SliceDifferences>,
}

/// Compares metrics in how well they agree with annotators: is one significantly better?
///
/// Each metric is compared with a reference metric, by default the one with the largest Kendall's
/// tau-b, over the pairs of images in which both have scores. Intervals and p-values are from a
/// studentised bootstrap over identities (or prompts where no identity is known), and Holm's
/// correction covers all comparisons. The *best group* are the metrics that are not shown to be
/// worse than the best.
#[utoipa::path(
    get, path = "/v1/analysis/alignment/differences", operation_id = "read_alignment_differences",
    tag = "analysis", params(AlignmentDifferencesQuery),
    responses(
        (status = 200, description = "The differences", body = AlignmentDifferencesResponse),
        (status = 422, description = "Unknown metric, or a reference metric without a direction"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    Query(parameters): Query<AlignmentDifferencesQuery>,
) -> Result<Json<AlignmentDifferencesResponse>, ApiError> {
    respond(&app, parameters).await.map(Json)
}

/// Compares metrics in how well they agree with annotators.
pub(crate) async fn respond(
    app: &App,
    parameters: AlignmentDifferencesQuery,
) -> Result<AlignmentDifferencesResponse, ApiError> {
    let options = DifferenceOptions {
        against: parameters.against.as_deref().map(against).transpose()?,
        slices: parameters.slices.unwrap_or_default(),
        min_pairs: parameters.min_pairs.unwrap_or(20),
        ..DifferenceOptions::default()
    };
    let selection = Selection {
        question: app
            .questions
            .of(parameters.question.unwrap_or_default(), Code::MalformedRequest)?,
        annotator: parameters.annotator,
        study: parameters.study,
        dataset: parameters.dataset,
        run: parameters.run,
        kind: parameters.kind,
    };
    // The reference metric is needed even if it is not one of those requested.
    let metrics = parameters.metrics.map(|metrics| match &options.against {
        Some(against) if !metrics.split(',').any(|code| code.trim() == against) => {
            format!("{metrics},{against}")
        }
        _ => metrics,
    });
    let judged = judged(app, selection, metrics.as_deref(), parameters.pack.as_deref()).await?;
    let Judged { question, pack, preferences, pairs, data } = judged;
    let against = options.against.clone();
    let slices = blocking(move || tau_differences(&pairs, &data, &options)).await;
    let (question, answers) = (question.into(), preferences.len());
    Ok(AlignmentDifferencesResponse { question, pack, answers, against, slices })
}

/// Returns the code of a reference metric.
fn against(code: &str) -> Result<String, ApiError> {
    let metric = metrics::find(code).ok_or_else(|| ListError::unknown(code))?;
    if metric.direction == Direction::Support {
        let problem = format!(
            "`{code}` only supports other metrics, so it prefers no image: choose another \
             reference metric"
        );
        return Err(ApiError::new(Code::InvalidField, problem));
    }
    Ok(metric.code.to_owned())
}
