//! Service metrics of background scoring.

use prometheus::{
    Gauge, IntCounterVec, IntGauge, IntGaugeVec, Registry, register_gauge_with_registry,
    register_int_counter_vec_with_registry as counters,
    register_int_gauge_vec_with_registry as gauges, register_int_gauge_with_registry as gauge,
};

use super::{dispatch::DispatchTelemetry, renamed::RenamedGauge};

/// Service metrics of background scoring.
#[derive(Debug, Clone)]
pub struct RunsTelemetry {
    samples: IntGaugeVec,
    runs: IntGaugeVec,
    /// Age of the oldest pending sample that this instance is to score, in seconds.
    pub oldest_pending: Gauge,
    /// Pending samples of this instance's spool that need a pack that is not loaded.
    pub blocked: IntGauge,
    attempts: IntCounterVec,
    /// Size of the spool's files, in bytes.
    pub spool_bytes: RenamedGauge,
    /// Limit of `spool_bytes`, in bytes.
    pub spool_limit_bytes: IntGauge,
    /// Free bytes of the spool's disk for this user.
    pub disk_free_bytes: IntGauge,
    /// Size of the spool's disk in bytes.
    pub disk_bytes: IntGauge,
    /// Share of the pixel budget in use by decoded images and images being decoded, in bytes.
    pub pixel_bytes: IntGauge,
    /// The pixel budget in bytes.
    pub pixel_limit_bytes: IntGauge,
    /// Restarts of background tasks that panicked, by task.
    pub restarts: IntCounterVec,
    /// Runs that repeatedly fail to be summarised or finished, by the failing step.
    pub failing_runs: IntGaugeVec,
    /// Metrics of the dispatch of samples.
    pub dispatch: DispatchTelemetry,
}

impl RunsTelemetry {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let samples =
            gauges!("stellar_run_samples", "Samples of all runs, by state.", &["state"], registry)?;
        let attempts = counters!(
            "stellar_background_attempts_total",
            "Attempts to score a pending sample, by outcome.",
            &["outcome"],
            registry
        )?;
        let spool_bytes = RenamedGauge::register(
            registry,
            ["stellar_spool_bytes", "stellar_kept_files_bytes"],
            "Size of the spool's files.",
            &[],
        )?;
        let runs = gauges!("stellar_runs", "Runs, by state.", &["state"], registry)?;
        let oldest_pending = register_gauge_with_registry!(
            "stellar_pending_oldest_seconds",
            "Age of the oldest pending sample of this instance's spool and pack; 0 without one.",
            registry
        )?;
        for outcome in ["recorded", "postponed", "failed"] {
            // A rate needs the series before its first event.
            attempts.with_label_values(&[outcome]);
        }
        let restarts = counters!(
            "stellar_background_restarts_total",
            "Restarts of background tasks that panicked.",
            &["task"],
            registry
        )?;
        let failing_runs = gauges!(
            "stellar_failing_runs",
            "Runs that fail to be summarised or finished, retried with growing pauses.",
            &["what"],
            registry
        )?;
        for step in ["finish", "summary"] {
            failing_runs.with_label_values(&[step]);
        }
        Ok(Self {
            samples,
            runs,
            oldest_pending,
            blocked: gauge!(
                "stellar_blocked_samples",
                "Pending samples of this instance's spool that need a pack that is not loaded.",
                registry
            )?,
            attempts,
            spool_bytes,
            spool_limit_bytes: gauge!(
                "stellar_spool_limit_bytes",
                "Limit of the size of the spool's files (store.spool_mib).",
                registry
            )?,
            disk_free_bytes: gauge!(
                "stellar_disk_free_bytes",
                "Free space of the spool's disk.",
                registry
            )?,
            disk_bytes: gauge!("stellar_disk_bytes", "Size of the spool's disk.", registry)?,
            pixel_bytes: gauge!(
                "stellar_pixel_bytes",
                "Pixel budget in use by decoded images and images being decoded.",
                registry
            )?,
            pixel_limit_bytes: gauge!("stellar_pixel_limit_bytes", "The pixel budget.", registry)?,
            restarts,
            failing_runs,
            dispatch: DispatchTelemetry::register(registry)?,
        })
    }

    /// Counts an attempt to score a pending sample by its outcome.
    pub fn attempt(&self, outcome: &str) {
        self.attempts.with_label_values(&[outcome]).inc();
    }

    /// Sets the number of samples in each state.
    pub fn backlog(&self, waiting: u64, failed: u64, scored: u64) {
        for (state, count) in [("pending", waiting), ("failed", failed), ("scored", scored)] {
            self.samples.with_label_values(&[state]).set(count as i64);
        }
    }

    /// Sets the number of runs in a state.
    pub fn runs(&self, state: &str, count: u64) {
        self.runs.with_label_values(&[state]).set(count as i64);
    }
}
