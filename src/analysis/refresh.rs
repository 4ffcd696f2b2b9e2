//! Updates of the summaries of runs.

use uuid::Uuid;

use super::summarise;
use crate::blocking::blocking;
use crate::clock;
use crate::store::{RunVersion, Store, StoreError};

/// Updates a run's summaries for each pack whose scores changed since the last update, and returns
/// their number. Called when a run is finished.
///
/// # Errors
/// Errors of the store. Earlier summaries are retained.
pub async fn refresh_run(store: &Store, run: Uuid) -> Result<usize, StoreError> {
    refresh(store, Some(run)).await
}

/// Summarises one version of a run, and returns whether that version is still current.
///
/// # Errors
/// Errors of the store.
pub async fn refresh_version(store: &Store, version: &RunVersion) -> Result<bool, StoreError> {
    // The run may have been deleted in the meantime.
    let Some(data) = store.run_data(version.run, Some(&version.pack)).await? else {
        return Ok(false);
    };
    let outcomes = store.outcomes(version.run, &version.pack, &data.names).await?;
    // This takes seconds for a large run and must not block requests.
    let summary = blocking(move || summarise(&data, &outcomes)).await;
    store.save_run_summary(version, &summary, clock::now()).await
}

/// Updates the summaries of all runs that changed since the last update, one after the other.
///
/// # Errors
/// Errors of the store. Earlier summaries are retained.
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
