//! A lane: one resident graph, the queue before it and the threads that empty it.
//!
//! Batching is greedy. A thread that has nothing to do waits for work, then for its turn on the device,
//! and only then takes what is waiting: while one batch runs the next one grows, so an idle engine adds
//! no delay and a busy one fills its batches. The oldest entry decides which shape runs, so no entry can
//! be overtaken for ever.

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

/// Runs that must fail in a row, with no success between, before a lane counts as failing: one bad
/// image is not a broken graph.
const FAILURES: u32 = 3;

/// How long a failing lane that gets no work waits before it tries itself: readiness may have turned
/// all work away, and without a try it would never learn that it works again.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// What a lane needs to know besides its backends.
pub(crate) struct LaneSettings {
    /// The roles, joined by `+`.
    pub(crate) name: Arc<str>,
    pub(crate) max_batch: usize,
    pub(crate) max_delay: Duration,
    /// Items that may wait.
    pub(crate) capacity: usize,
    /// The item a failing lane tries itself with.
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

/// The answer to one item.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) features: Arc<Features>,
    /// From being queued to the start of the batch.
    pub(crate) queue: Duration,
    /// The run of the whole batch.
    pub(crate) run: Duration,
    /// Items in the batch.
    pub(crate) batch: usize,
}

type Reply = Result<Answer, EngineError>;

/// Is told an item's features before its caller is, and also when the caller has left while the graph
/// ran: what is computed is worth keeping.
pub(crate) type OnComplete = Box<dyn FnOnce(&Arc<Features>) + Send>;

/// A resident graph; dropping it finishes what is queued and joins its threads.
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
    /// Threads that still empty the queue.
    threads: usize,
    /// What they run.
    running: Vec<Running>,
}

/// A batch under way.
struct Running {
    /// The device's slot.
    slot: u64,
    since: Instant,
    /// Whether it has been told that it does not end.
    hangs: bool,
}

impl Queue {
    /// For how long the lane has been able to do nothing, because each of its threads has a batch that does not end.
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

/// Who waits for an item.
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

/// What a thread does next.
enum Next {
    /// There is work, the oldest since then.
    Work(Instant),
    /// The lane is failing and nobody asks it: try it.
    Probe,
    /// The lane is stopping and its queue is empty.
    Stop,
}

/// When the oldest entry of a queue is to run.
enum Due {
    /// It has waited since then.
    Now(Instant),
    /// It waits for company that long.
    In(Duration),
    /// There is none.
    Nothing,
}

impl Lane {
    /// Starts one thread for each backend; all take from the same queue.
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
                // The kernel keeps 15 bytes.
                .name(shared.settings.name.chars().take(15).collect())
                .spawn(move || shared.work(backend))?;
            lane.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(lane)
    }

    /// The roles, joined by `+`.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.shared.settings.name
    }

    pub(crate) fn telemetry(&self) -> &LaneTelemetry {
        &self.shared.telemetry
    }

    /// Items that wait now.
    pub(crate) fn depth(&self) -> usize {
        self.shared.lock().entries.len()
    }

    /// Items answered and batches run so far.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.shared.items.load(Ordering::Relaxed), self.shared.batches.load(Ordering::Relaxed))
    }

    pub(crate) fn is_healthy(&self) -> bool {
        !self.shared.health.is_failing(self.name())
    }

    /// Whether an item would be taken now; asked before the work of preparing one.
    pub(crate) fn admit(&self) -> Result<(), EngineError> {
        let mut queue = self.shared.lock();
        self.shared.admit(&mut queue)
    }

    /// Queues an item and waits for its answer. Dropping the future takes the item out of the next batch.
    pub(crate) async fn run(&self, item: Vec<Tensor>, on_complete: OnComplete) -> Reply {
        let answer = self.submit(item, on_complete)?;
        // A thread answers all it takes; only one that died without a word leaves a reply behind.
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

    /// Looks for batches that have been running for so long: the device's slot is given to others, what waits is told, and
    /// nothing is taken until they end.
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
        tracing::error!(graph = %self.name(), seconds = limit.as_secs(), "a batch does not end: the graph takes no work until it does");
        shared.telemetry.healthy.set(0);
        shared.health.report(self.name(), false);
        for entry in waiting {
            let error = error.clone().unwrap_or_else(|| shared.died());
            shared.reply(entry.caller, Err(error));
        }
    }

    /// Takes no more items; those that wait are still answered.
    pub(crate) fn stop(&self) {
        self.shared.lock().stopping = true;
        self.shared.arrived.notify_all();
    }

    /// Waits until the queue is empty and the threads are gone; call [`stop`](Self::stop) first.
    pub(crate) fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!(graph = %self.name(), "a lane's thread ended with a panic");
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
        // Nothing is left half done under this lock, so a poisoned one is as good as any.
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

    /// Takes out the entries that nobody waits for any more.
    fn forget_dropped(&self, queue: &mut Queue) {
        let before = queue.entries.len();
        queue.entries.retain(|entry| !entry.is_dropped());
        self.telemetry.dropped.inc_by((before - queue.entries.len()) as u64);
        self.note_depth(queue);
    }

    /// The life of one thread.
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
                        // A statement of its own, so that the queue is not locked while this lane waits.
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

    /// Waits for something to do.
    fn next(&self) -> Next {
        let mut queue = self.lock();
        loop {
            let failing = self.health.is_failing(&self.settings.name);
            let patience = match self.due(&mut queue) {
                Due::Now(oldest) => return Next::Work(oldest),
                Due::In(company) => company,
                Due::Nothing if queue.stopping => return Next::Stop,
                Due::Nothing if failing => self.settings.probe_every,
                Due::Nothing => {
                    queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
            };
            let (again, waited) =
                self.arrived.wait_timeout(queue, patience).unwrap_or_else(PoisonError::into_inner);
            queue = again;
            if failing && waited.timed_out() && queue.entries.is_empty() && !queue.stopping {
                return Next::Probe;
            }
        }
    }

    /// When the oldest live entry is to run.
    fn due(&self, queue: &mut Queue) -> Due {
        while queue.entries.front().is_some_and(Entry::is_dropped) {
            queue.entries.pop_front();
            self.telemetry.dropped.inc();
            self.note_depth(queue);
        }
        let Some(oldest) = queue.entries.front().map(|entry| entry.caller.queued) else {
            return Due::Nothing;
        };
        let company = self.settings.max_delay.saturating_sub(oldest.elapsed());
        let full = queue.entries.len() >= self.settings.max_batch;
        if full || queue.stopping || company.is_zero() { Due::Now(oldest) } else { Due::In(company) }
    }

    /// Takes the oldest live entry and, up to the largest batch, those of its shape.
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
            // Another thread of this lane may have been woken for what is still here and found a full house.
            self.arrived.notify_one();
        }
        batch
    }

    /// Runs a batch and answers each of its callers; if the batch fails, each item once more alone.
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
                    "a batch failed, its items run once more one by one"
                );
                for (caller, item) in callers.into_iter().zip(items) {
                    self.answer_alone(slot, backend, caller, item);
                }
            }
        }
    }

    /// Runs an item of a failed batch alone, unless its caller has left meanwhile.
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

    /// Runs a batch once, whatever the backend does, and keeps count of how that goes.
    fn attempt(
        &self,
        slot: &Slot,
        backend: &mut dyn Backend,
        items: &[Vec<Tensor>],
    ) -> Result<(Vec<Features>, Duration), BackendError> {
        let started = Instant::now();
        self.lock().running.push(Running { slot: slot.ticket(), since: started, hangs: false });
        // The backend is not looked at again after a panic but through `run`, which starts anew.
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
                // Nothing but NaN is a device or a precision at fault, not an image.
                self.telemetry.batches_done.inc();
                self.count_failure("nothing but values that are not finite");
            }
            Ok(_) => {
                self.telemetry.batches_done.inc();
                self.count_success();
            }
            Err(cause) => {
                self.telemetry.batches_failed.inc();
                // A failed batch says little, for one bad item is enough; each runs alone next.
                if items.len() == 1 {
                    self.count_failure(&cause.to_string());
                }
            }
        }
        self.ended(slot);
        outcome.map(|features| (features, run))
    }

    /// Notes that a batch has ended, also one that seemed not to.
    fn ended(&self, slot: &Slot) {
        let mut queue = self.lock();
        let hung = |queue: &Queue| queue.running.iter().any(|running| running.hangs);
        let was = hung(&queue);
        queue.running.retain(|running| running.slot != slot.ticket());
        if was && !hung(&queue) {
            drop(queue);
            tracing::info!(graph = %self.settings.name, "the batch has ended: the graph takes work again");
            if self.failures.load(Ordering::Relaxed) < FAILURES {
                self.telemetry.healthy.set(1);
                self.health.report(&self.settings.name, true);
            }
        }
    }

    fn count_success(&self) {
        if self.failures.swap(0, Ordering::Relaxed) >= FAILURES {
            tracing::info!(graph = %self.settings.name, "the graph works again");
            self.telemetry.healthy.set(1);
            self.health.report(&self.settings.name, true);
        }
    }

    fn count_failure(&self, cause: &str) {
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 == FAILURES {
            tracing::error!(graph = %self.settings.name, error = cause, "the graph fails repeatedly");
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
        // The caller may have left while the graph ran: nobody is there to tell.
        drop(caller.reply.send(answer));
    }
}

/// Notes that a thread is gone, so that a lane without threads refuses work instead of letting it wait.
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

/// The text of a caught panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
