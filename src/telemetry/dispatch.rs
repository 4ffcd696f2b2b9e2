//! Service metrics of the dispatch of samples, and of requests that are forwarded to workers.

use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    register_int_counter_vec_with_registry as counters,
    register_int_counter_with_registry as counter, register_int_gauge_vec_with_registry as gauges,
    register_int_gauge_with_registry as gauge,
};

/// Service metrics of the dispatch. Those of NATS are registered if it is used.
#[derive(Debug, Clone)]
pub struct DispatchTelemetry {
    registry: Registry,
    leader: IntGaugeVec,
}

/// Service metrics of NATS.
#[derive(Debug, Clone)]
pub struct NatsTelemetry {
    /// 1 while there is a connection.
    pub connected: IntGauge,
    /// Samples of the pack that wait in the stream.
    pub pending: IntGauge,
    /// Samples of the pack that workers have.
    pub in_flight: IntGauge,
    /// Samples that this instance got although an instance had got them before.
    pub redelivered: IntCounter,
    published: IntCounterVec,
    /// Samples that were missing in the stream.
    pub republished: IntCounter,
    /// Samples that were scored alone.
    pub suspects: IntCounter,
    /// Workers of the pack that answered lately.
    pub workers: IntGauge,
    forwarded: IntCounterVec,
}

impl DispatchTelemetry {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let leader = gauges!(
            "stellar_leader",
            "1 if this instance does what one instance at a time does.",
            &["duty"],
            registry
        )?;
        Ok(Self { registry: registry.clone(), leader })
    }

    /// Sets whether this instance has a duty.
    pub fn leads(&self, duty: &str, leads: bool) {
        self.leader.with_label_values(&[duty]).set(leads.into());
    }

    /// Registers the service metrics of NATS.
    ///
    /// # Errors
    /// They are registered already.
    pub fn of_nats(&self) -> prometheus::Result<NatsTelemetry> {
        let registry = &self.registry;
        let published = counters!(
            "stellar_dispatch_published_total",
            "Ids of samples that were published, by outcome.",
            &["outcome"],
            registry
        )?;
        for outcome in ["new", "queued", "failed"] {
            // A rate needs the series before its first event.
            published.with_label_values(&[outcome]);
        }
        let forwarded = counters!(
            "stellar_forwarded_total",
            "Requests that were forwarded to workers, by outcome.",
            &["outcome"],
            registry
        )?;
        for outcome in ["answered", "busy", "no_worker", "failed"] {
            forwarded.with_label_values(&[outcome]);
        }
        Ok(NatsTelemetry {
            connected: gauge!(
                "stellar_dispatch_connected",
                "1 while there is a connection to the broker.",
                registry
            )?,
            pending: gauge!(
                "stellar_dispatch_pending",
                "Samples of the loaded pack that wait in the stream.",
                registry
            )?,
            in_flight: gauge!(
                "stellar_dispatch_in_flight",
                "Samples of the loaded pack that workers have.",
                registry
            )?,
            redelivered: counter!(
                "stellar_dispatch_redelivered_total",
                "Samples that this instance got although a worker had got them before.",
                registry
            )?,
            published,
            republished: counter!(
                "stellar_dispatch_republished_total",
                "Samples that were missing in the stream and were published again.",
                registry
            )?,
            suspects: counter!(
                "stellar_dispatch_suspects_total",
                "Samples that were scored alone, since workers had died with them.",
                registry
            )?,
            workers: gauge!(
                "stellar_workers",
                "Workers of the loaded pack that answered lately, on instances that forward.",
                registry
            )?,
            forwarded,
        })
    }
}

impl NatsTelemetry {
    /// Counts published samples by outcome.
    pub fn published(&self, outcome: &str, samples: u64) {
        self.published.with_label_values(&[outcome]).inc_by(samples);
    }

    /// Counts a forwarded request by outcome.
    pub fn forwarded(&self, outcome: &str) {
        self.forwarded.with_label_values(&[outcome]).inc();
    }
}
