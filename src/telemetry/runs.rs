//! Service metrics of background scoring.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::renamed::RenamedGauge;

/// Service metrics of background scoring.
#[derive(Debug, Clone)]
pub struct RunsTelemetry {
    samples: IntGaugeVec,
    attempts: IntCounterVec,
    /// Size of the spool's files, in bytes.
    pub spool_bytes: RenamedGauge,
    /// Share of the pixel budget in use by decoded images and images being decoded, in bytes.
    pub pixel_bytes: IntGauge,
    /// Restarts of background tasks that panicked, by task.
    pub restarts: IntCounterVec,
    /// Runs that repeatedly fail to be summarised or finished, by the failing step.
    pub failing_runs: IntGaugeVec,
}

impl RunsTelemetry {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let samples = IntGaugeVec::new(
            Opts::new("stellar_run_samples", "Samples of all runs, by state."),
            &["state"],
        )?;
        let attempts = IntCounterVec::new(
            Opts::new(
                "stellar_background_attempts_total",
                "Attempts to score a pending sample, by outcome.",
            ),
            &["outcome"],
        )?;
        let spool_bytes = RenamedGauge::register(
            registry,
            ["stellar_spool_bytes", "stellar_kept_files_bytes"],
            "Size of the spool's files.",
            &[],
        )?;
        registry.register(Box::new(samples.clone()))?;
        registry.register(Box::new(attempts.clone()))?;
        let restarts = IntCounterVec::new(
            Opts::new(
                "stellar_background_restarts_total",
                "Restarts of background tasks that panicked.",
            ),
            &["task"],
        )?;
        let failing_runs = IntGaugeVec::new(
            Opts::new(
                "stellar_failing_runs",
                "Runs that fail to be summarised or finished, retried with growing pauses.",
            ),
            &["what"],
        )?;
        let pixel_bytes = IntGauge::new(
            "stellar_pixel_bytes",
            "Pixel budget in use by decoded images and images being decoded.",
        )?;
        registry.register(Box::new(pixel_bytes.clone()))?;
        registry.register(Box::new(restarts.clone()))?;
        registry.register(Box::new(failing_runs.clone()))?;
        Ok(Self { samples, attempts, spool_bytes, pixel_bytes, restarts, failing_runs })
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
}
