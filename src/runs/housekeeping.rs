//! Background work besides scoring: files without references, hanging graphs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Runs,
    pause::{AFTER_FAILURE, stopped, wait},
};

/// Interval of the check for files that other instances released.
const RELEASED_EVERY: Duration = Duration::from_secs(2);

/// Interval between two purges of the trash, where files stay for days.
const TRASH_EVERY: Duration = Duration::from_hours(1);

impl Runs {
    /// Deletes unreferenced files: those that this process releases, and those that another
    /// instance released.
    pub(super) async fn delete_unreferenced(self: Arc<Self>) {
        let mut stopping = self.stopping();
        let mut looked = Instant::now();
        loop {
            let files = tokio::select! {
                files = self.files.released() => files,
                () = tokio::time::sleep(RELEASED_EVERY) => Vec::new(),
                () = stopped(&mut stopping) => return,
            };
            let mut done = self.files.delete_unreferenced(&self.store, &files).await;
            // Also while this process releases files all the time.
            let looks = files.is_empty() || looked.elapsed() > RELEASED_EVERY;
            if done.is_ok() && looks {
                looked = Instant::now();
                done = self.files.delete_released(&self.store).await;
            }
            if done.is_ok() && looks {
                // A backup may have kept the start from it.
                done = self.files.sweep(&self.store).await.map(drop);
            }
            if let Err(error) = done {
                tracing::warn!(%error, "failed to delete unreferenced files, will retry");
                if wait(&mut stopping, AFTER_FAILURE).await {
                    return;
                }
            }
        }
    }

    pub(super) async fn empty_trash(self: Arc<Self>) {
        let mut stopping = self.stopping();
        while !wait(&mut stopping, TRASH_EVERY).await {
            if let Err(error) = self.files.empty_trash().await {
                tracing::warn!(%error, "failed to purge expired files from the trash, will retry \
                    in an hour");
            }
        }
    }

    /// Detects graphs whose current batch takes longer than the deadline of a request.
    pub(super) async fn notice_hanging_graphs(self: Arc<Self>) {
        let mut stopping = self.stopping();
        tokio::select! {
            () = self.scoring.engine().watch_hanging(self.deadline) => {}
            () = stopped(&mut stopping) => {}
        }
    }
}
