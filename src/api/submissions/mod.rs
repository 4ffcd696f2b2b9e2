//! `/v1/submissions`: bundles of scores, and the change log of the board.
//!
//! ```text
//! mod.rs          submissions, their facts and files; deletion
//! create.rs       receiving a bundle
//! bundle.rs       reading one
//! decide.rs       verification, which makes a run, and withdrawal
//! changes.rs      the change log of the board
//! ```

mod bundle;
pub(crate) mod changes;
pub(super) mod create;
pub(super) mod decide;

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::Response,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::deletion::{self, DeletedResponse};
use crate::api::http::{ApiError, Id, Query, Resource, not_found, page_of};
use crate::api::state::{App, IMPORTS_AT_ONCE, Shared};
use crate::clock;
use crate::pack_id::PackId;
use crate::server::Held;
use crate::store::{SubmissionRecord, SubmissionState, SubmissionsQuery, Verification};
use crate::submission::BundleFacts;

impl Resource for SubmissionRecord {
    const NAME: &'static str = "submission";
}

/// A submission.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct SubmissionResponse {
    /// Id of the submission.
    pub(crate) id: Uuid,
    /// Hash over all parts of its bundle: 64 hexadecimal digits.
    pub(crate) digest: String,
    /// Its state.
    pub(crate) state: SubmissionState,
    /// The method.
    pub(crate) method: String,
    /// The run of the method.
    pub(crate) run: String,
    /// Dataset that the prompts are from.
    pub(crate) dataset: Option<String>,
    /// Split of the dataset.
    pub(crate) split: Option<String>,
    /// The pack of its scores.
    pub(crate) pack: PackId,
    /// Number of samples.
    pub(crate) samples: u64,
    /// The run with its scores; null unless it is verified.
    pub(crate) run_id: Option<Uuid>,
    /// What its verifier did; null if nobody verified it.
    pub(crate) verification: Option<Verification>,
    /// Time of its arrival.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created: OffsetDateTime,
    /// Time of the last change of its state.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) changed: OffsetDateTime,
}

impl From<SubmissionRecord> for SubmissionResponse {
    fn from(of: SubmissionRecord) -> Self {
        Self {
            id: of.id,
            digest: of.digest,
            state: of.state,
            method: of.name.method,
            run: of.name.run,
            dataset: of.dataset,
            split: of.split,
            pack: of.pack,
            samples: of.samples,
            run_id: of.run,
            verification: of.verification,
            created: of.created,
            changed: of.changed,
        }
    }
}

/// The verified submission that a run is from.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct RunSubmission {
    /// Id of the submission.
    pub(crate) id: Uuid,
    /// Digest of its bundle.
    pub(crate) digest: String,
    /// Time of its verification.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) verified: OffsetDateTime,
}

impl From<&SubmissionRecord> for RunSubmission {
    fn from(of: &SubmissionRecord) -> Self {
        let verified = of.verification.as_ref().map_or(of.changed, |done| done.at);
        Self { id: of.id, digest: of.digest.clone(), verified }
    }
}

/// Selects a page of submissions.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SubmissionsParameters {
    /// Only submissions in this state.
    pub(crate) state: Option<SubmissionState>,
    /// Only submissions of this method.
    pub(crate) method: Option<String>,
    /// `next` of the previous page.
    pub(crate) after: Option<Uuid>,
    /// Rows per page, 1 to 1000. Default: 100.
    pub(crate) limit: Option<u32>,
}

/// One page of submissions.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct SubmissionsResponse {
    /// Submissions, the newest first.
    pub(crate) items: Vec<SubmissionResponse>,
    /// Cursor of the next page, to be sent as `after`; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<Uuid>,
}

/// Lists submissions, the newest first.
#[utoipa::path(
    get, path = "/v1/submissions", operation_id = "list_submissions", tag = "submissions",
    params(SubmissionsParameters),
    responses((status = 200, description = "One page", body = SubmissionsResponse))
)]
pub(super) async fn list(
    State(app): Shared,
    Query(parameters): Query<SubmissionsParameters>,
) -> Result<Json<SubmissionsResponse>, ApiError> {
    respond(&app, parameters).await.map(Json)
}

/// Returns one page of submissions.
pub(crate) async fn respond(
    app: &App,
    parameters: SubmissionsParameters,
) -> Result<SubmissionsResponse, ApiError> {
    let SubmissionsParameters { state, method, after: before, limit } = parameters;
    let read = async |limit| {
        app.store.submissions(&SubmissionsQuery { state, method, before, limit }).await
    };
    let (items, next) = page_of(limit, read, |of| of.id).await?;
    Ok(SubmissionsResponse { items, next })
}

/// Creates the error for a submission that does not exist.
fn unknown() -> ApiError {
    not_found("submission with this id: GET /v1/submissions lists all submissions")
}

/// Finds the submission with this id.
async fn find(app: &App, id: &Id<SubmissionRecord>) -> Result<SubmissionRecord, ApiError> {
    app.store.submission(id.0).await?.ok_or_else(unknown)
}

/// A submission with what its bundle says.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct SubmissionDetails {
    /// The submission.
    #[serde(flatten)]
    pub(crate) submission: SubmissionResponse,
    /// The facts of its bundle: declarations, versions, settings, counts and means.
    pub(crate) facts: BundleFacts,
}

/// Returns a submission with the facts of its bundle.
#[utoipa::path(
    get, path = "/v1/submissions/{id}", operation_id = "read_submission", tag = "submissions",
    params(("id" = Uuid, Path, description = "Id of the submission")),
    responses(
        (status = 200, description = "The submission", body = SubmissionDetails),
        (status = 404, description = "No such submission"),
    )
)]
pub(super) async fn read(
    State(app): Shared,
    id: Id<SubmissionRecord>,
) -> Result<Json<SubmissionDetails>, ApiError> {
    let submission = find(&app, &id).await?.into();
    let facts = app.store.submission_facts(id.0).await?.ok_or_else(unknown)?;
    let facts = serde_json::from_str(&facts).map_err(|error| ApiError::internal(&error))?;
    Ok(Json(SubmissionDetails { submission, facts }))
}

/// Returns the bundle of a submission, with the bytes that were sent.
#[utoipa::path(
    get, path = "/v1/submissions/{id}/bundle", operation_id = "read_bundle", tag = "submissions",
    params(("id" = Uuid, Path, description = "Id of the submission")),
    responses(
        (status = 200, description = "The bundle", body = Vec<u8>,
            content_type = "application/zip"),
        (status = 404, description = "No such submission"),
        (status = 504, description = "Too many other bundles were being sent"),
    )
)]
pub(super) async fn read_bundle(
    State(app): Shared,
    id: Id<SubmissionRecord>,
) -> Result<Response, ApiError> {
    let work = async {
        let place = Arc::clone(&app.bundles).acquire_owned().await;
        let of = find(&app, &id).await?;
        let bytes = app.store.submission_bundle(id.0).await?.ok_or_else(unknown)?;
        Ok((place, of, bytes))
    };
    let (place, of, bytes) = app.before_deadline(work).await?;
    let name = format!("attachment; filename=\"{}.zip\"", of.digest);
    let name = HeaderValue::from_str(&name).map_err(|error| ApiError::internal(&error))?;
    // The place is held until the last byte is sent.
    let mut response = Response::new(Body::new(Held::new(Body::from(bytes), place)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/zip"));
    headers.insert(header::CONTENT_DISPOSITION, name);
    Ok(response)
}

/// Deletes a submission with its bundle, and its run.
///
/// Of the change log, the digest, the names of method and run, and the times stay.
#[utoipa::path(
    delete, path = "/v1/submissions/{id}", operation_id = "delete_submission", tag = "privacy",
    params(("id" = Uuid, Path, description = "Id of the submission")),
    responses(
        (status = 200, description = "Deleted", body = DeletedResponse),
        (status = 404, description = "No such submission"),
    )
)]
pub(super) async fn delete(
    State(app): Shared,
    id: Id<SubmissionRecord>,
) -> Result<Json<DeletedResponse>, ApiError> {
    let store = app.store.clone();
    let deletion = async move { store.delete_submission(id.0, clock::now()).await };
    deletion::delete(app, "submission with this id", None, deletion).await
}

/// Waits until no other import or bundle is in memory. A bundle takes as much as all imports that
/// are read at once.
async fn place(app: &App) -> OwnedSemaphorePermit {
    let places = Arc::clone(&app.imports).acquire_many_owned(IMPORTS_AT_ONCE as u32).await;
    places.expect("the semaphore is never closed")
}
