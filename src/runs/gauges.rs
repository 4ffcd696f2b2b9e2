//! Keeps the gauges of background scoring current, and returns free memory.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Runs, pause::wait};
use crate::{blocking::blocking, clock, machine, store::StoreError, vision};

/// Interval at which free memory is returned to the operating system, which takes milliseconds.
const TRIM_EVERY: Duration = Duration::from_mins(1);

/// Interval between two updates of the gauges.
const GAUGES_EVERY: Duration = Duration::from_secs(2);

/// Interval between two counts of the blocked samples, which reads all of them.
const BLOCKED_EVERY: Duration = Duration::from_mins(1);

impl Runs {
    /// Updates the gauges, and returns free memory to the operating system.
    pub(super) async fn report_gauges(self: Arc<Self>) {
        let mut stopping = self.stopping();
        let mut trimmed = Instant::now();
        let mut counted: Option<Instant> = None;
        vision::give_back_free_memory();
        while !wait(&mut stopping, GAUGES_EVERY).await {
            if trimmed.elapsed() > TRIM_EVERY {
                trimmed = Instant::now();
                blocking(vision::give_back_free_memory).await;
            }
            self.report_memory().await;
            if let Err(error) = self.report_progress().await {
                tracing::debug!(%error, "failed to read the backlog");
            }
            if counted.is_none_or(|at| at.elapsed() > BLOCKED_EVERY) {
                counted = Some(Instant::now());
                if let Err(error) = self.report_blocked().await {
                    tracing::debug!(%error, "failed to count blocked samples");
                }
            }
        }
    }

    async fn report_memory(&self) {
        self.telemetry.spool_bytes.set(&[], self.files.used() as i64);
        self.telemetry.spool_limit_bytes.set(self.files.budget() as i64);
        self.telemetry.pixel_bytes.set(self.scoring.pixel_bytes() as i64);
        self.telemetry.pixel_limit_bytes.set(self.scoring.pixel_limit_bytes() as i64);
        let folder = self.files.root().to_owned();
        if let Ok((free, size)) = blocking(move || machine::disk_bytes(&folder)).await {
            self.telemetry.disk_free_bytes.set(free as i64);
            self.telemetry.disk_bytes.set(size as i64);
        }
    }

    async fn report_progress(&self) -> Result<(), StoreError> {
        let counts = self.store.backlog().await?;
        self.telemetry.backlog(counts.waiting, counts.failed, counts.scored);
        for (state, count) in self.store.runs_by_state().await? {
            self.telemetry.runs(state.as_str(), count);
        }
        let pack = self.scoring.pack().id();
        let oldest = self.store.oldest_pending(self.files.id(), &pack.digest).await?;
        let age = oldest.map_or(0.0, |oldest| (clock::now() - oldest).as_seconds_f64());
        self.telemetry.oldest_pending.set(age.max(0.0));
        Ok(())
    }

    async fn report_blocked(&self) -> Result<(), StoreError> {
        let pack = self.scoring.pack().id();
        let blocked = self.store.blocked_samples(self.files.id(), &pack.digest).await?;
        let samples: u64 = blocked.iter().map(|one| one.samples).sum();
        self.telemetry.blocked.set(samples as i64);
        Ok(())
    }
}
