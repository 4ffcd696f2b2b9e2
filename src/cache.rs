//! Caches of what is derived from stored data.
//!
//! Only a [`Caches`] creates a [`Cache`], and it clears all of its caches at once, so that after a
//! deletion none of them has data of deleted people.

#![expect(clippy::disallowed_types, reason = "this file clears the caches that it creates")]

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::sync::lock;

/// A set of caches that are cleared together.
#[derive(Clone, Default)]
pub struct Caches(Arc<Mutex<Vec<Named>>>);

/// A cache with the name under which its memory is reported.
type Named = (&'static str, Arc<dyn Clear>);

trait Clear: Send + Sync {
    fn clear(&self);
    fn bytes(&self) -> u64;
}

impl Caches {
    /// Adds a cache of at most `most` bytes; `bytes` returns the size of an entry. Entries that
    /// were idle for `idle` expire.
    pub(crate) fn add<K, V>(
        &self,
        name: &'static str,
        most: u64,
        idle: Option<Duration>,
        bytes: fn(&K, &V) -> usize,
    ) -> Arc<Cache<K, V>>
    where
        K: Hash + Eq + Clone + Send + Sync + 'static,
        V: Send + Sync + 'static,
    {
        let weigher = move |key: &K, value: &Arc<V>| {
            // Plus the cache's own nodes.
            u32::try_from(bytes(key, value) + 512).unwrap_or(u32::MAX)
        };
        let entries = moka::sync::Cache::builder().max_capacity(most).weigher(weigher);
        let entries = match idle {
            Some(idle) => entries.time_to_idle(idle).build(),
            None => entries.build(),
        };
        let cache = Arc::new(Cache { entries, cleared: <_>::default(), turns: <_>::default() });
        let added: Arc<dyn Clear> = cache.clone();
        lock(&self.0).push((name, added));
        cache
    }

    /// Removes all entries of all caches.
    pub(crate) fn clear(&self) {
        self.each(|_, cache| cache.clear());
    }

    /// Returns the size of each cache in bytes, with its name.
    #[must_use]
    pub fn bytes(&self) -> Vec<(&'static str, u64)> {
        self.each(|name, cache| (name, cache.bytes()))
    }

    fn each<T>(&self, of: impl Fn(&'static str, &dyn Clear) -> T) -> Vec<T> {
        let caches = lock(&self.0);
        caches.iter().map(|(name, cache)| of(name, &**cache)).collect()
    }
}

impl fmt::Debug for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.each(|name, _| name)).finish()
    }
}

/// A bounded cache with single flight: concurrent requests for one key share one computation.
///
/// The key includes the revision of what the value is computed from, so a value is never stale.
/// Entries that are no longer requested are evicted when room is needed.
pub(crate) struct Cache<K, V> {
    entries: moka::sync::Cache<K, Arc<V>>,
    /// Raised by `clear`, so that a value that was being computed meanwhile is not cached.
    cleared: AtomicU64,
    /// Lock for the computation of each key. Only keys with one in flight have a live lock.
    turns: Mutex<HashMap<K, Weak<tokio::sync::Mutex<()>>>>,
}

/// The number of times that a cache had been cleared when a computation began.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Begun(u64);

impl<K, V> Cache<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Returns the cached value of this key; otherwise runs `work` and caches its result.
    pub(crate) async fn get<E>(
        &self,
        key: K,
        work: impl Future<Output = Result<V, E>>,
    ) -> Result<Arc<V>, E> {
        if let Some(value) = self.peek(&key) {
            return Ok(value);
        }
        let turn = self.turn(&key);
        let _turn = turn.lock().await;
        if let Some(value) = self.peek(&key) {
            return Ok(value);
        }
        let begun = self.begin();
        let value = Arc::new(work.await?);
        self.insert(&key, Arc::clone(&value), begun);
        Ok(value)
    }

    /// Returns the cached value of this key, without computing it.
    pub(crate) fn peek(&self, key: &K) -> Option<Arc<V>> {
        self.entries.get(key)
    }

    /// Marks the begin of a computation whose value will be passed to [`insert`](Self::insert).
    pub(crate) fn begin(&self) -> Begun {
        Begun(self.cleared.load(Ordering::SeqCst))
    }

    /// Caches a value, unless the cache has been cleared since its computation began.
    pub(crate) fn insert(&self, key: &K, value: Arc<V>, begun: Begun) {
        self.entries.insert(key.clone(), value);
        if self.begin() != begun {
            self.entries.invalidate(key);
        }
    }

    /// Returns true if a value of this key is being computed.
    pub(crate) fn is_computing(&self, key: &K) -> bool {
        let turns = lock(&self.turns);
        turns.get(key).is_some_and(|turn| turn.strong_count() > 0)
    }

    fn turn(&self, key: &K) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = lock(&self.turns);
        if let Some(turn) = turns.get(key).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        turns.insert(key.clone(), Arc::downgrade(&turn));
        turn
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> u64 {
        self.entries.run_pending_tasks();
        self.entries.entry_count()
    }
}

impl<K, V> Clear for Cache<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn clear(&self) {
        self.cleared.fetch_add(1, Ordering::SeqCst);
        self.entries.invalidate_all();
        // Now and not lazily: entries may have data of deleted people.
        self.entries.run_pending_tasks();
    }

    fn bytes(&self) -> u64 {
        // Recent insertions are counted only after the pending tasks have run.
        self.entries.run_pending_tasks();
        self.entries.weighted_size()
    }
}

impl<K, V> fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Notify;

    use super::*;

    #[derive(Default)]
    struct Work {
        done: AtomicUsize,
    }

    impl Work {
        async fn give(&self, value: &str) -> Result<String, ()> {
            self.done.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            Ok(value.to_owned())
        }
    }

    fn kept(most: u64) -> Arc<Cache<u32, String>> {
        Caches::default().add("kept", most, None, |_, value: &String| value.len())
    }

    #[tokio::test]
    async fn a_value_is_computed_once_for_concurrent_requests() {
        let (kept, work) = (kept(10_000), Work::default());
        let (one, two) = tokio::join!(kept.get(1, work.give("a")), kept.get(1, work.give("a")));
        assert_eq!((one.unwrap().as_str(), two.unwrap().as_str()), ("a", "a"));
        assert_eq!(kept.get(1, work.give("never")).await.unwrap().as_str(), "a");
        assert_eq!(kept.get(2, work.give("b")).await.unwrap().as_str(), "b");
        assert_eq!(work.done.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn an_error_is_not_cached() {
        let kept = kept(10_000);
        assert_eq!(kept.get(1, async { Err("no") }).await, Err("no"));
        assert!(kept.get(1, async { Ok::<_, ()>("yes".to_owned()) }).await.is_ok());
    }

    #[tokio::test]
    async fn a_value_computed_during_a_clear_is_not_cached() {
        let (kept, started, go) = (kept(10_000), Notify::new(), Notify::new());
        let slow = async {
            started.notify_one();
            go.notified().await;
            Ok::<_, ()>("old".to_owned())
        };
        let forget = async {
            started.notified().await;
            kept.clear();
            go.notify_one();
        };
        let (old, ()) = tokio::join!(kept.get(1, slow), forget);
        assert_eq!(old.unwrap().as_str(), "old", "the earlier request still gets its value");
        assert_eq!(
            kept.get(1, async { Ok::<_, ()>("new".to_owned()) }).await.unwrap().as_str(),
            "new"
        );
        kept.clear();
        assert_eq!(kept.count(), 0);
    }

    #[tokio::test]
    async fn memory_is_bounded_and_a_value_that_is_too_large_is_still_returned() {
        let (kept, work) = (kept(4_000), Work::default());
        for key in 0..100 {
            kept.get(key, work.give("a")).await.unwrap();
        }
        assert!(kept.bytes() <= 4_000);
        let large = "a".repeat(5_000);
        assert_eq!(*kept.get(200, work.give(&large)).await.unwrap(), large);
        assert!(kept.bytes() <= 4_000);
    }

    #[tokio::test]
    async fn every_cache_of_a_set_is_counted_and_cleared() {
        let (caches, work) = (Caches::default(), Work::default());
        let bytes = |_: &u32, value: &String| value.len();
        let some = caches.add("some", 10_000, None, bytes);
        let others = caches.add("others", 10_000, Some(Duration::from_hours(1)), bytes);
        some.get(1, work.give("a")).await.unwrap();
        others.get(1, work.give("abc")).await.unwrap();
        assert_eq!(caches.bytes(), [("some", 513), ("others", 515)]);
        caches.clear();
        assert_eq!(caches.bytes(), [("some", 0), ("others", 0)]);
    }
}
