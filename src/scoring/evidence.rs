//! The evidence of a score: the features that were used and the tokens of the prompt.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::engine::Origin;

/// A feature that a request used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FeatureUse {
    /// Role of the graph.
    #[schema(example = "clip.image")]
    pub graph: String,
    /// The input: `image`, `prompt`, or `reference[0]` and so on.
    #[schema(example = "reference[0]")]
    pub of: String,
    /// Origin of the feature: computed for this request, shared with a concurrent one, or cached.
    pub origin: Origin,
    /// Milliseconds from request to result, time in queues included.
    pub milliseconds: f64,
    /// Number of items in the batch, from this and other requests; 0 if the model did not run.
    pub batch: usize,
}

/// Token count of the prompt for one text graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TextEvidence {
    /// Role of the graph.
    #[schema(example = "clip.text")]
    pub graph: String,
    /// Tokens of the prompt before truncation, start and end tokens included.
    #[schema(example = 9)]
    pub tokens: usize,
    /// Largest number of tokens that the graph reads.
    #[schema(example = 77)]
    pub context: usize,
    /// True if the prompt was truncated.
    pub truncated: bool,
}
