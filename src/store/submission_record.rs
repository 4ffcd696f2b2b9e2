//! Submissions as the store keeps them, and the change log of the board.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::db::StoreError;
use super::imports::NewImport;
use super::run_name::RunName;
use super::runs::RunFacts;
use crate::card::MethodCard;
use crate::pack_id::PackId;

/// State of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubmissionState {
    /// It waits for a verification, and no leaderboard counts it.
    Received,
    /// Its scores are those of a run.
    Verified,
    /// It was taken back or refused. Its run is deleted.
    Withdrawn,
}

impl SubmissionState {
    /// All states, in the order in which a submission has them.
    pub const ALL: [Self; 3] = [Self::Received, Self::Verified, Self::Withdrawn];

    /// Returns the word that is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Verified => "verified",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// Returns the error for a submission in this state that was to come into another one.
    #[must_use]
    pub fn refuses(self, wanted: &'static str) -> StoreError {
        let advice = match self {
            Self::Received => "verify or withdraw it",
            Self::Verified => "withdraw it if its scores are wrong",
            Self::Withdrawn => "delete it (DELETE /v1/submissions/{id}), and send the bundle again",
        };
        StoreError::SubmissionState { state: self.as_str(), wanted, advice }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// What a verifier did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Verification {
    /// Share of the samples that was scored again.
    #[schema(example = 0.05)]
    pub share: f64,
    /// Seed of the choice of samples: with it, anyone can score the same ones again.
    pub seed: u64,
    /// Number of samples that were scored again.
    pub samples: u64,
    /// Note of the verifier; empty without one.
    pub note: String,
    /// Time of the verification.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// A bundle to keep, which was checked.
#[derive(Clone, Debug)]
pub struct NewSubmission {
    /// Id, a fresh `UUIDv7`.
    pub id: Uuid,
    /// Time of its arrival.
    pub created: OffsetDateTime,
    /// Digest of the bundle.
    pub digest: String,
    /// Method and run in the bundle.
    pub name: RunName,
    /// Dataset that the prompts are from.
    pub dataset: Option<String>,
    /// Split of the dataset.
    pub split: Option<String>,
    /// The pack of its scores.
    pub pack: PackId,
    /// Number of samples.
    pub samples: u64,
    /// Facts of the bundle as JSON.
    pub facts: String,
    /// The file.
    pub bundle: Vec<u8>,
    /// Id of the key that sent it, if keys are in use.
    pub key: Option<Uuid>,
}

/// A submission without its facts and its file.
#[derive(Clone, Debug, PartialEq)]
pub struct SubmissionRecord {
    /// Id of the submission.
    pub id: Uuid,
    /// Digest of the bundle, which is unique.
    pub digest: String,
    /// Method and run in the bundle.
    pub name: RunName,
    /// Dataset that the prompts are from.
    pub dataset: Option<String>,
    /// Split of the dataset.
    pub split: Option<String>,
    /// The pack of its scores.
    pub pack: PackId,
    /// Number of samples.
    pub samples: u64,
    /// Its state.
    pub state: SubmissionState,
    /// The run with its scores, while there is one.
    pub run: Option<Uuid>,
    /// What its verifier did.
    pub verification: Option<Verification>,
    /// Time of its arrival.
    pub created: OffsetDateTime,
    /// Time of the last change of its state.
    pub changed: OffsetDateTime,
}

/// A verification to store, with the run that it makes.
#[derive(Clone, Debug)]
pub struct NewVerification {
    /// Id of the submission.
    pub submission: Uuid,
    /// What was done.
    pub verification: Verification,
    /// Id of the key that reported it, if keys are in use.
    pub key: Option<Uuid>,
    /// Facts of the run.
    pub facts: RunFacts,
    /// The card of the method, which is kept if the method has none.
    pub card: Option<MethodCard>,
    /// Samples and scores, with the id of the new run, a fresh `UUIDv7`.
    pub import: NewImport,
}

/// Selects submissions.
#[derive(Clone, Debug, Default)]
pub struct SubmissionsQuery {
    /// Only those in this state.
    pub state: Option<SubmissionState>,
    /// Only those of this method.
    pub method: Option<String>,
    /// Only those older than this submission.
    pub before: Option<Uuid>,
    /// Most submissions.
    pub limit: u32,
}

/// An entry of the change log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoardChange {
    /// Id of the entry, a `UUIDv7`.
    pub id: Uuid,
    /// Time of the change.
    pub created: OffsetDateTime,
    /// The state into which the submission came.
    pub action: SubmissionState,
    /// The submission; `None` after its deletion.
    pub submission: Option<Uuid>,
    /// Method and run in the bundle.
    pub name: RunName,
    /// Digest of the bundle.
    pub digest: String,
    /// Note about the change; empty without one.
    pub note: String,
    /// Id of the API key that made the change, if keys were in use.
    pub key: Option<Uuid>,
}
