//! `/v1/runs/{id}/samples`: samples are accepted durably at once and scored later.

use std::collections::BTreeSet;

use axum::{
    Json,
    extract::{Path, Request, State},
    http::{StatusCode, header},
};
use serde::{Deserialize, Serialize};
use tracing::Instrument as _;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::http::form::{self, Photo, RunSample as Form};
use crate::api::http::keys::{Caller, caller};
use crate::api::http::{ApiError, Id, InPath, Query, cut, drain, page};
use crate::api::runs::unknown_run;
use crate::api::state::{App, Shared};
use crate::{
    blobs::WriteError,
    clock,
    content::ContentHash,
    runs::SpoolKeepError,
    scoring::{Metadata, content},
    service::probes,
    store::{
        Accepted, AcceptedSample, NewPending, RunRecord, SampleInputs, SampleState, SampleStatus,
        StoreError,
    },
    trace::span,
};

/// The form of `PUT /v1/runs/{id}/samples/{name}`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the form, which is read field by field within limits")]
pub(crate) struct RunSampleForm {
    /// The generated image: PNG, JPEG, WebP or PPM.
    #[schema(value_type = String, format = Binary)]
    image: Vec<u8>,
    /// The prompt that the image was generated from, used as sent: placeholders are not filled in.
    prompt: Option<String>,
    /// Reference images, which the generator was given; repeat the field for several.
    #[schema(value_type = Option<Vec<String>>, format = Binary)]
    reference: Option<Vec<Vec<u8>>>,
    /// BLAKE3 hash of an image that the run already has, instead of its file: 64 hexadecimal
    /// digits.
    reference_hash: Option<Vec<String>>,
    /// Auxiliary images: further images of the same person; repeat the field for several.
    #[schema(value_type = Option<Vec<String>>, format = Binary)]
    auxiliary: Option<Vec<Vec<u8>>>,
    /// Like `reference_hash`, for auxiliary images.
    auxiliary_hash: Option<Vec<String>>,
    /// Metadata of the prompt and the person, as JSON.
    metadata: Option<Metadata>,
}

/// A submitted sample.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct SubmittedEntry {
    /// Name of the sample in the run.
    pub(crate) name: String,
    /// Id of the sample; scoring does not change it.
    pub(crate) id: Uuid,
    /// State of the sample.
    pub(crate) state: SampleState,
    /// BLAKE3 hash of all its inputs together.
    pub(crate) content: String,
    /// Reason why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<Failure>,
}

/// Reason why a sample failed.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Failure {
    /// Machine-readable code: one of the problem documents, `image_deleted` or `file_lost`.
    #[schema(example = "image_corrupt")]
    pub(crate) code: String,
    /// Explanation of the failure.
    pub(crate) detail: String,
}

impl SubmittedEntry {
    fn new(
        name: String,
        at: SampleStatus,
        content: String,
        failure: Option<(String, String)>,
    ) -> Self {
        let (id, state) = match at {
            SampleStatus::Pending(id) => (id, SampleState::Pending),
            SampleStatus::Scored(id) => (id, SampleState::Scored),
            SampleStatus::Failed(id) => (id, SampleState::Failed),
        };
        let error = failure.map(|(code, detail)| Failure { code, detail });
        Self { name, id, state, content, error }
    }
}

impl From<AcceptedSample> for SubmittedEntry {
    fn from(sample: AcceptedSample) -> Self {
        Self::new(sample.name, sample.at, sample.content, sample.failure)
    }
}

/// Accepts a sample of a run. Once the response is sent, it is durable and will be scored.
///
/// A sample is identified by its name. Sending the same sample again is idempotent; other content
/// under the same name is refused unless the first sample failed. Image headers are checked now; an
/// image that fails to decode later fails its sample. Images that were sent with another sample of
/// the run may be given by their hash.
#[utoipa::path(
    put, path = "/v1/runs/{id}/samples/{name}", operation_id = "submit_sample", tag = "runs",
    params(
        ("id" = Uuid, Path, description = "Id of the run (`run_id`)"),
        ("name" = String, Path, description = "Name of the sample in the run"),
    ),
    request_body(content = RunSampleForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The same sample was accepted before", body = SubmittedEntry),
        (status = 202, description = "Accepted", body = SubmittedEntry),
        (status = 400, description = "Malformed form"),
        (status = 404, description = "No such run, or the dataset in the metadata does not exist"),
        (status = 409, description = "The name is taken by a sample with other content, the run is \
            finished, or the run belongs to another pack"),
        (status = 413, description = "A size limit is exceeded"),
        (status = 415, description = "Not a multipart form, or not a supported image"),
        (status = 422, description = "A field is missing, repeated, unknown or invalid"),
        (status = 504, description = "The body was not read before the deadline"),
        (status = 507, description = "The disk space for accepted samples is used up; retry after \
            `Retry-After` seconds"),
    )
)]
pub(crate) async fn put(
    State(app): Shared,
    path: InPath<(String, String)>,
    request: Request,
) -> Result<(StatusCode, Json<SubmittedEntry>), ApiError> {
    drain::whole(request, |request| accept(&app, path, request)).await
}

async fn accept(
    app: &App,
    path: InPath<(String, String)>,
    request: Request,
) -> Result<(StatusCode, Json<SubmittedEntry>), ApiError> {
    let Ok(Path((id, name))) = path else { return Err(unknown_run()) };
    let id = id.parse().map_err(|_| unknown_run())?;
    let name = form::clean_label("name", &name)?;
    app.admission.room()?;
    let run = app.store.run(id).await?.ok_or_else(unknown_run)?;
    check_pack(app, &run)?;
    let caller = caller(&request);
    if let Some(caller) = &caller {
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        // A body without a length is checked when it is complete.
        caller.room(&app.store, length.unwrap_or(1)).await?;
    }
    let form = app.before_deadline(Form::read(request, &app.limits)).await?;
    let _permit = app.admission.enter()?;
    let learnt = async { Ok(probes(&app.store, &app.scoring, &form.metadata).await?) };
    app.before_deadline(learnt).await?;

    let hashes = |photos: &[Photo]| photos.iter().map(Photo::hash).collect::<Vec<_>>();
    let (references, auxiliary) = (hashes(&form.references), hashes(&form.auxiliary));
    let content =
        content(form.image.hash, form.prompt.as_deref(), &references, &auxiliary, &form.metadata);
    let entry = |at| SubmittedEntry::new(name.clone(), at, content.to_hex(), None);
    // Checked before anything is written: a client that resumes sends many samples that exist.
    let known = app.store.sample_status(run.id, &run.name, &name, content).await?;
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
    let sizes: Vec<_> = files.iter().map(|(hash, bytes)| (*hash, bytes.len() as u64)).collect();
    let bytes = sizes.iter().map(|(_, bytes)| bytes).sum();
    if let Some(caller) = &caller {
        caller.room(&app.store, bytes).await?;
    }
    let spooling = app.runs.spool().keep(&app.store, files).instrument(span!("spool"));
    let held = spooling.await.map_err(keep_error)?;
    let new = NewPending {
        id: Uuid::now_v7(),
        created: clock::now(),
        run: run.id,
        name: name.clone(),
        spool: app.runs.spool().id().to_owned(),
        files: sizes,
        pack: app.scoring.pack().id(),
        service_version: crate::VERSION.to_owned(),
        max_pending: app.runs.max_pending(),
        key: caller.as_ref().map(Caller::id),
        inputs: SampleInputs {
            content,
            prompt: form.prompt,
            image: form.image.hash,
            references,
            auxiliary,
            metadata: serde_json::to_value(&form.metadata).expect("plain data always serialises"),
        },
    };
    // In a task of its own: the transaction may commit even if the client disconnects, so the files
    // are held until it has ended.
    let store = app.store.clone();
    app.runs.remember_trace(new.id);
    let (run, pack) = (new.run, new.pack.clone());
    let accepting = async move {
        let _held = held;
        store.accept(&new).await
    };
    let accepting = tokio::spawn(accepting.instrument(span!("store")));
    match accepting.await.map_err(|panic| ApiError::internal(&panic))??.ok_or_else(unknown_run)? {
        Accepted::New(id) => {
            if let Some(caller) = &caller {
                caller.add_stored(bytes);
            }
            app.runs.announce(id, run, pack);
            Ok((StatusCode::ACCEPTED, Json(entry(SampleStatus::Pending(id)))))
        }
        Accepted::Repeated(at) => Ok((StatusCode::OK, Json(entry(at)))),
    }
}

/// Refuses a sample before it is read if its run belongs to another pack.
fn check_pack(app: &App, run: &RunRecord) -> Result<(), ApiError> {
    let loaded = app.scoring.pack().digest.to_string();
    match &run.pack {
        Some(pack) if pack.digest != loaded => {
            Err(StoreError::PackConflict { run: run.name.clone(), pack: pack.digest.clone() }
                .into())
        }
        _ => Ok(()),
    }
}

fn keep_error(error: SpoolKeepError) -> ApiError {
    match error {
        SpoolKeepError::Write(error) => write_error(&error),
        SpoolKeepError::Busy => ApiError::unavailable(error.to_string()),
        SpoolKeepError::Store(error) => error.into(),
    }
}

fn write_error(error: &WriteError) -> ApiError {
    match error {
        WriteError::Full(_) => ApiError::storage_full(format!(
            "{error}: retry when samples have been scored, or finish runs, whose images are then \
                deleted"
        )),
        // The disk itself is full, not the spool.
        WriteError::Io(cause) if is_full(cause.kind()) => {
            tracing::error!(%error, "failed to spool files: the disk of store.spool is full");
            ApiError::storage_full("the disk of the service is full; the operator must free space")
        }
        WriteError::Io(_) => ApiError::internal(error),
        WriteError::Unavailable(_) => {
            tracing::error!(%error, "failed to store images");
            ApiError::unavailable("the object store of the images cannot be used; retry later")
        }
    }
}

/// Returns true if the disk, a quota or the process's file size limit is used up.
fn is_full(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(kind, StorageFull | QuotaExceeded | FileTooLarge)
}

/// Filters of a run's samples, and the page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SamplesQuery {
    /// Only samples in this state.
    pub(crate) state: Option<SampleState>,
    /// Starts after the sample with this name.
    pub(crate) after: Option<String>,
    /// Rows per page, 1 to 1000. Default: 100.
    pub(crate) limit: Option<u32>,
}

/// One page of a run's samples.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct SubmittedResponse {
    /// Samples, sorted by name.
    pub(crate) items: Vec<SubmittedEntry>,
    /// Cursor of the next page, to be sent as `after`; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

/// Lists the samples of a run, in any state.
#[utoipa::path(
    get, path = "/v1/runs/{id}/samples", operation_id = "list_samples", tag = "runs",
    params(("id" = Uuid, Path, description = "Id of the run (`run_id`)"), SamplesQuery),
    responses((status = 200, description = "One page", body = SubmittedResponse))
)]
pub(crate) async fn list(
    State(app): Shared,
    Query(parameters): Query<SamplesQuery>,
    id: Id<RunRecord>,
) -> Result<Json<SubmittedResponse>, ApiError> {
    respond(&app, id.0, parameters).await.map(Json)
}

/// Returns one page of a run's samples.
pub(crate) async fn respond(
    app: &App,
    run: Uuid,
    parameters: SamplesQuery,
) -> Result<SubmittedResponse, ApiError> {
    let limit = page(parameters.limit)?;
    let after = parameters.after.unwrap_or_default();
    let samples = app.store.accepted_samples(run, parameters.state, &after, limit + 1).await?;
    let (samples, next) =
        cut(samples.ok_or_else(unknown_run)?, limit, |sample| sample.name.clone());
    Ok(SubmittedResponse { items: samples.into_iter().map(Into::into).collect(), next })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Code;

    #[test]
    fn a_full_disk_is_distinguished_from_a_defect() {
        for kind in [
            std::io::ErrorKind::StorageFull,
            std::io::ErrorKind::QuotaExceeded,
            std::io::ErrorKind::FileTooLarge,
        ] {
            assert_eq!(
                write_error(&WriteError::Io(kind.into())).code(),
                Code::StorageFull,
                "{kind}"
            );
        }
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        assert_eq!(write_error(&WriteError::Io(denied)).code(), Code::Internal);
        assert_eq!(write_error(&WriteError::Full(1)).code(), Code::StorageFull);
    }
}
