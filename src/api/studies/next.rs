//! `GET /v1/studies/{id}/next`: the item to put to an annotator next.

use std::collections::{BTreeMap, BTreeSet};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::http::form::clean_label;
use crate::api::http::{ApiError, Id, Query};
use crate::api::state::{App, Shared};
use crate::api::studies::{code, find, most_items, questions};
use crate::{
    analysis::{first_item, gold_turn, shown_order},
    store::{ExclusionCause, Question, StudyAnswer, StudyItem, StudyRecord, StudyState},
};

/// Who is asked.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StudyNextQuery {
    /// Name of the annotator.
    annotator: String,
}

/// Why there is nothing to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Done {
    /// The study is a draft, or closed.
    NotOpen,
    /// The operator has left the annotator out.
    Excluded,
    /// The annotator has answered about as many items as the quota allows.
    Quota,
    /// No item needs an answer of this annotator.
    NoItems,
}

/// The next question for an annotator.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct StudyNextResponse {
    /// Items about which the annotator has answered all questions.
    pub(crate) answered: usize,
    /// Most items that the annotator is asked about: the quota, or all items if there are fewer.
    pub(crate) quota: usize,
    /// The item and the question; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) task: Option<StudyTask>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) done: Option<Done>,
    /// Code for the platform that pays the annotator, once everything is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) completion_code: Option<String>,
}

/// A question about an item. It names no method.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct StudyTask {
    /// Position of the item in the study, to be sent with the answer.
    pub(crate) item: u32,
    /// The question, to be sent with the answer.
    pub(crate) question: String,
    /// Name of the samples.
    pub(crate) name: String,
    /// The prompt.
    pub(crate) prompt: Option<String>,
    /// BLAKE3 hashes of the files of the images, in the order in which to show them.
    pub(crate) images: Vec<Option<String>>,
    /// BLAKE3 hashes of the photos of the person.
    pub(crate) photos: Vec<String>,
    /// Answers that are allowed: positions from `1` on, `tie`, `cannot_tell`.
    pub(crate) choices: Vec<String>,
}

/// Returns the next question for an annotator.
///
/// Questions about one item follow each other. New items are those with the fewest answers. The
/// order of the images is random, but always the same for an annotator and an item.
#[utoipa::path(
    get, path = "/v1/studies/{id}/next", operation_id = "next_study_item", tag = "studies",
    params(("id" = Uuid, Path, description = "Id of the study"), StudyNextQuery),
    responses(
        (status = 200, description = "The question, or why there is none",
         body = StudyNextResponse),
        (status = 404, description = "No such study"),
        (status = 422, description = "The name of the annotator is invalid"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    id: Id<StudyRecord>,
    Query(parameters): Query<StudyNextQuery>,
) -> Result<Json<StudyNextResponse>, ApiError> {
    let study = find(&app, id).await?;
    let annotator = clean_label("annotator", &parameters.annotator)?;
    respond(&app, &study, &annotator, None).await.map(Json)
}

/// Returns the next question for an annotator: about `named`, an item and a question that the
/// annotator has not answered, or else in turn.
pub(crate) async fn respond(
    app: &App,
    study: &StudyRecord,
    annotator: &str,
    named: Option<(u32, Question)>,
) -> Result<StudyNextResponse, ApiError> {
    let plan = &study.plan;
    let asked = questions(plan);
    let own = app.store.own_study_answers(study.id, annotator).await?;
    let gold = app.store.gold_items(study.id).await?;
    let turn = Turn { asked: &asked, own: &own, gold: &gold };
    let answered = turn.complete();
    let quota = most_items(app, study.id, plan).await?;
    let done = |done| {
        let is_complete = matches!(done, Done::Quota | Done::NoItems) && answered > 0;
        let own_code = || code(study, &format!("annotator {annotator}"));
        let completion_code =
            is_complete.then(|| plan.completion_code.clone().unwrap_or_else(own_code));
        Ok(StudyNextResponse { answered, quota, task: None, done: Some(done), completion_code })
    };
    if study.state != StudyState::Open {
        return done(Done::NotOpen);
    }
    let exclusions = app.store.exclusions(study.id).await?;
    let is_excluded = exclusions
        .iter()
        .any(|of| of.annotator == annotator && of.cause == ExclusionCause::Operator);
    if is_excluded {
        return done(Done::Excluded);
    }
    let begun = match turn.begun().or(named) {
        Some((place, question)) => {
            let item = app.store.study_item(study.id, place).await?;
            item.filter(|_| !turn.has(place, &question)).map(|item| (item, question))
        }
        None => None,
    };
    let (item, question) = match (begun, asked.first()) {
        (Some(begun), _) => begun,
        (None, Some(first)) => {
            if answered >= plan.most_items() {
                return done(Done::Quota);
            }
            let open: Vec<StudyItem> =
                gold.iter().filter(|item| !turn.has(item.place, first)).cloned().collect();
            let every = plan.gold.as_ref().map_or(2, |gold| gold.every);
            let item = match gold_turn(plan.seed, annotator, every, answered, &open) {
                Some(item) => Some(item.clone()),
                None => new_item(app, study, annotator, first, gold.len()).await?,
            };
            match item {
                Some(item) => (item, first.clone()),
                None => return done(Done::NoItems),
            }
        }
        (None, None) => return done(Done::NoItems),
    };
    let task = task(app, study, annotator, &item, &question).await?;
    Ok(StudyNextResponse { answered, quota, task: Some(task), done: None, completion_code: None })
}

async fn new_item(
    app: &App,
    study: &StudyRecord,
    annotator: &str,
    first: &Question,
    gold: usize,
) -> Result<Option<StudyItem>, ApiError> {
    let plan = &study.plan;
    // The number of items only spreads annotators over them.
    let last = app.store.last_study_place(study.id).await?;
    let items = last.map_or(0, |last| last as usize + 1).saturating_sub(gold);
    let start = first_item(plan.seed, annotator, items, plan.images());
    let enough = plan.answers_per_item;
    Ok(app.store.next_study_item(study.id, first, annotator, enough, start).await?)
}

/// What an annotator has answered.
struct Turn<'a> {
    asked: &'a [Question],
    own: &'a [StudyAnswer],
    gold: &'a [StudyItem],
}

impl Turn<'_> {
    fn has(&self, place: u32, question: &Question) -> bool {
        self.own.iter().any(|of| of.item == place && of.question == *question)
    }

    /// Returns the questions about an item: gold items have the first one.
    fn questions_about(&self, place: u32) -> &[Question] {
        let is_gold = self.gold.iter().any(|item| item.place == place);
        &self.asked[..if is_gold { 1.min(self.asked.len()) } else { self.asked.len() }]
    }

    /// Returns the number of items with answers to all questions.
    fn complete(&self) -> usize {
        let mut items: BTreeMap<u32, usize> = BTreeMap::new();
        for of in self.own {
            *items.entry(of.item).or_default() += 1;
        }
        items.iter().filter(|(place, of)| **of >= self.questions_about(**place).len()).count()
    }

    /// Returns the newest item with open questions, and the first of them.
    fn begun(&self) -> Option<(u32, Question)> {
        self.own.iter().rev().find_map(|of| {
            let open = self.questions_about(of.item).iter();
            let open = open.clone().find(|question| !self.has(of.item, question));
            open.map(|question| (of.item, question.clone()))
        })
    }
}

async fn task(
    app: &App,
    study: &StudyRecord,
    annotator: &str,
    item: &StudyItem,
    question: &Question,
) -> Result<StudyTask, ApiError> {
    let plan = &study.plan;
    let order = shown_order(plan.seed, annotator, item);
    let wanted = order.iter().map(|run| (*run, BTreeSet::from([item.name.clone()]))).collect();
    let shown = app.store.shown_samples(&wanted).await?;
    let samples: Vec<_> = order.iter().map(|run| shown.get(&(*run, item.name.clone()))).collect();
    let photos = samples.iter().flatten().find(|sample| !sample.photos.is_empty());
    let mut choices: Vec<String> = (1..=order.len()).map(|position| position.to_string()).collect();
    choices.extend(plan.ties.then(|| "tie".to_owned()));
    choices.extend(plan.cannot_tell.then(|| "cannot_tell".to_owned()));
    Ok(StudyTask {
        item: item.place,
        question: question.as_str().to_owned(),
        name: item.name.clone(),
        prompt: samples.iter().flatten().find_map(|sample| sample.prompt.clone()),
        images: samples
            .iter()
            .map(|sample| sample.and_then(|sample| sample.image).map(|image| image.to_hex()))
            .collect(),
        photos: photos.map(|sample| sample.photos.clone()).unwrap_or_default(),
        choices,
    })
}
