//! Datasets as the server tells of them.

use reqwest::multipart::Form;
use serde::{Deserialize, Serialize};

use super::{Client, ClientError};

/// A prompt to register.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NewPrompt<'a> {
    /// Whom it is for.
    pub identity: &'a str,
    /// As written: `{}` stands for the person.
    pub prompt: &'a str,
    /// A free label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'a str>,
    /// Categories.
    pub categories: &'a [String],
    /// Objects that it names.
    pub detectables: &'a [String],
    /// Relations that it names.
    pub relations: &'a [[String; 3]],
}

/// What registering did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct RegisteredPrompts {
    /// Prompts that were not there.
    pub created: u64,
    /// Prompts that were there with other facts.
    pub changed: u64,
    /// Prompts that were there as they are.
    pub repeated: u64,
}

/// A photo that is enrolled.
#[derive(Debug, Clone, Deserialize)]
pub struct EnrolledPhoto {
    /// Whose photo.
    pub identity: String,
    /// Its name among the identity's photos.
    pub name: String,
    /// BLAKE3 address of its file.
    pub image: String,
    /// Faces that the loaded pack finds; none where it was enrolled with another pack.
    pub faces: Option<usize>,
    /// What it shows.
    pub attributes: std::collections::BTreeMap<String, bool>,
}

/// Most prompts of one request.
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
    /// Registers prompts in a dataset, in as many requests as it takes; `done` hears how many are registered.
    ///
    /// # Errors
    /// Among others `invalid_field`, with the prompt that is wrong.
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

    /// The photos of a dataset; none where the server does not know it.
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

    /// Enrols a photo in a dataset; `form` makes its form anew for each attempt. How many faces it has.
    ///
    /// # Errors
    /// Among others `photo_conflict`, `faces_not_stored`.
    pub async fn enrol(&self, dataset: &str, form: impl Fn() -> Form) -> Result<usize, ClientError> {
        let parts = ["v1", "datasets", dataset, "photos"];
        let answer = self.send(&parts, |http, url| http.post(url).multipart(form())).await?;
        Ok(answer.json::<Enrolled>()?.faces)
    }
}
