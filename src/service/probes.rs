//! Linear probes of the dataset that a sample names.

use std::sync::Arc;

use crate::{
    scoring::{AttributesError, DatasetProbes, Metadata, Scoring},
    store::{Store, StoreError},
};

/// Reason why a sample's dataset cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbesError {
    /// No dataset has this name.
    #[error(
        "the dataset named in metadata.dataset does not exist: enrol photos with POST \
            /v1/datasets/{{dataset}}/photos, or omit metadata.dataset"
    )]
    NoDataset,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No probes can be fitted on the stored faces.
    #[error(transparent)]
    Attributes(#[from] AttributesError),
}

/// Returns the linear probes of the dataset in a sample's metadata, and fits them if its newest
/// revision has none yet.
///
/// # Errors
/// Fails if the dataset does not exist, or if its faces cannot be looked up.
///
/// A fit continues even if all requests for it are cancelled, because its result is cached.
pub async fn probes(
    store: &Store,
    scoring: &Arc<Scoring>,
    metadata: &Metadata,
) -> Result<Option<Arc<DatasetProbes>>, ProbesError> {
    let Some(name) = metadata.dataset.clone() else { return Ok(None) };
    let dataset = store.dataset(&name).await?.ok_or(ProbesError::NoDataset)?;
    if let Some(probes) = scoring.known_probes(dataset.id, dataset.revision) {
        return Ok(Some(probes));
    }
    let (store, scoring) = (store.clone(), Arc::clone(scoring));
    let fit = tokio::spawn(async move {
        let photos = async {
            let photos = store.photos(dataset.id).await?;
            Ok(photos.into_iter().map(|photo| (photo.image, photo.attributes)).collect())
        };
        let fitted = scoring.fit_probes(dataset.id, name, dataset.revision, photos);
        Box::pin(fitted).await.map(Some)
    });
    match fit.await {
        Ok(fitted) => fitted,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
