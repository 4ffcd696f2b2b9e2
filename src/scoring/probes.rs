//! The linear probes of datasets, fitted once per revision.

use std::sync::Arc;

use uuid::Uuid;

use crate::{
    cache::{Cache, Caches},
    metrics::Probes,
};

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

/// Capacity of the cache in bytes: some 2,000 datasets.
const PROBE_BYTES: u64 = 64 << 20;

/// Fitted probes by dataset and revision.
pub(super) type ProbeCache = Cache<(Uuid, u64), DatasetProbes>;

pub(super) fn probe_cache(caches: &Caches) -> Arc<ProbeCache> {
    caches.add("probes", PROBE_BYTES, None, |_, of: &DatasetProbes| of.probes.bytes())
}
