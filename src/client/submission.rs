//! Requests for what a submission contains: a run with its samples and their scores.

use std::collections::BTreeMap;

use bytes::Bytes;
use reqwest::header;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Client, ClientError};
use crate::card::MethodCard;
use crate::pack_id::PackId;
use crate::scoring::Metadata;

/// Everything that a run declares.
#[derive(Debug, Clone, Deserialize)]
pub struct RunDetails {
    /// Dataset that the prompts are from.
    pub dataset: Option<String>,
    /// Split of the dataset.
    pub split: Option<String>,
    /// Flags about training.
    pub flags: BTreeMap<String, bool>,
    /// Settings of the generator.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// The pack of its scores; `None` if they were imported.
    pub pack: Option<PackId>,
}

/// A scored sample in a list.
#[derive(Debug, Clone, Deserialize)]
pub struct ScoredEntry {
    /// Id of the sample.
    pub id: Uuid,
}

/// A stored sample.
#[derive(Debug, Clone, Deserialize)]
pub struct StoredSample {
    /// Name within the run.
    pub name: String,
    /// Hash of all inputs.
    pub content: String,
    /// The prompt.
    pub prompt: Option<String>,
    /// The generated image; `None` if the scores were imported.
    pub image: Option<StoredFile>,
    /// Hashes of the reference images.
    pub references: Vec<String>,
    /// Hashes of the auxiliary images.
    pub auxiliary: Vec<String>,
    /// The metadata.
    pub metadata: Metadata,
    /// Scores of all packs.
    pub scores: Vec<StoredScore>,
}

/// A stored image file.
#[derive(Debug, Clone, Deserialize)]
pub struct StoredFile {
    /// Hash of the file.
    pub hash: String,
}

/// A stored score.
#[derive(Debug, Clone, Deserialize)]
pub struct StoredScore {
    /// Code of the metric.
    pub metric: String,
    /// Version of the metric's definition.
    pub metric_version: u32,
    /// The number, if there is one.
    pub value: Option<f64>,
    /// Reason why there is none.
    #[serde(default)]
    pub reason: Option<String>,
    /// The pack.
    pub pack: PackId,
    /// Version of the service that computed it.
    pub service_version: String,
}

/// A submission on a server.
#[derive(Debug, Clone, Deserialize)]
pub struct Submission {
    /// Id of the submission.
    pub id: Uuid,
    /// Digest of its bundle.
    pub digest: String,
    /// `received`, `verified` or `withdrawn`; a newer server may have more.
    pub state: String,
    /// The method.
    pub method: String,
    /// The run of the method.
    pub run: String,
    /// The run with its scores, if it is verified.
    pub run_id: Option<Uuid>,
    /// What its verifier did.
    pub verification: Option<VerificationReport>,
}

/// What a verifier did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VerificationReport {
    /// Share of the samples that was scored again.
    pub share: f64,
    /// Seed of the choice of samples.
    pub seed: u64,
    /// Number of samples that were scored again.
    pub samples: u64,
    /// Note for the change log.
    pub note: String,
}

impl Client {
    /// Sends a bundle. Returns its submission, and whether it is new.
    ///
    /// # Errors
    /// Among others `invalid_field`, with the differences.
    pub async fn send_bundle(&self, bundle: Bytes) -> Result<(Submission, bool), ClientError> {
        let request = |http: &reqwest::Client, url| {
            http.post(url).header(header::CONTENT_TYPE, "application/zip").body(bundle.clone())
        };
        let answer = self.send(&["v1", "submissions"], request).await?;
        Ok((answer.json()?, answer.status == 201))
    }

    /// Returns a submission.
    ///
    /// # Errors
    /// Among others `not_found`.
    pub async fn submission(&self, id: Uuid) -> Result<Submission, ClientError> {
        self.get(&["v1", "submissions", &id.to_string()], &[]).await
    }

    /// Returns the bundle of a submission.
    ///
    /// # Errors
    /// Among others `not_found`.
    pub async fn bundle(&self, id: Uuid) -> Result<Bytes, ClientError> {
        let parts = ["v1", "submissions", &id.to_string(), "bundle"];
        Ok(self.send(&parts, reqwest::Client::get).await?.body)
    }

    /// Reports that a submission was verified.
    ///
    /// # Errors
    /// Among others `submission_conflict` and `run_conflict`.
    pub async fn report_verification(
        &self,
        id: Uuid,
        report: &VerificationReport,
    ) -> Result<Submission, ClientError> {
        let parts = ["v1", "submissions", &id.to_string(), "verification"];
        self.send(&parts, |http, url| http.post(url).json(report)).await?.json()
    }

    /// Withdraws a submission.
    ///
    /// # Errors
    /// Among others `submission_conflict`.
    pub async fn withdraw(&self, id: Uuid, note: &str) -> Result<Submission, ClientError> {
        let parts = ["v1", "submissions", &id.to_string(), "withdrawal"];
        let body = serde_json::json!({ "note": note });
        self.send(&parts, |http, url| http.post(url).json(&body)).await?.json()
    }

    /// Returns what a run declares.
    ///
    /// # Errors
    /// Among others `not_found`.
    pub async fn run_details(&self, id: Uuid) -> Result<RunDetails, ClientError> {
        self.get(&["v1", "runs", &id.to_string()], &[]).await
    }

    /// Returns the card of a method, if it has one.
    ///
    /// # Errors
    /// Among others `not_found`.
    pub async fn card(&self, method: &str) -> Result<Option<MethodCard>, ClientError> {
        #[derive(Deserialize)]
        struct Of {
            method: Method,
        }
        #[derive(Deserialize)]
        struct Method {
            #[serde(default)]
            card: Option<MethodCard>,
        }
        let of: Of = self.get(&["v1", "methods", method], &[]).await?;
        Ok(of.method.card)
    }

    /// Lists the scored samples of a run.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn scored(&self, run: Uuid) -> Result<Vec<ScoredEntry>, ClientError> {
        let parts = ["v1", "runs", &run.to_string(), "samples"];
        self.pages(&parts, &[("state", "scored")]).await
    }

    /// Returns a stored sample with its scores.
    ///
    /// # Errors
    /// Among others `not_found`.
    pub async fn sample(&self, id: Uuid) -> Result<StoredSample, ClientError> {
        self.get(&["v1", "samples", &id.to_string()], &[]).await
    }
}
