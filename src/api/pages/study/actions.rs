//! The forms of `/study`: a new study, its state, and annotators who are left out.

use axum::{
    extract::{Request, State},
    response::Response,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::http::{ApiError, Code, Id};
use crate::api::pages::{address::Address, view::see_other};
use crate::api::state::Shared;
use crate::api::studies::{self, create as creation, exclusions};
use crate::store::{StudyPlan, StudyRecord, StudyState};

fn study(form: &Address) -> Result<Id<StudyRecord>, ApiError> {
    Id::parse(form.get("study").unwrap_or_default())
}

fn page(id: &Id<StudyRecord>) -> Response {
    see_other(&Address::new("/study").with("study", id.0))
}

/// `POST /study/new`: creates a study and shows it.
pub(crate) async fn create(State(app): Shared, request: Request) -> Result<Response, ApiError> {
    app.admission.room()?;
    let form = Address::read_form("/study", request).await?;
    let plan = plan(&form)?;
    let _permit = app.admission.enter()?;
    let (study, _) = creation::respond(&app, plan).await?;
    Ok(page(&Id::new(study.id)))
}

/// Returns the plan that a form describes. It is read like a body of the API.
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
    if let Some(people) = form.get("people") {
        let people: Vec<&str> = people.split(',').map(str::trim).collect();
        prompts.insert("people".to_owned(), people.into());
    }
    if let Some(value) = number(form, "sample")? {
        prompts.insert("sample".to_owned(), value);
    }
    plan.insert("prompts".to_owned(), prompts.into());
    serde_json::from_value(plan.into()).map_err(|error| {
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
