//! The linear probes of datasets, fitted once per revision.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use uuid::Uuid;

use crate::metrics::Probes;

/// Linear probes fitted on the photos of a dataset.
#[derive(Debug, Clone)]
pub struct DatasetProbes {
    /// The dataset's name.
    pub name: String,
    /// Its revision.
    pub revision: u64,
    /// Number of photos with a face, on which the probes were fitted.
    pub faces: usize,
    /// The fitted probes.
    pub probes: Arc<Probes>,
}

/// Fitted probes by dataset, only for the newest revision of each.
#[derive(Debug, Default)]
pub(super) struct ProbeCache(Mutex<Fitted>);

#[derive(Debug, Default)]
pub(super) struct Fitted {
    pub(super) by_dataset: HashMap<Uuid, DatasetProbes>,
    /// Incremented when the cache is cleared, so that a fit in progress at that time is not cached.
    pub(super) cleared: u64,
    /// Lock for fitting each dataset. Only datasets with a fit in progress or pending have a live
    /// one.
    pub(super) turns: HashMap<Uuid, Weak<tokio::sync::Mutex<()>>>,
}

impl ProbeCache {
    pub(super) fn lock(&self) -> MutexGuard<'_, Fitted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn clear(&self) {
        let mut fitted = self.lock();
        fitted.by_dataset.clear();
        fitted.cleared += 1;
    }
}
