//! Runs as the server tells of them.

use std::fmt;

use reqwest::multipart::Form;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Answer, Client, ClientError};

/// What a run is.
#[derive(Debug, Clone, Serialize)]
pub struct NewRun {
    /// The generator under test.
    pub method: String,
    /// The run's name among the method's.
    pub run: String,
    /// The dataset it is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// The part of the dataset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// What the method's authors declare.
    pub flags: RunFlags,
    /// Settings of the generator.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// Codes of the metrics to compute; all where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Vec<String>>,
}

/// What the method's authors declare.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFlags {
    /// Whether it was trained on parts of the dataset that it is not evaluated on, in turn.
    #[serde(default)]
    pub cross_validated_training: bool,
    /// Whether it was trained on the very photos that it is evaluated with.
    #[serde(default)]
    pub trained_on_evaluation_photos: bool,
}

/// A run on the server.
#[derive(Debug, Clone, Deserialize)]
pub struct Run {
    /// Its id.
    pub run_id: Uuid,
    /// The method.
    pub method: String,
    /// Its name among the method's.
    pub run: String,
    /// Where it stands.
    pub state: RunState,
    /// How many samples are where.
    pub counts: Counts,
    /// Why those that wait are not being scored, where they are not.
    #[serde(default)]
    pub held: Option<SubmittedError>,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} ({})", self.method, self.run, self.run_id)
    }
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Takes samples.
    Open,
    /// Takes no more, and is being evaluated.
    Finishing,
    /// Evaluated.
    Finished,
}

/// How many samples of a run are where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Counts {
    /// All that were accepted.
    pub accepted: u64,
    /// Of these, waiting to be scored.
    pub pending: u64,
    /// Scored.
    pub scored: u64,
    /// Not scorable.
    pub failed: u64,
}

/// A sample that the server has accepted.
#[derive(Debug, Clone, Deserialize)]
pub struct SubmittedSample {
    /// Its name in the run.
    pub name: String,
    /// Where it stands.
    pub state: SubmittedState,
    /// The address of everything that was sent with it.
    pub content: String,
    /// Why it cannot be scored.
    #[serde(default)]
    pub error: Option<SubmittedError>,
}

/// Where a sample stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubmittedState {
    /// Waits to be scored.
    Pending,
    /// Is scored.
    Scored,
    /// Cannot be scored.
    Failed,
}

/// Why a sample cannot be scored.
#[derive(Debug, Clone, Deserialize)]
pub struct SubmittedError {
    /// The problem's code.
    pub code: String,
    /// What is wrong with it.
    pub detail: String,
}

#[derive(Deserialize)]
struct Page<T> {
    #[serde(alias = "runs")]
    items: Vec<T>,
    #[serde(default)]
    next: Option<String>,
}

/// Rows of a page: the most that the server gives.
const PAGE: &str = "1000";

impl Client {
    /// Makes a run, or finds the one that was made so before.
    ///
    /// # Errors
    /// Among others `run_conflict`: it was made with other facts.
    pub async fn create_run(&self, run: &NewRun) -> Result<Run, ClientError> {
        self.send(&["v1", "runs"], |http, url| http.post(url).json(run)).await?.json()
    }

    /// A run by its id.
    ///
    /// # Errors
    /// Among others `not_found`.
    pub async fn run(&self, id: Uuid) -> Result<Run, ClientError> {
        self.get(&["v1", "runs", &id.to_string()], &[]).await
    }

    /// Every run of a method, or of all.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn runs(&self, method: Option<&str>) -> Result<Vec<Run>, ClientError> {
        let filter: Vec<_> = method.map(|method| ("method", method)).into_iter().collect();
        self.pages(&["v1", "runs"], &filter).await
    }

    /// Every accepted sample of a run, or those in one state.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn submitted(
        &self,
        run: Uuid,
        state: Option<&str>,
    ) -> Result<Vec<SubmittedSample>, ClientError> {
        let filter: Vec<_> = state.map(|state| ("state", state)).into_iter().collect();
        self.pages(&["v1", "runs", &run.to_string(), "samples"], &filter).await
    }

    /// All pages of a list.
    ///
    /// # Errors
    /// See [`ClientError`].
    async fn pages<T: serde::de::DeserializeOwned>(
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

    /// Sends a sample; `form` makes its form anew for each attempt. Whether it was there already.
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

    /// Asks the server to finish a run.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn finish(&self, run: Uuid) -> Result<(), ClientError> {
        let parts = ["v1", "runs", &run.to_string(), "finish"];
        self.send(&parts, reqwest::Client::post).await.map(drop)
    }

    /// The table of a run.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn report(&self, run: Uuid, policy: &str, format: &str) -> Result<String, ClientError> {
        let parts = ["v1", "runs", &run.to_string(), "report"];
        let query = [("policy", policy), ("format", format)];
        self.send(&parts, |http, url| http.get(url).query(&query)).await?.text()
    }

    /// The toolkit's files that a run's scores fill, by the names that it gives them.
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

    /// One of these files.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn toolkit_file(&self, run: Uuid, name: &str) -> Result<String, ClientError> {
        let parts = ["v1", "runs", &run.to_string(), "toolkit", name];
        self.send(&parts, reqwest::Client::get).await?.text()
    }

    /// Imports a file of the toolkit into a run.
    ///
    /// # Errors
    /// Among others `invalid_field`, with the line and column that is wrong.
    pub async fn import(&self, run: Uuid, source: &str, csv: String) -> Result<Answer, ClientError> {
        let parts = ["v1", "runs", &run.to_string(), "import"];
        let csv = bytes::Bytes::from(csv);
        self.send(&parts, |http, url| {
            let request = http.post(url).query(&[("source", source)]);
            request.header(reqwest::header::CONTENT_TYPE, "text/csv").body(csv.clone())
        })
        .await
    }
}
