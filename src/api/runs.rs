//! `/v1/methods` and `/v1/runs`: what is evaluated, how far it has come, and its end.

use axum::{
    Json,
    extract::{Path, Request, State, rejection::PathRejection},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    ApiError, App, Code, Problem, Query, Shared, body, form,
    page::{cut, page},
    privacy,
};
use crate::{
    label, metrics,
    pack_id::PackId,
    runs::Snapshot,
    store::{MethodRecord, RunCounts, RunFacts, RunFlags, RunName, RunRecord, RunState, RunsQuery},
};

/// Longest description of a method, in bytes.
const DESCRIPTION_BYTES: usize = 4_096;

/// A method to make or to describe.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewMethod {
    /// Its name, which leaderboards show.
    #[schema(example = "StellarNet")]
    name: String,
    /// What it is, in words. Where it is left out, what was said before stays.
    description: Option<String>,
}

/// A method.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct MethodEntry {
    /// Its name.
    name: String,
    /// What it is.
    description: Option<String>,
    /// How many runs it has.
    runs: u64,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    created: OffsetDateTime,
}

impl From<MethodRecord> for MethodEntry {
    fn from(method: MethodRecord) -> Self {
        let MethodRecord { name, description, runs, created } = method;
        Self { name, description, runs, created }
    }
}

/// Makes a method, or describes it anew.
#[utoipa::path(
    post, path = "/v1/methods", tag = "runs", request_body = NewMethod,
    responses(
        (status = 200, description = "It was there", body = MethodEntry),
        (status = 201, description = "Made", body = MethodEntry),
        (status = 400, description = "Not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The content type is not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create_method(
    State(app): Shared,
    request: Request,
) -> Result<(StatusCode, Json<MethodEntry>), ApiError> {
    let NewMethod { name, description } = body::json(request, app.limits.metadata_bytes).await?;
    let name = form::clean_label("name", &name)?;
    if let Some(description) = &description {
        let refused = if description.len() > DESCRIPTION_BYTES {
            Some(format!("has {} bytes, at most {DESCRIPTION_BYTES} are kept", description.len()))
        } else {
            label::check_lines(description).err().map(|problem| problem.to_string())
        };
        if let Some(problem) = refused {
            return Err(ApiError::new(Code::InvalidField, format!("`description` {problem}")));
        }
    }
    let now = OffsetDateTime::now_utc();
    let (method, is_new) = app.store.create_method(&name, description.as_deref(), now).await?;
    Ok((made(is_new), Json(method.into())))
}

fn made(is_new: bool) -> StatusCode {
    if is_new { StatusCode::CREATED } else { StatusCode::OK }
}

/// Which page of methods.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MethodsParameters {
    /// Begins behind the method of this name.
    after: Option<String>,
    /// Rows of a page, 1 to 1000. Default: 100.
    limit: Option<u32>,
}

/// One page of methods.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct MethodsResponse {
    /// By name.
    methods: Vec<MethodEntry>,
    /// Send as `after` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Lists the methods.
#[utoipa::path(
    get, path = "/v1/methods", tag = "runs", params(MethodsParameters),
    responses(
        (status = 200, description = "One page", body = MethodsResponse),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list_methods(
    State(app): Shared,
    Query(parameters): Query<MethodsParameters>,
) -> Result<Json<MethodsResponse>, ApiError> {
    let limit = page(parameters.limit)?;
    let methods = app.store.methods(&parameters.after.unwrap_or_default(), limit + 1).await?;
    let (methods, next) = cut(methods, limit, |method| method.name.clone());
    Ok(Json(MethodsResponse { methods: methods.into_iter().map(Into::into).collect(), next }))
}

/// A run to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRun {
    /// The generator; made if it is new.
    #[schema(example = "StellarNet")]
    method: String,
    /// The run's name among the method's. Default: `default`.
    run: Option<String>,
    /// The dataset whose prompts it goes through.
    #[schema(example = "stellar")]
    dataset: Option<String>,
    /// The part of the dataset.
    #[schema(example = "test")]
    split: Option<String>,
    /// How the generator came about, as far as whoever compares it should know.
    #[serde(default)]
    flags: RunFlags,
    /// The generator's settings, any object.
    #[serde(default)]
    #[schema(value_type = Object, example = json!({"steps": 50}))]
    settings: serde_json::Map<String, serde_json::Value>,
    /// Codes of the metrics to score with. Default: all.
    #[schema(example = json!(["clip_t", "ips"]))]
    metrics: Option<Vec<String>>,
}

/// A run.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct RunResponse {
    /// Its id.
    run_id: Uuid,
    /// Its method.
    method: String,
    /// Its name among the method's.
    run: String,
    /// The dataset whose prompts it goes through.
    dataset: Option<String>,
    /// The part of the dataset.
    split: Option<String>,
    /// How the generator came about.
    flags: RunFlags,
    /// The generator's settings.
    #[schema(value_type = Object)]
    settings: serde_json::Map<String, serde_json::Value>,
    /// Codes of the metrics that its samples are scored with; null for all.
    metrics: Option<Vec<String>>,
    /// The pack of its scores, from the first accepted sample on.
    pack: Option<PackId>,
    /// The version of the service that accepted its first sample.
    service_version: Option<String>,
    /// Where it stands.
    state: RunState,
    /// Its samples.
    counts: Counts,
    /// Why those that are pending are not being scored; absent where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<Blocked>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    created: OffsetDateTime,
    /// When it was finished.
    #[serde(with = "time::serde::rfc3339::option")]
    finished: Option<OffsetDateTime>,
}

/// How many samples of a run are where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(super) struct Counts {
    /// All of them.
    accepted: u64,
    /// Waiting to be scored.
    pending: u64,
    /// Scored.
    scored: u64,
    /// Impossible to score: GET /v1/runs/{id}/samples?state=failed says why.
    failed: u64,
}

impl From<RunCounts> for Counts {
    fn from(counts: RunCounts) -> Self {
        let RunCounts { waiting, failed, scored } = counts;
        Self { accepted: waiting + failed + scored, pending: waiting, scored, failed }
    }
}

/// Why pending samples are not being scored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(super) struct Blocked {
    /// For programs: `pack_not_loaded`.
    #[schema(example = "pack_not_loaded")]
    code: String,
    /// In words, with what to do.
    detail: String,
}

impl Blocked {
    /// Samples of a run are scored with one pack, and wait as long as this service has another.
    pub(super) fn of(run: &RunRecord, loaded: &PackId) -> Option<Self> {
        let pack = run.pack.as_ref().filter(|pack| pack.digest != loaded.digest)?;
        let detail = format!(
            "pending samples, and the end of the run, wait for the pack {pack}, and this service has {loaded} loaded: \
             start it with that pack, or delete the run"
        );
        Some(Self { code: "pack_not_loaded".to_owned(), detail })
    }
}

/// Whether anything of a run is still to be done: one that is finishing waits for the judging of its attributes.
fn waits(waiting: u64, state: RunState) -> bool {
    waiting > 0 || state == RunState::Finishing
}

impl RunResponse {
    fn new(run: RunRecord, loaded: &PackId) -> Self {
        let held = Blocked::of(&run, loaded).filter(|_| waits(run.counts.waiting, run.state));
        let RunFacts { dataset, split, flags, settings, metrics } = run.facts;
        Self {
            run_id: run.id,
            method: run.name.method,
            run: run.name.run,
            dataset,
            split,
            flags,
            settings,
            metrics,
            pack: run.pack,
            service_version: run.service_version,
            state: run.state,
            counts: run.counts.into(),
            held,
            created: run.created,
            finished: run.finished,
        }
    }
}

/// What the stream of a run's progress tells.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProgressEvent {
    /// Where it stands.
    state: RunState,
    /// Its samples.
    counts: Counts,
    /// Why those that are pending are not being scored; absent where they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<Blocked>,
}

impl ProgressEvent {
    /// `held` is said as long as something waits.
    pub(super) fn new(snapshot: Snapshot, held: Option<&Blocked>) -> Self {
        let held = held.filter(|_| waits(snapshot.counts.waiting, snapshot.state)).cloned();
        Self { state: snapshot.state, counts: snapshot.counts.into(), held }
    }
}

/// Makes a run, with what is to be known about it.
///
/// The same again gives the same run. A run that came into being with a sample of POST /v1/score takes what is said here.
#[utoipa::path(
    post, path = "/v1/runs", operation_id = "create_run", tag = "runs", request_body = NewRun,
    responses(
        (status = 200, description = "It was there", body = RunResponse),
        (status = 201, description = "Made", body = RunResponse),
        (status = 400, description = "Not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It was made with other facts", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The content type is not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create(
    State(app): Shared,
    request: Request,
) -> Result<(StatusCode, Json<RunResponse>), ApiError> {
    let mut new: NewRun = body::json(request, app.limits.metadata_bytes).await?;
    new.method = form::clean_label("method", &new.method)?;
    for (field, value) in [("run", &mut new.run), ("dataset", &mut new.dataset), ("split", &mut new.split)] {
        if let Some(value) = value {
            *value = form::clean_label(field, value)?;
        }
    }
    let metrics = match new.metrics {
        None => None,
        Some(codes) => {
            let chosen = metrics::parse_list(&codes.join(","))?;
            Some(chosen.into_iter().map(|metric| metric.code.to_owned()).collect())
        }
    };
    let facts = RunFacts {
        dataset: new.dataset,
        split: new.split,
        flags: new.flags,
        settings: new.settings,
        metrics,
    };
    let name = RunName::new(new.method, new.run);
    let (run, is_new) = app.store.create_run(&name, &facts, OffsetDateTime::now_utc()).await?;
    Ok((made(is_new), Json(RunResponse::new(run, &app.scoring.pack().id()))))
}

/// Which runs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RunsParameters {
    /// Only runs of this method.
    method: Option<String>,
    /// Only runs that stand there.
    state: Option<RunState>,
    /// `next` of the page before.
    after: Option<Uuid>,
    /// Rows of a page, 1 to 1000. Default: 100.
    limit: Option<u32>,
}

/// One page of runs.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct RunsResponse {
    /// In the order in which they were made.
    runs: Vec<RunResponse>,
    /// Send as `after` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Uuid>,
}

/// Lists runs, the oldest first.
#[utoipa::path(
    get, path = "/v1/runs", operation_id = "list_runs", tag = "runs", params(RunsParameters),
    responses(
        (status = 200, description = "One page", body = RunsResponse),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(app): Shared,
    Query(parameters): Query<RunsParameters>,
) -> Result<Json<RunsResponse>, ApiError> {
    let RunsParameters { method, state, after, limit } = parameters;
    let limit = page(limit)?;
    let runs = app.store.runs(&RunsQuery { method, state, after, limit: limit + 1 }).await?;
    let (runs, next) = cut(runs, limit, |run| run.id);
    let loaded = app.scoring.pack().id();
    Ok(Json(RunsResponse {
        runs: runs.into_iter().map(|run| RunResponse::new(run, &loaded)).collect(),
        next,
    }))
}

const RUN: &str = "run of this id";

/// The run of a path, or the answer that there is none.
pub(super) async fn find(app: &App, id: Result<Path<String>, PathRejection>) -> Result<RunRecord, ApiError> {
    let id = privacy::id(id, RUN)?;
    app.store.run(id).await?.ok_or_else(missing)
}

pub(super) fn missing() -> ApiError {
    ApiError::new(Code::NotFound, format!("there is no {RUN}: GET /v1/runs lists them"))
}

/// Reads a run: what it is and how far it has come.
#[utoipa::path(
    get, path = "/v1/runs/{id}", operation_id = "read_run", tag = "runs",
    params(("id" = Uuid, Path, description = "The run's `run_id`")),
    responses(
        (status = 200, description = "The run", body = RunResponse),
        (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn read(
    State(app): Shared,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<RunResponse>, ApiError> {
    Ok(Json(RunResponse::new(find(&app, id).await?, &app.scoring.pack().id())))
}

/// Ends a run: it takes no more samples, and once those that wait are scored, what only the whole run has is computed.
///
/// Answers at once with state `finishing`; GET of the run or its events tell when it is `finished`. Its photos are then
/// kept no longer. Samples that could not be scored remain as failed. Finishing again changes nothing.
#[utoipa::path(
    post, path = "/v1/runs/{id}/finish", operation_id = "finish_run", tag = "runs",
    params(("id" = Uuid, Path, description = "The run's `run_id`")),
    responses(
        (status = 200, description = "It was finished before", body = RunResponse),
        (status = 202, description = "It will be finished", body = RunResponse),
        (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn finish(
    State(app): Shared,
    id: Result<Path<String>, PathRejection>,
) -> Result<(StatusCode, Json<RunResponse>), ApiError> {
    let id = privacy::id(id, RUN)?;
    let run = app.store.finish_run(id).await?.ok_or_else(missing)?;
    app.runs.notify_finishing();
    let status = if run.state == RunState::Finished { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(RunResponse::new(run, &app.scoring.pack().id()))))
}
