//! `/v1/studies`: human-preference studies, their progress and their state.

pub(super) mod answers;
pub(super) mod create;
pub(super) mod exchange;
pub(super) mod exclusions;
pub(super) mod export;
pub(super) mod next;
pub(crate) mod results;
pub(super) mod sample_size;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::http::{ApiError, Code, Id, Query, Resource, body, not_found, page_of};
use crate::api::state::{App, Shared};
use crate::content::ContentHash;
use crate::store::{
    AnnotatorAnswers, ExclusionCause, Question, StudyPlan, StudyRecord, StudyState,
};

/// Limit of a small body in bytes.
const MOST_BYTES: usize = 16 << 10;

/// Items whose images are looked for.
const LOOKED_AT: u32 = 100;

/// Maximum number of annotators that progress lists.
const MOST_ANNOTATORS: usize = 1_000;

impl Resource for StudyRecord {
    const NAME: &'static str = "study";
}

/// A study.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct StudyResponse {
    /// Id of the study.
    pub(crate) id: Uuid,
    /// Its state.
    pub(crate) state: StudyState,
    /// What it asks.
    pub(crate) plan: StudyPlan,
    /// Number of images of an item.
    pub(crate) images: usize,
    /// Time of creation.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created: OffsetDateTime,
}

impl From<StudyRecord> for StudyResponse {
    fn from(of: StudyRecord) -> Self {
        let StudyRecord { id, plan, state, created, .. } = of;
        Self { id, state, images: plan.images(), plan, created }
    }
}

/// Returns the study with this id.
pub(crate) async fn find(app: &App, id: Id<StudyRecord>) -> Result<StudyRecord, ApiError> {
    let found = app.store.study(id.0).await?;
    found.ok_or_else(|| not_found("study with this id: GET /v1/studies lists all studies"))
}

/// Returns the most items that an annotator is asked about: by the quota, or all that there are.
pub(crate) async fn most_items(
    app: &App,
    study: Uuid,
    plan: &StudyPlan,
) -> Result<usize, ApiError> {
    let last = app.store.last_study_place(study).await?;
    Ok(plan.most_items().min(last.map_or(0, |last| last as usize + 1)))
}

/// Returns how many images of the first items have no thumbnail, and how many images these have.
pub(crate) async fn unseen_images(app: &App, study: Uuid) -> Result<(usize, usize), ApiError> {
    let mut wanted: BTreeMap<Uuid, BTreeSet<String>> = BTreeMap::new();
    for item in app.store.first_study_items(study, LOOKED_AT).await? {
        for run in item.runs {
            wanted.entry(run).or_default().insert(item.name.clone());
        }
    }
    let shown = app.store.shown_samples(&wanted).await?;
    let images: HashSet<ContentHash> = shown.values().filter_map(|sample| sample.image).collect();
    let images: Vec<ContentHash> = images.into_iter().collect();
    let seen = app.store.with_thumbnail(&images, OffsetDateTime::UNIX_EPOCH).await?;
    Ok((images.len() - seen.len(), images.len()))
}

/// Returns the questions of a study; words that this program does not know are left out.
pub(crate) fn questions(plan: &StudyPlan) -> Vec<Question> {
    plan.questions.iter().filter_map(|word| Question::parse(word)).collect()
}

/// Returns the question of a study that a request is about, by default its first one.
pub(crate) fn question_of(plan: &StudyPlan, word: Option<&str>) -> Result<Question, ApiError> {
    let known = questions(plan);
    let found = known.iter().find(|each| word.is_none_or(|word| each.as_str() == word));
    found.cloned().ok_or_else(|| {
        let problem = format!(
            "`question` is not one of this study: send one of {}",
            plan.questions.join(", ")
        );
        ApiError::new(Code::InvalidField, problem)
    })
}

/// Returns a code that only this service can make: eight letters and digits.
pub(crate) fn code(study: &StudyRecord, of: &str) -> String {
    let hash = ContentHash::of_parts([study.secret.as_bytes(), of.as_bytes()]);
    hash.to_hex()[..8].to_ascii_uppercase()
}

/// Selects a page of studies.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StudiesQuery {
    /// `next` of the previous page.
    pub(crate) after: Option<Uuid>,
    /// Rows per page, 1 to 1000. Default: 100.
    pub(crate) limit: Option<u32>,
}

/// One page of studies.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct StudiesResponse {
    /// Studies, the newest first.
    pub(crate) items: Vec<StudyResponse>,
    /// Cursor of the next page, to be sent as `after`; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<Uuid>,
}

/// Lists studies.
#[utoipa::path(
    get, path = "/v1/studies", operation_id = "list_studies", tag = "studies",
    params(StudiesQuery),
    responses((status = 200, description = "One page", body = StudiesResponse))
)]
pub(super) async fn list(
    State(app): Shared,
    Query(parameters): Query<StudiesQuery>,
) -> Result<Json<StudiesResponse>, ApiError> {
    respond_list(&app, parameters).await.map(Json)
}

/// Lists studies.
pub(crate) async fn respond_list(
    app: &App,
    parameters: StudiesQuery,
) -> Result<StudiesResponse, ApiError> {
    let read = async |limit| app.store.studies(parameters.after, limit).await;
    let (items, next) = page_of(parameters.limit, read, |study| study.id).await?;
    Ok(StudiesResponse { items, next })
}

/// A study with its progress.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ProgressResponse {
    /// The study.
    #[serde(flatten)]
    pub(crate) study: StudyResponse,
    /// Number of items, without gold items.
    pub(crate) items: u64,
    /// Progress by question, in the order in which they are asked.
    pub(crate) questions: Vec<QuestionProgress>,
    /// Answers of each annotator, by name: at most 1000.
    pub(crate) annotators: Vec<AnnotatorProgress>,
}

/// Progress of one question.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct QuestionProgress {
    /// The question.
    pub(crate) question: String,
    /// Answers so far, without those of annotators who are left out and about gold items.
    pub(crate) answers: u64,
    /// Wanted answers: items × answers per item.
    pub(crate) wanted: u64,
    /// Items with all wanted answers.
    pub(crate) complete_items: u64,
}

/// Progress of one annotator.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct AnnotatorProgress {
    /// Name of the annotator.
    pub(crate) annotator: String,
    /// All answers, to all questions.
    pub(crate) answers: u64,
    /// Those of them about gold items, which count in no result.
    #[serde(default)]
    pub(crate) gold: u64,
    /// Those of them that are right.
    #[serde(default)]
    pub(crate) gold_right: u64,
    /// Reason for which the annotator is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) excluded: Option<String>,
    /// Whether the operator left the annotator out; otherwise, answers to gold items did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) by_operator: bool,
}

/// Returns a study with its progress.
#[utoipa::path(
    get, path = "/v1/studies/{id}", operation_id = "read_study", tag = "studies",
    params(("id" = Uuid, Path, description = "Id of the study")),
    responses(
        (status = 200, description = "The study", body = ProgressResponse),
        (status = 404, description = "No such study"),
    )
)]
pub(super) async fn read(
    State(app): Shared,
    id: Id<StudyRecord>,
) -> Result<Json<ProgressResponse>, ApiError> {
    respond(&app, id).await.map(Json)
}

/// Returns a study with its progress.
pub(crate) async fn respond(app: &App, id: Id<StudyRecord>) -> Result<ProgressResponse, ApiError> {
    let study = find(app, id).await?;
    let enough = study.plan.answers_per_item;
    let progress = app.store.study_progress(study.id, enough).await?;
    let mut excluded: BTreeMap<String, (ExclusionCause, String)> = BTreeMap::new();
    // Of both causes, the operator's comes first.
    for of in app.store.exclusions(study.id).await? {
        excluded.entry(of.annotator).or_insert((of.cause, of.reason));
    }
    let count = |of: &BTreeMap<String, u64>, word: &str| of.get(word).copied().unwrap_or_default();
    let questions = study.plan.questions.iter().map(|word| QuestionProgress {
        question: word.clone(),
        answers: count(&progress.by_question, word),
        wanted: progress.items * u64::from(enough),
        complete_items: count(&progress.complete, word),
    });
    let silent = excluded.keys().filter(|name| !progress.by_annotator.contains_key(*name));
    let named = progress.by_annotator.iter().map(|(name, of)| (name, *of));
    let silent = silent.map(|name| (name, AnnotatorAnswers::default()));
    let annotators = named.chain(silent).take(MOST_ANNOTATORS);
    let annotators = annotators.map(|(annotator, of)| {
        let reason = excluded.get(annotator);
        AnnotatorProgress {
            annotator: annotator.clone(),
            answers: of.answers,
            gold: of.gold,
            gold_right: of.gold_right,
            excluded: reason.map(|(_, reason)| reason.clone()),
            by_operator: reason.is_some_and(|(cause, _)| *cause == ExclusionCause::Operator),
        }
    });
    Ok(ProgressResponse {
        items: progress.items,
        questions: questions.collect(),
        annotators: annotators.collect(),
        study: study.into(),
    })
}

/// The new state of a study.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewState {
    /// `open` begins to ask annotators, `closed` ends it.
    pub(crate) state: StudyState,
}

/// Changes the state of a study. Its items and answers stay.
#[utoipa::path(
    put, path = "/v1/studies/{id}/state", operation_id = "set_study_state", tag = "studies",
    params(("id" = Uuid, Path, description = "Id of the study")),
    request_body(content = NewState),
    responses(
        (status = 200, description = "The study in its new state", body = StudyResponse),
        (status = 400, description = "Malformed body"),
        (status = 404, description = "No such study"),
        (status = 422, description = "There is no such state"),
    )
)]
pub(super) async fn set_state(
    State(app): Shared,
    id: Id<StudyRecord>,
    request: Request,
) -> Result<Json<StudyResponse>, ApiError> {
    let NewState { state } = body::json(request, MOST_BYTES).await?;
    change_state(&app, id, state).await.map(Json)
}

/// Changes the state of a study.
pub(crate) async fn change_state(
    app: &App,
    id: Id<StudyRecord>,
    state: StudyState,
) -> Result<StudyResponse, ApiError> {
    let study = find(app, id).await?;
    app.store.set_study_state(study.id, state).await?;
    Ok(StudyRecord { state, ..study }.into())
}

/// Deletes a study with all its items and answers.
#[utoipa::path(
    delete, path = "/v1/studies/{id}", operation_id = "delete_study", tag = "studies",
    params(("id" = Uuid, Path, description = "Id of the study")),
    responses(
        (status = 204, description = "Deleted"),
        (status = 404, description = "No such study"),
    )
)]
pub(super) async fn delete(
    State(app): Shared,
    id: Id<StudyRecord>,
) -> Result<StatusCode, ApiError> {
    let study = find(&app, id).await?;
    app.store.delete_study(study.id).await?;
    Ok(StatusCode::NO_CONTENT)
}
