//! `POST /v1/studies/{id}/answers`: answers of annotators, and their withdrawal.

use std::collections::BTreeSet;

use axum::{
    Json,
    extract::{Path, Request, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::http::form::clean_label;
use crate::api::http::{ApiError, Code, Id, InPath, Query, body, not_found};
use crate::api::state::{App, Shared};
use crate::api::studies::{MOST_BYTES, find, question_of};
use crate::{
    analysis::shown_order,
    clock,
    store::{
        NewStudyAnswer, StudyAnswer, StudyChoice, StudyItem, StudyPlan, StudyRecord, StudyState,
    },
};

/// An answer to record.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"annotator": "calm-otter", "item": 17, "question": "overall", "choice": "2"}))]
pub(crate) struct NewAnswer {
    /// Name of the annotator.
    #[schema(max_length = 256)]
    pub(crate) annotator: String,
    /// Position of the item.
    pub(crate) item: u32,
    /// The question. Default: the first one of the study.
    #[schema(max_length = 32)]
    pub(crate) question: Option<String>,
    /// The position of the chosen image in the order in which they were shown, from `1` on, or
    /// `tie` or `cannot_tell` if the study has it.
    #[schema(max_length = 16, example = "2")]
    pub(crate) choice: String,
}

/// A recorded answer.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct AnswerResponse {
    /// Id of the answer, by which it can be withdrawn.
    pub(crate) id: Uuid,
}

/// Records an answer, in place of an earlier one of the same annotator to the same question about
/// the same item. The same answer again changes nothing.
#[utoipa::path(
    post, path = "/v1/studies/{id}/answers", operation_id = "answer_study", tag = "studies",
    params(("id" = Uuid, Path, description = "Id of the study")),
    request_body(content = NewAnswer),
    responses(
        (status = 200, description = "Recorded", body = AnswerResponse),
        (status = 400, description = "Malformed body"),
        (status = 404, description = "No such study"),
        (status = 409, description = "The study is not open, or the quota is reached"),
        (status = 422, description = "There is no such item, question or choice"),
    )
)]
pub(crate) async fn add(
    State(app): Shared,
    id: Id<StudyRecord>,
    request: Request,
) -> Result<Json<AnswerResponse>, ApiError> {
    let new: NewAnswer = body::json(request, MOST_BYTES).await?;
    let study = find(&app, id).await?;
    respond(&app, &study, new).await.map(Json)
}

/// Records an answer.
pub(crate) async fn respond(
    app: &App,
    study: &StudyRecord,
    new: NewAnswer,
) -> Result<AnswerResponse, ApiError> {
    if study.state != StudyState::Open {
        let problem = "the study is not open: nobody is asked now";
        return Err(ApiError::new(Code::StudyClosed, problem));
    }
    let annotator = clean_label("annotator", &new.annotator)?;
    let item = app.store.study_item(study.id, new.item).await?.ok_or_else(|| {
        let problem = format!("the study has no item {}: ask for the next one", new.item);
        ApiError::new(Code::InvalidField, problem)
    })?;
    let shown = shown_order(study.plan.seed, &annotator, &item);
    let answer =
        checked(&study.plan, item, new.question.as_deref(), &annotator, &new.choice, shown)?;
    let own = app.store.own_study_answers(study.id, &annotator).await?;
    let items: BTreeSet<u32> = own.iter().map(|of| of.item).collect();
    if !items.contains(&new.item) && items.len() >= study.plan.most_items() {
        let problem = format!("the annotator has answered about {} items, the quota", items.len());
        return Err(ApiError::new(Code::StudyClosed, problem));
    }
    let gold = study.plan.gold.as_ref();
    let now = clock::now();
    let ids = app.store.add_study_answers(study.id, gold, &[answer], now).await?;
    Ok(AnswerResponse { id: ids.first().copied().unwrap_or_default() })
}

/// Returns an answer as it is recorded; refuses one that the study does not allow.
pub(crate) fn checked(
    plan: &StudyPlan,
    item: StudyItem,
    question: Option<&str>,
    annotator: &str,
    choice: &str,
    shown: Vec<Uuid>,
) -> Result<NewStudyAnswer, ApiError> {
    let question = question_of(plan, question)?;
    if item.right.is_some() && plan.questions.first().map(String::as_str) != Some(question.as_str())
    {
        let problem = "`question` is not asked about this item: it has the first one only";
        return Err(ApiError::new(Code::InvalidField, problem));
    }
    let choice = match choice {
        "tie" if plan.ties => StudyChoice::Tie,
        "cannot_tell" if plan.cannot_tell => StudyChoice::CannotTell,
        position => {
            let chosen =
                position.parse::<usize>().ok().and_then(|at| shown.get(at.checked_sub(1)?));
            let chosen = chosen.ok_or_else(|| {
                let problem = format!(
                    "`choice` is none of this study: send a position from 1 to {}{}{}",
                    shown.len(),
                    if plan.ties { ", or tie" } else { "" },
                    if plan.cannot_tell { ", or cannot_tell" } else { "" }
                );
                ApiError::new(Code::InvalidField, problem)
            })?;
            StudyChoice::One(*chosen)
        }
    };
    Ok(NewStudyAnswer { item, question, annotator: annotator.to_owned(), choice, shown })
}

/// Whose answer is withdrawn.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WithdrawQuery {
    /// Name of the annotator who gave the answer.
    annotator: String,
}

/// Withdraws an answer of an annotator.
#[utoipa::path(
    delete, path = "/v1/studies/{id}/answers/{answer}", operation_id = "withdraw_study_answer",
    tag = "studies",
    params(
        ("id" = Uuid, Path, description = "Id of the study"),
        ("answer" = Uuid, Path, description = "Id of the answer"),
        WithdrawQuery,
    ),
    responses(
        (status = 204, description = "Withdrawn"),
        (status = 404, description = "No such study, or no such answer of this annotator"),
    )
)]
pub(crate) async fn withdraw(
    State(app): Shared,
    path: InPath<(String, String)>,
    Query(parameters): Query<WithdrawQuery>,
) -> Result<StatusCode, ApiError> {
    let Path((id, answer)) = path.unwrap_or_else(|_| Path(Default::default()));
    let study = find(&app, Id::parse(&id)?).await?;
    match remove(&app, &study, &answer, &parameters.annotator).await? {
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => Err(not_found("answer with this id by this annotator: it may be withdrawn")),
    }
}

/// Withdraws an answer of an annotator. Returns it, or `None` if there is none.
pub(crate) async fn remove(
    app: &App,
    study: &StudyRecord,
    answer: &str,
    annotator: &str,
) -> Result<Option<StudyAnswer>, ApiError> {
    let Ok(answer) = answer.parse::<Uuid>() else { return Ok(None) };
    let gold = study.plan.gold.as_ref();
    Ok(app.store.withdraw_study_answer(study.id, gold, answer, annotator).await?)
}
