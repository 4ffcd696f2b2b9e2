//! A preference as requests and responses have it.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::http::form::clean_label;
use crate::api::http::{ApiError, Code, Resource};
use crate::api::questions::{QuestionWord, Questions};
use crate::store::{Judgement, NewPreference, Preference};

/// The preferred one of two images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Choice {
    /// The image of `run_a`.
    A,
    /// The image of `run_b`.
    B,
    /// Neither is preferred.
    Tie,
    /// The annotator could not tell. It is stored, and no analysis counts it.
    CannotTell,
}

/// One of the two images of a vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    /// The image of `run_a`.
    A,
    /// The image of `run_b`.
    B,
}

/// A preference: a vote with `run_a`, `run_b` and `preferred`, or a rating with `run` and `rating`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"question": "overall", "annotator": "ada", "name": "0007-0042",
    "run_a": "0197a7c6-6f00-7000-8000-000000000001", "run_b": "0197a7c6-6f00-7000-8000-000000000002", "preferred": "a"}))]
pub(crate) struct PreferenceEntry {
    /// The question put to the annotator.
    pub(crate) question: QuestionWord,
    /// Name of the annotator; any name that distinguishes annotators.
    pub(crate) annotator: String,
    /// Name of the sample in the run, or in both runs.
    pub(crate) name: String,
    /// First run of a vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) run_a: Option<Uuid>,
    /// Second run of a vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) run_b: Option<Uuid>,
    /// The preferred image of a vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) preferred: Option<Choice>,
    /// Image of a vote that was shown first (on the left), if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shown_first: Option<Side>,
    /// True if the annotator was asked about the pair a second time, to measure consistency. The
    /// vote is stored, and no analysis of preferences counts it. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) repeat: Option<bool>,
    /// Run of a rating.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<Uuid>,
    /// The rating; higher is better. Any scale is allowed if it is the same for all ratings of an
    /// annotator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rating: Option<f64>,
}

/// A stored preference.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StoredPreference {
    /// Id of the preference.
    pub(crate) id: Uuid,
    /// The preference. The two runs of a vote may be swapped relative to the request.
    #[serde(flatten)]
    pub(crate) preference: PreferenceEntry,
    /// Id of the answer in a study that the vote is part of: a choice of one out of k images is one
    /// answer and k − 1 votes. It is withdrawn at the study.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trial: Option<Uuid>,
    /// Time at which it was recorded.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created: OffsetDateTime,
}

impl PreferenceEntry {
    pub(super) fn into_new(self, questions: &Questions) -> Result<NewPreference, ApiError> {
        let invalid = |why| Err(ApiError::new(Code::InvalidField, why));
        let Self { question, annotator, name, run_a, run_b, preferred, .. } = self;
        let Self { shown_first, repeat, run, rating, .. } = self;
        let judgement = match (run_a, run_b, preferred, run, rating) {
            (Some(a), Some(b), Some(preferred), None, None) => {
                if a == b {
                    return invalid("run_a and run_b are the same: a vote is between two runs");
                }
                let vote = |preference| Judgement::Vote { a, b, preference };
                match preferred {
                    Choice::A => vote(1),
                    Choice::B => vote(-1),
                    Choice::Tie => vote(0),
                    Choice::CannotTell => Judgement::CannotTell { a, b },
                }
            }
            (None, None, None, Some(run), Some(rating)) => Judgement::Rating { run, rating },
            _ => {
                return invalid(
                    "it is neither a vote nor a rating: a vote has run_a, run_b and preferred, a \
                        rating has run and rating",
                );
            }
        };
        let is_repeat = repeat == Some(true);
        let [a, b] = judgement.runs();
        if a == b && (is_repeat || shown_first.is_some()) {
            return invalid("shown_first and repeat are about votes, and this is a rating");
        }
        let shown_first = shown_first.map(|side| match side {
            Side::A => a,
            Side::B => b,
        });
        let question = questions.of(question, Code::InvalidField)?;
        let (annotator, name) =
            (clean_label("annotator", &annotator)?, clean_label("name", &name)?);
        Ok(NewPreference { question, annotator, name, judgement, shown_first, is_repeat })
    }
}

impl Resource for Preference {
    const NAME: &'static str = "preference";
}

impl From<Preference> for StoredPreference {
    fn from(of: Preference) -> Self {
        let Preference { id, question, annotator, name, judgement, trial, created, .. } = of;
        let [a, _] = judgement.runs();
        let side = |run| if run == a { Side::A } else { Side::B };
        let of_nothing = PreferenceEntry {
            question: question.into(),
            annotator,
            name,
            run_a: None,
            run_b: None,
            preferred: None,
            shown_first: of.shown_first.map(side),
            repeat: of.is_repeat.then_some(true),
            run: None,
            rating: None,
        };
        let preference = match judgement {
            Judgement::Vote { a, b, preference } => {
                let preferred = match preference {
                    1.. => Choice::A,
                    0 => Choice::Tie,
                    _ => Choice::B,
                };
                PreferenceEntry {
                    run_a: Some(a),
                    run_b: Some(b),
                    preferred: Some(preferred),
                    ..of_nothing
                }
            }
            Judgement::CannotTell { a, b } => PreferenceEntry {
                run_a: Some(a),
                run_b: Some(b),
                preferred: Some(Choice::CannotTell),
                ..of_nothing
            },
            Judgement::Rating { run, rating } => {
                PreferenceEntry { run: Some(run), rating: Some(rating), ..of_nothing }
            }
        };
        Self { id, preference, trial, created }
    }
}
