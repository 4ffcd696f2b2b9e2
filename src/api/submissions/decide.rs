//! `POST /v1/submissions/{id}/verification` and `…/withdrawal`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::deletion;
use crate::api::http::keys::{Caller, caller};
use crate::api::http::{ApiError, Code, Id, body};
use crate::api::state::{App, Shared};
use crate::api::submissions::bundle::{flags, parse};
use crate::api::submissions::{SubmissionResponse, find, place, unknown};
use crate::blocking::blocking;
use crate::clock;
use crate::label;
use crate::store::{
    NewImport, NewVerification, RunFacts, ScoreColumn, ScoreValue, SubmissionRecord,
    SubmissionState, Verification,
};
use crate::submission::{Bundle, BundleScore, Declarations};

/// Limit of a decision in bytes.
const MOST_BYTES: usize = 16 << 10;

/// Longest note, in bytes.
const NOTE_BYTES: usize = 2_000;

/// What a verifier did.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerificationReport {
    /// Share of the samples that was scored again, above 0 and at most 1.
    #[schema(example = 0.05)]
    share: f64,
    /// Seed of the choice of samples.
    #[schema(example = 1234)]
    seed: u64,
    /// Number of samples that were scored again.
    #[schema(minimum = 1, example = 50)]
    samples: u64,
    /// Note for the change log, at most 2000 bytes.
    #[serde(default)]
    #[schema(max_length = 2000)]
    note: String,
}

/// Reports that a submission was verified, and puts it on the board.
///
/// `stellar-score submission verify --submission ID` verifies a bundle and sends this report. The
/// samples and scores of the bundle become a finished run under the bundle's pack, which
/// leaderboards rank like any other.
#[utoipa::path(
    post, path = "/v1/submissions/{id}/verification", operation_id = "verify_submission",
    tag = "submissions", request_body(content = VerificationReport),
    params(("id" = Uuid, Path, description = "Id of the submission")),
    responses(
        (status = 200, description = "The verified submission", body = SubmissionResponse),
        (status = 400, description = "Malformed body"),
        (status = 404, description = "No such submission"),
        (status = 409, description = "It is not in the state `received`, or a run of its name \
            exists"),
        (status = 422, description = "A field is invalid"),
        (status = 504, description = "The bundle was not read before the deadline"),
    )
)]
pub(crate) async fn verify(
    State(app): Shared,
    id: Id<SubmissionRecord>,
    request: Request,
) -> Result<Json<SubmissionResponse>, ApiError> {
    app.admission.room()?;
    let key = caller(&request).as_ref().map(Caller::id);
    let report: VerificationReport = body::json(request, MOST_BYTES).await?;
    let note = clean_note(report.note)?;
    let of = find(&app, &id).await?;
    let is_share = report.share > 0.0 && report.share <= 1.0;
    if !is_share || report.samples == 0 || report.samples > of.samples {
        return Err(ApiError::new(
            Code::InvalidField,
            format!(
                "`share` must be above 0 and at most 1, and `samples` 1 to {}, the number of \
                 samples",
                of.samples
            ),
        ));
    }
    let verification = Verification {
        share: report.share,
        seed: report.seed,
        samples: report.samples,
        note,
        at: clock::now(),
    };
    let work = async {
        let permit = app.admission.enter()?;
        let place = place(&app).await;
        // Checked again in the transaction. Here it saves reading the bundle.
        if of.state != SubmissionState::Received {
            return Err(of.state.refuses("verified").into());
        }
        let file = app.store.submission_bundle(of.id).await?.ok_or_else(unknown)?;
        let new = blocking(move || to_run(of.id, parse(&file)?, verification, key)).await?;
        Ok(((permit, place), new))
    };
    let (held, new) = app.before_deadline(work).await?;
    // Outside the deadline: the outcome of a transaction that is cut off is unknown.
    let stored = app.store.verify_submission(&new).await?.ok_or_else(unknown)?;
    drop(held);
    tracing::info!(submission = %stored.id, run = ?stored.run, "submission verified");
    app.runs.finish_now(new.import.run).await;
    Ok(Json(stored.into()))
}

/// A decision with a note.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Withdrawal {
    /// Note for the change log, at most 2000 bytes.
    #[serde(default)]
    #[schema(max_length = 2000)]
    note: String,
}

/// Withdraws a submission, and deletes its run.
///
/// The submission stays with its bundle, and so does its entry in the change log.
#[utoipa::path(
    post, path = "/v1/submissions/{id}/withdrawal", operation_id = "withdraw_submission",
    tag = "submissions", request_body(content = Withdrawal),
    params(("id" = Uuid, Path, description = "Id of the submission")),
    responses(
        (status = 200, description = "The withdrawn submission", body = SubmissionResponse),
        (status = 400, description = "Malformed body"),
        (status = 404, description = "No such submission"),
        (status = 409, description = "It is withdrawn already"),
        (status = 422, description = "A field is invalid"),
    )
)]
pub(crate) async fn withdraw(
    State(app): Shared,
    id: Id<SubmissionRecord>,
    request: Request,
) -> Result<Json<SubmissionResponse>, ApiError> {
    let key = caller(&request).as_ref().map(Caller::id);
    let Withdrawal { note } = body::json(request, MOST_BYTES).await?;
    let note = clean_note(note)?;
    // To the end even if the client leaves: what is deleted must be forgotten.
    let withdrawing = tokio::spawn(withdraw_now(app, id.0, note, key));
    withdrawing.await.map_err(|panic| ApiError::internal(&panic))?
}

async fn withdraw_now(
    app: Arc<App>,
    id: Uuid,
    note: String,
    key: Option<Uuid>,
) -> Result<Json<SubmissionResponse>, ApiError> {
    let now = clock::now();
    let withdrawn = app.store.withdraw_submission(id, &note, key, now).await?;
    let (stored, deleted) = withdrawn.ok_or_else(unknown)?;
    tracing::info!(submission = %id, "submission withdrawn");
    drop(deletion::forget(&app, deleted).await);
    Ok(Json(stored.into()))
}

fn clean_note(note: String) -> Result<String, ApiError> {
    let invalid = |problem: String| ApiError::new(Code::InvalidField, format!("`note` {problem}"));
    if note.len() > NOTE_BYTES {
        return Err(invalid(format!("is longer than {NOTE_BYTES} bytes: shorten it")));
    }
    label::check_lines(&note).map_err(|problem| invalid(problem.to_string()))?;
    Ok(note)
}

/// Turns a bundle into a run with its samples and scores.
fn to_run(
    submission: Uuid,
    bundle: Bundle,
    verification: Verification,
    key: Option<Uuid>,
) -> Result<NewVerification, ApiError> {
    let Bundle { facts, mut samples, .. } = bundle;
    // It was checked when the bundle was received.
    let flags = flags(&facts).map_err(|problem| ApiError::internal(&problem))?;
    let column = |metric: &String| ScoreColumn {
        metric: metric.clone(),
        metric_version: facts.metric_versions.get(metric).copied().unwrap_or(1),
        values: samples
            .iter_mut()
            .map(|sample| Some(score(sample.scores.remove(metric)?)))
            .collect(),
    };
    let columns = facts.metrics.keys().map(column).collect();
    let versions: Vec<&str> = facts.service_versions.iter().map(String::as_str).collect();
    let mut import = NewImport {
        run: Uuid::now_v7(),
        created: verification.at,
        pack: facts.pack,
        service_version: versions.join(", "),
        names: Vec::new(),
        contents: Vec::new(),
        metadata: Vec::new(),
        columns,
        outcomes: BTreeMap::new(),
    };
    for sample in samples {
        let metadata = serde_json::to_string(&sample.metadata);
        import.metadata.push(metadata.expect("plain data always serialises"));
        import.contents.push(sample.content);
        import.names.push(sample.name);
    }
    let Declarations { card, settings, .. } = facts.declarations;
    let (dataset, split) = (facts.dataset, facts.split);
    let facts = RunFacts { dataset, split, flags, settings, metrics: None };
    Ok(NewVerification { submission, verification, key, facts, card, import })
}

fn score(of: BundleScore) -> ScoreValue {
    match of.value {
        Some(value) => ScoreValue::Number(value),
        None => ScoreValue::Null { reason: of.reason.unwrap_or_default() },
    }
}
