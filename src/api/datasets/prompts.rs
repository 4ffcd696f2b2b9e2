//! `/v1/datasets/{dataset}/prompts`: the prompts of a dataset, by identity, and what each names.

use axum::{
    Json,
    extract::{Request, State},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::datasets::{find, new_name};
use crate::api::http::form::{check_prompt, clean_label, clean_metadata};
use crate::api::http::{ApiError, Code, InPath, Query, body, cut, page};
use crate::api::state::{App, Shared};
use crate::{
    clock,
    scoring::Metadata,
    store::{MAX_PROMPTS, PromptCursor, PromptFacts, PromptQuery, PromptRecord, Registered},
};

/// Limit of one registration, in bytes: a thousand prompts of Stellar take 200 KB.
const MOST_BYTES: usize = 8 << 20;

/// Limit of each list of a prompt while it is parsed, before the configured limits are checked.
const MOST_WORDS: usize = 1_000;

/// Prompts to register.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PromptsBody {
    /// At most 1000; split larger sets over several requests.
    #[serde(deserialize_with = "body::at_most::<MAX_PROMPTS, _, _>")]
    prompts: Vec<Prompt>,
    /// Whether the photos of the dataset may be shown to others. Default: unchanged, and false for
    /// a new dataset.
    redistributable: Option<bool>,
}

/// A prompt for one identity.
#[expect(clippy::struct_field_names, reason = "the established key")]
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Prompt {
    /// The identity that it is for.
    #[schema(example = "000")]
    identity: String,
    /// The prompt as written; `{}` stands for the person.
    #[schema(example = "{} riding a skateboard")]
    prompt: String,
    /// A free label; Stellar uses `T` and `H`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "T")]
    kind: Option<String>,
    /// Categories of the prompt, for slices of the leaderboard.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "body::at_most::<MOST_WORDS, _, _>"
    )]
    #[schema(example = json!(["sports"]))]
    categories: Vec<String>,
    /// Objects that the prompt names, in words.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "body::at_most::<MOST_WORDS, _, _>"
    )]
    #[schema(example = json!(["skateboard"]))]
    detectables: Vec<String>,
    /// Relations that the prompt names, as subject, predicate, object.
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

/// Outcome of a registration.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct RegisteredResponse {
    /// Number of new prompts.
    created: u64,
    /// Number of prompts that existed with another kind or other properties, which were replaced.
    changed: u64,
    /// Number of prompts that existed unchanged.
    repeated: u64,
}

/// Registers prompts in a dataset; creates the dataset if it does not exist.
///
/// A prompt is identified by identity and text. Registering it again is idempotent; another kind or
/// other properties replace the earlier ones. Samples that are already scored do not change.
#[utoipa::path(
    put, path = "/v1/datasets/{dataset}/prompts", operation_id = "register_prompts",
    tag = "datasets",
    params(("dataset" = String, Path, description = "Name of the dataset")),
    request_body(content = PromptsBody),
    responses(
        (status = 200, description = "Registered", body = RegisteredResponse),
        (status = 400, description = "Malformed body"),
        (status = 413, description = "A size limit is exceeded"),
        (status = 415, description = "The content type is not JSON"),
        (status = 422, description = "A prompt is invalid"),
    )
)]
pub(crate) async fn register(
    State(app): Shared,
    dataset: InPath<String>,
    request: Request,
) -> Result<Json<RegisteredResponse>, ApiError> {
    let dataset = new_name(dataset)?;
    app.admission.room()?;
    let PromptsBody { prompts, redistributable } = body::json(request, MOST_BYTES).await?;
    let _permit = app.admission.enter()?;
    let clean =
        |(at, prompt)| clean(&app, prompt).map_err(|error| error.within(&format!("prompts[{at}]")));
    let prompts =
        prompts.into_iter().enumerate().map(clean).collect::<Result<Vec<PromptRecord>, _>>()?;
    let Registered { created, changed, repeated } =
        app.store.register_prompts(&dataset, &prompts, clock::now()).await?;
    if let Some(redistributable) = redistributable {
        app.store.set_redistributable(&dataset, redistributable).await?;
    }
    Ok(Json(RegisteredResponse { created, changed, repeated }))
}

/// Applies the checks that a sample with this prompt must pass.
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

/// Filters of prompts, and the page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PromptsQuery {
    /// Only prompts of this identity.
    identity: Option<String>,
    /// Only prompts of this kind.
    kind: Option<String>,
    /// `next` of the previous page.
    after: Option<String>,
    /// Rows per page, 1 to 1000. Default: 100.
    limit: Option<u32>,
}

/// One page of prompts.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct PromptsResponse {
    /// Prompts by identity, and within it in the order of registration.
    items: Vec<Prompt>,
    /// Cursor of the next page, to be sent as `after`; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Lists a dataset's prompts.
#[utoipa::path(
    get, path = "/v1/datasets/{dataset}/prompts", operation_id = "list_prompts", tag = "datasets",
    params(("dataset" = String, Path, description = "Name of the dataset"), PromptsQuery),
    responses(
        (status = 200, description = "One page", body = PromptsResponse),
        (status = 404, description = "No such dataset"),
    )
)]
pub(crate) async fn list(
    State(app): Shared,
    name: InPath<String>,
    Query(parameters): Query<PromptsQuery>,
) -> Result<Json<PromptsResponse>, ApiError> {
    let PromptsQuery { identity, kind, after, limit } = parameters;
    let limit = page(limit)?;
    let after = after.map(|text| cursor(&text)).transpose()?;
    let dataset = find(&app, name).await?;
    let query = PromptQuery { identity, kind, after, limit: limit + 1 };
    let rows = app.store.prompts(dataset.id, &query).await?;
    let (rows, next) = cut(rows, limit, |(at, _)| format!("{}:{}", at.position, at.identity));
    Ok(Json(PromptsResponse {
        items: rows.into_iter().map(|(_, prompt)| prompt.into()).collect(),
        next,
    }))
}

fn cursor(text: &str) -> Result<PromptCursor, ApiError> {
    let parse = || {
        let (position, identity) = text.split_once(':')?;
        Some(PromptCursor { identity: identity.to_owned(), position: position.parse().ok()? })
    };
    parse().ok_or_else(|| {
        let problem = "after is not a valid cursor: send the `next` of the previous page unchanged";
        ApiError::new(Code::MalformedRequest, problem)
    })
}
