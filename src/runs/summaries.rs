//! Summaries by slice follow the scores: runs that changed are looked for and summarised anew.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{Runs, background::wait, backoff::Backoff};
use crate::{analysis::refresh_version, store::StoreError};

/// The shortest pause between two looks: a leaderboard lags behind single samples by so much and the time that summarising takes.
const PAUSE: Duration = Duration::from_secs(3);

/// A growing run is summarised again and again: at most this share of one core goes there.
const SHARE: u32 = 10;

impl Runs {
    pub(super) async fn summarise_runs(self: Arc<Self>) {
        let mut stopping = self.stopping();
        let mut pause = PAUSE;
        let mut failing = Backoff::new();
        while !wait(&mut stopping, pause).await {
            let started = Instant::now();
            match self.summarise_stale(&mut failing).await {
                Ok(0) => {}
                Ok(count) => {
                    tracing::debug!(count, seconds = started.elapsed().as_secs_f64(), "runs summarised");
                }
                Err(error) => {
                    tracing::warn!(%error, "runs to be summarised could not be read; tried again soon");
                }
            }
            pause = PAUSE.max(started.elapsed() * SHARE);
        }
    }

    /// Summarises all runs that changed, one after the other. A run that cannot be summarised stands in nobody's way.
    async fn summarise_stale(&self, failing: &mut Backoff<(Uuid, String)>) -> Result<usize, StoreError> {
        let versions = self.store.stale_runs(None).await?;
        let stale: HashSet<_> = versions.iter().map(|version| (version.run, version.pack.clone())).collect();
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
                    tracing::warn!(%error, run = %version.run, seconds, "a run could not be summarised; tried again later");
                }
            }
        }
        self.telemetry.failing_runs.with_label_values(&["summary"]).set(failing.len() as i64);
        Ok(refreshed)
    }
}
