//! `/v1/datasets/{dataset}/prompts`: the prompts of a dataset, for whom each is and what it names.

use axum::{
    Json,
    extract::{Path, Request, State, rejection::PathRejection},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use super::{
    ApiError, App, Code, Problem, Query, Shared, body,
    datasets::find,
    form::{check_prompt, clean_label, clean_metadata},
    page::{cut, page},
};
use crate::{
    scoring::Metadata,
    store::{MAX_PROMPTS, PromptCursor, PromptFacts, PromptQuery, PromptRecord, Registered},
};

/// Bytes of one registration: a thousand prompts of Stellar have 200 KB.
const MOST_BYTES: usize = 8 << 20;

/// Entries of one list of a prompt, before it is known how many of them are looked for.
const MOST_WORDS: usize = 1_000;

/// Prompts to register.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PromptsBody {
    /// At most 1000; send more in several requests.
    #[serde(deserialize_with = "body::at_most::<MAX_PROMPTS, _, _>")]
    prompts: Vec<Prompt>,
}

/// A prompt for one identity.
#[expect(clippy::struct_field_names, reason = "the key that people know")]
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Prompt {
    /// Whom it is for.
    #[schema(example = "000")]
    identity: String,
    /// As written: `{}` stands for the person.
    #[schema(example = "{} riding a skateboard")]
    prompt: String,
    /// A free label; Stellar has `T` and `H`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "T")]
    kind: Option<String>,
    /// Categories, for slices of the leaderboard.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "body::at_most::<MOST_WORDS, _, _>"
    )]
    #[schema(example = json!(["sports"]))]
    categories: Vec<String>,
    /// Objects that it names, in words.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "body::at_most::<MOST_WORDS, _, _>"
    )]
    #[schema(example = json!(["skateboard"]))]
    detectables: Vec<String>,
    /// Relations that it names, as subject, predicate, object.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "body::at_most::<MOST_WORDS, _, _>"
    )]
    #[schema(example = json!([["person", "riding", "skateboard"]]))]
    relations: Vec<[String; 3]>,
}

impl From<Prompt> for PromptRecord {
    fn from(prompt: Prompt) -> Self {
        let Prompt { identity, prompt: text, kind, categories, detectables, relations } = prompt;
        Self { identity, text, kind, facts: PromptFacts { categories, detectables, relations } }
    }
}

impl From<PromptRecord> for Prompt {
    fn from(record: PromptRecord) -> Self {
        let PromptRecord { identity, text, kind, facts } = record;
        let PromptFacts { categories, detectables, relations } = facts;
        Self { identity, prompt: text, kind, categories, detectables, relations }
    }
}

/// What registering did.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct RegisteredResponse {
    /// Prompts that were not there.
    created: u64,
    /// Prompts that were there with another kind or other facts, which are replaced.
    changed: u64,
    /// Prompts that were there as they are.
    repeated: u64,
}

/// Registers prompts in a dataset, which is made if it is new.
///
/// Identity and text identify a prompt: the same again changes nothing, another kind or other facts replace what was
/// there. Samples that were scored keep what was sent with them.
#[utoipa::path(
    put, path = "/v1/datasets/{dataset}/prompts", operation_id = "register_prompts", tag = "datasets",
    params(("dataset" = String, Path, description = "The dataset's name")),
    request_body(content = PromptsBody),
    responses(
        (status = 200, description = "Registered", body = RegisteredResponse),
        (status = 400, description = "The body cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "A limit of size is exceeded", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Understood but not usable", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "At the limit: retry after `Retry-After` seconds", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn register(
    State(app): Shared,
    dataset: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<RegisteredResponse>, ApiError> {
    let Path(dataset) =
        dataset.map_err(|rejection| ApiError::new(Code::MalformedRequest, rejection.body_text()))?;
    let dataset = clean_label("dataset", &dataset)?;
    app.admission.room()?;
    let PromptsBody { prompts } = body::json(request, MOST_BYTES).await?;
    let _permit = app.admission.enter()?;
    let clean = |(at, prompt)| clean(&app, prompt).map_err(|error| error.within(&format!("prompts[{at}]")));
    let prompts = prompts.into_iter().enumerate().map(clean).collect::<Result<Vec<PromptRecord>, _>>()?;
    let Registered { created, changed, repeated } =
        app.store.register_prompts(&dataset, &prompts, OffsetDateTime::now_utc()).await?;
    Ok(Json(RegisteredResponse { created, changed, repeated }))
}

/// A prompt is held to what a sample with it will be held to.
fn clean(app: &App, prompt: Prompt) -> Result<PromptRecord, ApiError> {
    check_prompt(&prompt.prompt, &app.limits)?;
    let mut record = PromptRecord::from(prompt);
    record.identity = clean_label("identity", &record.identity)?;
    let labels = Metadata {
        prompt_kind: record.kind,
        categories: record.facts.categories,
        detectables: record.facts.detectables,
        relations: record.facts.relations,
        ..Metadata::default()
    };
    let labels = clean_metadata(labels, app.limits.detectables)?;
    record.kind = labels.prompt_kind;
    (record.facts.categories, record.facts.detectables, record.facts.relations) =
        (labels.categories, labels.detectables, labels.relations);
    Ok(record)
}

/// Which page of prompts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PromptParameters {
    /// Those of one identity only.
    identity: Option<String>,
    /// Those of one kind only.
    kind: Option<String>,
    /// The `next` of the page before.
    after: Option<String>,
    /// Rows of a page, 1 to 1000. Default: 100.
    limit: Option<u32>,
}

/// One page of prompts.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct PromptsResponse {
    /// By identity, and within it in the order in which they were registered.
    items: Vec<Prompt>,
    /// Send as `after` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Lists a dataset's prompts.
#[utoipa::path(
    get, path = "/v1/datasets/{dataset}/prompts", operation_id = "list_prompts", tag = "datasets",
    params(("dataset" = String, Path, description = "The dataset's name"), PromptParameters),
    responses(
        (status = 200, description = "One page", body = PromptsResponse),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such dataset", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(app): Shared,
    name: Result<Path<String>, PathRejection>,
    Query(parameters): Query<PromptParameters>,
) -> Result<Json<PromptsResponse>, ApiError> {
    let PromptParameters { identity, kind, after, limit } = parameters;
    let limit = page(limit)?;
    let after = after.map(|text| cursor(&text)).transpose()?;
    let dataset = find(&app, name).await?;
    let query = PromptQuery { identity, kind, after, limit: limit + 1 };
    let rows = app.store.prompts(dataset.id, &query).await?;
    let (rows, next) = cut(rows, limit, |(at, _)| format!("{}:{}", at.position, at.identity));
    Ok(Json(PromptsResponse { items: rows.into_iter().map(|(_, prompt)| prompt.into()).collect(), next }))
}

fn cursor(text: &str) -> Result<PromptCursor, ApiError> {
    let parse = || {
        let (position, identity) = text.split_once(':')?;
        Some(PromptCursor { identity: identity.to_owned(), position: position.parse().ok()? })
    };
    parse().ok_or_else(|| {
        let problem = "after is not what a page gave: send the `next` of the page before as it is";
        ApiError::new(Code::MalformedRequest, problem)
    })
}
