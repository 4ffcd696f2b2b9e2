//! Judgements of annotators, and the questions that they answer.

use time::OffsetDateTime;
use uuid::Uuid;

/// Question that annotators are asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// Which image is better overall?
    Overall,
    /// Are the objects of the prompt in the image?
    Object,
    /// Are the relations of the prompt right?
    Relation,
    /// Which image looks more like the person?
    Identity,
    /// A question that the operator defines.
    Own(Box<str>),
}

/// Maximum length of a question's word in bytes.
const WORD_BYTES: usize = 32;

impl Question {
    /// Questions that every service has.
    pub const KNOWN: [Self; 4] = [Self::Overall, Self::Object, Self::Relation, Self::Identity];

    /// Returns the word that requests and the database use.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Overall => "overall",
            Self::Object => "object",
            Self::Relation => "relation",
            Self::Identity => "identity",
            Self::Own(word) => word,
        }
    }

    /// Parses the word of a question: 1 to 32 lower-case letters, digits and underscores, starting
    /// with a letter.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if !word.starts_with(|first: char| first.is_ascii_lowercase())
            || word.len() > WORD_BYTES
            || !word.bytes().all(plain)
        {
            return None;
        }
        Some(
            Self::KNOWN
                .into_iter()
                .find(|known| known.as_str() == word)
                .unwrap_or_else(|| Self::Own(word.into())),
        )
    }
}

/// Judgement of an annotator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Judgement {
    /// A vote between the images of two runs for the same prompt.
    Vote {
        /// Id of run A.
        a: Uuid,
        /// Id of run B.
        b: Uuid,
        /// 1 if A's image is preferred, −1 if B's is, 0 if neither.
        preference: i8,
    },
    /// The annotator could not tell which image is better. This is not a tie: it counts in no
    /// analysis of preferences.
    CannotTell {
        /// Id of run A.
        a: Uuid,
        /// Id of run B.
        b: Uuid,
    },
    /// A rating of one image.
    Rating {
        /// Id of the run of the image.
        run: Uuid,
        /// Higher is better, on the scale that the annotator was given.
        rating: f64,
    },
}

/// A stored judgement.
#[derive(Clone, Debug, PartialEq)]
pub struct Preference {
    /// Id of the judgement.
    pub id: Uuid,
    /// Question that was asked.
    pub question: Question,
    /// Name of the annotator.
    pub annotator: String,
    /// Name of the sample in the run, or of the samples in both runs.
    pub name: String,
    /// The vote or rating.
    pub judgement: Judgement,
    /// Run whose image was shown first (on the left), if it is known.
    pub shown_first: Option<Uuid>,
    /// Whether the annotator was asked a second time, to measure consistency. A repeat does not
    /// count as a preference.
    pub is_repeat: bool,
    /// Id of the answer in a study that it is part of. A choice of one out of k images is one
    /// answer and k − 1 votes.
    pub trial: Option<Uuid>,
    /// Time of recording, UTC, to the microsecond.
    pub created: OffsetDateTime,
}

/// A judgement to record.
#[derive(Clone, Debug, PartialEq)]
pub struct NewPreference {
    /// Question that was asked.
    pub question: Question,
    /// Name of the annotator.
    pub annotator: String,
    /// Name of the sample in the run, or of the samples in both runs.
    pub name: String,
    /// The vote or rating.
    pub judgement: Judgement,
    /// Run whose image was shown first (on the left), if it is known.
    pub shown_first: Option<Uuid>,
    /// Whether the annotator was asked a second time, to measure consistency. A repeat does not
    /// count as a preference.
    pub is_repeat: bool,
}

/// Filter and page of judgements.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PreferencesQuery {
    /// Only judgements on this question.
    pub question: Option<Question>,
    /// Only judgements of this annotator.
    pub annotator: Option<String>,
    /// Only judgements about this run.
    pub run: Option<Uuid>,
    /// Only judgements of this study.
    pub study: Option<Uuid>,
    /// Only judgements about runs over this dataset.
    pub dataset: Option<String>,
    /// Lists the votes that do not count ("cannot tell", and repeats) in place of those that do.
    pub uncounted: bool,
    /// Only judgements after this id.
    pub after: Option<Uuid>,
    /// Maximum number of judgements; `None` for all.
    pub limit: Option<u32>,
}

/// Number of equal votes between two runs, whatever the prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VoteCount {
    /// One run.
    pub a: Uuid,
    /// The other.
    pub b: Uuid,
    /// 1 if A's image was preferred, −1 if B's was, 0 if neither.
    pub preference: i8,
    /// Number of votes.
    pub times: usize,
}

/// First judgement of a batch that cannot be recorded, because its sample does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownSample {
    /// Position in the batch, counted from 0.
    pub place: usize,
    /// Run that has no such sample, or does not exist itself.
    pub run: Uuid,
    /// Name of the sample.
    pub name: String,
}

impl Judgement {
    /// Returns the two runs in order of their ids, and the value for the first of them; `None` for
    /// "cannot tell".
    pub(super) fn columns(self) -> (Uuid, Uuid, Option<f64>) {
        match self {
            Self::Vote { a, b, preference } if a < b => (a, b, Some(preference.into())),
            Self::Vote { a, b, preference } => (b, a, Some((-preference).into())),
            Self::CannotTell { a, b } => (a.min(b), a.max(b), None),
            Self::Rating { run, rating } => (run, run, Some(rating)),
        }
    }

    /// Returns the judgement that these columns hold.
    pub(super) fn of_columns(a: Uuid, b: Uuid, value: Option<f64>) -> Self {
        match value {
            None => Self::CannotTell { a, b },
            Some(rating) if a == b => Self::Rating { run: a, rating },
            Some(value) => Self::Vote { a, b, preference: value as i8 },
        }
    }

    /// Returns the two runs; those of a rating are the same.
    #[must_use]
    pub fn runs(self) -> [Uuid; 2] {
        match self {
            Self::Vote { a, b, .. } | Self::CannotTell { a, b } => [a, b],
            Self::Rating { run, .. } => [run, run],
        }
    }
}
