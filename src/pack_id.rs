//! Identifies the pack behind a score: its digest and the origin of its weights.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Origin of a pack's weights. Demo scores are meaningless and are never ranked with official ones.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// Converted from the authors' checkpoints.
    Official,
    /// Random, for trying out the service.
    Demo,
    /// Unknown: the scores were computed elsewhere and imported under the name of their source.
    Imported,
}

impl Weights {
    /// Returns the name in manifests, in the database and in responses: `official`, `demo` or
    /// `imported`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Official => "official",
            Self::Demo => "demo",
            Self::Imported => "imported",
        }
    }

    /// Parses a name returned by [`Weights::as_str`].
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Official, Self::Demo, Self::Imported]
            .into_iter()
            .find(|weights| weights.as_str() == word)
    }
}

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Identifies a pack. Scores of different packs are never averaged.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct PackId {
    /// Name in the manifest.
    #[schema(example = "demo")]
    pub name: String,
    /// SHA-256 of the manifest, which names every file by hash; 64 hexadecimal digits.
    pub digest: String,
    /// `official`, `demo` or `imported`.
    pub weights: Weights,
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_have_the_same_name_everywhere() {
        for weights in [Weights::Official, Weights::Demo, Weights::Imported] {
            assert_eq!(serde_json::to_value(weights).unwrap(), weights.as_str());
            assert_eq!(Weights::parse(weights.as_str()), Some(weights));
        }
        assert_eq!(Weights::parse("Official"), None);
    }
}
