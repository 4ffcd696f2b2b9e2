//! Exponential backoff by key, so that a key that keeps failing does not delay the others.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// Pause after the first failure; it doubles with each further one.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_hours(1);

/// Failed keys, each with its number of failures and the time of its next retry.
#[derive(Debug)]
pub(super) struct Backoff<K>(HashMap<K, (u32, Instant)>);

impl<K: Hash + Eq> Backoff<K> {
    pub(super) fn new() -> Self {
        Self(HashMap::new())
    }

    /// Returns whether the key must not be retried yet.
    pub(super) fn rests(&self, key: &K) -> bool {
        self.0.get(key).is_some_and(|(_, until)| Instant::now() < *until)
    }

    /// Records a failure, and returns the pause before the next retry.
    pub(super) fn failed(&mut self, key: K) -> Duration {
        let (failures, until) = self.0.entry(key).or_insert_with(|| (0, Instant::now()));
        let pause = FIRST.saturating_mul(2_u32.saturating_pow(*failures)).min(LONGEST);
        *failures += 1;
        *until = Instant::now() + pause;
        pause
    }

    /// Removes the keys that no longer exist.
    pub(super) fn retain(&mut self, is_there: impl Fn(&K) -> bool) {
        self.0.retain(|key, _| is_there(key));
    }

    /// Clears the failures of a key.
    pub(super) fn succeeded(&mut self, key: &K) {
        self.0.remove(key);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour_and_end_with_a_success() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..40).map(|_| backoff.failed("run").as_secs()).collect();
        assert_eq!(pauses[..4], [5, 10, 20, 40]);
        assert_eq!(pauses[39], 3600);
        assert!(backoff.rests(&"run") && !backoff.rests(&"another"));
        backoff.succeeded(&"run");
        assert!(!backoff.rests(&"run") && backoff.len() == 0);
    }
}
