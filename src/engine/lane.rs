//! A lane: one resident graph with its queue and the threads that drain it.
//!
//! Batching is greedy. An idle thread waits for work, then for its device turn, and only then takes
//! a batch from the queue. The next batch grows while one runs, so an idle engine adds no delay and
//! a busy one fills its batches. The oldest entry decides which shape runs, so no entry starves.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::backend::Backend;
use super::device::{Device, Slot};
use super::error::{BackendError, EngineError};
use super::health::HealthBoard;
use super::telemetry::LaneTelemetry;
use crate::tensor::{Features, Tensor};

#[cfg(test)]
mod tests;

/// Consecutive failures after which a lane is failing. One bad image does not mean a broken graph.
const FAILURES: u32 = 3;

/// Pause between probes of a failing lane without work.
///
/// Since readiness probes may keep all requests away, the lane would otherwise stay failing
/// forever.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// Settings of a lane.
pub(crate) struct LaneSettings {
    /// The roles of the graph, joined by `+`.
    pub(crate) name: Arc<str>,
    pub(crate) max_batch: usize,
    pub(crate) max_delay: Duration,
    /// Queue length, in items.
    pub(crate) capacity: usize,
    /// The item that a failing lane probes itself with.
    pub(crate) probe: Vec<Tensor>,
    pub(crate) probe_every: Duration,
}

impl LaneSettings {
    pub(crate) fn new(name: impl Into<Arc<str>>, max_batch: usize, probe: Vec<Tensor>) -> Self {
        Self {
            name: name.into(),
            max_batch,
            max_delay: Duration::ZERO,
            capacity: 1024,
            probe,
            probe_every: PROBE_EVERY,
        }
    }
}

/// The result of one item.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) features: Arc<Features>,
    /// Time from enqueueing to the start of the batch.
    pub(crate) queue: Duration,
    /// Run time of the whole batch.
    pub(crate) run: Duration,
    /// Number of items in the batch.
    pub(crate) batch: usize,
}

type Reply = Result<Answer, EngineError>;

/// A callback that gets an item's features before its caller does.
///
/// It is called even if the caller has left while the graph ran, so that the features are cached.
pub(crate) type OnComplete = Box<dyn FnOnce(&Arc<Features>) + Send>;

/// A resident graph. Dropping it finishes queued items and joins its threads.
pub(crate) struct Lane {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    settings: LaneSettings,
    queue: Mutex<Queue>,
    arrived: Condvar,
    device: Arc<Device>,
    health: HealthBoard,
    telemetry: LaneTelemetry,
    failures: AtomicU32,
    items: AtomicU64,
    batches: AtomicU64,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<Entry>,
    stopping: bool,
    /// Number of live threads.
    threads: usize,
    /// Batches that the threads are running.
    running: Vec<Running>,
}

/// An in-flight batch.
struct Running {
    /// Ticket of the device slot.
    slot: u64,
    since: Instant,
    /// Whether the batch has been marked as hanging.
    hangs: bool,
}

impl Queue {
    /// Returns the age of the oldest hanging batch if all threads of the lane hang.
    fn hangs(&self) -> Option<Duration> {
        let hanging = self.running.iter().filter(|running| running.hangs);
        let since = hanging.clone().map(|running| running.since).min()?;
        (hanging.count() >= self.threads).then(|| since.elapsed())
    }
}

struct Entry {
    item: Vec<Tensor>,
    caller: Caller,
}

/// The caller that awaits an item.
struct Caller {
    queued: Instant,
    reply: oneshot::Sender<Reply>,
    on_complete: OnComplete,
}

impl Entry {
    fn is_dropped(&self) -> bool {
        self.caller.reply.is_closed()
    }
}

/// The next step of a thread.
enum Next {
    /// Run a batch. The oldest entry was queued at this time.
    Work(Instant),
    /// Probe the graph: the lane is failing and has no work.
    Probe,
    /// End the thread: the lane is stopping and its queue is empty.
    Stop,
}

/// When the next batch of a queue is due.
enum Due {
    /// Now. The oldest entry was queued at this time.
    Now(Instant),
    /// After this time, unless the batch is full earlier.
    In(Duration),
    /// Never: the queue is empty.
    Nothing,
}

impl Lane {
    /// Starts one thread for each backend. All of them take from the same queue.
    pub(crate) fn start(
        settings: LaneSettings,
        backends: Vec<Box<dyn Backend>>,
        device: &Arc<Device>,
        health: &HealthBoard,
        telemetry: LaneTelemetry,
    ) -> std::io::Result<Self> {
        telemetry.healthy.set(1);
        let shared = Arc::new(Shared {
            settings,
            queue: Mutex::new(Queue { threads: backends.len(), ..Queue::default() }),
            arrived: Condvar::new(),
            device: Arc::clone(device),
            health: health.clone(),
            telemetry,
            failures: AtomicU32::new(0),
            items: AtomicU64::new(0),
            batches: AtomicU64::new(0),
        });
        let lane = Self { shared, threads: Mutex::default() };
        for backend in backends {
            let shared = Arc::clone(&lane.shared);
            let thread = thread::Builder::new()
                // The kernel truncates names to 15 bytes.
                .name(shared.settings.name.chars().take(15).collect())
                .spawn(move || shared.work(backend))?;
            lane.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(lane)
    }

    /// Returns the roles of the graph, joined by `+`.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.shared.settings.name
    }

    pub(crate) fn telemetry(&self) -> &LaneTelemetry {
        &self.shared.telemetry
    }

    /// Returns the number of queued items.
    pub(crate) fn depth(&self) -> usize {
        self.shared.lock().entries.len()
    }

    /// Returns the number of computed items and of batches since start.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.shared.items.load(Ordering::Relaxed), self.shared.batches.load(Ordering::Relaxed))
    }

    pub(crate) fn is_healthy(&self) -> bool {
        !self.shared.health.is_failing(self.name())
    }

    /// Checks whether an item would be accepted now, before it is prepared.
    pub(crate) fn admit(&self) -> Result<(), EngineError> {
        let mut queue = self.shared.lock();
        self.shared.admit(&mut queue)
    }

    /// Enqueues an item and awaits its result. Dropping the future removes the item from the queue.
    pub(crate) async fn run(&self, item: Vec<Tensor>, on_complete: OnComplete) -> Reply {
        let answer = self.submit(item, on_complete)?;
        // Threads reply to all items that they take. A dropped reply means that the thread has
        // died.
        answer.await.unwrap_or_else(|_| Err(self.shared.died()))
    }

    fn submit(
        &self,
        item: Vec<Tensor>,
        on_complete: OnComplete,
    ) -> Result<oneshot::Receiver<Reply>, EngineError> {
        let (reply, answer) = oneshot::channel();
        let mut queue = self.shared.lock();
        self.shared.admit(&mut queue)?;
        queue
            .entries
            .push_back(Entry { item, caller: Caller { queued: Instant::now(), reply, on_complete } });
        self.shared.note_depth(&queue);
        drop(queue);
        self.shared.arrived.notify_one();
        Ok(answer)
    }

    /// Marks batches that have been running for `limit` or longer as hanging.
    ///
    /// Their device slots are released for other lanes. If all threads hang, queued items fail, and
    /// new ones are refused until a batch ends.
    pub(crate) fn notice_hanging(&self, limit: Duration) {
        let shared = &self.shared;
        let mut queue = shared.lock();
        let mut found = false;
        for running in &mut queue.running {
            if !running.hangs && running.since.elapsed() >= limit {
                (running.hangs, found) = (true, true);
                shared.device.take_back(running.slot);
            }
        }
        if !found {
            return;
        }
        let waiting = queue.hangs().map(|_| std::mem::take(&mut queue.entries)).unwrap_or_default();
        let error = shared.admit(&mut queue).err();
        shared.note_depth(&queue);
        drop(queue);
        tracing::error!(graph = %self.name(), seconds = limit.as_secs(), "batch hangs, graph refuses work until it ends");
        shared.telemetry.healthy.set(0);
        shared.health.report(self.name(), false);
        for entry in waiting {
            let error = error.clone().unwrap_or_else(|| shared.died());
            shared.reply(entry.caller, Err(error));
        }
    }

    /// Refuses further items. Queued ones are still run.
    pub(crate) fn stop(&self) {
        self.shared.lock().stopping = true;
        self.shared.arrived.notify_all();
    }

    /// Waits until the queue is empty and all threads have ended. Call [`stop`](Self::stop) first.
    pub(crate) fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!(graph = %self.name(), "lane thread panicked");
            }
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.stop();
        self.join();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every change under this lock is complete, so a poisoned lock is safe to use.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_depth(&self, queue: &Queue) {
        self.telemetry.depth.set(queue.entries.len() as i64);
    }

    fn died(&self) -> EngineError {
        EngineError::Failed {
            graph: Arc::clone(&self.settings.name),
            cause: BackendError::Panicked("its thread has ended; restart the service".into()),
        }
    }

    fn admit(&self, queue: &mut Queue) -> Result<(), EngineError> {
        if queue.stopping {
            return Err(EngineError::Stopping);
        }
        if queue.threads == 0 {
            return Err(self.died());
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
    fn work(&self, mut backend: Box<dyn Backend>) {
        let _leaving = Leaving(self);
        loop {
            match self.next() {
                Next::Stop => return,
                Next::Probe => {
                    let slot = self.device.acquire(Instant::now());
                    drop(self.attempt(&slot, &mut *backend, std::slice::from_ref(&self.settings.probe)));
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
    fn next(&self) -> Next {
        let mut queue = self.lock();
        loop {
            let failing = self.health.is_failing(&self.settings.name);
            let timeout = match self.due(&mut queue) {
                Due::Now(oldest) => return Next::Work(oldest),
                Due::In(remaining) => remaining,
                Due::Nothing if queue.stopping => return Next::Stop,
                Due::Nothing if failing => self.settings.probe_every,
                Due::Nothing => {
                    queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
            };
            let (again, waited) =
                self.arrived.wait_timeout(queue, timeout).unwrap_or_else(PoisonError::into_inner);
            queue = again;
            if failing && waited.timed_out() && queue.entries.is_empty() && !queue.stopping {
                return Next::Probe;
            }
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
        if full || queue.stopping || remaining.is_zero() { Due::Now(oldest) } else { Due::In(remaining) }
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
        let (items, callers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|entry| (entry.item, entry.caller)).unzip();
        for caller in &callers {
            self.telemetry.queue.observe((started - caller.queued).as_secs_f64());
        }
        match self.attempt(slot, backend, &items) {
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
    fn answer_alone(&self, slot: &Slot, backend: &mut dyn Backend, caller: Caller, item: Vec<Tensor>) {
        if caller.reply.is_closed() {
            self.telemetry.dropped.inc();
            return;
        }
        self.telemetry.retried.inc();
        let waited = caller.queued.elapsed();
        let answer = match self.attempt(slot, backend, &[item]) {
            Ok((mut features, run)) => match features.pop() {
                Some(features) => self.checked(features, waited, run, 1),
                None => Err(self.failed(wrong_count(1, 0))),
            },
            Err(cause) => Err(self.failed(cause)),
        };
        self.reply(caller, answer);
    }

    /// Runs a batch once, catches panics of the backend, and counts successes and failures.
    fn attempt(
        &self,
        slot: &Slot,
        backend: &mut dyn Backend,
        items: &[Vec<Tensor>],
    ) -> Result<(Vec<Features>, Duration), BackendError> {
        let started = Instant::now();
        self.lock().running.push(Running { slot: slot.ticket(), since: started, hangs: false });
        // After a panic the backend is used only through `run`, which starts from scratch.
        let outcome = catch_unwind(AssertUnwindSafe(|| backend.run(items)))
            .unwrap_or_else(|panic| Err(BackendError::Panicked(message(&*panic))))
            .and_then(|features| match features.len() {
                found if found == items.len() => Ok(features),
                found => Err(wrong_count(items.len(), found)),
            });
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
            tracing::info!(graph = %self.settings.name, "hanging batch ended, graph accepts work again");
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

    fn reply(&self, caller: Caller, answer: Reply) {
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

/// A guard that counts a thread as ended, so that a lane without threads refuses work.
struct Leaving<'a>(&'a Shared);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.threads -= 1;
        if queue.threads == 0 && !queue.stopping {
            // Dropping the replies wakes the callers.
            queue.entries.clear();
            self.0.health.report(&self.0.settings.name, false);
        }
    }
}

fn same_shape(one: &Entry, other: &Entry) -> bool {
    one.item.len() == other.item.len()
        && one.item.iter().zip(&other.item).all(|(a, b)| a.dtype() == b.dtype() && a.shape() == b.shape())
}

fn wrong_count(expected: usize, found: usize) -> BackendError {
    BackendError::Output { expected: format!("{expected} results"), found: found.to_string() }
}

/// Returns the message of a caught panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
