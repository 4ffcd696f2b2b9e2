//! Questions put to annotators: four that every service has, and those that the operator
//! configured.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, schema::Type},
};

use crate::api::http::{ApiError, Code};
use crate::store::Question;

/// A question, identified by its word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct QuestionWord(Question);

impl Default for QuestionWord {
    fn default() -> Self {
        Self(Question::Overall)
    }
}

impl TryFrom<String> for QuestionWord {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        match Question::parse(&word) {
            Some(question) => Ok(Self(question)),
            None => {
                Err("a question is a word of 1 to 32 lower-case letters, digits and underscores, \
                     such as `overall` or `identity`"
                    .to_owned())
            }
        }
    }
}

impl From<QuestionWord> for String {
    fn from(word: QuestionWord) -> Self {
        word.0.as_str().to_owned()
    }
}

impl From<Question> for QuestionWord {
    fn from(question: Question) -> Self {
        Self(question)
    }
}

impl PartialSchema for QuestionWord {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^[a-z][a-z0-9_]{0,31}$"))
            .description(Some(
                "The question put to annotators: `overall`, which is better overall; `object`, \
                 are the objects of the prompt present; `relation`, are its relations right; \
                 `identity`, which is more like the person; or a question that the operator \
                 configured in `analysis.questions`.",
            ))
            .examples([serde_json::json!("identity")])
            .into()
    }
}

impl ToSchema for QuestionWord {
    fn name() -> Cow<'static, str> {
        "QuestionWord".into()
    }
}

/// The questions of this service.
#[derive(Debug)]
pub(super) struct Questions(Vec<Question>);

impl Questions {
    /// Combines the questions that every service has with those of the operator.
    pub(super) fn new(own: &[String]) -> Self {
        let own = own.iter().filter_map(|word| Question::parse(word));
        Self(Question::KNOWN.into_iter().chain(own).collect())
    }

    /// Returns all questions.
    pub(super) fn all(&self) -> &[Question] {
        &self.0
    }

    /// Returns the question that a request is about.
    ///
    /// # Errors
    /// `code` if this service does not have the question.
    pub(super) fn of(&self, word: QuestionWord, code: Code) -> Result<Question, ApiError> {
        if self.0.contains(&word.0) {
            return Ok(word.0);
        }
        let known: Vec<_> = self.0.iter().map(Question::as_str).collect();
        let problem = format!(
            "`question` is `{}`, which this service does not have: send one of {}, or have the \
             operator add it to analysis.questions",
            word.0.as_str(),
            known.join(", ")
        );
        Err(ApiError::new(code, problem))
    }
}
