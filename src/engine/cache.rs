//! The feature cache: features by content hash, with single flight for concurrent requests of a
//! key.
//!
//! A key consists of the graph (weights and preprocessing) and its input, so a hit can never belong
//! to another input. All concurrent requests share an in-flight computation, and dropping one
//! request does not affect the others. If the last one is dropped, the computation is dropped too,
//! and its item leaves the graph's queue. If its batch has started by then, it is finished and its
//! features are stored, so that a retry is a hit. Errors are returned to all pending requests and
//! are never stored.

#![expect(clippy::disallowed_types, reason = "evicts by input, see `FeatureCache::forget`")]

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use moka::notification::RemovalCause;
use tracing::{Instrument as _, Span};

use super::error::EngineError;
use super::feature::{Feature, Origin, Timing};
use super::lane::OnComplete;
use super::telemetry::{EngineTelemetry, LaneTelemetry};
use crate::content::ContentHash;
use crate::sync::lock;
use crate::tensor::Features;
use crate::trace::{self, SpanContext, span};

#[cfg(test)]
mod tests;

/// The key of a feature: everything that it depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FeatureKey {
    /// Hash of the graph and its preprocessing.
    pub(crate) graph: ContentHash,
    /// Content hash of the input before preprocessing.
    pub(crate) input: ContentHash,
    /// Content hash of the second input, for graphs with two.
    pub(crate) with: Option<ContentHash>,
}

/// The result of a computation.
#[derive(Debug, Clone)]
pub(crate) struct Computed {
    pub(crate) features: Arc<Features>,
    pub(crate) timing: Timing,
}

type Computation = Result<Computed, EngineError>;
type Entries = moka::sync::Cache<FeatureKey, Arc<Features>>;
type SharedComputation = Shared<BoxFuture<'static, Computation>>;

/// The stored features and the in-flight computations. Clones share one cache.
#[derive(Clone)]
pub(crate) struct FeatureCache(Arc<Inner>);

struct Inner {
    entries: Option<Entries>,
    in_flight: Mutex<InFlight>,
    telemetry: EngineTelemetry,
}

/// An in-flight computation.
struct Running {
    number: u64,
    computation: WeakShared<BoxFuture<'static, Computation>>,
    /// Its span, to which the spans of those who join are linked.
    span: Option<SpanContext>,
}

#[derive(Default)]
struct InFlight {
    by_key: HashMap<FeatureKey, Running>,
    started: u64,
}

impl FeatureCache {
    /// Creates a cache of at most `bytes`. With 0 it stores nothing but still shares computations.
    pub(crate) fn new(bytes: u64, telemetry: EngineTelemetry) -> Self {
        let evictions = telemetry.evictions.clone();
        let entries = (bytes > 0).then(|| {
            moka::sync::Cache::builder()
                .max_capacity(bytes)
                .weigher(|_, features: &Arc<Features>| {
                    u32::try_from(weight(features)).unwrap_or(u32::MAX)
                })
                .eviction_listener(move |_, _, cause| {
                    if cause == RemovalCause::Size {
                        evictions.inc();
                    }
                })
                .build()
        });
        Self(Arc::new(Inner { entries, in_flight: Mutex::default(), telemetry }))
    }

    /// Returns the features of `key`: stored, from an in-flight computation, or from `compute`.
    ///
    /// `compute` is called only if there is neither. It must pass its features to its
    /// [`OnComplete`].
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
        let (computation, origin, span) = match self.0.stored(&key) {
            Some(features) => return Ok(hit(features, lane)),
            None => match self.join(key, lane, compute) {
                Joined::Stored(features) => return Ok(hit(features, lane)),
                Joined::InFlight(computation, origin, span) => (computation, origin, span),
            },
        };
        let Computed { features, timing } = computation.instrument(span).await?;
        Ok(Feature { features, origin, timing })
    }

    fn join<C, F>(&self, key: FeatureKey, lane: &LaneTelemetry, compute: C) -> Joined
    where
        C: FnOnce(OnComplete) -> F,
        F: Future<Output = Computation> + Send + 'static,
    {
        let mut in_flight = self.0.in_flight();
        if let Some(running) = in_flight.by_key.get(&key)
            && let Some(computation) = running.computation.upgrade()
        {
            lane.shared.inc();
            let span = span!("feature", graph = %lane.graph, origin = "shared");
            trace::link(&span, running.span.clone());
            return Joined::InFlight(computation, Origin::Shared, span);
        }
        // Features are stored before their key leaves the map, both under this lock: check again.
        if let Some(features) = self.0.stored(&key) {
            return Joined::Stored(features);
        }
        lane.misses.inc();
        in_flight.started += 1;
        let guard = Arc::new(CompletionGuard {
            cache: Arc::clone(&self.0),
            key,
            number: in_flight.started,
        });
        let work = compute(Box::new({
            let guard = Arc::clone(&guard);
            move |features| guard.store(features)
        }));
        let span = span!("feature", graph = %lane.graph, origin = "computed");
        let context = trace::context(&span);
        let computation = async move {
            let _guard = guard;
            work.await
        }
        // Any caller may poll it: all share it.
        .instrument(span)
        .boxed()
        .shared();
        if let Some(weak) = computation.downgrade() {
            let running = Running { number: in_flight.started, computation: weak, span: context };
            in_flight.by_key.insert(key, running);
        }
        Joined::InFlight(computation, Origin::Computed, Span::none())
    }

    /// Returns the stored features of `key`, without computing them.
    pub(crate) fn peek(&self, key: &FeatureKey) -> Option<Arc<Features>> {
        self.0.stored(key)
    }

    /// Removes all features of these inputs, including in-flight ones. Returns the number of
    /// removed entries.
    ///
    /// Makes one pass over the entries for any number of inputs. Readers are not blocked meanwhile.
    pub(crate) fn forget(&self, inputs: &HashSet<ContentHash>) -> u64 {
        self.forget_where(|input| inputs.contains(input))
    }

    /// Removes all features, including in-flight ones.
    pub(crate) fn forget_all(&self) {
        self.forget_where(|_| true);
    }

    fn forget_where(&self, is_gone: impl Fn(&ContentHash) -> bool) -> u64 {
        // A computation that ends after this line finds its key removed and stores nothing.
        self.0.in_flight().by_key.retain(|key, _| !is_gone(&key.input));
        let Some(entries) = &self.0.entries else { return 0 };
        // All keys are scanned: removal is rare, and joint features have no index by their first
        // input.
        let keys: Vec<_> =
            entries.iter().map(|(key, _)| *key).filter(|key| is_gone(&key.input)).collect();
        for key in &keys {
            entries.invalidate(key);
        }
        self.0.note_size(entries);
        keys.len() as u64
    }

    /// Returns size in bytes and number of the stored features.
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
    InFlight(SharedComputation, Origin, Span),
}

impl Inner {
    fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        lock(&self.in_flight)
    }

    fn stored(&self, key: &FeatureKey) -> Option<Arc<Features>> {
        self.entries.as_ref()?.get(key)
    }

    /// Updates the gauges. An exact size takes microseconds to compute; a feature takes
    /// milliseconds.
    fn note_size(&self, entries: &Entries) {
        entries.run_pending_tasks();
        self.telemetry.cache_bytes.set(entries.weighted_size() as i64);
        self.telemetry.cache_entries.set(entries.entry_count() as i64);
    }
}

/// Stores the features of a computation, and removes its key when the computation ends or is
/// dropped.
struct CompletionGuard {
    cache: Arc<Inner>,
    key: FeatureKey,
    number: u64,
}

impl CompletionGuard {
    fn store(&self, features: &Arc<Features>) {
        let Some(entries) = &self.cache.entries else { return };
        let in_flight = self.cache.in_flight();
        // A missing key means that the input was removed meanwhile; it must not be stored again.
        if in_flight.by_key.get(&self.key).is_some_and(|running| running.number == self.number) {
            entries.insert(self.key, Arc::clone(features));
            self.cache.note_size(entries);
        }
    }
}

impl Drop for CompletionGuard {
    fn drop(&mut self) {
        let mut in_flight = self.cache.in_flight();
        if in_flight.by_key.get(&self.key).is_some_and(|running| running.number == self.number) {
            in_flight.by_key.remove(&self.key);
        }
    }
}

fn hit(features: Arc<Features>, lane: &LaneTelemetry) -> Feature {
    lane.hits.inc();
    Feature { features, origin: Origin::Cached, timing: Timing::default() }
}

/// Memory of one entry in bytes: the features, the key twice (table and eviction order), moka's
/// nodes.
fn weight(features: &Features) -> usize {
    features.bytes() + 2 * size_of::<FeatureKey>() + 128
}
