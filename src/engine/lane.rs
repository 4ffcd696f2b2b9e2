//! A lane: one resident graph with its queue and the threads that drain it.
//!
//! Batching is greedy. An idle thread waits for work, then for its device turn, and only then takes
//! a batch from the queue. The next batch grows while one runs, so an idle engine adds no delay and
//! a busy one fills its batches. The oldest entry decides which shape runs, so no entry starves.

mod park;
mod queue;
mod rebuild;
mod spans;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use self::queue::{Caller, Entry, Queue, Reply};
pub(crate) use self::queue::{LaneSettings, OnComplete, Reopen};
use self::spans::ItemSpans;
use self::worker::Shared;
pub(crate) use self::worker::message;
use super::backend::Backend;
use super::device::Device;
use super::error::EngineError;
use super::health::HealthBoard;
use super::telemetry::LaneTelemetry;
use crate::sync::lock;
use crate::tensor::Tensor;

/// A resident graph. Dropping it finishes queued items and joins its threads.
pub(crate) struct Lane {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
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
            stops: Condvar::new(),
            moved: Condvar::new(),
            device: Arc::clone(device),
            health: health.clone(),
            telemetry,
            failures: AtomicU32::new(0),
            rebuilding: AtomicU32::new(0),
            items: AtomicU64::new(0),
            batches: AtomicU64::new(0),
        });
        let lane = Self { shared, threads: Mutex::default() };
        for backend in backends {
            let shared = Arc::clone(&lane.shared);
            let thread = thread::Builder::new()
                // The kernel truncates names to 15 bytes.
                .name(shared.settings.name.chars().take(15).collect())
                .spawn(move || shared.run(backend))?;
            lock(&lane.threads).push(thread);
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
        let spans = ItemSpans::queued();
        let mut queue = self.shared.lock();
        self.shared.admit(&mut queue)?;
        queue.entries.push_back(Entry {
            item,
            caller: Caller { queued: Instant::now(), reply, on_complete, spans },
        });
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
        tracing::error!(graph = %self.name(), seconds = limit.as_secs(), "batch hangs, graph \
            refuses work until it ends");
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
        self.shared.stops.notify_all();
        self.shared.moved.notify_all();
    }

    /// Waits until the queue is empty and all threads have ended. Call [`stop`](Self::stop) first.
    pub(crate) fn join(&self) {
        let threads = std::mem::take(&mut *lock(&self.threads));
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
