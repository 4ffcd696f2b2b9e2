//! The store's service metrics.
//!
//! Labels come from closed lists: the files of this folder, the metrics of the registry and the
//! reasons of null scores.

use std::time::Instant;

use prometheus::{
    Histogram, HistogramVec, IntCounterVec, IntGaugeVec, Registry,
    register_histogram_vec_with_registry as histograms,
    register_histogram_with_registry as histogram,
    register_int_counter_vec_with_registry as counters,
    register_int_gauge_vec_with_registry as gauges,
};
use sqlx::Database;

/// Buckets in seconds, from a cached row (a tenth of a millisecond) to a database that is stuck.
const SECONDS: [f64; 13] =
    [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];

/// Buckets of recorded samples per transaction; 64 is the maximum.
const GROUPS: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// Every outcome of recording a sample.
const OUTCOMES: [&str; 5] = ["created", "repeated", "rescored", "conflict", "error"];

/// The connections of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolState {
    /// `main`, `analyses`, or `writer` (SQLite).
    pub(crate) name: &'static str,
    pub(crate) open: usize,
    pub(crate) idle: usize,
    pub(crate) limit: usize,
}

impl PoolState {
    /// Sums the pools of one purpose.
    pub(crate) fn of<'a, D: Database>(
        name: &'static str,
        pools: impl IntoIterator<Item = &'a sqlx::Pool<D>>,
    ) -> Self {
        let none = Self { name, open: 0, idle: 0, limit: 0 };
        pools.into_iter().fold(none, |sum, pool| Self {
            name,
            open: sum.open + pool.size() as usize,
            idle: sum.idle + pool.num_idle(),
            limit: sum.limit + pool.options().get_max_connections() as usize,
        })
    }
}

/// All service metrics of a store.
#[derive(Debug, Clone)]
pub struct StoreTelemetry {
    operations: HistogramVec,
    waits: HistogramVec,
    groups: Histogram,
    samples: IntCounterVec,
    scores: IntCounterVec,
    nulls: IntCounterVec,
    connections: IntGaugeVec,
    connections_limit: IntGaugeVec,
}

impl StoreTelemetry {
    /// Creates the metrics and adds them to `registry`. Fails if they are already registered.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let groups = histogram!(
            "stellar_store_group_size",
            "Samples that one recording transaction takes.",
            GROUPS.into(),
            registry
        )?;
        let samples = counters!(
            "stellar_samples_total",
            "Scored samples by the outcome of recording them: created, repeated, rescored, \
                conflict, error.",
            &["outcome"],
            registry
        )?;
        for outcome in OUTCOMES {
            // A rate needs the series before its first event.
            samples.with_label_values(&[outcome]);
        }
        Ok(Self {
            operations: histograms!(
                "stellar_store_operation_seconds",
                "Time of an operation of the store, with its wait for a connection.",
                &["resource"],
                SECONDS.into(),
                registry
            )?,
            waits: histograms!(
                "stellar_store_connection_wait_seconds",
                "Wait for a free connection.",
                &["access"],
                SECONDS.into(),
                registry
            )?,
            groups,
            samples,
            scores: counters!(
                "stellar_scores_total",
                "Scores of created and rescored samples, null ones included.",
                &["metric"],
                registry
            )?,
            nulls: counters!(
                "stellar_null_scores_total",
                "Scores of created and rescored samples that are null, by reason.",
                &["metric", "reason"],
                registry
            )?,
            connections: gauges!(
                "stellar_store_connections",
                "Open connections to the database.",
                &["pool", "state"],
                registry
            )?,
            connections_limit: gauges!(
                "stellar_store_connections_limit",
                "Limit of connections to the database.",
                &["pool"],
                registry
            )?,
        })
    }

    /// Makes a series of every family, for tests of the export.
    #[cfg(test)]
    pub(crate) fn exercise(&self) {
        drop((self.operation("a::runs"), self.wait("read")));
        self.scores.with_label_values(&["clip_t"]);
        self.nulls.with_label_values(&["clip_t", "no_prompt"]);
        self.pools(&[PoolState { name: "main", open: 1, idle: 1, limit: 16 }]);
    }

    /// Times an operation until the returned guard is dropped. `module` is that of the operation:
    /// its last part is the label.
    pub(super) fn operation(&self, module: &'static str) -> Timer {
        let resource = module.rsplit("::").next().unwrap_or(module);
        Timer { since: Instant::now(), into: self.operations.with_label_values(&[resource]) }
    }

    /// Times a wait for a connection until the returned guard is dropped.
    pub(super) fn wait(&self, access: &str) -> Timer {
        Timer { since: Instant::now(), into: self.waits.with_label_values(&[access]) }
    }

    /// Counts the samples of one recording transaction.
    pub(super) fn group(&self, samples: usize) {
        self.groups.observe(samples as f64);
    }

    /// Counts a sample that was to be recorded, by one of [`OUTCOMES`].
    pub(super) fn sample(&self, outcome: &str) {
        self.samples.with_label_values(&[outcome]).inc();
    }

    /// Counts a recorded score; with the reason if it is null.
    pub(super) fn score(&self, metric: &str, null: Option<&str>) {
        self.scores.with_label_values(&[metric]).inc();
        if let Some(reason) = null {
            self.nulls.with_label_values(&[metric, reason]).inc();
        }
    }

    /// Sets the number of open connections.
    pub(super) fn pools(&self, pools: &[PoolState]) {
        for pool in pools {
            let set = |state, count: usize| {
                self.connections.with_label_values(&[pool.name, state]).set(count as i64);
            };
            set("idle", pool.idle);
            set("busy", pool.open.saturating_sub(pool.idle));
            self.connections_limit.with_label_values(&[pool.name]).set(pool.limit as i64);
        }
    }
}

impl Default for StoreTelemetry {
    /// Metrics that nothing exports.
    fn default() -> Self {
        Self::register(&Registry::new()).expect("constant names are valid and distinct")
    }
}

/// Observes the time until it is dropped, also if the operation fails or is cancelled.
#[derive(Debug)]
pub(crate) struct Timer {
    since: Instant,
    into: Histogram,
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.into.observe(self.since.elapsed().as_secs_f64());
    }
}
