//! Features with their origin and timing.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::tensor::Features;

/// A feature of an input, with its origin and timing.
#[derive(Debug, Clone)]
pub struct Feature {
    /// The graph's outputs for the input.
    pub features: Arc<Features>,
    /// Whether the feature was cached, shared or computed for this request.
    pub origin: Origin,
    /// Time of each stage of the computation; all zero for a cached feature.
    pub timing: Timing,
}

/// Origin of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// From the cache.
    Cached,
    /// From the in-flight computation of another request.
    Shared,
    /// Computed for this request.
    Computed,
}

/// Time of each stage of a computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timing {
    /// Preparation of the input: resizing, tokenizing.
    pub prepare: Duration,
    /// Time in the graph's queue.
    pub queue: Duration,
    /// Run of the item's batch.
    pub run: Duration,
    /// Number of items in that batch.
    pub batch: usize,
}
