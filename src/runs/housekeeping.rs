//! Background work besides scoring: files without references, hanging graphs, gauges, free memory.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Runs,
    pause::{AFTER_FAILURE, stopped, wait},
};
use crate::{blocking::blocking, vision};

/// Interval of the check for hanging graphs.
const GRAPHS_EVERY: Duration = Duration::from_millis(500);

/// Interval of the check for files that other instances released.
const RELEASED_EVERY: Duration = Duration::from_secs(2);

/// Interval between two purges of the trash, where files stay for days.
const TRASH_EVERY: Duration = Duration::from_hours(1);

/// Interval at which free memory is returned to the operating system, which takes milliseconds.
const TRIM_EVERY: Duration = Duration::from_mins(1);

/// Interval between two updates of the gauges.
const GAUGES_EVERY: Duration = Duration::from_secs(2);

impl Runs {
    /// Deletes unreferenced files: those that this process releases, and those that another
    /// instance released.
    pub(super) async fn delete_unreferenced(self: Arc<Self>) {
        let mut stopping = self.stopping();
        loop {
            let files = tokio::select! {
                files = self.files.released() => files,
                () = tokio::time::sleep(RELEASED_EVERY) => Vec::new(),
                () = stopped(&mut stopping) => return,
            };
            let mut done = self.files.delete_unreferenced(&self.store, &files).await;
            if done.is_ok() && files.is_empty() {
                done = self.files.delete_released(&self.store).await;
            }
            if let Err(error) = done {
                tracing::warn!(%error, "failed to delete unreferenced files, will retry");
                self.files.release(files);
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
        while !wait(&mut stopping, GRAPHS_EVERY).await {
            self.scoring.engine().notice_hanging(self.deadline);
        }
    }

    /// Updates the gauges, and returns free memory to the operating system.
    pub(super) async fn report_gauges(self: Arc<Self>) {
        let mut stopping = self.stopping();
        let mut trimmed = Instant::now();
        vision::give_back_free_memory();
        while !wait(&mut stopping, GAUGES_EVERY).await {
            if trimmed.elapsed() > TRIM_EVERY {
                trimmed = Instant::now();
                blocking(vision::give_back_free_memory).await;
            }
            self.telemetry.spool_bytes.set(&[], self.files.used() as i64);
            self.telemetry.pixel_bytes.set(self.scoring.pixel_bytes() as i64);
            match self.store.backlog().await {
                Ok(counts) => self.telemetry.backlog(counts.waiting, counts.failed, counts.scored),
                Err(error) => tracing::debug!(%error, "failed to read the backlog"),
            }
        }
    }
}
