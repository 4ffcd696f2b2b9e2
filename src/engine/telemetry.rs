//! The engine's service metrics.
//!
//! Labels are `graph` (a lane's roles, joined by `+` if entries of the pack share a file), `stage`
//! and `outcome`. They have few values, known at start, so clients cannot add series.

use std::sync::Arc;

use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    register_histogram_vec_with_registry as histograms,
    register_int_counter_vec_with_registry as counters, register_int_counter_with_registry,
    register_int_gauge_vec_with_registry as gauges, register_int_gauge_with_registry as gauge,
};

/// All service metrics of the engine. Register them once per registry.
#[derive(Debug, Clone)]
pub struct EngineTelemetry {
    batch_size: HistogramVec,
    stages: HistogramVec,
    depth: IntGaugeVec,
    items: IntCounterVec,
    batches: IntCounterVec,
    retried: IntCounterVec,
    healthy: IntGaugeVec,
    info: IntGaugeVec,
    memory: IntGaugeVec,
    queue_limit: IntGaugeVec,
    rebuilt: IntCounterVec,
    requests: IntCounterVec,
    pub(crate) busy: IntGauge,
    pub(crate) offloaded: IntGauge,
    pub(crate) cache_bytes: IntGauge,
    pub(crate) cache_limit_bytes: IntGauge,
    pub(crate) cache_entries: IntGauge,
    pub(crate) evictions: IntCounter,
}

/// The service metrics of one lane, looked up once.
#[derive(Debug, Clone)]
pub(crate) struct LaneTelemetry {
    /// The lane's roles, joined by `+`.
    pub(crate) graph: Arc<str>,
    pub(crate) batch_size: Histogram,
    pub(crate) prepare: Histogram,
    pub(crate) queue: Histogram,
    pub(crate) run: Histogram,
    pub(crate) depth: IntGauge,
    pub(crate) done: IntCounter,
    pub(crate) failed: IntCounter,
    pub(crate) dropped: IntCounter,
    pub(crate) refused: IntCounter,
    pub(crate) batches_done: IntCounter,
    pub(crate) batches_failed: IntCounter,
    pub(crate) retried: IntCounter,
    pub(crate) healthy: IntGauge,
    pub(crate) rebuilt: IntCounter,
    pub(crate) hits: IntCounter,
    pub(crate) misses: IntCounter,
    pub(crate) shared: IntCounter,
}

/// Buckets of batch sizes, in items. The usual maximum of packs is 16.
const BATCH_SIZES: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// Buckets in seconds, from a text tower on a GPU (1 ms) to an almost full queue on two cores (60
/// s).
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// Help text of `stellar_engine_offloaded`.
const OFFLOADED: &str = "1 while the graphs are not loaded (POST /v1/engine/offload), otherwise 0.";

impl EngineTelemetry {
    /// Returns the metrics for a second engine in the same process. Lanes of both have series of
    /// their own; the cache of the second one has none, since its gauges would overwrite those of
    /// the first.
    #[must_use]
    pub fn beside(&self) -> Self {
        let gauge = || IntGauge::new("unregistered", "Not exported.").expect("a valid name");
        Self {
            busy: gauge(),
            offloaded: gauge(),
            cache_bytes: gauge(),
            cache_limit_bytes: gauge(),
            cache_entries: gauge(),
            ..self.clone()
        }
    }

    /// Creates the metrics and adds them to `registry`. Fails if they are already registered.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let info = gauges!(
            "stellar_engine_lane_info",
            "Always 1, with the provider and the precision of the graph as labels.",
            &["graph", "provider", "precision"],
            registry
        )?;
        let evictions = register_int_counter_with_registry!(
            "stellar_engine_cache_evictions_total",
            "Features evicted because the cache was full.",
            registry
        )?;
        Ok(Self {
            batch_size: histograms!(
                "stellar_engine_batch_size",
                "Items per batch.",
                &["graph"],
                BATCH_SIZES.to_vec(),
                registry
            )?,
            stages: histograms!(
                "stellar_engine_stage_seconds",
                "Time of an item in preparation (prepare) and in the queue (queue), and of a batch \
                    in the graph (run).",
                &["graph", "stage"],
                SECONDS.to_vec(),
                registry
            )?,
            depth: gauges!("stellar_engine_queue_depth", "Queued items.", &["graph"], registry)?,
            items: counters!(
                "stellar_engine_items_total",
                "Items by outcome: done, failed, dropped (all callers left before the graph ran), \
                    refused (queue full).",
                &["graph", "outcome"],
                registry
            )?,
            batches: counters!(
                "stellar_engine_batches_total",
                "Runs of the graph by outcome: done, failed.",
                &["graph", "outcome"],
                registry
            )?,
            retried: counters!(
                "stellar_engine_retried_items_total",
                "Items retried alone after their batch failed.",
                &["graph"],
                registry
            )?,
            healthy: gauges!(
                "stellar_engine_lane_healthy",
                "1 while the graph works, 0 after repeated failures or while a batch hangs.",
                &["graph"],
                registry
            )?,
            info,
            memory: gauges!(
                "stellar_engine_lane_memory_bytes",
                "Growth of the process's memory while the graph was loaded.",
                &["graph"],
                registry
            )?,
            queue_limit: gauges!(
                "stellar_engine_queue_limit",
                "Limit of queued items (engine.queue).",
                &["graph"],
                registry
            )?,
            rebuilt: counters!(
                "stellar_engine_rebuilds_total",
                "Sessions of a graph that were opened anew because they broke.",
                &["graph"],
                registry
            )?,
            requests: counters!(
                "stellar_engine_cache_requests_total",
                "Requests for a feature by outcome: hit, miss, shared (joined an in-flight \
                    computation).",
                &["graph", "outcome"],
                registry
            )?,
            busy: gauge!(
                "stellar_engine_lanes_busy",
                "Batches that are running on the device.",
                registry
            )?,
            offloaded: gauge!("stellar_engine_offloaded", OFFLOADED, registry)?,
            cache_bytes: gauge!(
                "stellar_engine_cache_bytes",
                "Memory of cached features.",
                registry
            )?,
            cache_limit_bytes: gauge!(
                "stellar_engine_cache_limit_bytes",
                "Limit of the memory of cached features (engine.cache_bytes).",
                registry
            )?,
            cache_entries: gauge!("stellar_engine_cache_entries", "Cached features.", registry)?,
            evictions,
        })
    }

    /// Makes a series of every family, for tests of the export.
    #[cfg(test)]
    pub(crate) fn exercise(&self) {
        self.lane("g");
        self.info.with_label_values(&["g", "cpu", "fp32"]);
        self.queue_limit.with_label_values(&["g"]);
        self.memory.with_label_values(&["g"]);
    }

    /// Sets what does not change after a lane has been loaded.
    pub(crate) fn loaded(
        &self,
        [graph, provider, precision]: [&str; 3],
        memory: Option<u64>,
        queue: usize,
    ) {
        self.info.with_label_values(&[graph, provider, precision]).set(1);
        self.queue_limit.with_label_values(&[graph]).set(queue as i64);
        if let Some(bytes) = memory {
            self.memory.with_label_values(&[graph]).set(bytes as i64);
        }
    }

    /// Returns the metrics of the lane `graph`. All of its series exist from now on, at zero.
    pub(crate) fn lane(&self, graph: &str) -> LaneTelemetry {
        let stage = |stage| self.stages.with_label_values(&[graph, stage]);
        let items = |outcome| self.items.with_label_values(&[graph, outcome]);
        let batches = |outcome| self.batches.with_label_values(&[graph, outcome]);
        let requests = |outcome| self.requests.with_label_values(&[graph, outcome]);
        LaneTelemetry {
            graph: graph.into(),
            batch_size: self.batch_size.with_label_values(&[graph]),
            prepare: stage("prepare"),
            queue: stage("queue"),
            run: stage("run"),
            depth: self.depth.with_label_values(&[graph]),
            done: items("done"),
            failed: items("failed"),
            dropped: items("dropped"),
            refused: items("refused"),
            batches_done: batches("done"),
            batches_failed: batches("failed"),
            retried: self.retried.with_label_values(&[graph]),
            healthy: self.healthy.with_label_values(&[graph]),
            rebuilt: self.rebuilt.with_label_values(&[graph]),
            hits: requests("hit"),
            misses: requests("miss"),
            shared: requests("shared"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_the_prefix_and_a_help_text() {
        let registry = Registry::new();
        let telemetry = EngineTelemetry::register(&registry).unwrap();
        telemetry.lane("clip.image").queue.observe(0.002);
        let families = registry.gather();
        assert_eq!(families.len(), 15);
        for family in families {
            assert!(family.name().starts_with("stellar_engine_"), "{}", family.name());
            assert!(family.help().ends_with('.'), "{}", family.name());
            let counter = family.get_field_type() == prometheus::proto::MetricType::COUNTER;
            assert_eq!(family.name().ends_with("_total"), counter, "{}", family.name());
        }
    }

    #[test]
    fn registering_twice_returns_an_error() {
        let registry = Registry::new();
        EngineTelemetry::register(&registry).unwrap();
        assert!(EngineTelemetry::register(&registry).is_err());
    }
}
