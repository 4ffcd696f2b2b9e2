//! Parking: the threads of a lane close their sessions, and open them again later.
//!
//! A parked lane refuses work. What is queued or running is finished first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::time::Instant;

use super::Lane;
use super::queue::Queue;
use super::worker::{Shared, message};
use crate::engine::backend::Backend;

#[cfg(test)]
mod tests;

impl Lane {
    /// Refuses further items, and has the sessions closed as soon as the queue is empty.
    pub(crate) fn park(&self) {
        self.shared.lock().parked = true;
        self.shared.arrived.notify_all();
        self.shared.stops.notify_all();
    }

    /// Has the sessions opened again. Items are accepted at once and wait for them.
    pub(crate) fn unpark(&self) {
        let mut queue = self.shared.lock();
        (queue.parked, queue.problem) = (false, None);
        drop(queue);
        self.shared.stops.notify_all();
    }

    /// Waits until no thread has a session, and returns false if one still has at this time.
    pub(crate) fn until_parked(&self, until: Instant) -> bool {
        self.until(until, |queue| queue.away == queue.threads || queue.stopping)
    }

    /// Waits until every thread has tried to open its session. The error says why one could not;
    /// its thread goes on trying.
    pub(crate) fn until_open(&self, until: Instant) -> Result<(), String> {
        if !self.until(until, |queue| queue.away == 0 || queue.stopping) {
            return Err("its session is still being opened".to_owned());
        }
        self.shared.lock().problem.take().map_or(Ok(()), Err)
    }

    fn until(&self, until: Instant, reached: impl Fn(&Queue) -> bool) -> bool {
        let queue = self.shared.lock();
        let time = until.saturating_duration_since(Instant::now());
        let waited = self.shared.moved.wait_timeout_while(queue, time, |queue| !reached(queue));
        reached(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

impl Shared {
    /// Waits, without a session, until the lane is no longer parked, and returns a new session or
    /// the one that was kept. Returns `None` if the lane is stopping.
    pub(super) fn reopened(&self, mut kept: Option<Box<dyn Backend>>) -> Option<Box<dyn Backend>> {
        loop {
            let mut queue = self.lock();
            queue.away += 1;
            self.moved.notify_all();
            queue = self
                .stops
                .wait_while(queue, |queue| queue.parked && !queue.stopping)
                .unwrap_or_else(PoisonError::into_inner);
            if queue.stopping {
                queue.away -= 1;
                self.moved.notify_all();
                return None;
            }
            drop(queue);
            let opened = match (kept.take(), &self.settings.reopen) {
                (Some(kept), _) => Ok(kept),
                (None, Some(reopen)) => catch_unwind(AssertUnwindSafe(|| reopen()))
                    .unwrap_or_else(|panic| Err(message(&*panic))),
                (None, None) => Err("it cannot be opened anew".to_owned()),
            };
            let mut queue = self.lock();
            queue.away -= 1;
            let failed = opened.as_ref().err().cloned();
            if failed.is_some() {
                queue.problem.clone_from(&failed);
            }
            self.moved.notify_all();
            drop(queue);
            if let Ok(backend) = opened {
                return Some(backend);
            }
            let (graph, problem) = (&self.settings.name, failed.unwrap_or_default());
            tracing::error!(%graph, problem, "failed to open the graph's session again");
            match self.rebuild() {
                Some(backend) => return Some(backend),
                None if self.lock().parked => {}
                None => return None,
            }
        }
    }
}
