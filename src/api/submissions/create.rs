//! `POST /v1/submissions`: receives a bundle.

use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
};
use bytes::Bytes;
use uuid::Uuid;

use crate::api::http::keys::{Caller, caller};
use crate::api::http::{ApiError, Code, body, drain};
use crate::api::runs::made;
use crate::api::state::{App, Shared};
use crate::api::submissions::bundle::{flags, invalid, parse};
use crate::api::submissions::{SubmissionResponse, place};
use crate::blocking::blocking;
use crate::clock;
use crate::pack_id::PackId;
use crate::store::{NewSubmission, RunName, SubmissionState};
use crate::submission::{Bounds, BundleFacts, within};

/// Most submissions that wait for their verification.
const MOST_RECEIVED: u64 = 200;

/// Differences that an error names.
const NAMED: usize = 5;

/// Receives a bundle of scores, in the state `received`: no leaderboard counts it.
///
/// `stellar-score submission pack` makes bundles. Every hash, count and mean of the bundle is
/// checked, and the error names what does not agree. The same bundle again returns its submission.
#[utoipa::path(
    post, path = "/v1/submissions", operation_id = "create_submission", tag = "submissions",
    request_body(content = Vec<u8>, content_type = "application/zip", description = "A bundle"),
    responses(
        (status = 200, description = "It was received before", body = SubmissionResponse),
        (status = 201, description = "Received", body = SubmissionResponse),
        (status = 413, description = "The bundle is too large, or has too many samples"),
        (status = 415, description = "The content type is not application/zip"),
        (status = 422, description = "Not a bundle, or something in it does not agree; the detail \
            says what"),
        (status = 504, description = "The body was not read before the deadline"),
        (status = 507, description = "Too many submissions wait for their verification"),
    )
)]
pub(crate) async fn create(
    State(app): Shared,
    request: Request,
) -> Result<(StatusCode, Json<SubmissionResponse>), ApiError> {
    drain::whole(request, |request| receive(&app, request)).await
}

async fn receive(
    app: &App,
    request: Request,
) -> Result<(StatusCode, Json<SubmissionResponse>), ApiError> {
    app.admission.room()?;
    let key = caller(&request).as_ref().map(Caller::id);
    let work = async {
        let bytes = read_body(app, request).await?;
        let permit = app.admission.enter()?;
        let place = place(app).await;
        let mut known = app.store.packs().await?;
        known.push(app.scoring.pack().id());
        let file = bytes.clone();
        let read = blocking(move || read(&file, &known)).await?;
        Ok(((permit, place), bytes, read))
    };
    let (_held, bytes, (digest, facts)) = app.before_deadline(work).await?;
    if let Some(stored) = app.store.submission_of_digest(&digest).await? {
        return Ok((StatusCode::OK, Json(stored.into())));
    }
    if app.store.count_submissions(SubmissionState::Received).await? >= MOST_RECEIVED {
        return Err(ApiError::storage_full(format!(
            "{MOST_RECEIVED} submissions wait for their verification, which is the maximum: send \
             the bundle again once some are verified or withdrawn"
        )));
    }
    let new = NewSubmission {
        id: Uuid::now_v7(),
        created: clock::now(),
        digest,
        facts: serde_json::to_string(&facts).expect("plain data always serialises"),
        name: RunName { method: facts.method, run: facts.run },
        dataset: facts.dataset,
        split: facts.split,
        pack: facts.pack,
        samples: facts.samples,
        bundle: bytes.into(),
        key,
    };
    // Outside the deadline: the outcome of a transaction that is cut off is unknown.
    let (stored, is_new) = app.store.receive_submission(&new).await?;
    tracing::info!(submission = %stored.id, digest = stored.digest, is_new, "bundle received");
    Ok((made(is_new), Json(stored.into())))
}

async fn read_body(app: &App, request: Request) -> Result<Bytes, ApiError> {
    let most = app.limits.request_bytes().min(Bounds::UPLOAD.file as usize);
    let curl = "-H 'Content-Type: application/zip' --data-binary @FILE";
    let read = body::bytes(request, most, "application/zip", curl).await;
    read.map_err(|error| match error.code() {
        Code::PayloadTooLarge => ApiError::new(
            Code::PayloadTooLarge,
            format!(
                "the bundle has more than {most} bytes: submit a run with fewer samples or metrics"
            ),
        ),
        _ => error,
    })
}

/// Reads and checks a bundle. Returns its digest and its facts.
fn read(file: &[u8], known: &[PackId]) -> Result<(String, BundleFacts), ApiError> {
    let bundle = parse(file)?;
    let mut differences = within(&bundle);
    let pack = &bundle.facts.pack;
    if let Some(known) = known.iter().find(|known| known.digest == pack.digest && *known != pack) {
        differences.push(format!(
            "the pack {} is named {} here, with {} weights",
            pack.digest, known.name, known.weights
        ));
    }
    if let Err(problem) = flags(&bundle.facts) {
        differences.push(problem);
    }
    if differences.is_empty() {
        return Ok((bundle.digest, bundle.facts));
    }
    let count = differences.len();
    let named = differences.into_iter().take(NAMED).collect::<Vec<_>>().join("; ");
    let rest = if count > NAMED { "; …" } else { "" };
    let word = if count == 1 { "difference" } else { "differences" };
    Err(invalid(format!("the bundle has {count} {word}: {named}{rest}")))
}
