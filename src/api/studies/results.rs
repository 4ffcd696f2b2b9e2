//! `GET /v1/studies/{id}/results`: shares and strengths of the methods of a study.

use std::collections::{BTreeMap, BTreeSet};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::http::{ApiError, Id, Query};
use crate::api::state::{App, Shared};
use crate::api::studies::{StudyResponse, find, question_of};
use crate::{
    analysis::{StudyResults, study_results},
    blocking::blocking,
    store::{StudyAnswer, StudyRecord},
};

/// Selects the question.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ResultsQuery {
    /// The question. Default: the first one of the study.
    pub(crate) question: Option<String>,
}

/// An annotator whose answers are left out.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct LeftOutAnnotator {
    /// Name of the annotator.
    pub(crate) annotator: String,
    /// `operator`, or `gold` for wrong answers to gold items.
    #[schema(example = "gold")]
    pub(crate) cause: String,
    /// The reason in words.
    pub(crate) reason: String,
    /// Answers to this question that are left out.
    pub(crate) answers: usize,
}

/// Results of a study for one question.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ResultsResponse {
    /// The study.
    pub(crate) study: StudyResponse,
    /// The question.
    pub(crate) question: String,
    /// The results.
    #[serde(flatten)]
    pub(crate) results: StudyResults,
    /// Annotators whose answers are left out, with the reasons.
    pub(crate) left_out: Vec<LeftOutAnnotator>,
}

/// Returns first-choice shares and strengths of the methods of a study.
///
/// Shares have the studentised bootstrap interval over prompts. Strengths are those of the
/// Plackett-Luce model for first choices (Bradley-Terry for pairs), with intervals from the spread
/// over prompts, so that several answers about one prompt are not taken as independent.
#[utoipa::path(
    get, path = "/v1/studies/{id}/results", operation_id = "read_study_results", tag = "studies",
    params(("id" = Uuid, Path, description = "Id of the study"), ResultsQuery),
    responses(
        (status = 200, description = "The results", body = ResultsResponse),
        (status = 404, description = "No such study"),
        (status = 422, description = "The study does not ask this question"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    id: Id<StudyRecord>,
    Query(parameters): Query<ResultsQuery>,
) -> Result<Json<ResultsResponse>, ApiError> {
    respond(&app, id, parameters).await.map(Json)
}

/// Returns the results of a study.
pub(crate) async fn respond(
    app: &App,
    id: Id<StudyRecord>,
    parameters: ResultsQuery,
) -> Result<ResultsResponse, ApiError> {
    let study = find(app, id).await?;
    let question = question_of(&study.plan, parameters.question.as_deref())?;
    let methods = methods(app, &study.plan.runs).await?;
    let items = app.store.study_items(study.id).await?;
    let exclusions = app.store.exclusions(study.id).await?;
    let names: BTreeSet<&str> = exclusions.iter().map(|of| of.annotator.as_str()).collect();
    let answers = app.store.study_answers(study.id, Some(&question)).await?;
    let (out, counted): (Vec<StudyAnswer>, Vec<StudyAnswer>) =
        answers.into_iter().partition(|answer| names.contains(answer.annotator.as_str()));
    let mut of_each: BTreeMap<&str, usize> = BTreeMap::new();
    for answer in &out {
        *of_each.entry(&answer.annotator).or_default() += 1;
    }
    let left_out = exclusions
        .iter()
        .map(|of| LeftOutAnnotator {
            annotator: of.annotator.clone(),
            cause: of.cause.as_str().to_owned(),
            reason: of.reason.clone(),
            answers: of_each.get(of.annotator.as_str()).copied().unwrap_or_default(),
        })
        .collect();
    let images = study.plan.images();
    let results = blocking(move || study_results(&items, &counted, &methods, images)).await;
    let question = question.as_str().to_owned();
    Ok(ResultsResponse { study: study.into(), question, results, left_out })
}

/// Returns the method of each of these runs, in their order.
pub(crate) async fn methods(app: &App, runs: &[Uuid]) -> Result<Vec<(Uuid, String)>, ApiError> {
    let mut methods = Vec::with_capacity(runs.len());
    for &run in runs {
        // Answers about the images of a deleted run are deleted with it.
        if let Some(found) = app.store.run(run).await? {
            methods.push((run, found.name.method));
        }
    }
    Ok(methods)
}
