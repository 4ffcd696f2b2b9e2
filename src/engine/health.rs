//! The engine's readiness, as a value that can be watched.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

/// The state of the engine, for readiness probes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// Names of the lanes that failed repeatedly and have not succeeded since, or whose batch
    /// hangs.
    pub failing: BTreeSet<Arc<str>>,
    /// Names of the failing lanes whose session is being opened anew.
    pub rebuilding: BTreeSet<Arc<str>>,
    /// Whether the engine is draining.
    pub stopping: bool,
    /// Whether the graphs are loaded.
    pub residency: Residency,
}

/// Whether the graphs are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Residency {
    /// They are.
    #[default]
    Resident,
    /// Work that has begun is finished, and new work is refused.
    Offloading,
    /// They are not, and work is refused.
    Offloaded,
    /// They are being loaded, and work is refused.
    Loading,
    /// Workers have them, and work is refused in this process.
    Elsewhere,
}

impl Health {
    /// Returns whether the engine accepts work and every lane is healthy.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.failing.is_empty()
            && self.rebuilding.is_empty()
            && !self.stopping
            && matches!(self.residency, Residency::Resident | Residency::Elsewhere)
    }
}

/// The board that lanes report to.
///
/// Readers get the last value at once; they never queue behind work.
#[derive(Debug, Clone)]
pub(crate) struct HealthBoard(Arc<watch::Sender<Health>>);

impl HealthBoard {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Health::default())))
    }

    pub(crate) fn report(&self, graph: &Arc<str>, healthy: bool) {
        self.0.send_if_modified(|health| {
            if healthy {
                health.failing.remove(graph)
            } else {
                health.failing.insert(Arc::clone(graph))
            }
        });
    }

    /// Records that a lane's session is being opened anew, during which the lane is failing, or
    /// works again.
    pub(crate) fn rebuilding(&self, graph: &Arc<str>, begins: bool) {
        self.0.send_modify(|health| {
            if begins {
                health.rebuilding.insert(Arc::clone(graph));
                health.failing.insert(Arc::clone(graph));
            } else {
                health.rebuilding.remove(graph);
                health.failing.remove(graph);
            }
        });
    }

    pub(crate) fn stopping(&self) {
        self.0.send_if_modified(|health| !std::mem::replace(&mut health.stopping, true));
    }

    pub(crate) fn moved(&self, residency: Residency) {
        self.0.send_modify(|health| health.residency = residency);
    }

    pub(crate) fn is_failing(&self, graph: &str) -> bool {
        self.0.borrow().failing.contains(graph)
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Health> {
        self.0.subscribe()
    }
}
