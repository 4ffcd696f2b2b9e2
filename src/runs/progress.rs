//! Who watches a run: however many they are, one of them reads its row.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use uuid::Uuid;

use crate::store::{RunCounts, RunRecord, RunState, Store};

/// How often a watched run's row is read: often enough for a progress bar. It is one indexed row, and also right where
/// another process scores.
const EVERY: Duration = Duration::from_millis(300);

/// Where a run stands at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its state.
    pub state: RunState,
    /// Its samples.
    pub counts: RunCounts,
}

impl From<&RunRecord> for Snapshot {
    fn from(run: &RunRecord) -> Self {
        Self { state: run.state, counts: run.counts }
    }
}

/// Everybody who watches a run.
#[derive(Clone)]
pub struct Watchers {
    store: Store,
    runs: Arc<Mutex<HashMap<Uuid, watch::Receiver<Option<Snapshot>>>>>,
    places: Arc<Semaphore>,
}

/// One who watches a run. It ends with `None` when the run is finished or gone, or its row cannot be read.
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
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a run from where it stands, or says that as many watch as may.
    #[must_use]
    pub fn watch(&self, run: &RunRecord) -> Option<Progress> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let mut runs = self.runs();
        let receiver = match runs.get(&run.id) {
            // Its reader has not ended.
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

    /// Reads a run's row as long as it is watched and not finished.
    async fn read(self, run: Uuid, sender: watch::Sender<Option<Snapshot>>) {
        let mut times = tokio::time::interval(EVERY);
        loop {
            times.tick().await;
            let now = match self.store.run(run).await {
                Ok(found) => found.as_ref().map(Snapshot::from),
                Err(error) => {
                    tracing::warn!(%error, %run, "a watched run could not be read");
                    None
                }
            };
            sender.send_if_modified(|have| std::mem::replace(have, now) != now);
            let over = now.is_none_or(|now| now.state == RunState::Finished);
            let mut runs = self.runs();
            // The map's own receiver is one of them.
            if over || sender.receiver_count() <= 1 {
                runs.remove(&run);
                return;
            }
        }
    }
}

impl Progress {
    /// The next change, the first time where the run stands; `None` when there will be none.
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
