//! Service metrics of the adapters for trainers' reward clients.

use prometheus::{IntCounterVec, Registry, register_int_counter_vec_with_registry as counters};

use crate::config::Protocol;

/// Service metrics of the adapters.
#[derive(Debug, Clone)]
pub struct AdaptersTelemetry {
    items: IntCounterVec,
}

impl AdaptersTelemetry {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let items = counters!(
            "stellar_adapter_items_total",
            "Items of trainers' reward clients, by protocol and outcome.",
            &["protocol", "outcome"],
            registry
        )?;
        // From the first export on, so that a dashboard shows zeros and a rate sees the first item.
        for protocol in Protocol::ALL {
            for outcome in ["scored", "failed"] {
                items.with_label_values(&[protocol.name(), outcome]);
            }
        }
        Ok(Self { items })
    }

    /// Counts the items of a batch, `failed` of which have a reward without a number.
    pub fn items(&self, protocol: Protocol, all: usize, failed: usize) {
        let count = |outcome, items: usize| {
            self.items.with_label_values(&[protocol.name(), outcome]).inc_by(items as u64);
        };
        count("scored", all - failed);
        count("failed", failed);
    }
}
