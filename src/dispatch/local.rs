//! Dispatch from the database, for the one instance that scores a spool: its owner if it is a
//! folder, the leader if it is a bucket.

use std::{
    collections::HashSet,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::{
    interface::{Dispatch, Outcome, Taken},
    note::Note,
};
use crate::clock;
use crate::store::{PendingId, PendingRecord, Store, StoreError};
use crate::sync::lock;

/// Number of pending rows to prefetch, so that one query serves many samples.
const AHEAD: u32 = 64;

/// Longest pause between two polls of the store. It bounds the delay of samples that another
/// instance accepted.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Shortest pause.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// Dispatch that reads due samples from the database.
pub(crate) struct Local {
    store: Store,
    /// Id of the spool.
    spool: String,
    /// Digest of the loaded pack.
    pack: String,
    note: Note,
    taken: Mutex<HashSet<Uuid>>,
    /// Whether this instance is the one that scores.
    leads: watch::Receiver<bool>,
    work: Arc<Notify>,
}

impl Local {
    /// Opens the note of samples in flight in `folder`. `work` is notified when there may be more
    /// to take.
    pub(crate) fn open(
        store: Store,
        (spool, pack): (String, String),
        folder: &Path,
        leads: watch::Receiver<bool>,
        work: Arc<Notify>,
    ) -> io::Result<Self> {
        let note = Note::open(folder)?;
        Ok(Self { store, spool, pack, note, taken: Mutex::default(), leads, work })
    }

    fn taken(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        lock(&self.taken)
    }
}

#[async_trait]
impl Dispatch for Local {
    fn announce(&self, _: PendingId) {
        self.work.notify_one();
    }

    async fn take(&self, _room: usize) -> Result<Vec<Taken>, StoreError> {
        if !*self.leads.borrow() {
            return Ok(Vec::new());
        }
        // Before the query: a sample that ends during it may still be among the rows found.
        let before = self.taken().clone();
        let limit = AHEAD + before.len() as u32;
        let now = clock::now();
        let found = self.store.due_samples(&self.spool, &self.pack, now, limit).await?;
        let mut taken = self.taken();
        let mut is_new = |id| !before.contains(&id) && taken.insert(id);
        let new = found.into_iter().filter(|sample| is_new(sample.id));
        let of = |sample: PendingRecord| Taken { suspect: self.note.suspected(sample.id), sample };
        Ok(new.map(of).collect())
    }

    async fn pause(&self) -> Duration {
        if !*self.leads.borrow() {
            return LONGEST_PAUSE;
        }
        let now = clock::now();
        let due = self.store.next_due(&self.spool, &self.pack, now).await.ok().flatten();
        let wait = due.and_then(|due| Duration::try_from(due - now).ok());
        wait.unwrap_or(LONGEST_PAUSE).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
    }

    fn begin(&self, sample: Uuid) {
        self.note.begin(sample);
    }

    async fn end(&self, sample: Uuid, outcome: Outcome) {
        match outcome {
            Outcome::Left => self.note.leave(sample),
            Outcome::Settled | Outcome::Postponed(_) => self.note.end(sample),
        }
        self.taken().remove(&sample);
    }

    async fn leave(&self) {
        self.taken().clear();
    }
}
