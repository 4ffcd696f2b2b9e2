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
    refresh(store, Some(run)).await
}

/// Summarises one version of a run, and says whether that is what the run is still.
///
/// # Errors
/// The store's.
pub async fn refresh_version(store: &Store, version: &RunVersion) -> Result<bool, StoreError> {
    // A run that was deleted meanwhile has nothing to summarise.
    let Some(data) = store.run_data(version.run, Some(&version.pack)).await? else { return Ok(false) };
    // Some seconds of arithmetic for a large run, which no request shall wait for.
    let summary = blocking(move || summarise(&data)).await;
    store.save_run_summary(version, &summary, OffsetDateTime::now_utc()).await
}

/// Summarises all runs that changed since the last time, one after the other.
///
/// # Errors
/// The store's. What was summarised before stays.
pub async fn refresh_stale(store: &Store) -> Result<usize, StoreError> {
    refresh(store, None).await
}

async fn refresh(store: &Store, run: Option<Uuid>) -> Result<usize, StoreError> {
    let mut refreshed = 0;
    for version in store.stale_runs(run).await? {
        refreshed += usize::from(refresh_version(store, &version).await?);
    }
    Ok(refreshed)
}
