//! The forms of `/study`: a new study, its state, and annotators who are left out.

use axum::{
    extract::{Request, State},
    response::Response,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::{form, gold, new};
use crate::api::http::{ApiError, Code, Id};
use crate::api::pages::{address::Address, problems::wants_page, view::see_other};
use crate::api::state::{App, Shared};
use crate::api::studies::create::{self as creation, MOST_RUNS};
use crate::api::studies::{self, exclusions};
use crate::store::{GoldItem, GoldPlan, StudyPlan, StudyRecord, StudyState};

fn study(form: &Address) -> Result<Id<StudyRecord>, ApiError> {
    Id::parse(form.get("study").unwrap_or_default())
}

fn page(id: &Id<StudyRecord>) -> Response {
    see_other(&Address::new("/study").with("study", id.0))
}

/// `POST /study/new`: creates a study and shows it. A browser gets the form again if it is refused.
pub(crate) async fn create(State(app): Shared, request: Request) -> Result<Response, ApiError> {
    app.admission.room()?;
    let is_page = wants_page(request.headers());
    let form = Address::read_texts("/study", request, form::MOST_BYTES, &form::TEXTS).await?;
    let _permit = app.admission.enter()?;
    match make(&app, &form).await {
        Err(error) if is_page && error.code().status().is_client_error() => {
            new::again(&app, &form, &error).await
        }
        made => made,
    }
}

async fn make(app: &App, form: &Address) -> Result<Response, ApiError> {
    let chosen = form.all("runs").count();
    if !(2..=MOST_RUNS).contains(&chosen) {
        return Err(ApiError::new(
            Code::InvalidField,
            format!("{chosen} runs are chosen: choose 2 to {MOST_RUNS}, one of each method"),
        ));
    }
    let mut plan = plan(form)?;
    if let Some(text) = form.get("gold") {
        let items = gold::read(app, text, &plan).await?;
        plan.gold = Some(gold_plan(form, &items)?);
    }
    let (study, _) = creation::respond(app, plan).await?;
    Ok(page(&Id::new(study.id)))
}

/// Returns the plan that a form describes, without gold items. It is read like a body of the API.
fn plan(form: &Address) -> Result<StudyPlan, ApiError> {
    let mut plan = Map::new();
    for name in ["name", "title", "form", "consent", "completion_code"] {
        if let Some(text) = form.get(name) {
            plan.insert(name.to_owned(), text.into());
        }
    }
    for name in ["k", "sets_per_prompt", "answers_per_item", "quota", "seed"] {
        if let Some(value) = number(form, name)? {
            plan.insert(name.to_owned(), value);
        }
    }
    for name in ["runs", "questions"] {
        plan.insert(name.to_owned(), form.all(name).collect::<Vec<_>>().into());
    }
    if form.get("form") != Some("best_of") {
        plan.remove("k");
    }
    plan.insert("ties".to_owned(), json!(form.get("ties") == Some("yes")));
    plan.insert("cannot_tell".to_owned(), json!(form.get("cannot_tell") == Some("yes")));
    let mut prompts = Map::new();
    for name in ["dataset", "split", "kind"] {
        if let Some(text) = form.get(name) {
            prompts.insert(name.to_owned(), text.into());
        }
    }
    for (name, separator) in [("people", ','), ("names", '\n')] {
        if let Some(text) = form.get(name) {
            let all = text.split(separator).map(str::trim).filter(|each| !each.is_empty());
            prompts.insert(name.to_owned(), all.collect::<Vec<_>>().into());
        }
    }
    if let Some(value) = number(form, "sample")? {
        prompts.insert("sample".to_owned(), value);
    }
    plan.insert("prompts".to_owned(), prompts.into());
    read(plan)
}

fn gold_plan(form: &Address, items: &[GoldItem]) -> Result<GoldPlan, ApiError> {
    let mut plan = Map::new();
    plan.insert("items".to_owned(), json!(items));
    if let Some(text) = form.get("gold_share") {
        let share = text.trim().parse::<f64>().ok().filter(|share| share.is_finite());
        let share = share.ok_or_else(|| {
            ApiError::new(Code::InvalidField, "`gold_share` is not a number from 0 to 1")
        })?;
        plan.insert("share".to_owned(), share.into());
    }
    for (field, name) in [("gold_least", "least"), ("gold_every", "every")] {
        if let Some(value) = number(form, field)? {
            plan.insert(name.to_owned(), value);
        }
    }
    read(plan)
}

fn read<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, ApiError> {
    serde_json::from_value(fields.into()).map_err(|error| {
        ApiError::new(Code::InvalidField, format!("the form does not describe a study: {error}"))
    })
}

fn number(form: &Address, name: &str) -> Result<Option<Value>, ApiError> {
    let Some(text) = form.get(name) else { return Ok(None) };
    let number = text.trim().parse::<u32>().map_err(|_| {
        ApiError::new(Code::InvalidField, format!("`{name}` is not a whole number"))
    })?;
    Ok(Some(number.into()))
}

/// A new state, or an annotator, of a study.
#[derive(Deserialize)]
struct Change {
    state: Option<StudyState>,
    annotator: Option<String>,
    reason: Option<String>,
}

/// `POST /study/state`: opens or closes a study.
pub(crate) async fn set_state(State(app): Shared, request: Request) -> Result<Response, ApiError> {
    let form = Address::read_form("/study", request).await?;
    let (id, change) = (study(&form)?, form.query::<Change>(&["study"])?);
    let state = change.state.ok_or_else(|| missing("state"))?;
    let found = studies::change_state(&app, id, state).await?;
    Ok(page(&Id::new(found.id)))
}

/// `POST /study/exclude`: leaves an annotator out.
pub(crate) async fn exclude(State(app): Shared, request: Request) -> Result<Response, ApiError> {
    let form = Address::read_form("/study", request).await?;
    let (id, change) = (study(&form)?, form.query::<Change>(&["study"])?);
    let annotator = change.annotator.ok_or_else(|| missing("annotator"))?;
    let reason = change.reason.ok_or_else(|| missing("reason"))?;
    let answer = page(&id);
    exclusions::exclude(&app, id, &annotator, &reason).await?;
    Ok(answer)
}

/// `POST /study/include`: counts an annotator again.
pub(crate) async fn include(State(app): Shared, request: Request) -> Result<Response, ApiError> {
    let form = Address::read_form("/study", request).await?;
    let (id, change) = (study(&form)?, form.query::<Change>(&["study"])?);
    let annotator = change.annotator.ok_or_else(|| missing("annotator"))?;
    let answer = page(&id);
    exclusions::include(&app, id, &annotator).await?;
    Ok(answer)
}

fn missing(name: &str) -> ApiError {
    ApiError::new(Code::MissingField, format!("the form has no `{name}`"))
}
