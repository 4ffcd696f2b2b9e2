//! Requests about runs.

use std::fmt;

use reqwest::multipart::Form;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Answer, Client, ClientError};

/// A run to create.
#[derive(Debug, Clone, Serialize)]
pub struct NewRun {
    /// The method: the generator under test.
    pub method: String,
    /// The run's name within its method.
    pub run: String,
    /// The dataset's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// The split of the dataset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Flags declared by the method's authors.
    pub flags: RunFlags,
    /// Settings of the generator.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// Codes of the metrics to compute; all if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Vec<String>>,
}

/// Flags declared by the method's authors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFlags {
    /// Whether the method was trained on other parts of this dataset in turn (cross-validation).
    #[serde(default)]
    pub cross_validated_training: bool,
    /// Whether the method was trained on the same photos that it is evaluated on.
    #[serde(default)]
    pub trained_on_evaluation_photos: bool,
}

/// A run on the server.
#[derive(Debug, Clone, Deserialize)]
pub struct Run {
    /// The run's id.
    pub run_id: Uuid,
    /// The method.
    pub method: String,
    /// The run's name within its method.
    pub run: String,
    /// State of the run.
    pub state: RunState,
    /// Number of samples by state.
    pub counts: Counts,
    /// Reason if pending samples are blocked.
    #[serde(default)]
    pub held: Option<SubmittedError>,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} ({})", self.method, self.run, self.run_id)
    }
}

/// State of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Accepts samples.
    Open,
    /// Accepts no more samples and is being evaluated.
    Finishing,
    /// Evaluated.
    Finished,
}

/// Number of samples of a run by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Counts {
    /// Accepted samples.
    pub accepted: u64,
    /// Pending samples.
    pub pending: u64,
    /// Scored samples.
    pub scored: u64,
    /// Failed samples.
    pub failed: u64,
}

/// A sample accepted by the server.
#[derive(Debug, Clone, Deserialize)]
pub struct AcceptedSample {
    /// The sample's name in the run.
    pub name: String,
    /// State of the sample.
    pub state: SampleState,
    /// Content hash of all inputs of the sample.
    pub content: String,
    /// The error of a failed sample.
    #[serde(default)]
    pub error: Option<SubmittedError>,
}

/// State of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SampleState {
    /// Not scored yet.
    Pending,
    /// All metrics are scored.
    Scored,
    /// Scoring failed.
    Failed,
}

/// Reason of a failed or blocked sample.
#[derive(Debug, Clone, Deserialize)]
pub struct SubmittedError {
    /// The problem's code.
    pub code: String,
    /// Explanation of the problem.
    pub detail: String,
}

#[derive(Deserialize)]
struct Page<T> {
    #[serde(alias = "runs")]
    items: Vec<T>,
    #[serde(default)]
    next: Option<String>,
}

/// Rows per page: the server's maximum.
const PAGE: &str = "1000";

impl Client {
    /// Creates a run, or returns the existing run if it has the same data.
    ///
    /// # Errors
    /// Among others `run_conflict`: the run exists with other data.
    pub async fn create_run(&self, run: &NewRun) -> Result<Run, ClientError> {
        self.send(&["v1", "runs"], |http, url| http.post(url).json(run)).await?.json()
    }

    /// Returns a run by its id.
    ///
    /// # Errors
    /// Among others `not_found`.
    pub async fn run(&self, id: Uuid) -> Result<Run, ClientError> {
        self.get(&["v1", "runs", &id.to_string()], &[]).await
    }

    /// Lists all runs, optionally of one method.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn runs(&self, method: Option<&str>) -> Result<Vec<Run>, ClientError> {
        let filter: Vec<_> = method.map(|method| ("method", method)).into_iter().collect();
        self.pages(&["v1", "runs"], &filter).await
    }

    /// Lists all accepted samples of a run, optionally in one state.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn accepted_samples(
        &self,
        run: Uuid,
        state: Option<&str>,
    ) -> Result<Vec<AcceptedSample>, ClientError> {
        let filter: Vec<_> = state.map(|state| ("state", state)).into_iter().collect();
        self.pages(&["v1", "runs", &run.to_string(), "samples"], &filter).await
    }

    /// Reads all pages of a list.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(super) async fn pages<T: serde::de::DeserializeOwned>(
        &self,
        parts: &[&str],
        filter: &[(&str, &str)],
    ) -> Result<Vec<T>, ClientError> {
        let mut all = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let mut query = filter.to_vec();
            query.push(("limit", PAGE));
            query.extend(after.as_deref().map(|after| ("after", after)));
            let page: Page<T> = self.get(parts, &query).await?;
            all.extend(page.items);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// Sends a sample and returns whether it already existed. `form` creates the form for each
    /// attempt.
    ///
    /// # Errors
    /// Among others `sample_conflict`, `image_unknown`, `run_finished`, `pack_conflict`.
    pub async fn put_sample(
        &self,
        run: Uuid,
        name: &str,
        form: impl Fn() -> Form,
    ) -> Result<bool, ClientError> {
        let parts = ["v1", "runs", &run.to_string(), "samples", name];
        let answer = self.send(&parts, |http, url| http.put(url).multipart(form())).await?;
        Ok(answer.status == 200)
    }

    /// Requests that a run be finished.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn finish(&self, run: Uuid) -> Result<(), ClientError> {
        let parts = ["v1", "runs", &run.to_string(), "finish"];
        self.send(&parts, reqwest::Client::post).await.map(drop)
    }

    /// Returns the report of a run.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn report(
        &self,
        run: Uuid,
        policy: &str,
        format: &str,
    ) -> Result<String, ClientError> {
        let parts = ["v1", "runs", &run.to_string(), "report"];
        let query = [("policy", policy), ("format", format)];
        self.send(&parts, |http, url| http.get(url).query(&query)).await?.text()
    }

    /// Lists the names of the toolkit files that can be exported for a run.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn toolkit_files(&self, run: Uuid) -> Result<Vec<String>, ClientError> {
        #[derive(Deserialize)]
        struct Files {
            files: Vec<String>,
        }
        let files: Files = self.get(&["v1", "runs", &run.to_string(), "toolkit"], &[]).await?;
        Ok(files.files)
    }

    /// Exports one toolkit file of a run.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn toolkit_file(&self, run: Uuid, name: &str) -> Result<String, ClientError> {
        let parts = ["v1", "runs", &run.to_string(), "toolkit", name];
        self.send(&parts, reqwest::Client::get).await?.text()
    }

    /// Imports a toolkit file into a run.
    ///
    /// # Errors
    /// Among others `invalid_field`, with the line and column of the error.
    pub async fn import(
        &self,
        run: Uuid,
        source: &str,
        csv: String,
    ) -> Result<Answer, ClientError> {
        let parts = ["v1", "runs", &run.to_string(), "import"];
        let csv = bytes::Bytes::from(csv);
        self.send(&parts, |http, url| {
            let request = http.post(url).query(&[("source", source)]);
            request.header(reqwest::header::CONTENT_TYPE, "text/csv").body(csv.clone())
        })
        .await
    }
}
