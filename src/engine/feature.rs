//! Features: how they are requested, their origin and timing.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, TryFutureExt as _};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::EngineError;
use crate::content::ContentHash;
use crate::tensor::{Features, Tensor};

/// Makes a graph's tensors from an input.
pub(super) type Prepare = BoxFuture<'static, Result<Vec<Tensor>, EngineError>>;

/// Reduces a graph's outputs to the features to cache.
pub(super) type Reduce = Box<dyn FnOnce(&Features) -> Features + Send>;

/// A request for the outputs of a graph for an input.
pub struct FeatureRequest<'a> {
    pub(super) role: &'a str,
    pub(super) input: ContentHash,
    pub(super) with: Option<ContentHash>,
    pub(super) prepare: Prepare,
    pub(super) reduce: Option<Reduce>,
}

impl<'a> FeatureRequest<'a> {
    /// Requests the outputs of the graph `role` for the input with the content hash `input`.
    ///
    /// `prepare` makes the graph's tensors from the input. It runs only if the feature is neither
    /// cached nor in flight. Its error is returned as [`EngineError::Prepare`]. It must depend only
    /// on the input and the graph, since its result is cached under these two.
    pub fn new<E: Error + Send + Sync + 'static>(
        role: &'a str,
        input: ContentHash,
        prepare: impl Future<Output = Result<Vec<Tensor>, E>> + Send + 'static,
    ) -> Self {
        let prepare = prepare.map_err(|error| EngineError::Prepare(Arc::new(error))).boxed();
        Self { role, input, with: None, prepare, reduce: None }
    }

    /// Adds a second input, whose content hash is `second`.
    ///
    /// The feature is evicted together with those of the first input, see
    /// [`Engine::forget`](super::Engine::forget).
    #[must_use]
    pub fn with(self, second: ContentHash) -> Self {
        Self { with: Some(second), ..self }
    }

    /// Requests `reduce(outputs)` instead of the raw outputs, which are too large to cache.
    ///
    /// `reduce` runs on the graph's thread. It must be the same for every request to this role.
    #[must_use]
    pub fn reduced(self, reduce: impl FnOnce(&Features) -> Features + Send + 'static) -> Self {
        Self { reduce: Some(Box::new(reduce)), ..self }
    }
}

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
