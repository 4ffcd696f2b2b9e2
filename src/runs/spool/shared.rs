//! Files in a bucket, which all instances on one database use.
//!
//! Rows name the bucket, not an instance, so every instance can score every sample. But no instance
//! sees which files another one is about to name, so none may delete a file at once. A file that
//! no row names any more is *released*: it gets a row in `released_files` with the time.
//!
//! - **Deleting.** Some time after its release (`QUARANTINE`), a file is deleted if no row names
//!   it, by one instance at a time. Then its row in `released_files` goes.
//! - **Accepting.** Before an instance puts files, it removes their rows in `released_files`. A row
//!   that is too old (`SETTLED`) stays, since its file may be being deleted: the instance waits
//!   until it is gone. Then it puts the files, within a minute, and writes the row that names them.
//!
//! So once an instance has begun to accept a file, the file can only be released anew, and is not
//! deleted before `QUARANTINE` has passed. By then the row that names it is written. The difference
//! of the two times covers clocks that differ and transactions that take long. Files of a crash
//! between put and row are found by listing the bucket.

#[cfg(test)]
mod tests;

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::TryStreamExt as _;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    FILES_AT_ONCE, Files, Spool, SpoolKeepError, SpoolOpenError,
    pace::{Pace, is_due},
};
use crate::{
    blobs::{Blobs as _, Entry, Note, S3},
    clock,
    content::ContentHash,
    store::{Store, StoreError},
};

/// How long an instance waits for the deletion of a file that it is to put again.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Interval of the listing for files that no row names.
const SWEEP_EVERY: Duration = Duration::from_hours(1);

/// Interval of the count of bytes, between which this instance adds its own.
const COUNT_EVERY: Duration = Duration::from_secs(15);

/// How long the result of a probe is used.
const PROBE_EVERY: Duration = Duration::from_secs(1);

impl Spool {
    /// Opens a bucket. The folder has only notes of this instance.
    pub(super) async fn open_shared(
        root: &Path,
        bucket: S3,
        trash: Duration,
        store: &Store,
        pace: Pace,
    ) -> Result<Arc<Self>, SpoolOpenError> {
        let (root, _, lock) = Self::prepare(root).await?;
        let ours = store.installation().await?;
        let note = if let Some(note) = bucket.note().await? {
            note
        } else {
            let new = Note { id: Uuid::now_v7().to_string(), database: ours.clone() };
            bucket.take(&new).await?
        };
        if note.database != ours {
            let (bucket, theirs) = (bucket.name().to_owned(), note.database);
            return Err(SpoolOpenError::BucketOfOther { bucket, theirs, ours });
        }
        tracing::info!(bucket = bucket.name(), id = note.id, "spool in a bucket");
        Ok(Self::new((root, lock), note.id, Files::Shared(bucket), trash, pace))
    }

    /// Returns why the files cannot be used now, if they are in a bucket.
    pub async fn problem(&self) -> Option<String> {
        let Files::Shared(bucket) = &self.files else { return None };
        // However many probes of readiness come, one request is in flight.
        let mut probed = self.pace.probed.lock().await;
        match &*probed {
            Some((at, problem)) if at.elapsed() < PROBE_EVERY => problem.clone(),
            _ => {
                let problem = bucket.probe().await.err().map(|error| error.to_string());
                *probed = Some((Instant::now(), problem.clone()));
                problem
            }
        }
    }

    /// Returns whether the bucket could not be used a moment ago.
    pub(in crate::runs) fn is_troubled(&self) -> bool {
        self.pace.troubled.load(Ordering::Relaxed)
    }

    /// Logs when the bucket cannot be used, and when it can be used again.
    async fn log_problem(&self) {
        let problem = self.problem().await;
        match (self.pace.troubled.swap(problem.is_some(), Ordering::Relaxed), problem) {
            (false, Some(problem)) => {
                tracing::error!(problem, "samples wait until their images can be read again");
            }
            (true, None) => tracing::info!("the object store can be used again"),
            _ => {}
        }
    }

    /// Keeps files that this instance is about to put from being deleted.
    pub(super) async fn reclaim(
        &self,
        store: &Store,
        files: &[ContentHash],
    ) -> Result<(), SpoolKeepError> {
        let started = Instant::now();
        loop {
            let settled = clock::now() - self.pace.settled;
            if store.reclaim_files(&self.id, files, settled).await? {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                return Err(SpoolKeepError::Busy);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Deletes files whose quarantine is over, unless another instance is at it.
    pub(super) async fn delete_quarantined(
        &self,
        bucket: &S3,
        store: &Store,
    ) -> Result<(), StoreError> {
        let before = clock::now() - self.pace.quarantine;
        while !store.quarantined_files(&self.id, before).await?.is_empty() {
            let Some(_turn) = store.deletion_turn(&self.id).await? else { return Ok(()) };
            // Again, since the instance whose turn it was may have deleted them.
            let files = store.quarantined_files(&self.id, before).await?;
            let gone = self.unneeded(store, &files).await?;
            if let Err(error) = bucket.delete(&gone).await {
                tracing::warn!(%error, "failed to delete released files, will retry");
                return Ok(());
            }
            store.forget_released(&self.id, &files).await?;
        }
        Ok(())
    }

    /// Logs a problem, and counts and sweeps if it is time. Returns how many files no row names.
    pub(super) async fn look_after(&self, bucket: &S3, store: &Store) -> Result<usize, StoreError> {
        self.log_problem().await;
        if is_due(&self.pace.counted, COUNT_EVERY) {
            bucket.room().count(store.spooled_bytes(&self.id).await?);
        }
        if is_due(&self.pace.swept, SWEEP_EVERY) {
            return self.sweep_bucket(bucket, store, clock::now() - self.trash).await;
        }
        Ok(0)
    }

    /// Releases files that were put before this time and that no row names: a crash orphaned them,
    /// or the database was restored from an older copy.
    pub(super) async fn sweep_bucket(
        &self,
        bucket: &S3,
        store: &Store,
        before: OffsetDateTime,
    ) -> Result<usize, StoreError> {
        let (mut released, mut some) = (0, Vec::new());
        let mut entries = bucket.list();
        loop {
            let entry = entries.try_next().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "failed to list the bucket, will retry in an hour");
                None
            });
            let is_last = entry.is_none();
            some.extend(entry.filter(|Entry { modified, .. }| *modified < before));
            if some.len() < FILES_AT_ONCE && !is_last {
                continue;
            }
            let files: Vec<_> = some.drain(..).map(|entry| entry.file).collect();
            let gone = self.unneeded(store, &files).await?;
            store.note_released(&self.id, &gone).await?;
            released += gone.len();
            if is_last {
                break;
            }
        }
        if released > 0 {
            tracing::warn!(files = released, "files of the bucket without references are deleted");
        }
        Ok(released)
    }

    /// Releases those of these files that no row names.
    pub(super) async fn release_orphans(&self, store: &Store, files: &[ContentHash]) {
        let released = async {
            let gone = self.unneeded(store, files).await?;
            store.note_released(&self.id, &gone).await
        };
        if let Err(error) = released.await {
            tracing::warn!(%error, "failed to release deleted images: a sweep will find them");
        }
    }
}
