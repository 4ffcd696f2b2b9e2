//! What remains of a deletion after its response: evicts what other instances deleted, and purges
//! deleted rows from SQLite's write-ahead log.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use time::OffsetDateTime;

use super::{Runs, pause::wait};
use crate::{clock, content::ContentHash, service};

/// Poll interval: the longest time for which another instance may still cache deleted data.
const POLL_EVERY: Duration = Duration::from_secs(2);

/// How long before the previous poll deletions are read again. Instances whose clocks differ by
/// less than this miss no deletion.
const LOOK_BACK: time::Duration = time::Duration::minutes(2);

/// Retention of deletion records. No attempt takes longer, and one that began before a deletion
/// must not store faces after it.
const KEEP: time::Duration = time::Duration::hours(1);

impl Runs {
    /// Purges deleted rows from the database's write-ahead log, now, or at a later poll if a reader
    /// still uses an earlier state.
    pub async fn scrub(&self) {
        self.unscrubbed.store(false, Ordering::Relaxed);
        let done = self.store.scrub().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "failed to purge deleted rows from the write-ahead log, will \
                retry");
            false
        });
        if !done {
            self.unscrubbed.store(true, Ordering::Relaxed);
        }
    }

    /// Evicts what is cached of images that any instance deleted, and deletes their files from the
    /// trash.
    pub(super) async fn follow_deletions(self: Arc<Self>) {
        let mut stopping = self.stopping();
        let mut seen: HashSet<(ContentHash, OffsetDateTime)> = HashSet::new();
        let mut looked = clock::now();
        while !wait(&mut stopping, POLL_EVERY).await {
            if self.unscrubbed.load(Ordering::Relaxed) {
                self.scrub().await;
            }
            let now = clock::now();
            match self.store.deleted_images(looked.min(now) - LOOK_BACK).await {
                Ok(deleted) => {
                    // Another instance, whose clock may be ahead, deletes the records.
                    if now - looked > KEEP - 2 * LOOK_BACK {
                        tracing::warn!(
                            "deletion records may have expired before they were read, evicting everything \
                                cached of images"
                        );
                        service::forget_all(&self.store, &self.scoring).await;
                    }
                    looked = now;
                    let new: Vec<_> = deleted
                        .iter()
                        .filter(|each| !seen.contains(each))
                        .map(|(image, _)| *image)
                        .collect();
                    if !new.is_empty() {
                        self.files.delete_trashed(&self.store, new.clone()).await;
                        service::forget(&self.store, &self.scoring, new).await;
                    }
                    seen = deleted.into_iter().collect();
                }
                Err(error) => tracing::warn!(%error, "failed to read deletions, will retry"),
            }
            if let Err(error) = self.store.forget_deletions(now - KEEP).await {
                tracing::debug!(%error, "failed to remove old deletion records, will retry");
            }
        }
    }
}
