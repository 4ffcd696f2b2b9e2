//! The queue of samples that wait for a writer (`group_commit.rs`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::{Semaphore, oneshot};
use tracing::Span;
use uuid::Uuid;

use super::db::StoreError;
use super::sample::{NewSample, Recorded};
use crate::sync::lock;

/// Result for a sample: `None` if it was pending and no longer is.
pub(super) type Done = Option<Recorded>;

/// Samples that are queued for a writer, and the permits of the writers.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<VecDeque<Entry>>,
    pub(super) writers: Semaphore,
}

/// A sample to record.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) sample: NewSample,
    /// Run of a pending sample; `None` for a sample of an interactive request.
    pub(super) pending: Option<Uuid>,
    /// Span of the caller that waits for the reply.
    pub(super) span: Span,
    pub(super) reply: oneshot::Sender<Result<Done, StoreError>>,
}

impl Queue {
    /// Creates a queue for this many concurrent transactions.
    pub(super) fn new(writers: usize) -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::default(), writers: Semaphore::new(writers) })
    }

    /// Enqueues a sample; `pending` is the run of a pending one. The caller then
    /// starts a writer, which sends the result.
    pub(super) fn join(
        &self,
        sample: &NewSample,
        pending: Option<Uuid>,
        span: Span,
    ) -> oneshot::Receiver<Result<Done, StoreError>> {
        let (reply, receiver) = oneshot::channel();
        let entry = Entry { sample: sample.clone(), pending, span, reply };
        lock(&self.waiting).push_back(entry);
        receiver
    }

    /// Takes the oldest entries, at most `most`.
    pub(super) fn take(&self, most: usize) -> Vec<Entry> {
        let mut waiting = lock(&self.waiting);
        let count = waiting.len().min(most);
        waiting.drain(..count).collect()
    }
}
