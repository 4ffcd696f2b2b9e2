//! Objects and relations to find in an image.

use std::fmt;

use crate::text::relations::Relation;

/// The objects to find in an image.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Objects {
    /// Labels of `goa`, in the order of their columns of the logits. They compete for boxes.
    pub labels: Vec<Label>,
    /// Objects of relations, which do not compete.
    pub phrases: Vec<Phrase>,
    /// Skipped detectables.
    pub skipped: Vec<Skipped>,
    /// Width and height of the upright image in pixels.
    pub size: (u32, u32),
}

/// An object to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The words as given.
    pub text: String,
    /// True if the text model truncated the words.
    pub truncated: bool,
}

/// Words of an object of a relation. They may repeat a label of `goa`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phrase {
    /// The words as given.
    pub text: String,
    /// True if the text model truncated the words.
    pub truncated: bool,
    /// Column of the logits.
    pub column: usize,
}

impl Objects {
    /// Returns the phrase with these words, if it was searched for.
    #[must_use]
    pub fn phrase(&self, text: &str) -> Option<&Phrase> {
        self.phrases.iter().find(|phrase| phrase.text == text)
    }
}

/// A skipped detectable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The words as given.
    pub text: String,
    /// Reason why it was skipped.
    pub why: SkipReason,
}

/// Reason why a detectable is skipped.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// It states what the person is (`astronaut`), which the identity metrics score.
    Role,
    /// It has no words.
    Empty,
    /// Its tokens equal those of an earlier label.
    Duplicate,
}

/// Relations to score for one prompt.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Relations {
    /// Every relation of the prompt, including those that cannot be mapped to the graph.
    pub sought: Vec<Sought>,
    /// True if the pack can locate objects by their words.
    pub grounded: bool,
    /// True if the prompt has more characters or relations than are read.
    pub truncated: bool,
    /// Width and height of the upright image in pixels.
    pub size: (u32, u32),
}

/// A relation in the words of the prompt and in the labels of the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Sought {
    /// The relation as parsed or annotated.
    pub relation: Relation,
    /// Its labels in the graph, or the reason why it has none.
    pub mapping: Result<Mapping, Unmapped>,
}

/// A relation as indices of the labels of a scene graph.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mapping {
    /// Predicates that count as this predicate, at least one.
    pub predicates: Vec<usize>,
    /// The predicate with exactly this name.
    pub exact: Option<usize>,
    /// True if the graph has no predicate close to this one.
    pub approximate: bool,
    /// Cosine by which the predicate was mapped, if no table lists it.
    pub nearest: Option<f64>,
    /// Classes that count as the object; may be empty.
    pub classes: Vec<usize>,
}

/// Reason why a relation has no score.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Unmapped {
    /// Its subject is not the person of the prompt.
    Subject,
    /// The graph has no predicate similar to its own.
    Predicate,
}

impl Relations {
    /// Returns true if any relation is mapped.
    #[must_use]
    pub fn any_mapped(&self) -> bool {
        self.sought.iter().any(|sought| sought.mapping.is_ok())
    }
}

impl fmt::Display for Unmapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Subject => "its subject is not the person",
            Self::Predicate => "the scene graph has no predicate similar to its own",
        })
    }
}
