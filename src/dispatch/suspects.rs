//! Samples that may have ended a process: out of memory, or through a bug in a library.
//!
//! Such a sample would be the oldest again after each restart, and end the process again. So it is
//! scored alone, and if the process ends nevertheless, it is charged with that death. After some
//! of them it fails. Random kills must not charge any sample that often. So a charged sample is
//! retried only after the process has run for a while: other samples go first, models are warm,
//! and the window in which a kill would hit it is short.

use std::time::{Duration, Instant};

/// Minimum uptime of a process before it retries a charged sample.
pub(super) const REST: Duration = Duration::from_secs(4);

/// A sample that may have ended a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suspect {
    /// Processes that ended while it was the only sample in flight.
    pub(crate) deaths: u32,
    /// It has ended too many of them, and fails.
    pub(crate) gives_up: bool,
    /// It is not scored before this time.
    pub(crate) rests_until: Option<Instant>,
}

impl Suspect {
    /// Returns a suspect that is charged with this many deaths, in a process that has run since
    /// `started`. After `limit` deaths it fails.
    pub(super) fn new(deaths: u32, limit: u32, started: Instant) -> Self {
        let gives_up = deaths >= limit;
        let rests = deaths > 0 && !gives_up;
        Self { deaths, gives_up, rests_until: rests.then(|| started + REST) }
    }
}
