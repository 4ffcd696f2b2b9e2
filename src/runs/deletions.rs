//! Deletion after the response: evicts what other instances deleted, and purges deleted rows from
//! SQLite's write-ahead log.

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

/// Deletions are read from this long before the last look. Instances whose clocks differ by less
/// than this miss none.
const LOOK_BACK: time::Duration = time::Duration::minutes(2);

/// Retention of deletion records. No scoring takes longer, and a scoring that began before a
/// deletion must not store faces after it.
const KEEP: time::Duration = time::Duration::hours(1);

impl Runs {
    /// Purges deleted rows from the database's write-ahead log, now or as soon as no reader uses an
    /// earlier state.
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

    /// Evicts the images that any instance deleted.
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
                    if now - looked > KEEP - LOOK_BACK {
                        tracing::warn!(
                            "records of deletions may have expired unread, so all \
                            cached data of images is evicted"
                        );
                        service::forget_all(&self.store, &self.scoring);
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
