//! `GET /v1/analysis/first-places`: how often each method has the best image of a prompt, by each
//! metric and by people.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::chosen::{Choosing, Chosen, judgements};
use crate::api::http::{ApiError, Code, Query};
use crate::api::questions::QuestionWord;
use crate::api::state::{App, Shared};
use crate::{
    analysis::{FirstPlaces, MetricFirstPlaces, PeopleFirstPlaces, first_places},
    blocking::blocking,
    metrics,
    pack_id::PackId,
};

/// Maximum number of runs: all their scores are in memory at once.
pub(crate) const MOST_RUNS: usize = 16;

/// Runs, prompts and metrics, and the judgements to show beside them.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FirstPlacesQuery {
    /// Ids of at most 16 runs, separated by commas. Default: the newest finished run of each method
    /// over the dataset.
    pub(crate) runs: Option<String>,
    /// Only these methods: at most 16 names separated by commas, if runs are not named.
    #[param(example = "StellarNet,DreamBooth")]
    pub(crate) methods: Option<String>,
    /// Dataset of the runs, if they are not named. Default: that of the newest finished run.
    pub(crate) dataset: Option<String>,
    /// Split of the dataset, if runs are not named.
    pub(crate) split: Option<String>,
    /// Only prompts of this kind (`metadata.prompt_kind`).
    #[param(example = "T")]
    pub(crate) kind: Option<String>,
    /// Only these metrics, codes separated by commas. Default: all that have a direction.
    #[param(example = "ips,clip_t")]
    pub(crate) metrics: Option<String>,
    /// Name or digest of the pack of the scores. Default: the loaded pack if a run has scores of
    /// it, or else a pack of the first run.
    pub(crate) pack: Option<String>,
    /// The question put to annotators. Default: `overall`.
    pub(crate) question: Option<QuestionWord>,
    /// Only judgements of this study.
    pub(crate) study: Option<Uuid>,
}

/// Reason if there are no shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NoFirstPlaces {
    /// Fewer than two runs are compared.
    TooFewRuns,
    /// The runs have no prompts in common: samples are matched by name.
    NoCommonPrompts,
    /// No metric has numbers of all runs for one of the common prompts.
    NoScores,
}

/// A run whose first places are counted.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct FirstPlacesRun {
    /// Id of the run.
    pub(crate) id: Uuid,
    /// Method of the run.
    pub(crate) method: String,
    /// Name of the run.
    pub(crate) run: String,
}

/// First places of methods.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "question": "overall", "dataset": "Stellar-T", "kind": null, "pack": null, "prompts": 900,
    "runs": [{"id": "0197a7c6-6f00-7000-8000-000000000001", "method": "mine", "run": "default"},
             {"id": "0197a7c6-6f00-7000-8000-000000000002", "method": "other", "run": "default"}],
    "metrics": [{"metric": "ips", "version": 1, "prompts": 890, "shared": 2, "clusters": 90, "few_clusters": false, "shares": [
        {"first": 601.0, "of": 890, "share": 0.675, "low": 0.62, "high": 0.73, "share_interval": "bootstrap"},
        {"first": 289.0, "of": 890, "share": 0.325, "low": 0.27, "high": 0.38, "share_interval": "bootstrap"}]}],
    "people": null}))]
pub(crate) struct FirstPlacesResponse {
    /// The question put to annotators.
    pub(crate) question: QuestionWord,
    /// The dataset of the runs, if they were not named.
    pub(crate) dataset: Option<String>,
    /// The kind of the prompts, if it was given.
    pub(crate) kind: Option<String>,
    /// The pack of the scores; null if no run has scores.
    pub(crate) pack: Option<PackId>,
    /// The runs, in the order of the shares.
    pub(crate) runs: Vec<FirstPlacesRun>,
    /// Prompts that all runs have.
    pub(crate) prompts: usize,
    /// Reason if there are no shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) no_shares: Option<NoFirstPlaces>,
    /// One entry per metric with numbers, in the order of the registry.
    pub(crate) metrics: Vec<MetricFirstPlaces>,
    /// First choices of people; null if nobody judged images of these runs only.
    pub(crate) people: Option<PeopleFirstPlaces>,
}

/// Counts how often each method has the best image of a prompt, by each metric and by people.
///
/// Only prompts that all runs have are counted, and samples are matched by name. Runs with equal
/// scores share the place. Scores are as measured, without any penalty. Intervals of metrics
/// resample identities; those of people resample prompts.
#[utoipa::path(
    get, path = "/v1/analysis/first-places", operation_id = "read_first_places", tag = "analysis",
    params(FirstPlacesQuery),
    responses(
        (status = 200, description = "The shares", body = FirstPlacesResponse),
        (status = 404, description = "No such run"),
        (status = 422, description = "Unknown metric"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    Query(parameters): Query<FirstPlacesQuery>,
) -> Result<Json<FirstPlacesResponse>, ApiError> {
    respond(&app, parameters).await.map(Json)
}

/// Counts first places.
pub(crate) async fn respond(
    app: &App,
    parameters: FirstPlacesQuery,
) -> Result<FirstPlacesResponse, ApiError> {
    let wanted = parameters.metrics.as_deref().map(metrics::parse_codes).transpose()?;
    let question =
        app.questions.of(parameters.question.unwrap_or_default(), Code::MalformedRequest)?;
    let choosing = Choosing {
        runs: parameters.runs.as_deref(),
        methods: parameters.methods.as_deref(),
        dataset: parameters.dataset,
        split: parameters.split.as_deref(),
        pack: parameters.pack.as_deref(),
        most: MOST_RUNS,
    };
    let chosen = choosing.choose(app).await?;
    let data = chosen.data(app).await?;
    let Chosen { dataset, pack, .. } = chosen;
    let runs: Vec<FirstPlacesRun> = data
        .iter()
        .map(|run| FirstPlacesRun {
            id: run.run,
            method: run.name.method.clone(),
            run: run.name.run.clone(),
        })
        .collect();
    let judged = judgements(app, &question, &data, parameters.study).await?;
    let found = if data.len() < 2 {
        FirstPlaces::default()
    } else {
        let kind = parameters.kind.clone();
        blocking(move || first_places(&data, &judged, wanted.as_deref(), kind.as_deref())).await
    };
    let FirstPlaces { prompts, mut metrics, people } = found;
    metrics.retain(|metric| metric.prompts > 0);
    let no_shares = match (runs.len(), prompts, metrics.len()) {
        (0 | 1, ..) => Some(NoFirstPlaces::TooFewRuns),
        (_, 0, _) => Some(NoFirstPlaces::NoCommonPrompts),
        (.., 0) => Some(NoFirstPlaces::NoScores),
        _ => None,
    };
    Ok(FirstPlacesResponse {
        question: question.into(),
        dataset,
        kind: parameters.kind,
        pack,
        runs,
        prompts,
        no_shares,
        metrics,
        people,
    })
}
