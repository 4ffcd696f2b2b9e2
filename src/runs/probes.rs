//! What a dataset teaches, for whoever scores a sample that names one.

use std::sync::Arc;

use crate::{
    scoring::{AttributesError, DatasetProbes, Metadata, Scoring},
    store::{Store, StoreError},
};

/// Why a sample's dataset cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbesError {
    /// No dataset has the name.
    #[error(
        "there is no dataset of the name in metadata.dataset: enrol photos with POST /v1/datasets/{{dataset}}/photos, or leave it out"
    )]
    NoDataset,
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing can be learnt from what is kept.
    #[error(transparent)]
    Attributes(#[from] AttributesError),
}

/// What the dataset of a sample's metadata teaches, fitted if its newest revision was not yet.
///
/// # Errors
/// A dataset that is not there, or faces that cannot be looked up.
///
/// One fit at a time for a dataset, whoever waits for it, and it goes on if nobody does any more: its result is kept.
pub async fn probes(
    store: &Store,
    scoring: &Arc<Scoring>,
    metadata: &Metadata,
) -> Result<Option<DatasetProbes>, ProbesError> {
    let Some(name) = &metadata.dataset else { return Ok(None) };
    let dataset = store.dataset(name).await?.ok_or(ProbesError::NoDataset)?;
    if let Some(probes) = scoring.known_probes(dataset.id, dataset.revision) {
        return Ok(Some(probes));
    }
    let turn = scoring.fitting(dataset.id).lock_owned().await;
    if let Some(probes) = scoring.known_probes(dataset.id, dataset.revision) {
        return Ok(Some(probes));
    }
    let (store, scoring, name) = (store.clone(), Arc::clone(scoring), name.clone());
    let fit = tokio::spawn(async move {
        let _turn = turn;
        let photos = store.photos(dataset.id).await?;
        let photos = photos.into_iter().map(|photo| (photo.image, photo.attributes)).collect();
        Ok(Some(scoring.fit_probes(dataset.id, &name, dataset.revision, photos).await?))
    });
    match fit.await {
        Ok(fitted) => fitted,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
