//! Features by content: computed once, shared by all who ask meanwhile, kept while memory allows.
//!
//! A key is what the graph is (weights and preprocessing) and what was put in, so an answer can never be
//! another input's. A computation under way belongs to all who wait for it: one that leaves does not
//! disturb the others, and when the last one leaves it is dropped, which takes its entry out of the
//! graph's queue. What the graph has begun by then is still kept: whoever had no patience may ask again.
//! Errors are told to those who wait and are not kept.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use moka::notification::RemovalCause;

use super::engine::{Feature, Origin, Timing};
use super::error::EngineError;
use super::lane::Keep;
use super::telemetry::{EngineTelemetry, LaneTelemetry};
use crate::content::ContentHash;
use crate::tensor::Features;

#[cfg(test)]
mod tests;

/// What a feature is a function of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
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

type Outcome = Result<Computed, EngineError>;
type Kept = moka::sync::Cache<Key, Arc<Features>>;
type Flight = Shared<BoxFuture<'static, Outcome>>;

/// The features in memory and the computations under way; clones are the same cache.
#[derive(Clone)]
pub(crate) struct FeatureCache(Arc<Inner>);

struct Inner {
    kept: Option<Kept>,
    flights: Mutex<Flights>,
    telemetry: EngineTelemetry,
}

#[derive(Default)]
struct Flights {
    by_key: HashMap<Key, (u64, WeakShared<BoxFuture<'static, Outcome>>)>,
    started: u64,
}

impl FeatureCache {
    /// A cache of at most `bytes`; 0 keeps nothing but still shares computations.
    pub(crate) fn new(bytes: u64, telemetry: EngineTelemetry) -> Self {
        let evictions = telemetry.evictions.clone();
        let kept = (bytes > 0).then(|| {
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
        Self(Arc::new(Inner { kept, flights: Mutex::default(), telemetry }))
    }

    /// The features under `key`: from memory, from a computation under way, or from `compute`, which is
    /// called only if there is neither. It tells the features to the [`Keep`] that it is given.
    pub(crate) async fn get<C, F>(
        &self,
        key: Key,
        lane: &LaneTelemetry,
        compute: C,
    ) -> Result<Feature, EngineError>
    where
        C: FnOnce(Keep) -> F,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let (flight, origin) = match self.0.kept(&key) {
            Some(features) => return Ok(hit(features, lane)),
            None => match self.board(key, lane, compute) {
                Boarded::Kept(features) => return Ok(hit(features, lane)),
                Boarded::Flight(flight, origin) => (flight, origin),
            },
        };
        let Computed { features, timing } = flight.await?;
        Ok(Feature { features, origin, timing })
    }

    fn board<C, F>(&self, key: Key, lane: &LaneTelemetry, compute: C) -> Boarded
    where
        C: FnOnce(Keep) -> F,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut flights = self.0.flights();
        if let Some(flight) = flights.by_key.get(&key).and_then(|(_, flight)| flight.upgrade()) {
            lane.shared.inc();
            return Boarded::Flight(flight, Origin::Shared);
        }
        // A flight lands in memory before it leaves the list, both under this lock: look once more.
        if let Some(features) = self.0.kept(&key) {
            return Boarded::Kept(features);
        }
        lane.misses.inc();
        flights.started += 1;
        let landing = Arc::new(Landing { cache: Arc::clone(&self.0), key, number: flights.started });
        let work = compute(Box::new({
            let landing = Arc::clone(&landing);
            move |features| landing.keep(features)
        }));
        let flight = async move {
            let _landing = landing;
            work.await
        }
        .boxed()
        .shared();
        if let Some(weak) = flight.downgrade() {
            let number = flights.started;
            flights.by_key.insert(key, (number, weak));
        }
        Boarded::Flight(flight, Origin::Computed)
    }

    /// The features under `key` where they are in memory.
    pub(crate) fn known(&self, key: &Key) -> Option<Arc<Features>> {
        self.0.kept(key)
    }

    /// Forgets every feature of these inputs, also those that are being computed now, and says how many were kept.
    ///
    /// One pass over the memory however many inputs there are, in which nobody waits for it.
    pub(crate) fn forget(&self, inputs: &HashSet<ContentHash>) -> u64 {
        self.forget_where(|input| inputs.contains(input))
    }

    fn forget_where(&self, is_gone: impl Fn(&ContentHash) -> bool) -> u64 {
        // What lands after this finds its flight gone and is not kept.
        self.0.flights().by_key.retain(|key, _| !is_gone(&key.input));
        let Some(kept) = &self.0.kept else { return 0 };
        // A look at every key: deletion is rare, and the keys of joint features are not known by their picture.
        let keys: Vec<_> = kept.iter().map(|(key, _)| *key).filter(|key| is_gone(&key.input)).collect();
        for key in &keys {
            kept.invalidate(key);
        }
        self.0.note_size(kept);
        keys.len() as u64
    }

    /// Memory of the kept features in bytes, and how many there are.
    pub(crate) fn size(&self) -> (u64, u64) {
        self.0.kept.as_ref().map_or((0, 0), |kept| {
            kept.run_pending_tasks();
            (kept.weighted_size(), kept.entry_count())
        })
    }
}

#[cfg(test)]
impl FeatureCache {
    pub(crate) fn under_way(&self) -> usize {
        self.0.flights().by_key.len()
    }
}

enum Boarded {
    Kept(Arc<Features>),
    Flight(Flight, Origin),
}

impl Inner {
    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self, key: &Key) -> Option<Arc<Features>> {
        self.kept.as_ref()?.get(key)
    }

    /// Writes the size down. The bookkeeping that makes it exact is microseconds, a feature milliseconds.
    fn note_size(&self, kept: &Kept) {
        kept.run_pending_tasks();
        self.telemetry.cache_bytes.set(kept.weighted_size() as i64);
        self.telemetry.cache_entries.set(kept.entry_count() as i64);
    }
}

/// Keeps what a flight brings, and takes it off the list when its computation has ended or was dropped.
struct Landing {
    cache: Arc<Inner>,
    key: Key,
    number: u64,
}

impl Landing {
    fn keep(&self, features: &Arc<Features>) {
        let Some(kept) = &self.cache.kept else { return };
        let flights = self.cache.flights();
        // Gone from the list: the input was forgotten meanwhile, and stays so.
        if flights.by_key.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            kept.insert(self.key, Arc::clone(features));
            self.cache.note_size(kept);
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = self.cache.flights();
        if flights.by_key.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            flights.by_key.remove(&self.key);
        }
    }
}

fn hit(features: Arc<Features>, lane: &LaneTelemetry) -> Feature {
    lane.hits.inc();
    Feature { features, origin: Origin::Cached, timing: Timing::default() }
}

/// Memory of one entry: the features, the key twice (table and eviction order) and moka's own nodes.
fn weight(features: &Features) -> usize {
    features.bytes() + 2 * size_of::<Key>() + 128
}
