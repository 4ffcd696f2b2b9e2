//! Requests about datasets.

use reqwest::multipart::Form;
use serde::{Deserialize, Serialize};

use super::{Client, ClientError};

/// A prompt to register.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NewPrompt<'a> {
    /// The identity that the prompt is for.
    pub identity: &'a str,
    /// Text of the prompt, with `{}` for the person.
    pub prompt: &'a str,
    /// Kind of the prompt, a free label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'a str>,
    /// Categories of the prompt.
    pub categories: &'a [String],
    /// Objects in the prompt.
    pub detectables: &'a [String],
    /// Relations in the prompt.
    pub relations: &'a [[String; 3]],
}

/// Result of registering prompts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct RegisteredPrompts {
    /// Number of new prompts.
    pub created: u64,
    /// Number of prompts that were registered with other data, which is replaced.
    pub changed: u64,
    /// Number of prompts already registered with the same data.
    pub repeated: u64,
}

/// An enrolled photo.
#[derive(Debug, Clone, Deserialize)]
pub struct EnrolledPhoto {
    /// The identity that the photo shows.
    pub identity: String,
    /// The photo's name within the identity.
    pub name: String,
    /// Content hash (BLAKE3) of the file.
    pub image: String,
    /// Number of faces found by the loaded pack; `None` if the photo was enrolled with another
    /// pack.
    pub faces: Option<usize>,
    /// The photo's attributes.
    pub attributes: std::collections::BTreeMap<String, bool>,
}

/// Maximum number of prompts per request.
const PROMPTS_AT_ONCE: usize = 1_000;

#[derive(Deserialize)]
struct Photos {
    items: Vec<EnrolledPhoto>,
}

#[derive(Deserialize)]
struct Enrolled {
    faces: usize,
}

impl Client {
    /// Declares whether the photos of a dataset may be shown to others.
    ///
    /// # Errors
    /// The server refused the request, or could not be reached.
    pub async fn set_redistributable(
        &self,
        dataset: &str,
        redistributable: bool,
    ) -> Result<(), ClientError> {
        let parts = ["v1", "datasets", dataset, "prompts"];
        let body = serde_json::json!({ "prompts": [], "redistributable": redistributable });
        self.send(&parts, |http, url| http.put(url).json(&body)).await.map(drop)
    }

    /// Registers prompts in a dataset in several requests, and calls `done` after each with the
    /// number registered so far.
    ///
    /// # Errors
    /// Among others `invalid_field`, which names the invalid prompt.
    pub async fn register_prompts(
        &self,
        dataset: &str,
        prompts: &[NewPrompt<'_>],
        mut done: impl FnMut(usize),
    ) -> Result<RegisteredPrompts, ClientError> {
        let parts = ["v1", "datasets", dataset, "prompts"];
        let mut all = RegisteredPrompts::default();
        let mut count = 0;
        for prompts in prompts.chunks(PROMPTS_AT_ONCE) {
            let body = serde_json::json!({ "prompts": prompts });
            let answer = self.send(&parts, |http, url| http.put(url).json(&body)).await?;
            let answer: RegisteredPrompts = answer.json()?;
            all.created += answer.created;
            all.changed += answer.changed;
            all.repeated += answer.repeated;
            count += prompts.len();
            done(count);
        }
        Ok(all)
    }

    /// Lists the photos of a dataset; empty if the dataset does not exist.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn enrolled(&self, dataset: &str) -> Result<Vec<EnrolledPhoto>, ClientError> {
        let mut all = Vec::new();
        loop {
            let offset = all.len().to_string();
            let query = [("offset", offset.as_str()), ("limit", "1000")];
            let page: Photos = match self.get(&["v1", "datasets", dataset], &query).await {
                Err(error) if error.code() == Some("not_found") => return Ok(all),
                page => page?,
            };
            if page.items.is_empty() {
                return Ok(all);
            }
            all.extend(page.items);
        }
    }

    /// Enrols a photo in a dataset and returns its number of faces. `form` creates the form for
    /// each attempt.
    ///
    /// # Errors
    /// Among others `photo_conflict`, `faces_not_stored`.
    pub async fn enrol(
        &self,
        dataset: &str,
        form: impl Fn() -> Form,
    ) -> Result<usize, ClientError> {
        let parts = ["v1", "datasets", dataset, "photos"];
        let answer = self.send(&parts, |http, url| http.post(url).multipart(form())).await?;
        Ok(answer.json::<Enrolled>()?.faces)
    }
}
