//! What scoring needs from a dispatch.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use uuid::Uuid;

use super::suspects::Suspect;
use crate::store::{PendingId, PendingRecord, StoreError};

/// A pending sample that this instance is to score.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) sample: PendingRecord,
    /// Set if it may have ended a process: it is scored alone.
    pub(crate) suspect: Option<Suspect>,
}

impl Taken {
    /// Returns whether it must not be scored yet.
    pub(crate) fn rests(&self) -> bool {
        let until = self.suspect.as_ref().and_then(|suspect| suspect.rests_until);
        until.is_some_and(|until| until > Instant::now())
    }
}

/// The outcome of a sample that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its row is no longer pending.
    Settled,
    /// Its row says when it is due again, after this time.
    Postponed(Duration),
    /// Nothing is known: any instance may take it now.
    Left,
}

/// Brings pending samples of one pack to an instance that scores them.
#[async_trait]
pub(crate) trait Dispatch: Send + Sync {
    /// Says that samples have become pending. It does not wait, and the message may be lost.
    fn announce(&self, sample: PendingId);

    /// Takes due samples, roughly oldest first. They stay taken until [`end`](Self::end). If other
    /// workers could score them, at most `room` come, and a suspect comes alone. Otherwise the
    /// caller must score a suspect alone.
    async fn take(&self, room: usize) -> Result<Vec<Taken>, StoreError>;

    /// Returns how long to wait before the next [`take`](Self::take).
    async fn pause(&self) -> Duration;

    /// Notes that a taken sample is being scored from now on.
    fn begin(&self, sample: Uuid);

    /// Ends what `take` began.
    async fn end(&self, sample: Uuid, outcome: Outcome);

    /// Announces pending samples whose announcement is lost. One instance at a time calls it, every
    /// few seconds.
    async fn reconcile(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Leaves all samples that are taken or fetched: scoring begins anew, or stops.
    async fn leave(&self);

    /// Whether samples can be announced now.
    fn is_connected(&self) -> bool {
        true
    }

    /// Drops announcements of a run that is deleted.
    async fn forget_run(&self, _run: Uuid) {}

    /// Sends what is announced and not sent yet. No sample is announced afterwards.
    async fn close(&self) {}
}
