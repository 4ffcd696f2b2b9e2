//! Which pending samples are due, and whose they are.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use time::OffsetDateTime;
use tokio::task::Id;
use uuid::Uuid;

use super::{Runs, pause::LOOK_EVERY};
use crate::store::PendingRecord;

/// Number of pending rows to prefetch, so that one query serves many samples.
const AHEAD: u32 = 64;

/// How long a claim on a sample outlasts the deadline of its attempt.
const AFTER_DEADLINE: Duration = Duration::from_secs(10);

impl Runs {
    /// Returns the oldest due samples that are not in flight.
    pub(super) async fn fetch_due(&self, running: &HashMap<Id, Uuid>) -> VecDeque<PendingRecord> {
        let limit = AHEAD + running.len() as u32;
        let pack = self.scoring.pack().digest.to_string();
        let now = OffsetDateTime::now_utc();
        match self.store.waiting(self.files.id(), &pack, now, limit).await {
            Ok(found) => found
                .into_iter()
                .filter(|found| !running.values().any(|id| *id == found.id))
                .collect(),
            Err(error) => {
                tracing::warn!(%error, "failed to list pending samples, will retry");
                VecDeque::new()
            }
        }
    }

    /// Claims the oldest due samples, which other instances could score too.
    pub(super) async fn claim_due(&self, room: usize) -> Vec<PendingRecord> {
        let pack = self.scoring.pack().digest.to_string();
        // While a suspect is to be tried alone, others would wait in vain.
        let limit = if self.attempts.suspects().is_empty() { room as u32 } else { 1 };
        let now = OffsetDateTime::now_utc();
        let time = self.deadline + AFTER_DEADLINE;
        let time = time::Duration::try_from(time).unwrap_or(time::Duration::MAX);
        self.store.claim(self.files.id(), &pack, now, time, limit).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "failed to claim pending samples, will retry");
            Vec::new()
        })
    }

    /// Leaves samples to whichever instance comes first.
    pub(super) async fn end_claims(&self, samples: Vec<Uuid>) {
        if !self.files.is_shared() {
            return;
        }
        if let Err(error) = self.store.end_claims(&samples).await {
            tracing::warn!(%error, "failed to end claims on samples; they end by themselves");
        }
    }

    /// Returns the time until the next postponed sample is due, between 10 ms and `LOOK_EVERY`.
    pub(super) async fn until_due(&self) -> Duration {
        let (pack, now) = (self.scoring.pack().digest.to_string(), OffsetDateTime::now_utc());
        let due = self.store.next_due(self.files.id(), &pack, now).await.ok().flatten();
        let wait = due.and_then(|due| Duration::try_from(due - now).ok());
        wait.unwrap_or(LOOK_EVERY).clamp(Duration::from_millis(10), LOOK_EVERY)
    }
}
