//! `/v1/runs/{id}/samples`: samples that are accepted now, durably, and scored later.

use std::collections::BTreeSet;

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
    ApiError, App, Problem, Query, Shared,
    datasets::probes_error,
    drain,
    form::{self, Photo, Submission as Form},
    page::{cut, page},
    runs::missing,
};
use crate::{
    content::ContentHash,
    runs::{SERVICE_VERSION, SpoolWriteError, probes},
    scoring::{Metadata, content},
    store::{Accepted, NewPending, RunRecord, SampleStatus, StoreError, Submitted, SubmittedState},
};

/// The form of `PUT /v1/runs/{id}/samples/{name}`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the form, which is read field by field within limits")]
pub(super) struct SubmissionForm {
    /// The generated image: PNG, JPEG or WebP.
    #[schema(value_type = String, format = Binary)]
    image: Vec<u8>,
    /// The prompt it was generated for. Taken as it is: placeholders are not filled in.
    prompt: Option<String>,
    /// Photos of the subject that the generator was given; repeat the field for several.
    #[schema(value_type = Option<Vec<String>>, format = Binary)]
    reference: Option<Vec<Vec<u8>>>,
    /// The BLAKE3 of a photo that the run already has, 64 hexadecimal digits, in the place of its file.
    reference_hash: Option<Vec<String>>,
    /// Further photos of the same person; repeat the field for several.
    #[schema(value_type = Option<Vec<String>>, format = Binary)]
    auxiliary: Option<Vec<Vec<u8>>>,
    /// As `reference_hash`.
    auxiliary_hash: Option<Vec<String>>,
    /// What is known about prompt and subject, as JSON.
    metadata: Option<Metadata>,
}

/// Where a submitted sample stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum SampleState {
    /// Accepted and waiting to be scored.
    Pending,
    /// Scored: GET /v1/samples/{id} has the scores.
    Scored,
    /// Impossible to score. Another sample may be sent under its name.
    Failed,
}

/// A submitted sample.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct SubmittedEntry {
    /// Its name in the run.
    name: String,
    /// Its id, which it keeps when it is scored.
    id: Uuid,
    /// Where it stands.
    state: SampleState,
    /// BLAKE3 address of all its inputs together.
    content: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
}

/// Why a sample failed.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct Failure {
    /// For programs: a code as in problem documents, `image_deleted` or `file_lost`.
    #[schema(example = "image_corrupt")]
    code: String,
    /// In words.
    detail: String,
}

impl SubmittedEntry {
    fn new(name: String, at: SampleStatus, content: String, failure: Option<(String, String)>) -> Self {
        let (id, state) = match at {
            SampleStatus::Pending(id) => (id, SampleState::Pending),
            SampleStatus::Scored(id) => (id, SampleState::Scored),
            SampleStatus::Failed(id) => (id, SampleState::Failed),
        };
        let error = failure.map(|(code, detail)| Failure { code, detail });
        Self { name, id, state, content, error }
    }
}

impl From<Submitted> for SubmittedEntry {
    fn from(sample: Submitted) -> Self {
        Self::new(sample.name, sample.at, sample.content, sample.failure)
    }
}

/// Accepts a sample of a run: once this is answered, it is on the disk and will be scored.
///
/// A sample is known by its name: the same again changes nothing, other content is refused unless the first one failed.
/// What the headers of the images show is checked now; an image that only fails to decode fails its sample later.
/// Photos that were sent with another sample of the run may be named by their hash.
#[utoipa::path(
    put, path = "/v1/runs/{id}/samples/{name}", operation_id = "submit_sample", tag = "runs",
    params(
        ("id" = Uuid, Path, description = "The run's `run_id`"),
        ("name" = String, Path, description = "The sample's name in the run"),
    ),
    request_body(content = SubmissionForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The same was there", body = SubmittedEntry),
        (status = 202, description = "Accepted", body = SubmittedEntry),
        (status = 400, description = "The form cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such run, or the metadata name a dataset that does not exist", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The name is taken by a sample of other content, the run is finished, or it belongs to another pack", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "A limit of size is exceeded", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Not a form, or not an image", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Understood but not usable", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "At the limit: retry after `Retry-After` seconds", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Stopping, or without store", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "Not read before the deadline", body = Problem, content_type = "application/problem+json"),
        (status = 507, description = "The disk space for accepted samples is used up: retry after `Retry-After` seconds", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn put(
    State(app): Shared,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<(StatusCode, Json<SubmittedEntry>), ApiError> {
    drain::whole(request, |request| accept(&app, path, request)).await
}

async fn accept(
    app: &App,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<(StatusCode, Json<SubmittedEntry>), ApiError> {
    let Ok(Path((id, name))) = path else { return Err(missing()) };
    let id = id.parse().map_err(|_| missing())?;
    let name = form::clean_label("name", &name)?;
    app.admission.room()?;
    let run = app.store.run(id).await?.ok_or_else(missing)?;
    check_pack(app, &run)?;
    let form = app.before_deadline(Form::read(request, &app.limits)).await?;
    let _permit = app.admission.enter()?;
    let learnt = async { probes(&app.store, &app.scoring, &form.metadata).await.map_err(probes_error) };
    app.before_deadline(learnt).await?;

    let hashes = |photos: &[Photo]| photos.iter().map(Photo::hash).collect::<Vec<_>>();
    let (references, auxiliary) = (hashes(&form.references), hashes(&form.auxiliary));
    let content = content(form.image.hash, form.prompt.as_deref(), &references, &auxiliary, &form.metadata);
    let entry = |at| SubmittedEntry::new(name.clone(), at, content.to_hex(), None);
    // Looked up before anything is written: a client that begins again sends many that are there.
    let known = app.store.submission(run.id, &run.name, &name, content).await?;
    if let Some(at @ (SampleStatus::Pending(_) | SampleStatus::Scored(_))) = known {
        return Ok((StatusCode::OK, Json(entry(at))));
    }
    let by_hash: BTreeSet<ContentHash> =
        form.references.iter().chain(&form.auxiliary).filter_map(Photo::kept).collect();
    let unknown = app.store.unknown_photos(run.id, app.runs.spool().id(), &by_hash).await?;
    let sent: BTreeSet<ContentHash> = form.files().map(|image| image.hash).collect();
    let unknown: Vec<_> = unknown.into_iter().filter(|photo| !sent.contains(photo)).collect();
    if !unknown.is_empty() {
        return Err(StoreError::ImageUnknown { images: unknown }.into());
    }
    let files: Vec<_> = form.files().map(|image| (image.hash, image.bytes.clone())).collect();
    let sizes = files.iter().map(|(hash, bytes)| (*hash, bytes.len() as u64)).collect();
    let held = app.runs.spool().keep(files).await.map_err(keep_error)?;
    let new = NewPending {
        id: Uuid::now_v7(),
        created: OffsetDateTime::now_utc(),
        run: run.id,
        name: name.clone(),
        content,
        prompt: form.prompt,
        image: form.image.hash,
        references,
        auxiliary,
        metadata: serde_json::to_value(&form.metadata).expect("plain data always serialises"),
        folder: app.runs.spool().id().to_owned(),
        files: sizes,
        pack: app.scoring.pack().id(),
        service_version: SERVICE_VERSION.to_owned(),
        max_pending: app.runs.max_pending(),
    };
    // In a task of its own: a transaction whose client left may have happened, so the files are held until it has ended.
    let store = app.store.clone();
    let accepting = tokio::spawn(async move {
        let _held = held;
        store.accept(&new).await
    });
    match accepting.await.map_err(|panic| ApiError::internal(&panic))??.ok_or_else(missing)? {
        Accepted::New(id) => {
            app.runs.notify_pending();
            Ok((StatusCode::ACCEPTED, Json(entry(SampleStatus::Pending(id)))))
        }
        Accepted::Repeated(at) => Ok((StatusCode::OK, Json(entry(at)))),
    }
}

/// Refuses a run of another pack before its sample is read.
fn check_pack(app: &App, run: &RunRecord) -> Result<(), ApiError> {
    let loaded = app.scoring.pack().digest.to_string();
    match &run.pack {
        Some(pack) if pack.digest != loaded => {
            Err(StoreError::PackConflict { run: run.name.clone(), pack: pack.digest.clone() }.into())
        }
        _ => Ok(()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn keep_error(error: SpoolWriteError) -> ApiError {
    match &error {
        SpoolWriteError::Full(_) => ApiError::storage_full(format!(
            "{error}: send it again when samples are scored, or finish runs, whose photos are then let go"
        )),
        // The disk itself is full.
        SpoolWriteError::Io(cause) if is_full(cause.kind()) => {
            tracing::error!(%error, "store.spool is on a full disk");
            ApiError::storage_full("the disk of the service is full; whoever runs it has to make room")
        }
        SpoolWriteError::Io(_) => ApiError::internal(&error),
    }
}

/// Whether a disk, a quota or the largest file of the process is used up.
fn is_full(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(kind, StorageFull | QuotaExceeded | FileTooLarge)
}

/// Which samples of a run.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParameters {
    /// Only samples that stand there.
    state: Option<SampleState>,
    /// Begins behind the sample of this name.
    after: Option<String>,
    /// Rows of a page, 1 to 1000. Default: 100.
    limit: Option<u32>,
}

/// One page of a run's samples.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct SubmittedResponse {
    /// By name.
    items: Vec<SubmittedEntry>,
    /// Send as `after` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Lists the samples of a run, wherever they stand.
#[utoipa::path(
    get, path = "/v1/runs/{id}/samples", operation_id = "list_samples", tag = "runs",
    params(("id" = Uuid, Path, description = "The run's `run_id`"), ListParameters),
    responses(
        (status = 200, description = "One page", body = SubmittedResponse),
        (status = 400, description = "A parameter cannot be used", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such run", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "A defect of the service; the log has the cause", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(app): Shared,
    id: Result<Path<String>, PathRejection>,
    Query(parameters): Query<ListParameters>,
) -> Result<Json<SubmittedResponse>, ApiError> {
    let id = super::privacy::id(id, "run of this id")?;
    let limit = page(parameters.limit)?;
    let state = parameters.state.map(|state| match state {
        SampleState::Pending => SubmittedState::Pending,
        SampleState::Scored => SubmittedState::Scored,
        SampleState::Failed => SubmittedState::Failed,
    });
    let after = parameters.after.unwrap_or_default();
    let samples = app.store.submitted(id, state, &after, limit + 1).await?.ok_or_else(missing)?;
    let (samples, next) = cut(samples, limit, |sample| sample.name.clone());
    Ok(Json(SubmittedResponse { items: samples.into_iter().map(Into::into).collect(), next }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Code;

    #[test]
    fn a_full_disk_is_told_from_a_defect() {
        for kind in [
            std::io::ErrorKind::StorageFull,
            std::io::ErrorKind::QuotaExceeded,
            std::io::ErrorKind::FileTooLarge,
        ] {
            assert_eq!(keep_error(SpoolWriteError::Io(kind.into())).code(), Code::StorageFull, "{kind}");
        }
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        assert_eq!(keep_error(SpoolWriteError::Io(denied)).code(), Code::Internal);
        assert_eq!(keep_error(SpoolWriteError::Full(1)).code(), Code::StorageFull);
    }
}
