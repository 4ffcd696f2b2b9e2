//! Pauses of background tasks, which end when the service stops.

use std::time::Duration;

use tokio::sync::watch;

pub(super) use crate::supervisor::stopped;

/// Pause after the first failure of an attempt, of the store or of the spool.
pub(super) const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Longest pause between two polls of the store. It bounds the delay of samples that another
/// process accepted.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Waits for this time, and returns whether the service is stopping.
pub(super) async fn wait(stopping: &mut watch::Receiver<bool>, time: Duration) -> bool {
    tokio::time::timeout(time, stopped(stopping)).await.is_ok()
}
