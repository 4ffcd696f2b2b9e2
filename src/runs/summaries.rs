//! Summaries by slice follow the scores: runs that changed are looked for and summarised anew.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Runs, background::wait};
use crate::analysis::refresh_stale;

/// The shortest pause between two looks: a leaderboard lags behind single samples by so much and the time that summarising takes.
const PAUSE: Duration = Duration::from_secs(3);

/// A growing run is summarised again and again: at most this share of one core goes there.
const SHARE: u32 = 10;

impl Runs {
    pub(super) async fn summarise_runs(self: Arc<Self>) {
        let mut stopping = self.stopping();
        let mut pause = PAUSE;
        while !wait(&mut stopping, pause).await {
            let started = Instant::now();
            match refresh_stale(&self.store, || !*stopping.borrow()).await {
                Ok(0) => {}
                Ok(count) => {
                    tracing::debug!(count, seconds = started.elapsed().as_secs_f64(), "runs summarised");
                }
                Err(error) => tracing::warn!(%error, "runs could not be summarised; tried again soon"),
            }
            pause = PAUSE.max(started.elapsed() * SHARE);
        }
    }
}
