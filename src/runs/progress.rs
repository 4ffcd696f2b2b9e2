//! Progress of watched runs: one task reads a run's row for all its watchers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use uuid::Uuid;

use crate::store::{RunCounts, RunRecord, RunState, Store};
use crate::sync::lock;

/// Interval between two reads of a watched run's row, short enough for a progress bar. It is one
/// indexed row, and it is correct even if another process scores the run.
const EVERY: Duration = Duration::from_millis(300);

/// State and counts of a run at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// State of the run.
    pub state: RunState,
    /// Number of its samples by state.
    pub counts: RunCounts,
}

impl From<&RunRecord> for Snapshot {
    fn from(run: &RunRecord) -> Self {
        Self { state: run.state, counts: run.counts }
    }
}

/// All watchers of runs.
#[derive(Clone)]
pub struct Watchers {
    store: Store,
    runs: Arc<Mutex<HashMap<Uuid, watch::Receiver<Option<Snapshot>>>>>,
    places: Arc<Semaphore>,
}

/// One watcher of a run. It ends with `None` when the run is finished or deleted, or when its row
/// cannot be read.
pub struct Progress {
    run: watch::Receiver<Option<Snapshot>>,
    seen: Option<Snapshot>,
    _place: OwnedSemaphorePermit,
}

impl Watchers {
    pub(super) fn new(store: Store, most: usize) -> Self {
        Self { store, runs: Arc::default(), places: Arc::new(Semaphore::new(most)) }
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<Uuid, watch::Receiver<Option<Snapshot>>>> {
        lock(&self.runs)
    }

    /// Watches a run from its current state on, or returns `None` at the limit of watchers.
    #[must_use]
    pub fn watch(&self, run: &RunRecord) -> Option<Progress> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let mut runs = self.runs();
        let receiver = match runs.get(&run.id) {
            // Its reader is still running.
            Some(receiver) if receiver.has_changed().is_ok() => receiver.clone(),
            _ => {
                let (sender, receiver) = watch::channel(Some(Snapshot::from(run)));
                runs.insert(run.id, receiver.clone());
                tokio::spawn(self.clone().read(run.id, sender));
                receiver
            }
        };
        Some(Progress { run: receiver, seen: None, _place: place })
    }

    /// Polls a run's row while the run is watched and not finished.
    async fn read(self, run: Uuid, sender: watch::Sender<Option<Snapshot>>) {
        let mut times = tokio::time::interval(EVERY);
        loop {
            times.tick().await;
            let now = match self.store.run(run).await {
                Ok(found) => found.as_ref().map(Snapshot::from),
                Err(error) => {
                    tracing::warn!(%error, %run, "failed to read a watched run");
                    None
                }
            };
            sender.send_if_modified(|seen| std::mem::replace(seen, now) != now);
            let over = now.is_none_or(|now| now.state == RunState::Finished);
            let mut runs = self.runs();
            // The map holds one of these receivers itself.
            if over || sender.receiver_count() <= 1 {
                runs.remove(&run);
                return;
            }
        }
    }
}

impl Progress {
    /// Returns the next change, or the current state on the first call; `None` when there are no
    /// more changes.
    pub async fn next(&mut self) -> Option<Snapshot> {
        loop {
            if self.seen.is_some_and(|seen| seen.state == RunState::Finished) {
                return None;
            }
            let now = *self.run.borrow_and_update();
            if now != self.seen {
                self.seen = now;
                return now;
            }
            self.run.changed().await.ok()?;
        }
    }
}
