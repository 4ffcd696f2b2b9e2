//! Times of a bucket that instances share (`shared.rs`).

use std::{
    sync::{Mutex, atomic::AtomicBool},
    time::{Duration, Instant},
};

use crate::sync::lock;

/// How long a released file stays.
pub(super) const QUARANTINE: time::Duration = time::Duration::minutes(5);

/// How long a released file may be accepted again without waiting for its deletion.
pub(super) const SETTLED: time::Duration = time::Duration::minutes(2);

/// Times of the bucket: how long released files stay, and when it was last looked at.
pub(super) struct Pace {
    pub(super) quarantine: time::Duration,
    pub(super) settled: time::Duration,
    pub(super) swept: Mutex<Option<Instant>>,
    pub(super) counted: Mutex<Option<Instant>>,
    pub(super) probed: tokio::sync::Mutex<Option<(Instant, Option<String>)>>,
    /// Whether the bucket could not be used when it was last looked at.
    pub(super) troubled: AtomicBool,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new(QUARANTINE, SETTLED)
    }
}

impl Pace {
    pub(super) fn new(quarantine: time::Duration, settled: time::Duration) -> Self {
        Self {
            quarantine,
            settled,
            swept: Mutex::default(),
            counted: Mutex::default(),
            probed: tokio::sync::Mutex::default(),
            troubled: AtomicBool::new(false),
        }
    }
}

/// Returns whether something is due that is done at this interval, and notes that it is done now.
pub(super) fn is_due(last: &Mutex<Option<Instant>>, every: Duration) -> bool {
    let mut last = lock(last);
    let due = last.is_none_or(|last| last.elapsed() >= every);
    if due {
        *last = Some(Instant::now());
    }
    due
}
