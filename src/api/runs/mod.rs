//! `/v1/runs`: runs, the progress of a run and its end.

pub(crate) mod attributes;
pub(crate) mod changes;
pub(crate) mod compare;
pub(crate) mod distributions;
pub(crate) mod events;
pub(crate) mod failures;
pub(crate) mod import;
pub(crate) mod judged;
pub(crate) mod photo_swap;
pub(crate) mod ranked;
pub(crate) mod report;
pub(crate) mod samples;
pub(crate) mod table;
pub(crate) mod toolkit;

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::deletion::{self, DeletedResponse};
use crate::api::http::{ApiError, Id, Query, Resource, body, cut, form, not_found, page};
use crate::api::state::{App, Shared};
use crate::api::submissions::RunSubmission;
use crate::{
    clock, metrics,
    pack_id::PackId,
    runs::Snapshot,
    store::{self, RunCounts, RunFacts, RunFlags, RunName, RunRecord, RunState, SubmissionRecord},
};

pub(crate) fn made(is_new: bool) -> StatusCode {
    if is_new { StatusCode::CREATED } else { StatusCode::OK }
}

/// A run to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRun {
    /// Name of the method; created if it does not exist.
    #[schema(example = "StellarNet")]
    method: String,
    /// Name of the run, unique within its method. Default: `default`.
    run: Option<String>,
    /// Dataset that the prompts are from.
    #[schema(example = "stellar")]
    dataset: Option<String>,
    /// Split of the dataset.
    #[schema(example = "test")]
    split: Option<String>,
    /// Facts about the method's training that matter for comparisons.
    #[serde(default)]
    flags: RunFlags,
    /// Settings of the generator, any object.
    #[serde(default)]
    #[schema(value_type = Object, example = json!({"steps": 50}))]
    settings: serde_json::Map<String, serde_json::Value>,
    /// Codes of the metrics that are computed. Default: all.
    #[schema(example = json!(["clip_t", "ips"]))]
    metrics: Option<Vec<String>>,
}

/// A run.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct RunResponse {
    /// Id of the run.
    pub(crate) run_id: Uuid,
    /// Method of the run.
    pub(crate) method: String,
    /// Name of the run, unique within its method.
    pub(crate) run: String,
    /// Dataset that the prompts are from.
    pub(crate) dataset: Option<String>,
    /// Split of the dataset.
    pub(crate) split: Option<String>,
    /// Facts about the method's training that matter for comparisons.
    pub(crate) flags: RunFlags,
    /// Settings of the generator.
    #[schema(value_type = Object)]
    pub(crate) settings: serde_json::Map<String, serde_json::Value>,
    /// Codes of the metrics that are computed for its samples; null for all.
    pub(crate) metrics: Option<Vec<String>>,
    /// The pack of its scores; null before the first sample is accepted.
    pub(crate) pack: Option<PackId>,
    /// The verified submission that it is from; absent for other runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) submission: Option<RunSubmission>,
    /// Version of the service that accepted its first sample.
    pub(crate) service_version: Option<String>,
    /// State of the run.
    pub(crate) state: RunState,
    /// Number of samples by state.
    pub(crate) counts: Counts,
    /// Reason why pending samples are blocked; absent if they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<Blocked>,
    /// Time at which it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created: OffsetDateTime,
    /// Time at which it was finished.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) finished: Option<OffsetDateTime>,
}

/// Number of samples of a run, by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Counts {
    /// All accepted samples: pending, scored and failed.
    pub(crate) accepted: u64,
    /// Accepted and not scored yet.
    pub(crate) pending: u64,
    /// Scored.
    pub(crate) scored: u64,
    /// Failed; GET /v1/runs/{id}/samples?state=failed returns the reasons.
    pub(crate) failed: u64,
}

impl From<RunCounts> for Counts {
    fn from(counts: RunCounts) -> Self {
        let RunCounts { waiting, failed, scored } = counts;
        Self { accepted: waiting + failed + scored, pending: waiting, scored, failed }
    }
}

/// Reason why pending samples are blocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Blocked {
    /// Machine-readable code: `pack_not_loaded`.
    #[schema(example = "pack_not_loaded")]
    pub(crate) code: String,
    /// Explanation, with what to do.
    pub(crate) detail: String,
}

impl Blocked {
    /// Returns why a run's samples are blocked: all are scored with one pack, and this service has
    /// loaded another.
    pub(crate) fn of(run: &RunRecord, loaded: &PackId) -> Option<Self> {
        let pack = run.pack.as_ref().filter(|pack| pack.digest != loaded.digest)?;
        let detail = format!(
            "pending samples and the end of the run need the pack {pack}, but this service has \
             loaded {loaded}: start it with that pack, or delete the run"
        );
        Some(Self { code: "pack_not_loaded".to_owned(), detail })
    }
}

/// Returns true if work remains for a run: a finishing run is still to be judged on its attributes.
fn waits(waiting: u64, state: RunState) -> bool {
    waiting > 0 || state == RunState::Finishing
}

impl RunResponse {
    pub(crate) fn new(run: RunRecord, loaded: &PackId) -> Self {
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
            submission: None,
            service_version: run.service_version,
            state: run.state,
            counts: run.counts.into(),
            held,
            created: run.created,
            finished: run.finished,
        }
    }
}

impl RunResponse {
    /// Adds the submission that the run is from, with its pack.
    fn is_from(&mut self, submission: Option<&SubmissionRecord>) {
        if let Some(of) = submission {
            self.submission = Some(of.into());
            self.pack.get_or_insert_with(|| of.pack.clone());
        }
    }
}

/// Data of an event in the progress stream of a run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProgressEvent {
    /// State of the run.
    state: RunState,
    /// Number of samples by state.
    counts: Counts,
    /// Reason why pending samples are blocked; absent if they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<Blocked>,
}

impl ProgressEvent {
    /// Creates an event; `held` is included only while work remains.
    pub(crate) fn new(snapshot: Snapshot, held: Option<&Blocked>) -> Self {
        let held = held.filter(|_| waits(snapshot.counts.waiting, snapshot.state)).cloned();
        Self { state: snapshot.state, counts: snapshot.counts.into(), held }
    }
}

/// Creates a run with its properties.
///
/// Creating the same run again is idempotent and returns the existing run. A run that was created
/// by a sample of POST /v1/score takes the properties given here.
#[utoipa::path(
    post, path = "/v1/runs", operation_id = "create_run", tag = "runs", request_body = NewRun,
    responses(
        (status = 200, description = "The run exists", body = RunResponse),
        (status = 201, description = "Created", body = RunResponse),
        (status = 400, description = "Malformed JSON"),
        (status = 409, description = "The run exists with other properties"),
        (status = 415, description = "The content type is not JSON"),
        (status = 422, description = "A field is invalid"),
    )
)]
pub(crate) async fn create(
    State(app): Shared,
    request: Request,
) -> Result<(StatusCode, Json<RunResponse>), ApiError> {
    let mut new: NewRun = body::json(request, app.limits.metadata_bytes).await?;
    new.method = form::clean_label("method", &new.method)?;
    for (field, value) in
        [("run", &mut new.run), ("dataset", &mut new.dataset), ("split", &mut new.split)]
    {
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
    let (run, is_new) = app.store.create_run(&name, &facts, clock::now()).await?;
    Ok((made(is_new), Json(details(&app, run).await?)))
}

/// Filters of runs, and the page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RunsQuery {
    /// Only runs of this method.
    pub(crate) method: Option<String>,
    /// Only runs over this dataset.
    pub(crate) dataset: Option<String>,
    /// Only runs in this state.
    pub(crate) state: Option<RunState>,
    /// Order of the runs by creation. Default: `oldest`.
    #[serde(default)]
    pub(crate) order: RunOrder,
    /// `next` of the previous page, in the same order.
    pub(crate) after: Option<Uuid>,
    /// Rows per page, 1 to 1000. Default: 100.
    pub(crate) limit: Option<u32>,
}

/// Order of runs by creation, first to last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RunOrder {
    /// Oldest first.
    #[default]
    Oldest,
    /// Newest first.
    Newest,
}

/// One page of runs.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct RunsResponse {
    /// Runs in the requested order.
    pub(crate) runs: Vec<RunResponse>,
    /// Cursor of the next page, to be sent as `after`; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<Uuid>,
}

/// Lists runs by creation.
#[utoipa::path(
    get, path = "/v1/runs", operation_id = "list_runs", tag = "runs", params(RunsQuery),
    responses((status = 200, description = "One page", body = RunsResponse))
)]
pub(crate) async fn list(
    State(app): Shared,
    Query(parameters): Query<RunsQuery>,
) -> Result<Json<RunsResponse>, ApiError> {
    respond(&app, parameters).await.map(Json)
}

/// Returns one page of runs.
pub(crate) async fn respond(app: &App, parameters: RunsQuery) -> Result<RunsResponse, ApiError> {
    let RunsQuery { method, dataset, state, order, after, limit } = parameters;
    let limit = page(limit)?;
    let query = store::RunsQuery {
        method,
        dataset,
        state,
        newest_first: order == RunOrder::Newest,
        after,
        limit: limit + 1,
    };
    let (runs, next) = cut(app.store.runs(&query).await?, limit, |run| run.id);
    let loaded = app.scoring.pack().id();
    let ids: Vec<Uuid> = runs.iter().map(|run| run.id).collect();
    let submissions = app.store.submissions_of_runs(&ids).await?;
    let response = |run: RunRecord| {
        let submission = submissions.get(&run.id);
        let mut run = RunResponse::new(run, &loaded);
        run.is_from(submission);
        run
    };
    let runs = runs.into_iter().map(response).collect();
    Ok(RunsResponse { runs, next })
}

impl Resource for RunRecord {
    const NAME: &'static str = "run";
}

/// Finds the run with this id.
pub(crate) async fn find(app: &App, id: Id<RunRecord>) -> Result<RunRecord, ApiError> {
    app.store.run(id.0).await?.ok_or_else(unknown_run)
}

/// Creates the error for a run that does not exist.
pub(crate) fn unknown_run() -> ApiError {
    not_found("run with this id: GET /v1/runs lists all runs")
}

/// Returns a run with its properties and its progress.
#[utoipa::path(
    get, path = "/v1/runs/{id}", operation_id = "read_run", tag = "runs",
    params(("id" = Uuid, Path, description = "Id of the run (`run_id`)")),
    responses((status = 200, description = "The run", body = RunResponse))
)]
pub(crate) async fn read(
    State(app): Shared,
    id: Id<RunRecord>,
) -> Result<Json<RunResponse>, ApiError> {
    let run = find(&app, id).await?;
    details(&app, run).await.map(Json)
}

/// Returns a run with the submission that it is from.
pub(crate) async fn details(app: &App, run: RunRecord) -> Result<RunResponse, ApiError> {
    let mut run = RunResponse::new(run, &app.scoring.pack().id());
    let found = app.store.submissions_of_runs(&[run.run_id]).await?;
    run.is_from(found.get(&run.run_id));
    Ok(run)
}

/// Finishes a run: it accepts no more samples.
///
/// Once its pending samples are scored, the scores that need the whole run are computed. The
/// response comes at once, with the state `finishing`; the run and its events report when it is
/// `finished`. The images spooled for it are then deleted. Failed samples remain failed. Finishing
/// a run again is idempotent.
#[utoipa::path(
    post, path = "/v1/runs/{id}/finish", operation_id = "finish_run", tag = "runs",
    params(("id" = Uuid, Path, description = "Id of the run (`run_id`)")),
    responses(
        (status = 200, description = "The run was finished before", body = RunResponse),
        (status = 202, description = "The run is finishing", body = RunResponse),
    )
)]
pub(crate) async fn finish(
    State(app): Shared,
    id: Id<RunRecord>,
) -> Result<(StatusCode, Json<RunResponse>), ApiError> {
    let run = app.store.finish_run(id.0).await?.ok_or_else(unknown_run)?;
    app.runs.notify_finishing();
    let status =
        if run.state == RunState::Finished { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(details(&app, run).await?)))
}

/// Deletes a run with its samples, scores and means, and the files spooled for it.
///
/// Pending samples are deleted too. The faces of its images are deleted unless other data needs
/// them.
#[utoipa::path(
    delete, path = "/v1/runs/{id}", operation_id = "delete_run", tag = "privacy",
    params(("id" = Uuid, Path, description = "Id of the run (`run_id`)")),
    responses((status = 200, description = "Deleted", body = DeletedResponse))
)]
pub(crate) async fn delete(
    State(app): Shared,
    id: Id<RunRecord>,
) -> Result<Json<DeletedResponse>, ApiError> {
    let store = app.store.clone();
    let runs = Arc::clone(&app.runs);
    let deleting = async move {
        let deleted = store.delete_run(id.0).await?;
        runs.forget_run(id.0).await;
        Ok(deleted)
    };
    deletion::delete(app, "run with this id", None, deleting).await
}
