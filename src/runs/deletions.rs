//! Deletion behind the answer: what other instances deleted is forgotten here too, and what SQLite's log still has is taken out.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use time::OffsetDateTime;

use super::{Runs, background::wait};
use crate::content::ContentHash;

/// How long another instance may remember what was deleted.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Rows are looked at for so long: instances whose clocks differ by less miss none.
const LOOK_BACK: time::Duration = time::Duration::minutes(2);

/// Rows are kept for so long: no scoring takes longer, and none that began before a deletion may write faces after it.
const KEEP: time::Duration = time::Duration::hours(1);

impl Runs {
    /// Takes what was deleted out of the database's log, now or as soon as nobody reads an earlier state.
    pub async fn scrub(&self) {
        self.unscrubbed.store(false, Ordering::Relaxed);
        let done = self.store.scrub().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "what was deleted is still in the database's log; tried again soon");
            false
        });
        if !done {
            self.unscrubbed.store(true, Ordering::Relaxed);
        }
    }

    /// Forgets the images that any instance deleted.
    pub(super) async fn follow_deletions(self: Arc<Self>) {
        let mut stopping = self.stopping();
        let mut seen: HashSet<(ContentHash, OffsetDateTime)> = HashSet::new();
        while !wait(&mut stopping, LOOK_EVERY).await {
            if self.unscrubbed.load(Ordering::Relaxed) {
                self.scrub().await;
            }
            let now = OffsetDateTime::now_utc();
            match self.store.deleted_images(now - LOOK_BACK).await {
                Ok(deleted) => {
                    let new: Vec<_> =
                        deleted.iter().filter(|each| !seen.contains(each)).map(|(image, _)| *image).collect();
                    if !new.is_empty() {
                        self.files.delete_trashed(new.clone()).await;
                        self.scoring.forget(new).await;
                    }
                    seen = deleted.into_iter().collect();
                }
                Err(error) => tracing::warn!(%error, "deletions could not be read; tried again soon"),
            }
            if let Err(error) = self.store.forget_deletions(now - KEEP).await {
                tracing::debug!(%error, "old deletions could not be removed; tried again soon");
            }
        }
    }
}
