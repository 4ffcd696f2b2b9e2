//! Service metrics of admission: refusals by reason, problems by code, and the limits themselves.

use prometheus::{
    IntCounterVec, IntGauge, Registry, register_int_counter_vec_with_registry as counters,
    register_int_gauge_with_registry as gauge,
};

/// A bound at which the service refuses work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Concurrent and queued analyses.
    Analyses,
    /// Open connections.
    Connections,
    /// The size of the spool, or its disk.
    Disk,
    /// Images that are generated concurrently.
    Generations,
    /// Pending samples of a run.
    PendingSamples,
    /// The queue of a graph.
    Queue,
    /// Requests that are being scored.
    Requests,
    /// The turns of rewards, and the memory of their bodies.
    Rewards,
    /// The memory of uploads.
    UploadMemory,
    /// Clients that watch runs.
    Watchers,
}

impl Bound {
    /// All bounds.
    pub const ALL: [Self; 10] = [
        Self::Analyses,
        Self::Connections,
        Self::Disk,
        Self::Generations,
        Self::PendingSamples,
        Self::Queue,
        Self::Requests,
        Self::Rewards,
        Self::UploadMemory,
        Self::Watchers,
    ];

    /// Returns the value of the label `reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Analyses => "analyses",
            Self::Connections => "connections",
            Self::Disk => "disk",
            Self::Generations => "generations",
            Self::PendingSamples => "pending_samples",
            Self::Queue => "queue",
            Self::Requests => "requests",
            Self::Rewards => "rewards",
            Self::UploadMemory => "upload_memory",
            Self::Watchers => "watchers",
        }
    }
}

/// Service metrics of admission.
#[derive(Debug, Clone)]
pub struct AdmissionTelemetry {
    refusals: IntCounterVec,
    problems: IntCounterVec,
    /// Requests that hold a permit of `limits.requests`.
    pub requests: IntGauge,
    /// `limits.requests`.
    pub requests_limit: IntGauge,
    /// Memory held by uploads, in bytes.
    pub upload_bytes: IntGauge,
    /// `limits.upload_memory_mib` in bytes.
    pub upload_limit_bytes: IntGauge,
    /// Items of rewards that are being scored.
    pub rewards_items: IntGauge,
    /// Items of rewards that wait for their turn.
    pub rewards_waiting: IntGauge,
    /// Memory held by bodies of rewards, in bytes.
    pub rewards_bytes: IntGauge,
    /// `rewards.memory_mib` in bytes.
    pub rewards_limit_bytes: IntGauge,
    /// Open connections.
    pub connections: IntGauge,
    /// The limit of open connections.
    pub connections_limit: IntGauge,
}

impl AdmissionTelemetry {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let refusals = counters!(
            "stellar_refusals_total",
            "Requests and connections refused because a bound was reached, by reason.",
            &["reason"],
            registry
        )?;
        for bound in Bound::ALL {
            // A rate needs the series before its first event.
            refusals.with_label_values(&[bound.as_str()]);
        }
        Ok(Self {
            refusals,
            problems: counters!(
                "stellar_http_problems_total",
                "Error responses, by the code in their body.",
                &["code"],
                registry
            )?,
            requests: gauge!(
                "stellar_scoring_requests",
                "Requests that are being scored.",
                registry
            )?,
            requests_limit: gauge!(
                "stellar_scoring_requests_limit",
                "Limit of requests that are being scored (limits.requests).",
                registry
            )?,
            upload_bytes: gauge!("stellar_upload_bytes", "Memory held by uploads.", registry)?,
            upload_limit_bytes: gauge!(
                "stellar_upload_limit_bytes",
                "Limit of memory held by uploads (limits.upload_memory_mib).",
                registry
            )?,
            rewards_items: gauge!(
                "stellar_rewards_items",
                "Items of rewards that are being scored.",
                registry
            )?,
            rewards_waiting: gauge!(
                "stellar_rewards_waiting_items",
                "Items of rewards that wait for their turn.",
                registry
            )?,
            rewards_bytes: gauge!(
                "stellar_rewards_bytes",
                "Memory held by bodies of rewards, which count twice.",
                registry
            )?,
            rewards_limit_bytes: gauge!(
                "stellar_rewards_limit_bytes",
                "Limit of memory held by bodies of rewards (rewards.memory_mib).",
                registry
            )?,
            connections: gauge!("stellar_http_connections", "Open connections.", registry)?,
            connections_limit: gauge!(
                "stellar_http_connections_limit",
                "Limit of open connections (server.connections, or less by file descriptors).",
                registry
            )?,
        })
    }

    /// Counts a refusal.
    pub fn refused(&self, at: Bound) {
        self.refusals.with_label_values(&[at.as_str()]).inc();
    }

    /// Counts an error response by its code.
    pub fn problem(&self, code: &str) {
        self.problems.with_label_values(&[code]).inc();
    }
}
