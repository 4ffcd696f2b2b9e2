//! The threads of a lane: they take batches from the queue, run them and reply to the callers.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::queue::{
    Answer, Caller, Due, Entry, LaneSettings, Next, Queue, Reply, Running, SelfTest, same_shape,
};
use super::spans::BatchSpans;
use crate::engine::backend::Backend;
use crate::engine::device::{Device, Slot};
use crate::engine::error::{BackendError, EngineError};
use crate::engine::health::HealthBoard;
use crate::engine::telemetry::LaneTelemetry;
use crate::sync::lock;
use crate::tensor::{Features, Tensor};
use crate::trace::span;

/// Consecutive failures after which a lane is failing. One bad image does not mean a broken graph.
pub(super) const FAILURES: u32 = 3;

pub(super) struct Shared {
    pub(super) settings: LaneSettings,
    pub(super) queue: Mutex<Queue>,
    pub(super) arrived: Condvar,
    /// Notified when the lane stops, or is parked or no longer.
    pub(super) stops: Condvar,
    /// Notified when a thread has closed or opened its session.
    pub(super) moved: Condvar,
    pub(super) device: Arc<Device>,
    pub(super) health: HealthBoard,
    pub(super) telemetry: LaneTelemetry,
    pub(super) failures: AtomicU32,
    /// Threads that are opening their session anew.
    pub(super) rebuilding: AtomicU32,
    pub(super) items: AtomicU64,
    pub(super) batches: AtomicU64,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every change under this lock is complete, so a poisoned lock is safe to use.
        lock(&self.queue)
    }

    pub(super) fn note_depth(&self, queue: &Queue) {
        self.telemetry.depth.set(queue.entries.len() as i64);
    }

    pub(super) fn died(&self) -> EngineError {
        EngineError::Failed {
            graph: Arc::clone(&self.settings.name),
            cause: BackendError::Panicked(
                "its thread has ended; retry, and restart the service if it does not recover"
                    .into(),
            ),
        }
    }

    pub(super) fn admit(&self, queue: &mut Queue) -> Result<(), EngineError> {
        if queue.stopping {
            return Err(EngineError::Stopping);
        }
        if queue.parked {
            return Err(EngineError::Offloaded);
        }
        if queue.threads == 0 {
            return Err(self.died());
        }
        if queue.unusable >= queue.threads {
            return Err(EngineError::Rebuilding { graph: Arc::clone(&self.settings.name) });
        }
        if let Some(since) = queue.hangs() {
            let graph = Arc::clone(&self.settings.name);
            return Err(EngineError::Hangs { graph, seconds: since.as_secs() });
        }
        if queue.entries.len() >= self.settings.capacity {
            self.forget_dropped(queue);
        }
        if queue.entries.len() >= self.settings.capacity {
            self.telemetry.refused.inc();
            let graph = Arc::clone(&self.settings.name);
            return Err(EngineError::Overloaded { graph, waiting: queue.entries.len() });
        }
        Ok(())
    }

    /// Removes the entries whose callers have left.
    fn forget_dropped(&self, queue: &mut Queue) {
        let before = queue.entries.len();
        queue.entries.retain(|entry| !entry.is_dropped());
        self.telemetry.dropped.inc_by((before - queue.entries.len()) as u64);
        self.note_depth(queue);
    }

    /// Worker loop.
    pub(super) fn work(&self, mut backend: Box<dyn Backend>) -> Ended {
        let mut test = SelfTest::default();
        loop {
            match self.next(&mut test) {
                Next::Stop => return Ended::Stopped,
                // A session that could not be opened anew is kept.
                Next::Park => {
                    return Ended::Parked(self.settings.reopen.is_none().then_some(backend));
                }
                Next::Probe => {
                    let passed = self.self_test(&mut *backend).is_none();
                    if self.is_broken(&mut test, passed) {
                        return Ended::Broken;
                    }
                }
                Next::Work(oldest) => {
                    let mut slot = self.device.acquire(oldest);
                    loop {
                        let batch = self.take();
                        if !batch.is_empty() {
                            self.answer(&slot, &mut *backend, batch);
                        }
                        // A separate statement, so that the queue is not locked while this lane
                        // waits.
                        let due = self.due(&mut self.lock());
                        match due {
                            Due::Now(oldest) => slot.pass(oldest),
                            Due::In(_) | Due::Nothing => break,
                        }
                    }
                }
            }
        }
    }

    /// Waits for the next step.
    fn next(&self, test: &mut SelfTest) -> Next {
        let mut queue = self.lock();
        loop {
            let now = Instant::now();
            if self.health.is_failing(&self.settings.name) {
                // Also with work in the queue: if all of it is bad, only the self-test can tell
                // whether the session is.
                let due = *test.due.get_or_insert(now + self.settings.probe_every);
                if due <= now && !queue.stopping {
                    test.due = None;
                    return Next::Probe;
                }
            } else {
                *test = SelfTest::default();
            }
            let until_test = test.due.map(|due| due.saturating_duration_since(now));
            let timeout = match (self.due(&mut queue), until_test) {
                (Due::Now(oldest), _) => return Next::Work(oldest),
                (Due::In(remaining), _) => remaining,
                (Due::Nothing, _) if queue.stopping => return Next::Stop,
                (Due::Nothing, _) if queue.parked => return Next::Park,
                (Due::Nothing, Some(until_test)) => until_test,
                (Due::Nothing, None) => {
                    queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
            };
            let waited = self.arrived.wait_timeout(queue, timeout);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Returns when the next batch is due, after dropping entries whose callers have left.
    fn due(&self, queue: &mut Queue) -> Due {
        while queue.entries.front().is_some_and(Entry::is_dropped) {
            queue.entries.pop_front();
            self.telemetry.dropped.inc();
            self.note_depth(queue);
        }
        let Some(oldest) = queue.entries.front().map(|entry| entry.caller.queued) else {
            return Due::Nothing;
        };
        let remaining = self.settings.max_delay.saturating_sub(oldest.elapsed());
        let full = queue.entries.len() >= self.settings.max_batch;
        if full || queue.stopping || queue.parked || remaining.is_zero() {
            Due::Now(oldest)
        } else {
            Due::In(remaining)
        }
    }

    /// Takes the oldest live entry and others of its shape, up to the largest batch.
    fn take(&self) -> Vec<Entry> {
        let mut queue = self.lock();
        let mut batch: Vec<Entry> = Vec::new();
        let mut at = 0;
        while batch.len() < self.settings.max_batch {
            let Some(entry) = queue.entries.get(at) else { break };
            if !entry.is_dropped() && !batch.first().is_none_or(|first| same_shape(first, entry)) {
                at += 1;
                continue;
            }
            let Some(entry) = queue.entries.remove(at) else { break };
            if entry.is_dropped() {
                self.telemetry.dropped.inc();
            } else {
                batch.push(entry);
            }
        }
        self.note_depth(&queue);
        let more = !queue.entries.is_empty();
        drop(queue);
        if more {
            // The notification for the remaining entries may have been consumed already: wake
            // another thread.
            self.arrived.notify_one();
        }
        batch
    }

    /// Runs a batch and replies to its callers. If it fails, each item is retried alone.
    fn answer(&self, slot: &Slot, backend: &mut dyn Backend, batch: Vec<Entry>) {
        let started = Instant::now();
        let (items, mut callers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|entry| (entry.item, entry.caller)).unzip();
        for caller in &mut callers {
            self.telemetry.queue.observe((started - caller.queued).as_secs_f64());
            caller.spans.taken();
        }
        let spans = self.spans(&callers);
        let outcome = spans.batch.in_scope(|| self.attempt(slot, backend, &items));
        // Ended before the callers are, whose spans contain it.
        drop(spans);
        match outcome {
            Ok((features, run)) => {
                let size = features.len();
                for (caller, features) in callers.into_iter().zip(features) {
                    let answer = self.checked(features, started - caller.queued, run, size);
                    self.reply(caller, answer);
                }
            }
            Err(cause) if items.len() == 1 => {
                for caller in callers {
                    self.reply(caller, Err(self.failed(cause.clone())));
                }
            }
            Err(cause) => {
                tracing::warn!(
                    graph = %self.settings.name, batch = items.len(), error = %cause,
                    "batch failed, retrying its items one by one"
                );
                for (caller, item) in callers.into_iter().zip(items) {
                    self.answer_alone(slot, backend, caller, item);
                }
            }
        }
    }

    /// Retries an item of a failed batch alone, unless its caller has left meanwhile.
    fn answer_alone(
        &self,
        slot: &Slot,
        backend: &mut dyn Backend,
        caller: Caller,
        item: Vec<Tensor>,
    ) {
        if caller.reply.is_closed() {
            self.telemetry.dropped.inc();
            return;
        }
        self.telemetry.retried.inc();
        let waited = caller.queued.elapsed();
        let spans = self.spans(std::slice::from_ref(&caller));
        let outcome = spans.batch.in_scope(|| self.attempt(slot, backend, &[item]));
        drop(spans);
        let answer = match outcome {
            Ok((mut features, run)) => match features.pop() {
                Some(features) => self.checked(features, waited, run, 1),
                None => Err(self.failed(wrong_count(1, 0))),
            },
            Err(cause) => Err(self.failed(cause)),
        };
        self.reply(caller, answer);
    }

    fn spans(&self, callers: &[Caller]) -> BatchSpans {
        BatchSpans::start(&self.settings.name, callers.iter().map(|caller| &caller.spans))
    }

    /// Runs a batch once, catches panics of the backend, and counts successes and failures.
    pub(super) fn attempt(
        &self,
        slot: &Slot,
        backend: &mut dyn Backend,
        items: &[Vec<Tensor>],
    ) -> Result<(Vec<Features>, Duration), BackendError> {
        let started = Instant::now();
        self.lock().running.push(Running { slot: slot.ticket(), since: started, hangs: false });
        // After a panic the backend is used only through `run`, which starts from scratch.
        let model = span!("model", graph = %self.settings.name, items = items.len());
        let outcome = catch_unwind(AssertUnwindSafe(|| model.in_scope(|| backend.run(items))))
            .unwrap_or_else(|panic| Err(BackendError::Panicked(message(&*panic))))
            .and_then(|features| match features.len() {
                found if found == items.len() => Ok(features),
                found => Err(wrong_count(items.len(), found)),
            });
        drop(model);
        let run = started.elapsed();
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.telemetry.batch_size.observe(items.len() as f64);
        self.telemetry.run.observe(run.as_secs_f64());
        match &outcome {
            Ok(features) if features.iter().all(|one| one.not_finite().is_some()) => {
                // If no item is finite, the device or the precision is at fault, not an image.
                self.telemetry.batches_done.inc();
                self.count_failure("no item has finite values");
            }
            Ok(_) => {
                self.telemetry.batches_done.inc();
                self.count_success();
            }
            Err(cause) => {
                self.telemetry.batches_failed.inc();
                // A failed batch of several is not counted: one bad item is enough, and each is
                // retried.
                if items.len() == 1 {
                    self.count_failure(&cause.to_string());
                }
            }
        }
        self.ended(slot);
        outcome.map(|features| (features, run))
    }

    /// Records that a batch has ended, possibly one marked as hanging.
    fn ended(&self, slot: &Slot) {
        let mut queue = self.lock();
        let hung = |queue: &Queue| queue.running.iter().any(|running| running.hangs);
        let was = hung(&queue);
        queue.running.retain(|running| running.slot != slot.ticket());
        if was && !hung(&queue) {
            drop(queue);
            tracing::info!(graph = %self.settings.name, "hanging batch ended, graph accepts work \
                again");
            if self.failures.load(Ordering::Relaxed) < FAILURES {
                self.telemetry.healthy.set(1);
                self.health.report(&self.settings.name, true);
            }
        }
    }

    fn count_success(&self) {
        if self.failures.swap(0, Ordering::Relaxed) >= FAILURES {
            tracing::info!(graph = %self.settings.name, "graph recovered");
            self.telemetry.healthy.set(1);
            self.health.report(&self.settings.name, true);
        }
    }

    fn count_failure(&self, cause: &str) {
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 == FAILURES {
            tracing::error!(graph = %self.settings.name, error = cause, "graph fails repeatedly");
            self.telemetry.healthy.set(0);
            self.health.report(&self.settings.name, false);
        }
    }

    fn checked(&self, features: Features, queue: Duration, run: Duration, batch: usize) -> Reply {
        match features.not_finite() {
            None => Ok(Answer { features: Arc::new(features), queue, run, batch }),
            Some(output) => Err(EngineError::NotFinite {
                graph: Arc::clone(&self.settings.name),
                output: output.to_owned(),
            }),
        }
    }

    fn failed(&self, cause: BackendError) -> EngineError {
        EngineError::Failed { graph: Arc::clone(&self.settings.name), cause }
    }

    pub(super) fn reply(&self, caller: Caller, answer: Reply) {
        match &answer {
            Ok(answer) => {
                self.telemetry.done.inc();
                self.items.fetch_add(1, Ordering::Relaxed);
                (caller.on_complete)(&answer.features);
            }
            Err(_) => self.telemetry.failed.inc(),
        }
        // Sending fails if the caller has left while the graph ran.
        drop(caller.reply.send(answer));
    }
}

/// How the worker loop ended.
pub(super) enum Ended {
    /// The lane is stopping and its queue is empty.
    Stopped,
    /// The lane is parked. A session that is kept comes with it.
    Parked(Option<Box<dyn Backend>>),
    /// The session fails its self-test.
    Broken,
}

/// A guard that counts a thread as ended, so that a lane without threads refuses work.
pub(super) struct Leaving<'a>(pub(super) &'a Shared);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.threads -= 1;
        self.0.moved.notify_all();
        if queue.threads == 0 {
            // Dropping the replies wakes the callers. A lane that stops has none, unless it was
            // being rebuilt.
            queue.entries.clear();
            if !queue.stopping {
                self.0.telemetry.healthy.set(0);
                self.0.health.report(&self.0.settings.name, false);
            }
        }
    }
}

fn wrong_count(expected: usize, found: usize) -> BackendError {
    BackendError::Output { expected: format!("{expected} results"), found: found.to_string() }
}

/// Returns the message of a caught panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
