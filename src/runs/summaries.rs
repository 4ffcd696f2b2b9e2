//! Keeps slice summaries up to date: finds runs whose scores changed, and summarises them again.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{Runs, backoff::Backoff, leader::Duty, pause::wait};
use crate::{analysis::refresh_version, store::StoreError};

/// Shortest pause between two passes. A leaderboard lags behind single samples by this pause plus
/// the time that summarising takes.
const PAUSE: Duration = Duration::from_secs(3);

/// Pause after a pass, as a multiple of its duration. A growing run is summarised repeatedly, and
/// this limits the work to a tenth of one core.
const SHARE: u32 = 10;

impl Runs {
    pub(super) async fn summarise_runs(self: Arc<Self>) {
        let mut stopping = self.stopping();
        let mut pause = PAUSE;
        let mut failing = Backoff::new();
        while !wait(&mut stopping, pause).await {
            if !self.leader.has(Duty::Summarising) {
                continue;
            }
            let started = Instant::now();
            match self.summarise_stale(&mut failing).await {
                Ok(0) => {}
                Ok(count) => {
                    tracing::debug!(
                        count,
                        seconds = started.elapsed().as_secs_f64(),
                        "runs summarised"
                    );
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to list stale runs, will retry");
                }
            }
            pause = PAUSE.max(started.elapsed() * SHARE);
        }
    }

    /// Summarises all stale runs one after the other. A run that fails does not block the others.
    async fn summarise_stale(
        &self,
        failing: &mut Backoff<(Uuid, String)>,
    ) -> Result<usize, StoreError> {
        let versions = self.store.stale_runs(None).await?;
        let stale: HashSet<_> =
            versions.iter().map(|version| (version.run, version.pack.clone())).collect();
        failing.retain(|key| stale.contains(key));
        let mut refreshed = 0;
        for version in versions {
            if *self.stopping.borrow() {
                break;
            }
            let key = (version.run, version.pack.clone());
            if failing.rests(&key) {
                continue;
            }
            match refresh_version(&self.store, &version).await {
                Ok(done) => {
                    failing.succeeded(&key);
                    refreshed += usize::from(done);
                }
                Err(error) => {
                    let seconds = failing.failed(key).as_secs();
                    tracing::warn!(%error, run = %version.run, seconds, "failed to summarise run, \
                        will retry");
                }
            }
        }
        self.telemetry.failing_runs.with_label_values(&["summary"]).set(failing.len() as i64);
        Ok(refreshed)
    }
}
