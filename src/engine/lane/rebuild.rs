//! Rebuilding: a thread that panicked, or whose session fails its self-test, opens a new session.
//!
//! Queued items wait for it. New ones are refused only after an attempt to open it has failed, and
//! readiness names the graph until it works again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::queue::{Queue, SelfTest};
use super::worker::{Ended, Leaving, Shared, message};
use crate::engine::backend::Backend;

#[cfg(test)]
pub(super) mod tests;

/// Failed self-tests after which a session counts as broken. One may have met a full device.
pub(super) const SELF_TESTS: u32 = 2;

const LONGEST_PAUSE: Duration = Duration::from_mins(1);

impl Shared {
    /// Runs a thread of the lane: the worker loop, with a new session whenever the loop cannot go
    /// on.
    pub(super) fn run(&self, mut backend: Box<dyn Backend>) {
        let _leaving = Leaving(self);
        loop {
            // Whatever the loop changes under a lock is complete at any time, and it owns the
            // session.
            let why = match catch_unwind(AssertUnwindSafe(|| self.work(backend))) {
                Ok(Ended::Stopped) => return,
                Ok(Ended::Parked(kept)) => match self.reopened(kept) {
                    Some(opened) => {
                        backend = opened;
                        continue;
                    }
                    None => return,
                },
                Ok(Ended::Broken) => "its self-test fails".to_owned(),
                Err(panic) => format!("its thread panicked: {}", message(&*panic)),
            };
            tracing::error!(graph = %self.settings.name, why, "graph is broken");
            let rebuilt = match self.rebuild() {
                Some(rebuilt) => Some(rebuilt),
                None if self.lock().parked => self.reopened(None),
                None => None,
            };
            match rebuilt {
                Some(rebuilt) => backend = rebuilt,
                None => return,
            }
        }
    }

    /// Returns whether the session, after a self-test with this result, must be replaced.
    pub(super) fn is_broken(&self, test: &mut SelfTest, passed: bool) -> bool {
        test.failed = if passed { 0 } else { test.failed + 1 };
        test.failed >= SELF_TESTS && self.settings.reopen.is_some()
    }

    /// Opens a session that passes its self-test, with growing pauses between the attempts. Returns
    /// `None` if the lane cannot be rebuilt, is stopping or is parked.
    pub(super) fn rebuild(&self) -> Option<Box<dyn Backend>> {
        let (name, reopen) = (&self.settings.name, self.settings.reopen.as_ref()?);
        self.rebuilding.fetch_add(1, Ordering::SeqCst);
        self.telemetry.healthy.set(0);
        self.health.rebuilding(name, true);
        let mut pause = self.settings.rebuild_pause;
        let mut refusing = false;
        let rebuilt = loop {
            let opened = catch_unwind(AssertUnwindSafe(|| reopen()))
                .unwrap_or_else(|panic| Err(message(&*panic)));
            match opened.and_then(|backend| self.tested(backend)) {
                Ok(backend) => break Some(backend),
                Err(problem) => {
                    let seconds = pause.as_secs_f64();
                    tracing::error!(graph = %name, problem, seconds, "failed to rebuild the \
                        graph's session, will retry");
                }
            }
            if !std::mem::replace(&mut refusing, true) {
                self.lock().unusable += 1;
            }
            if self.stops_within(pause) {
                break None;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        if refusing {
            self.lock().unusable -= 1;
        }
        // A parked graph is no longer broken: its session will be opened anew.
        if rebuilt.is_some() || self.lock().parked {
            self.failures.store(0, Ordering::Relaxed);
            // A graph with several threads is well again when all of them are.
            if self.rebuilding.fetch_sub(1, Ordering::SeqCst) == 1 {
                self.telemetry.healthy.set(1);
                self.health.rebuilding(name, false);
            }
        }
        if rebuilt.is_some() {
            self.telemetry.rebuilt.inc();
            tracing::info!(graph = %name, "rebuilt the graph's session");
        }
        rebuilt
    }

    /// Returns the session if it passes its self-test.
    fn tested(&self, mut backend: Box<dyn Backend>) -> Result<Box<dyn Backend>, String> {
        match self.self_test(&mut *backend) {
            None => Ok(backend),
            Some(problem) => Err(format!("the self-test of the new session failed: {problem}")),
        }
    }

    /// Runs the probe item, and returns what is wrong.
    pub(super) fn self_test(&self, backend: &mut dyn Backend) -> Option<String> {
        let slot = self.device.acquire(Instant::now());
        match self.attempt(&slot, backend, std::slice::from_ref(&self.settings.probe)) {
            Err(cause) => Some(cause.to_string()),
            Ok((features, _)) => features
                .iter()
                .find_map(|one| one.not_finite())
                .map(|output| format!("output `{output}` is not finite")),
        }
    }

    /// Waits, and returns whether the lane stops or is parked meanwhile.
    fn stops_within(&self, pause: Duration) -> bool {
        let queue = self.lock();
        let goes_on = |queue: &mut Queue| !queue.stopping && !queue.parked;
        let waited = self.stops.wait_timeout_while(queue, pause, goes_on);
        !goes_on(&mut waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}
