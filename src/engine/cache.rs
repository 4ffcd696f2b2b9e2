//! The feature cache: features by content, with one computation for all concurrent requests of a key.
//!
//! A key is the graph (weights and preprocessing) and its input, so a hit can never belong to another input. A
//! computation in flight is shared by everyone who waits for it. A request that is dropped does not disturb the
//! others. When the last one is dropped, the computation is dropped too, and its item leaves the graph's queue. A
//! batch that has started by then runs to its end and its features are stored, so a retry is a hit. Errors go to
//! those who wait and are never stored.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use moka::notification::RemovalCause;

use super::engine::{Feature, Origin, Timing};
use super::error::EngineError;
use super::lane::OnComplete;
use super::telemetry::{EngineTelemetry, LaneTelemetry};
use crate::content::ContentHash;
use crate::tensor::Features;

#[cfg(test)]
mod tests;

/// What a feature is a function of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FeatureKey {
    /// The graph with everything that is done to an input before it.
    pub(crate) graph: ContentHash,
    /// The input as it came.
    pub(crate) input: ContentHash,
    /// What it came with, of a graph that takes two inputs.
    pub(crate) with: Option<ContentHash>,
}

/// What a computation gives.
#[derive(Debug, Clone)]
pub(crate) struct Computed {
    pub(crate) features: Arc<Features>,
    pub(crate) timing: Timing,
}

type Computation = Result<Computed, EngineError>;
type Entries = moka::sync::Cache<FeatureKey, Arc<Features>>;
type SharedComputation = Shared<BoxFuture<'static, Computation>>;

/// The stored features and the computations in flight. Clones share one cache.
#[derive(Clone)]
pub(crate) struct FeatureCache(Arc<Inner>);

struct Inner {
    entries: Option<Entries>,
    in_flight: Mutex<InFlight>,
    telemetry: EngineTelemetry,
}

#[derive(Default)]
struct InFlight {
    by_key: HashMap<FeatureKey, (u64, WeakShared<BoxFuture<'static, Computation>>)>,
    started: u64,
}

impl FeatureCache {
    /// A cache of at most `bytes`; 0 stores nothing but still shares computations.
    pub(crate) fn new(bytes: u64, telemetry: EngineTelemetry) -> Self {
        let evictions = telemetry.evictions.clone();
        let entries = (bytes > 0).then(|| {
            moka::sync::Cache::builder()
                .max_capacity(bytes)
                .weigher(|_, features: &Arc<Features>| u32::try_from(weight(features)).unwrap_or(u32::MAX))
                .eviction_listener(move |_, _, cause| {
                    if cause == RemovalCause::Size {
                        evictions.inc();
                    }
                })
                .build()
        });
        Self(Arc::new(Inner { entries, in_flight: Mutex::default(), telemetry }))
    }

    /// The features of `key`: stored, from a computation in flight, or from `compute`, which is called only if there
    /// is neither. `compute` passes its features to the [`OnComplete`] that it is given.
    pub(crate) async fn get<C, F>(
        &self,
        key: FeatureKey,
        lane: &LaneTelemetry,
        compute: C,
    ) -> Result<Feature, EngineError>
    where
        C: FnOnce(OnComplete) -> F,
        F: Future<Output = Computation> + Send + 'static,
    {
        let (computation, origin) = match self.0.stored(&key) {
            Some(features) => return Ok(hit(features, lane)),
            None => match self.join(key, lane, compute) {
                Joined::Stored(features) => return Ok(hit(features, lane)),
                Joined::InFlight(computation, origin) => (computation, origin),
            },
        };
        let Computed { features, timing } = computation.await?;
        Ok(Feature { features, origin, timing })
    }

    fn join<C, F>(&self, key: FeatureKey, lane: &LaneTelemetry, compute: C) -> Joined
    where
        C: FnOnce(OnComplete) -> F,
        F: Future<Output = Computation> + Send + 'static,
    {
        let mut in_flight = self.0.in_flight();
        if let Some(computation) =
            in_flight.by_key.get(&key).and_then(|(_, computation)| computation.upgrade())
        {
            lane.shared.inc();
            return Joined::InFlight(computation, Origin::Shared);
        }
        // Features are stored before their key leaves the map, both under this lock: check again.
        if let Some(features) = self.0.stored(&key) {
            return Joined::Stored(features);
        }
        lane.misses.inc();
        in_flight.started += 1;
        let guard = Arc::new(CompletionGuard { cache: Arc::clone(&self.0), key, number: in_flight.started });
        let work = compute(Box::new({
            let guard = Arc::clone(&guard);
            move |features| guard.store(features)
        }));
        let computation = async move {
            let _guard = guard;
            work.await
        }
        .boxed()
        .shared();
        if let Some(weak) = computation.downgrade() {
            let number = in_flight.started;
            in_flight.by_key.insert(key, (number, weak));
        }
        Joined::InFlight(computation, Origin::Computed)
    }

    /// The stored features of `key`, without computing them.
    pub(crate) fn peek(&self, key: &FeatureKey) -> Option<Arc<Features>> {
        self.0.stored(key)
    }

    /// Removes every feature of these inputs, also those in flight. Returns how many entries were removed.
    ///
    /// One pass over the entries for any number of inputs; readers are not blocked meanwhile.
    pub(crate) fn forget(&self, inputs: &HashSet<ContentHash>) -> u64 {
        self.forget_where(|input| inputs.contains(input))
    }

    fn forget_where(&self, is_gone: impl Fn(&ContentHash) -> bool) -> u64 {
        // A computation that ends after this finds its key gone and stores nothing.
        self.0.in_flight().by_key.retain(|key, _| !is_gone(&key.input));
        let Some(entries) = &self.0.entries else { return 0 };
        // Every key is checked: deletion is rare, and the keys of joint features are not known by their image.
        let keys: Vec<_> = entries.iter().map(|(key, _)| *key).filter(|key| is_gone(&key.input)).collect();
        for key in &keys {
            entries.invalidate(key);
        }
        self.0.note_size(entries);
        keys.len() as u64
    }

    /// Bytes and number of the stored features.
    pub(crate) fn size(&self) -> (u64, u64) {
        self.0.entries.as_ref().map_or((0, 0), |entries| {
            entries.run_pending_tasks();
            (entries.weighted_size(), entries.entry_count())
        })
    }
}

#[cfg(test)]
impl FeatureCache {
    pub(crate) fn count_in_flight(&self) -> usize {
        self.0.in_flight().by_key.len()
    }
}

enum Joined {
    Stored(Arc<Features>),
    InFlight(SharedComputation, Origin),
}

impl Inner {
    fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stored(&self, key: &FeatureKey) -> Option<Arc<Features>> {
        self.entries.as_ref()?.get(key)
    }

    /// Updates the gauges. Making the size exact takes microseconds; a feature takes milliseconds.
    fn note_size(&self, entries: &Entries) {
        entries.run_pending_tasks();
        self.telemetry.cache_bytes.set(entries.weighted_size() as i64);
        self.telemetry.cache_entries.set(entries.entry_count() as i64);
    }
}

/// Stores the features of a computation, and removes its key when the computation ends or is dropped.
struct CompletionGuard {
    cache: Arc<Inner>,
    key: FeatureKey,
    number: u64,
}

impl CompletionGuard {
    fn store(&self, features: &Arc<Features>) {
        let Some(entries) = &self.cache.entries else { return };
        let in_flight = self.cache.in_flight();
        // The key is gone: the input was forgotten meanwhile, and stays forgotten.
        if in_flight.by_key.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            entries.insert(self.key, Arc::clone(features));
            self.cache.note_size(entries);
        }
    }
}

impl Drop for CompletionGuard {
    fn drop(&mut self) {
        let mut in_flight = self.cache.in_flight();
        if in_flight.by_key.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            in_flight.by_key.remove(&self.key);
        }
    }
}

fn hit(features: Arc<Features>, lane: &LaneTelemetry) -> Feature {
    lane.hits.inc();
    Feature { features, origin: Origin::Cached, timing: Timing::default() }
}

/// Memory of one entry: the features, the key twice (table and eviction order) and moka's own nodes.
fn weight(features: &Features) -> usize {
    features.bytes() + 2 * size_of::<FeatureKey>() + 128
}
