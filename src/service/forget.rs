//! Eviction of deleted data.

use std::sync::Arc;

use crate::{content::ContentHash, scoring::Scoring, store::Store};

/// Evicts everything in this process that is derived from deleted data, and returns the number of
/// features of these images that were cached.
pub async fn forget(store: &Store, scoring: &Arc<Scoring>, images: Vec<ContentHash>) -> u64 {
    // Features first, from which a response could be computed again.
    let features = scoring.forget(images).await;
    store.caches().clear();
    features
}

/// Evicts everything in this process that is derived from images, whose features are then computed
/// again.
pub async fn forget_all(store: &Store, scoring: &Arc<Scoring>) {
    scoring.forget_all().await;
    store.caches().clear();
}
