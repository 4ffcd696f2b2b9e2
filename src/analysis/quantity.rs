//! What is counted in prompts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A quantity of prompts.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Words, with "a person" for `{}`.
    Words,
    /// Tokens of CLIP's tokenizer without the start and the end token.
    Tokens,
    /// Verbs of the person, as the parser of relations finds them.
    Verbs,
    /// Prepositions; those of several words count once.
    Prepositions,
    /// Objects that the prompt names (`detectables`).
    Detectables,
}

impl Quantity {
    /// All quantities, in the order of tables.
    pub const ALL: [Self; 5] =
        [Self::Words, Self::Tokens, Self::Verbs, Self::Prepositions, Self::Detectables];

    /// Returns the word for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Words => "words",
            Self::Tokens => "tokens",
            Self::Verbs => "verbs",
            Self::Prepositions => "prepositions",
            Self::Detectables => "detectables",
        }
    }
}
