//! The queue of a lane: its items, their callers and the batches in flight.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::spans::ItemSpans;
use crate::engine::backend::Backend;
use crate::engine::error::EngineError;
use crate::tensor::{Features, Tensor};

/// Pause between self-tests of a failing lane.
///
/// Failing readiness probes may keep all requests away, and then only a self-test can show that the
/// lane works again.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// Pause after the first failed attempt to reopen a session; it doubles with each further one.
const REBUILD_PAUSE: Duration = Duration::from_secs(1);

/// Reopens the session of a lane. The error says what failed.
pub(crate) type Reopen = Arc<dyn Fn() -> Result<Box<dyn Backend>, String> + Send + Sync>;

/// Settings of a lane.
pub(crate) struct LaneSettings {
    /// The roles of the graph, joined by `+`.
    pub(crate) name: Arc<str>,
    pub(crate) max_batch: usize,
    pub(crate) max_delay: Duration,
    /// Queue length, in items.
    pub(crate) capacity: usize,
    /// The item with which a failing lane tests itself.
    pub(crate) probe: Vec<Tensor>,
    pub(crate) probe_every: Duration,
    /// Reopens the session if it breaks. Without it, a lane whose thread panics refuses work.
    pub(crate) reopen: Option<Reopen>,
    pub(crate) rebuild_pause: Duration,
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
            reopen: None,
            rebuild_pause: REBUILD_PAUSE,
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

pub(super) type Reply = Result<Answer, EngineError>;

/// A callback that gets an item's features before its caller does.
///
/// It is called even if the caller has left while the graph ran, so that the features are cached.
pub(crate) type OnComplete = Box<dyn FnOnce(&Arc<Features>) + Send>;

#[derive(Default)]
pub(super) struct Queue {
    pub(super) entries: VecDeque<Entry>,
    pub(super) stopping: bool,
    /// Whether the sessions are to be closed.
    pub(super) parked: bool,
    /// Number of threads that have no session, or none yet, because of it.
    pub(super) away: usize,
    /// Why a session could not be opened after the last time.
    pub(super) problem: Option<String>,
    /// Number of live threads.
    pub(super) threads: usize,
    /// Number of threads that failed to open a session anew and are still trying.
    pub(super) unusable: usize,
    /// Batches that the threads are running.
    pub(super) running: Vec<Running>,
}

/// An in-flight batch.
pub(super) struct Running {
    /// Ticket of the device slot.
    pub(super) slot: u64,
    pub(super) since: Instant,
    /// Whether the batch has been marked as hanging.
    pub(super) hangs: bool,
}

impl Queue {
    /// Returns the age of the oldest hanging batch if all threads of the lane hang.
    pub(super) fn hangs(&self) -> Option<Duration> {
        let hanging = self.running.iter().filter(|running| running.hangs);
        let since = hanging.clone().map(|running| running.since).min()?;
        (hanging.count() >= self.threads).then(|| since.elapsed())
    }
}

pub(super) struct Entry {
    pub(super) item: Vec<Tensor>,
    pub(super) caller: Caller,
}

/// The caller that awaits an item.
pub(super) struct Caller {
    pub(super) queued: Instant,
    pub(super) reply: oneshot::Sender<Reply>,
    pub(super) on_complete: OnComplete,
    pub(super) spans: ItemSpans,
}

impl Entry {
    pub(super) fn is_dropped(&self) -> bool {
        self.caller.reply.is_closed()
    }
}

/// A thread's self-tests since its lane began to fail.
#[derive(Default)]
pub(super) struct SelfTest {
    /// When the next one is due; `None` while the lane is healthy.
    pub(super) due: Option<Instant>,
    /// Number of consecutive failed ones.
    pub(super) failed: u32,
}

/// The next step of a thread.
pub(super) enum Next {
    /// Run a batch. The oldest entry was queued at this time.
    Work(Instant),
    /// Run the self-test: the lane is failing.
    Probe,
    /// Close the session: the lane is parked and its queue is empty.
    Park,
    /// End the thread: the lane is stopping and its queue is empty.
    Stop,
}

/// When the next batch of a queue is due.
pub(super) enum Due {
    /// Now. The oldest entry was queued at this time.
    Now(Instant),
    /// After this time, unless the batch is full earlier.
    In(Duration),
    /// Never: the queue is empty.
    Nothing,
}

pub(super) fn same_shape(one: &Entry, other: &Entry) -> bool {
    one.item.len() == other.item.len()
        && one
            .item
            .iter()
            .zip(&other.item)
            .all(|(a, b)| a.dtype() == b.dtype() && a.shape() == b.shape())
}
