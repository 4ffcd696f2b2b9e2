//! Runs beside requests: samples are accepted on the disk, scored in the background, and summarised when the run is finished.
//!
//! ```text
//! PUT …/samples/{name} ── files.rs      images on the disk   ── store.accept: the row, then the answer
//! background.rs        ── store.waiting: oldest first, a bounded number ── scoring ── store.record_pending
//! finish.rs            ── nothing waits any more: aps, summaries ── store.run_finished, photos are let go
//! progress.rs          ── one reader a run that somebody watches ── all its watchers
//! ```
//!
//! What waits is in the database and on the disk only, so that a process that ends in the middle of anything goes on at its
//! next start where it was: a sample is recorded and ceases to wait in one transaction.

mod attempts;
mod background;
mod backoff;
mod deletions;
mod finish;
mod probes;
mod progress;
mod record;
mod spool;
mod summaries;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, watch};

use attempts::Attempts;
pub use background::Background;
pub use probes::{ProbesError, probes};
pub use progress::{Progress, Snapshot, Watchers};
pub use record::new_sample;
pub use spool::{Spool, SpoolGuard, SpoolOpenError, SpoolWriteError};

use crate::{
    config::{Config, Runs as Settings},
    scoring::Scoring,
    store::Store,
    supervisor::Supervisor,
    telemetry::RunsTelemetry,
};

/// The version that answers and rows carry.
pub const SERVICE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What requests and background work share.
pub struct Runs {
    store: Store,
    scoring: Arc<Scoring>,
    files: Arc<Spool>,
    attempts: Attempts,
    supervisor: Arc<Supervisor>,
    settings: Settings,
    /// Samples that are scored at once while no request waits for scores.
    at_once: usize,
    deadline: Duration,
    telemetry: RunsTelemetry,
    watchers: Watchers,
    /// Requests that wait for scores at this moment.
    requests: AtomicUsize,
    /// The database's log has something that was deleted.
    unscrubbed: AtomicBool,
    /// Something to score, or room for it.
    work: Notify,
    /// A run may have nothing left to wait for.
    finish: Notify,
    stopping: watch::Sender<bool>,
}

/// A request that waits for scores; background work makes room for it.
pub struct InteractiveGuard<'a>(&'a Runs);

impl Drop for InteractiveGuard<'_> {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
        self.0.work.notify_one();
    }
}

impl Runs {
    /// Opens the folder of kept files. Nothing is scored before [`start`](Self::start).
    ///
    /// # Errors
    /// A folder that another process uses or that cannot be written, or a store that cannot be reached.
    pub async fn open(
        config: &Config,
        store: Store,
        scoring: Arc<Scoring>,
        telemetry: RunsTelemetry,
    ) -> Result<Arc<Self>, SpoolOpenError> {
        let (files, budget) = (&config.store.spool, config.store.spool_bytes());
        let files = Spool::open(files, budget, config.store.trash(), &store).await?;
        let attempts = Attempts::open(files.root())
            .map_err(|error| SpoolOpenError::Io(files.root().to_owned(), error))?;
        let batch_on_card = scoring.engine().largest_batch_on_card();
        Ok(Arc::new(Self {
            at_once: config.runs.samples_at_once(batch_on_card),
            watchers: Watchers::new(store.clone(), config.runs.watchers),
            store,
            scoring,
            files,
            attempts,
            supervisor: Supervisor::new(telemetry.restarts.clone()),
            settings: config.runs.clone(),
            deadline: config.server.deadline(),
            telemetry,
            requests: AtomicUsize::new(0),
            // Of a former life, which may have ended in between.
            unscrubbed: AtomicBool::new(true),
            work: Notify::new(),
            finish: Notify::new(),
            stopping: watch::Sender::new(false),
        }))
    }

    /// Who watches the background tasks.
    #[must_use]
    pub fn supervisor(&self) -> &Arc<Supervisor> {
        &self.supervisor
    }

    /// The kept files.
    #[must_use]
    pub fn spool(&self) -> &Arc<Spool> {
        &self.files
    }

    /// Who watches which run.
    #[must_use]
    pub fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    /// How many samples of one run may wait.
    #[must_use]
    pub fn max_pending(&self) -> u64 {
        self.settings.pending_samples
    }

    /// How many samples one imported file may have.
    #[must_use]
    pub fn import_samples(&self) -> usize {
        self.settings.import_samples
    }

    /// Counts a request that waits for scores, until the result is dropped.
    pub fn enter_interactive(&self) -> InteractiveGuard<'_> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        InteractiveGuard(self)
    }

    /// Says that there is something new to score.
    pub fn notify_pending(&self) {
        self.work.notify_one();
    }

    /// Says that a run is to be finished.
    pub fn notify_finishing(&self) {
        self.finish.notify_one();
    }

    /// Ends background work: what is being scored is finished, nothing is begun, and whoever watches a run is sent away.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Becomes true when the service stops.
    #[must_use]
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }
}
