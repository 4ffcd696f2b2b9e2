//! Configuration and state of a lane, for reports.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::config::Provider;
use super::lane::Lane;
use super::pack::{Precision, SourceSpec};

/// Configuration and state of a lane.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LaneStatus {
    /// Roles of the graph; several if entries of the pack share a file.
    pub roles: Vec<String>,
    /// File of the graph, relative to the pack.
    pub file: String,
    /// Precision of the graph's arithmetic.
    pub precision: Precision,
    /// Checkpoint that the graph was exported from.
    pub source: SourceSpec,
    /// Execution provider that runs the graph.
    pub provider: Provider,
    /// Largest batch, in items.
    pub max_batch: usize,
    /// Number of queued items.
    pub queue_depth: usize,
    /// Items computed since start.
    pub items: u64,
    /// Batches run since start, without the warm-up.
    pub batches: u64,
    /// Time to load and warm up the graph, in seconds.
    pub load_seconds: f64,
    /// Growth of the process's memory while the graph was loaded, in bytes; null if unknown.
    pub resident_bytes: Option<u64>,
    /// False after repeated failures or while a batch hangs, until the graph works again.
    pub healthy: bool,
}

/// A lane with its status right after loading.
pub(super) struct Loaded {
    pub(super) lane: Arc<Lane>,
    pub(super) initial: LaneStatus,
}

impl Loaded {
    pub(super) fn status(&self) -> LaneStatus {
        let (items, batches) = self.lane.totals();
        let (queue_depth, healthy) = (self.lane.depth(), self.lane.is_healthy());
        LaneStatus { queue_depth, items, batches, healthy, ..self.initial.clone() }
    }
}
