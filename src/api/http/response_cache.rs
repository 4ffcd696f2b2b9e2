//! Cache of responses that take seconds to compute, keyed by the revision of their inputs.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hash},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Mutex;

/// Number of lock stripes; unrelated keys may share a stripe.
const PLACES: usize = 16;

/// A bounded cache with single flight: concurrent requests for one key share one computation.
///
/// The key includes the revision, so a response is never stale. Entries that are no longer
/// requested are evicted when room is needed.
pub(crate) struct ResponseCache<K, V> {
    cache: moka::sync::Cache<K, Arc<V>>,
    /// Raised by `clear`, so that a value that was being computed meanwhile is not cached.
    forgotten: AtomicU64,
    places: [Mutex<()>; PLACES],
    hasher: RandomState,
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static, V: Send + Sync + 'static> ResponseCache<K, V> {
    /// Creates a cache of at most `most` bytes; `bytes` returns the size of a value.
    pub(crate) fn new(most: u64, bytes: fn(&V) -> usize) -> Self {
        let weigher = move |_: &K, value: &Arc<V>| {
            // Plus the key and the cache's own nodes.
            u32::try_from(bytes(value) + 512).unwrap_or(u32::MAX)
        };
        Self {
            cache: moka::sync::Cache::builder().max_capacity(most).weigher(weigher).build(),
            forgotten: AtomicU64::new(0),
            places: std::array::from_fn(|_| Mutex::new(())),
            hasher: RandomState::new(),
        }
    }

    /// Returns the cached value of this key; otherwise runs `work` and caches its result.
    pub(crate) async fn get<E>(
        &self,
        key: K,
        work: impl Future<Output = Result<V, E>>,
    ) -> Result<Arc<V>, E> {
        if let Some(value) = self.cache.get(&key) {
            return Ok(value);
        }
        let _place = self.places[self.hasher.hash_one(&key) as usize % PLACES].lock().await;
        if let Some(value) = self.cache.get(&key) {
            return Ok(value);
        }
        let forgotten = self.forgotten.load(Ordering::SeqCst);
        let value = Arc::new(work.await?);
        self.cache.insert(key.clone(), Arc::clone(&value));
        if self.forgotten.load(Ordering::SeqCst) != forgotten {
            self.cache.invalidate(&key);
        }
        Ok(value)
    }

    /// Returns the size of the cached values in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        // Recent insertions are counted only after the pending tasks have run.
        self.cache.run_pending_tasks();
        self.cache.weighted_size()
    }

    /// Removes all entries.
    pub(crate) fn clear(&self) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.cache.invalidate_all();
        // Now and not lazily: entries may have data of deleted people.
        self.cache.run_pending_tasks();
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

    fn kept(most: u64) -> ResponseCache<u32, String> {
        ResponseCache::new(most, String::len)
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
        assert_eq!(kept.cache.entry_count(), 0);
    }

    #[tokio::test]
    async fn memory_is_bounded_and_a_value_that_is_too_large_is_still_returned() {
        let (kept, work) = (kept(4_000), Work::default());
        for key in 0..100 {
            kept.get(key, work.give("a")).await.unwrap();
        }
        kept.cache.run_pending_tasks();
        assert!(kept.cache.weighted_size() <= 4_000);
        let large = "a".repeat(5_000);
        assert_eq!(*kept.get(200, work.give(&large)).await.unwrap(), large);
        kept.cache.run_pending_tasks();
        assert!(kept.cache.weighted_size() <= 4_000);
    }
}
