//! Runs: samples are accepted into the spool, scored in the background, and summarised when the run
//! is finished.
//!
//! ```text
//! PUT …/samples/{name} ── spool.rs: images stored ── store.accept: the row, then the response
//! score_pending.rs     ── dispatch/: oldest first, bounded ── scoring ── store.record_pending
//! finish.rs            ── nothing pending: aps, summaries ── store.run_finished, files released
//! progress.rs          ── one reader per watched run ── all its watchers
//! ```
//!
//! Pending samples exist only in the database and on disk, so the service resumes after any crash:
//! recording a sample and removing it from the pending ones is one transaction.

mod attempt;
mod backoff;
mod deletions;
mod finish;
mod gauges;
mod housekeeping;
mod leader;
mod leading;
mod pause;
mod progress;
mod score_pending;
mod spool;
mod summaries;
mod tasks;
mod traces;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, watch};
use uuid::Uuid;

use leader::{Duty, Leader};
pub use progress::{Progress, Snapshot, Watchers};
pub use spool::{
    EmptySpool, Spool, SpoolFolder, SpoolGuard, SpoolHold, SpoolKeepError, SpoolOpenError,
};
pub use tasks::Background;
use traces::SampleTraces;

use crate::{
    config::{Config, Runs as Settings},
    dispatch::{Broker, Dispatch, Jetstream, Local},
    pack_id::PackId,
    scoring::Scoring,
    service::Keeping,
    store::{PendingId, Store},
    supervisor::Supervisor,
    telemetry::RunsTelemetry,
};

/// Time limit of releasing what is left at the end.
const CLOSING: Duration = Duration::from_secs(3);

/// State shared by requests and background tasks.
pub struct Runs {
    store: Store,
    scoring: Arc<Scoring>,
    files: Arc<Spool>,
    dispatch: Box<dyn Dispatch>,
    /// Whether samples come through the broker, so that other instances score them too.
    has_workers: bool,
    leader: Leader,
    traces: SampleTraces,
    supervisor: Arc<Supervisor>,
    settings: Settings,
    keeping: Keeping,
    /// Background samples in flight at once while no interactive request is in flight.
    at_once: usize,
    deadline: Duration,
    telemetry: RunsTelemetry,
    watchers: Watchers,
    /// Number of interactive requests in flight.
    requests: AtomicUsize,
    /// `true` while the write-ahead log may contain deleted rows.
    unscrubbed: AtomicBool,
    /// Notified when a sample becomes pending or capacity is freed.
    work: Arc<Notify>,
    /// Notified when a run may have no pending samples left.
    finish: Notify,
    stopping: watch::Sender<bool>,
}

/// An interactive request in flight. Background scoring yields to it until the guard is dropped.
pub struct InteractiveGuard<'a>(&'a Runs);

impl Drop for InteractiveGuard<'_> {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
        self.0.work.notify_one();
    }
}

impl Runs {
    /// Opens the runs of a store and a spool. Nothing is scored before [`start`](Self::start).
    ///
    /// # Errors
    /// The spool folder cannot be written, or the store is unavailable.
    pub async fn open(
        config: &Config,
        store: Store,
        files: Arc<Spool>,
        scoring: Arc<Scoring>,
        telemetry: RunsTelemetry,
    ) -> Result<Arc<Self>, SpoolOpenError> {
        Self::open_with(config, store, files, scoring, None, telemetry).await
    }

    /// Like [`open`](Self::open). Samples come from the broker, if there is one.
    pub(crate) async fn open_with(
        config: &Config,
        store: Store,
        files: Arc<Spool>,
        scoring: Arc<Scoring>,
        broker: Option<Broker>,
        telemetry: RunsTelemetry,
    ) -> Result<Arc<Self>, SpoolOpenError> {
        let scores = scoring.engine().has_graphs();
        let (spool, pack) = (files.id().to_owned(), scoring.pack().digest.to_string());
        let leader = if files.is_shared() {
            let mut duties = vec![Duty::Summarising];
            if broker.is_some() {
                duties.push(Duty::Announcing);
            }
            if scores {
                duties.push(Duty::Finishing);
            }
            if scores && broker.is_none() {
                duties.push(Duty::Scoring);
            }
            Leader::shared(&duties, (&store.installation().await?, &spool, &pack))
        } else {
            Leader::alone()
        };
        let has_workers = broker.is_some();
        let (work, stopping) = (Arc::new(Notify::new()), watch::Sender::new(false));
        let supervisor = Supervisor::new(telemetry.restarts.clone());
        let of = (spool, pack);
        let dispatch: Box<dyn Dispatch> = if let Some(broker) = broker {
            let (store, work, stopped) = (store.clone(), Arc::clone(&work), stopping.subscribe());
            Box::new(Jetstream::start(broker, store, of, work, &supervisor, &stopped))
        } else {
            let leads = leader.watch(Duty::Scoring);
            let local = Local::open(store.clone(), of, files.root(), leads, Arc::clone(&work));
            Box::new(local.map_err(|error| SpoolOpenError::Io(files.root().to_owned(), error))?)
        };
        let largest_batch = scoring.engine().largest_gpu_batch();
        Ok(Arc::new(Self {
            at_once: config.runs.samples_at_once(largest_batch),
            watchers: Watchers::new(store.clone(), config.runs.watchers),
            store,
            scoring,
            files,
            dispatch,
            has_workers,
            leader,
            traces: SampleTraces::new(),
            supervisor,
            settings: config.runs.clone(),
            keeping: Keeping::of(config),
            deadline: config.server.deadline(),
            telemetry,
            requests: AtomicUsize::new(0),
            // An earlier process may have ended between a deletion and its purge.
            unscrubbed: AtomicBool::new(true),
            work,
            finish: Notify::new(),
            stopping,
        }))
    }

    /// Returns the supervisor of the background tasks.
    #[must_use]
    pub fn supervisor(&self) -> &Arc<Supervisor> {
        &self.supervisor
    }

    /// Returns the spool.
    #[must_use]
    pub fn spool(&self) -> &Arc<Spool> {
        &self.files
    }

    /// Returns the watchers of all runs.
    #[must_use]
    pub fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    /// Returns the maximum number of pending samples per run.
    #[must_use]
    pub fn max_pending(&self) -> u64 {
        self.settings.pending_samples
    }

    /// Returns the maximum number of samples per imported file.
    #[must_use]
    pub fn import_samples(&self) -> usize {
        self.settings.import_samples
    }

    /// Counts an interactive request as in flight until the returned guard is dropped.
    pub fn enter_interactive(&self) -> InteractiveGuard<'_> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        InteractiveGuard(self)
    }

    /// Announces a sample that has become pending to those who score it.
    pub fn announce(&self, sample: Uuid, run: Uuid, pack: PackId) {
        self.dispatch.announce(PendingId { id: sample, run, pack: pack.digest });
    }

    /// Drops announcements of a run that is deleted.
    pub async fn forget_run(&self, run: Uuid) {
        self.dispatch.forget_run(run).await;
    }

    /// Sends announcements and releases files that are left. No sample may be accepted afterwards.
    pub async fn close(&self) {
        self.dispatch.close().await;
        if tokio::time::timeout(CLOSING, self.files.release_last(&self.store)).await.is_err() {
            tracing::warn!("files are not released: a later sweep will do it");
        }
    }

    /// Remembers the current request's trace for a sample that is about to be accepted.
    pub fn remember_trace(&self, sample: Uuid) {
        self.traces.remember(sample);
    }

    /// Notifies the finishing task of a run to finish.
    pub fn notify_finishing(&self) {
        self.finish.notify_one();
    }

    /// Starts a graceful shutdown: samples in flight are finished, no new ones begin, and clients
    /// that watch runs are disconnected.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Returns a receiver that turns `true` when the service stops.
    #[must_use]
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }
}
