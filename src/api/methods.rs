//! `/v1/methods`: methods, what their authors declare, and the settings of their images.

use axum::{
    Json,
    extract::{Path, Request, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::http::{ApiError, Code, InPath, Query, body, form, not_found, page_of};
use crate::api::runs::made;
use crate::api::state::{App, Shared};
use crate::{
    card::{CollectedSettings, MethodCard, excluded_by_flags},
    clock, label,
    store::{MethodRecord, RunFlags, RunRecord, RunState, RunsQuery},
};

/// Maximum number of runs that a method lists.
const MOST_RUNS: u32 = 100;

/// Maximum length of a method's description, in bytes.
const DESCRIPTION_BYTES: usize = 4_096;

/// A method to create or to describe.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMethod {
    /// Name of the method, shown on leaderboards.
    #[schema(example = "StellarNet")]
    name: String,
    /// Description of the method. If it is omitted, an earlier description remains.
    description: Option<String>,
    /// What its authors declare, in place of an earlier card. If it is omitted, an earlier card
    /// remains.
    card: Option<MethodCard>,
}

/// Creates a method, or changes its description or its card.
#[utoipa::path(
    post, path = "/v1/methods", operation_id = "create_method", tag = "runs", request_body = NewMethod,
    responses(
        (status = 200, description = "The method exists", body = MethodRecord),
        (status = 201, description = "Created", body = MethodRecord),
        (status = 400, description = "Malformed JSON"),
        (status = 415, description = "The content type is not JSON"),
        (status = 422, description = "A field is invalid"),
    )
)]
pub(crate) async fn create(
    State(app): Shared,
    request: Request,
) -> Result<(StatusCode, Json<MethodRecord>), ApiError> {
    let NewMethod { name, description, card } =
        body::json(request, app.limits.metadata_bytes).await?;
    let name = form::clean_label("name", &name)?;
    if let Some(description) = &description {
        let refused = if description.len() > DESCRIPTION_BYTES {
            Some(format!(
                "has {} bytes, at most {DESCRIPTION_BYTES} are allowed: shorten it",
                description.len()
            ))
        } else {
            label::check_lines(description).err().map(|problem| problem.to_string())
        };
        if let Some(problem) = refused {
            return Err(ApiError::new(Code::InvalidField, format!("`description` {problem}")));
        }
    }
    let card = card.map(MethodCard::clean).transpose();
    let card = card.map_err(|problem| ApiError::new(Code::InvalidField, problem))?;
    let (description, now) = (description.as_deref(), clock::now());
    let (method, is_new) = app.store.create_method(&name, description, card.as_ref(), now).await?;
    Ok((made(is_new), Json(method)))
}

/// Selects a page of methods.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct MethodsQuery {
    /// Starts after the method with this name.
    pub(crate) after: Option<String>,
    /// Rows per page, 1 to 1000. Default: 100.
    pub(crate) limit: Option<u32>,
}

/// One page of methods.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct MethodsResponse {
    /// Methods, sorted by name.
    pub(crate) methods: Vec<MethodRecord>,
    /// Cursor of the next page, to be sent as `after`; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

/// Lists methods.
#[utoipa::path(
    get, path = "/v1/methods", operation_id = "list_methods", tag = "runs", params(MethodsQuery),
    responses((status = 200, description = "One page", body = MethodsResponse))
)]
pub(crate) async fn list(
    State(app): Shared,
    Query(parameters): Query<MethodsQuery>,
) -> Result<Json<MethodsResponse>, ApiError> {
    respond_list(&app, parameters).await.map(Json)
}

/// Returns one page of methods.
pub(crate) async fn respond_list(
    app: &App,
    parameters: MethodsQuery,
) -> Result<MethodsResponse, ApiError> {
    let after = parameters.after.unwrap_or_default();
    let read = async |limit| app.store.methods(&after, limit).await;
    let (methods, next) = page_of(parameters.limit, read, |method| method.name.clone()).await?;
    Ok(MethodsResponse { methods, next })
}

/// Who says what a method was trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeclaredBy {
    /// The card of the method.
    Card,
    /// The flags of its runs.
    RunFlags,
}

/// One fact about the training of a method.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct TrainingTerm {
    /// The fact; null if it is not declared.
    pub(crate) value: Option<bool>,
    /// Who declares it; null if nobody does.
    pub(crate) declared_by: Option<DeclaredBy>,
    /// Whether the flags of a listed run say the opposite.
    pub(crate) contradicted: bool,
}

/// What a method was trained on: its card, or else the flags of its runs in the same terms.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct TrainingTerms {
    /// Whether the photos that it is evaluated with were excluded. Of the flags of runs,
    /// `trained_on_evaluation_photos` means false, and `cross_validated_training` true.
    pub(crate) evaluation_photos_excluded: TrainingTerm,
    /// Whether it was trained on prompts that it is evaluated with. No flag of runs says so.
    pub(crate) trained_on_prompts: TrainingTerm,
}

impl TrainingTerms {
    fn of(card: Option<&MethodCard>, runs: &[MethodRun]) -> Self {
        let training = card.map(|card| card.training).unwrap_or_default();
        let flagged: Vec<bool> = runs.iter().filter_map(MethodRun::excluded).collect();
        // One run on the photos is enough: the weaker statement counts.
        let by_flags = (!flagged.is_empty()).then(|| flagged.iter().all(|excluded| *excluded));
        let (value, declared_by) = match (training.evaluation_photos_excluded, by_flags) {
            (Some(value), _) => (Some(value), Some(DeclaredBy::Card)),
            (None, Some(value)) => (Some(value), Some(DeclaredBy::RunFlags)),
            (None, None) => (None, None),
        };
        let prompts = training.trained_on_prompts;
        Self {
            evaluation_photos_excluded: TrainingTerm {
                value,
                declared_by,
                contradicted: flagged.iter().any(|excluded| Some(*excluded) != value),
            },
            trained_on_prompts: TrainingTerm {
                value: prompts,
                declared_by: prompts.map(|_| DeclaredBy::Card),
                contradicted: false,
            },
        }
    }
}

/// A run of a method.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct MethodRun {
    /// Id of the run.
    pub(crate) run_id: Uuid,
    /// Name of the run.
    pub(crate) run: String,
    /// Dataset that the prompts are from.
    pub(crate) dataset: Option<String>,
    /// Split of the dataset.
    pub(crate) split: Option<String>,
    /// State of the run.
    pub(crate) state: RunState,
    /// Number of scored samples.
    pub(crate) scored: u64,
    /// What the run declared about training.
    pub(crate) flags: RunFlags,
    /// Settings that the run declared.
    #[schema(value_type = Object)]
    pub(crate) settings: serde_json::Map<String, serde_json::Value>,
    /// Settings of its images, counted when it was finished; null before, and if its samples have
    /// none.
    pub(crate) image_settings: Option<CollectedSettings>,
    /// Time at which it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created: OffsetDateTime,
}

impl MethodRun {
    fn new(run: RunRecord, image_settings: Option<CollectedSettings>) -> Self {
        Self {
            run_id: run.id,
            run: run.name.run,
            dataset: run.facts.dataset,
            split: run.facts.split,
            state: run.state,
            scored: run.counts.scored,
            flags: run.facts.flags,
            settings: run.facts.settings,
            image_settings,
            created: run.created,
        }
    }

    /// Returns what its flags say about the photos that it is evaluated with.
    fn excluded(&self) -> Option<bool> {
        let RunFlags { cross_validated_training, trained_on_evaluation_photos } = self.flags;
        excluded_by_flags(cross_validated_training, trained_on_evaluation_photos)
    }
}

/// A method with its card and its runs.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct MethodResponse {
    /// The method.
    pub(crate) method: MethodRecord,
    /// What it was trained on, as far as anybody declares it.
    pub(crate) training: TrainingTerms,
    /// Its runs, newest first; at most 100.
    pub(crate) runs: Vec<MethodRun>,
}

/// Returns a method with its card, its runs and the settings of their images.
#[utoipa::path(
    get, path = "/v1/methods/{name}", operation_id = "read_method", tag = "runs",
    params(("name" = String, Path, description = "Name of the method")),
    responses(
        (status = 200, description = "The method", body = MethodResponse),
        (status = 404, description = "No such method"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    path: InPath<String>,
) -> Result<Json<MethodResponse>, ApiError> {
    respond(&app, &name_in(path)?).await.map(Json)
}

/// Returns the name of a method in a path.
pub(crate) fn name_in(path: InPath<String>) -> Result<String, ApiError> {
    path.map(|Path(name)| label::normal(&name).into_owned()).map_err(|_| unknown())
}

fn unknown() -> ApiError {
    not_found("method with this name: GET /v1/methods lists all methods")
}

/// Looks up a method.
pub(crate) async fn respond(app: &App, name: &str) -> Result<MethodResponse, ApiError> {
    // Such a name is never stored, and a database may refuse it.
    if label::check_visible(name).is_err() {
        return Err(unknown());
    }
    let method = app.store.method(name).await?.ok_or_else(unknown)?;
    let query = RunsQuery {
        method: Some(method.name.clone()),
        newest_first: true,
        limit: MOST_RUNS,
        ..RunsQuery::default()
    };
    let runs = app.store.runs(&query).await?;
    let ids: Vec<Uuid> = runs.iter().map(|run| run.id).collect();
    let mut settings = app.store.settings_of(&ids).await?;
    let runs: Vec<MethodRun> = runs
        .into_iter()
        .map(|run| {
            let settings = settings.remove(&run.id);
            MethodRun::new(run, settings)
        })
        .collect();
    Ok(MethodResponse { training: TrainingTerms::of(method.card.as_ref(), &runs), method, runs })
}
