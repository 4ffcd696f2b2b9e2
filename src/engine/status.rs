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

/// A lane with the constant fields of its [`LaneStatus`].
pub(super) struct Loaded {
    pub(super) lane: Arc<Lane>,
    pub(super) roles: Vec<String>,
    pub(super) file: String,
    pub(super) precision: Precision,
    pub(super) source: SourceSpec,
    pub(super) provider: Provider,
    pub(super) max_batch: usize,
    pub(super) load_seconds: f64,
    pub(super) resident_bytes: Option<u64>,
}

impl Loaded {
    pub(super) fn status(&self) -> LaneStatus {
        let (items, batches) = self.lane.totals();
        LaneStatus {
            roles: self.roles.clone(),
            file: self.file.clone(),
            precision: self.precision,
            source: self.source.clone(),
            provider: self.provider,
            max_batch: self.max_batch,
            queue_depth: self.lane.depth(),
            items,
            batches,
            load_seconds: self.load_seconds,
            resident_bytes: self.resident_bytes,
            healthy: self.lane.is_healthy(),
        }
    }
}
