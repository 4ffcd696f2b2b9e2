//! Keeps the summaries of runs up to date.

use time::OffsetDateTime;
use uuid::Uuid;

use super::summarise;
use crate::blocking::blocking;
use crate::store::{RunVersion, Store, StoreError};

/// Summarises a run anew for each pack whose scores changed since the last time, and says how many that were: what a run does
/// that becomes finished.
///
/// # Errors
/// The store's. What was summarised before stays.
pub async fn refresh_run(store: &Store, run: Uuid) -> Result<usize, StoreError> {
    let versions = store.stale_runs(Some(run)).await?;
    refresh(store, versions, || true).await
}

/// Summarises all runs that changed since the last time, those that grew by single samples too, one after the other for as
/// long as `go_on` says so.
///
/// # Errors
/// The store's. What was summarised before stays.
pub async fn refresh_stale(store: &Store, go_on: impl Fn() -> bool + Send) -> Result<usize, StoreError> {
    let versions = store.stale_runs(None).await?;
    refresh(store, versions, go_on).await
}

async fn refresh(
    store: &Store,
    versions: Vec<RunVersion>,
    go_on: impl Fn() -> bool + Send,
) -> Result<usize, StoreError> {
    let mut refreshed = 0;
    for version in versions {
        if !go_on() {
            break;
        }
        // A run that was deleted meanwhile has nothing to summarise.
        let Some(data) = store.run_data(version.run, Some(&version.pack)).await? else { continue };
        // Some seconds of arithmetic for a large run, which no request shall wait for.
        let summary = blocking(move || summarise(&data)).await;
        refreshed +=
            usize::from(store.save_run_summary(&version, &summary, OffsetDateTime::now_utc()).await?);
    }
    Ok(refreshed)
}
