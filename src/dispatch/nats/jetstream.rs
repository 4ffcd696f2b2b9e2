//! The dispatch of workers: ids from the broker, rows from the database.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use async_nats::jetstream::AckKind;
use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::{
    broker::Broker,
    inbox::{Inbox, soon},
    publisher::Publisher,
};
use crate::{
    dispatch::{
        interface::{Dispatch, Outcome, Taken},
        suspects::Suspect,
    },
    store::{PendingId, PendingRecord, Store, StoreError},
    supervisor::Supervisor,
    sync::lock,
};

/// A sample with which this many workers have died is a suspect, and is scored alone. Most of their
/// samples only were beside the culprit.
const SUSPECT: u32 = 3;

/// Deaths of workers that score a suspect alone, after which it fails.
const DEATHS_OF_SUSPECT: u32 = 3;

/// Longest pause of scoring: the inbox notifies when messages have come.
const PAUSE: Duration = Duration::from_secs(1);

/// Dispatch of any number of workers.
pub(crate) struct Jetstream {
    store: Store,
    spool: String,
    pack: String,
    broker: Broker,
    publisher: Publisher,
    inbox: Arc<Inbox>,
    hands: Mutex<Hands>,
    started: Instant,
}

/// Samples that scoring has, and suspects that wait until it has none.
#[derive(Default)]
struct Hands {
    taken: HashSet<Uuid>,
    /// The suspect that scoring has. Nothing else is taken: its death would count for all of it.
    alone: Option<Uuid>,
    suspects: VecDeque<Uuid>,
    /// Attempts that perhaps began, or have not ended, because the database failed. They are ended
    /// as soon as it works: otherwise each would count as a death.
    unended: HashSet<Uuid>,
}

impl Jetstream {
    /// Starts to fetch samples of this spool and pack. `work` is notified when there are some.
    pub(crate) fn start(
        broker: Broker,
        store: Store,
        (spool, pack): (String, String),
        work: Arc<Notify>,
        supervisor: &Arc<Supervisor>,
        stopping: &watch::Receiver<bool>,
    ) -> Self {
        let publisher = Publisher::start(broker.clone(), supervisor, stopping);
        let inbox = Inbox::start(broker.clone(), pack.clone(), work, supervisor, stopping);
        let (hands, started) = (Mutex::default(), Instant::now());
        Self { store, spool, pack, broker, publisher, inbox, hands, started }
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        lock(&self.hands)
    }

    /// Begins attempts on these samples, and answers those whose row is gone.
    async fn rows(
        &self,
        samples: &[Uuid],
        most_deaths: u32,
    ) -> Result<Vec<PendingRecord>, StoreError> {
        match self.store.begin_attempts(samples, most_deaths).await {
            Ok(found) => {
                let has: HashSet<_> = found.iter().map(|sample| sample.id).collect();
                for gone in samples.iter().filter(|sample| !has.contains(*sample)) {
                    // Recorded, failed or deleted.
                    self.inbox.answer(*gone, AckKind::Ack).await;
                }
                let again = found.iter().filter(|sample| sample.unended).count();
                self.broker.telemetry().redelivered.inc_by(again as u64);
                Ok(found)
            }
            Err(error) => {
                self.hands().unended.extend(samples);
                for sample in samples {
                    self.inbox.answer(*sample, soon()).await;
                }
                Err(error)
            }
        }
    }

    /// Ends attempts without an outcome, now or before the next samples are taken.
    async fn end_attempts(&self, attempts: HashSet<Uuid>) {
        let ended = self.store.end_attempts(&attempts.iter().copied().collect::<Vec<_>>()).await;
        if let Err(error) = ended {
            tracing::warn!(%error, "failed to end attempts, will retry");
            self.hands().unended.extend(attempts);
        }
    }

    /// Takes the next suspect if scoring has nothing else.
    async fn take_suspect(&self) -> Result<Vec<Taken>, StoreError> {
        let next = {
            let mut hands = self.hands();
            if hands.taken.is_empty() { hands.suspects.pop_front() } else { None }
        };
        let Some(next) = next else { return Ok(Vec::new()) };
        let found = self.rows(&[next], u32::MAX).await?;
        self.broker.telemetry().suspects.inc_by(found.len() as u64);
        {
            let mut hands = self.hands();
            hands.taken.extend(found.iter().map(|sample| sample.id));
            hands.alone = found.first().map(|sample| sample.id);
        }
        let of = |sample: PendingRecord| {
            let charged = sample.deaths.saturating_sub(SUSPECT);
            Taken { suspect: Some(Suspect::new(charged, DEATHS_OF_SUSPECT, self.started)), sample }
        };
        Ok(found.into_iter().map(of).collect())
    }
}

#[async_trait]
impl Dispatch for Jetstream {
    fn announce(&self, sample: PendingId) {
        self.publisher.announce(sample);
    }

    async fn take(&self, room: usize) -> Result<Vec<Taken>, StoreError> {
        let (alone, suspects) = {
            let hands = self.hands();
            (hands.alone.is_some(), !hands.suspects.is_empty())
        };
        if alone {
            return Ok(Vec::new());
        }
        if suspects {
            return self.take_suspect().await;
        }
        let unended = std::mem::take(&mut self.hands().unended);
        if !unended.is_empty() {
            self.end_attempts(unended).await;
        }
        let samples = self.inbox.take(room);
        if samples.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.rows(&samples, SUSPECT - 1).await?;
        let mut hands = self.hands();
        let (suspects, others): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|sample| sample.deaths >= SUSPECT);
        hands.suspects.extend(suspects.iter().map(|sample| sample.id));
        hands.taken.extend(others.iter().map(|sample| sample.id));
        Ok(others.into_iter().map(|sample| Taken { sample, suspect: None }).collect())
    }

    async fn pause(&self) -> Duration {
        let waits = self.inbox.has_some() || {
            let hands = self.hands();
            !hands.suspects.is_empty() && hands.taken.is_empty()
        };
        if waits { Duration::from_millis(1) } else { PAUSE }
    }

    fn begin(&self, _: Uuid) {}

    async fn end(&self, sample: Uuid, outcome: Outcome) {
        {
            let mut hands = self.hands();
            hands.alone.take_if(|alone| *alone == sample);
            if !hands.taken.remove(&sample) {
                return;
            }
        }
        let answer = match outcome {
            Outcome::Settled => AckKind::Ack,
            Outcome::Postponed(pause) => AckKind::Nak(Some(pause)),
            Outcome::Left => {
                self.end_attempts([sample].into()).await;
                soon()
            }
        };
        self.inbox.answer(sample, answer).await;
    }

    async fn reconcile(&self) -> Result<(), StoreError> {
        self.publisher.reconcile(&self.store, (&self.spool, &self.pack)).await
    }

    async fn leave(&self) {
        let Hands { taken, suspects, unended, .. } = std::mem::take(&mut *self.hands());
        self.end_attempts(taken.union(&unended).copied().collect()).await;
        for sample in taken.into_iter().chain(suspects) {
            self.inbox.answer(sample, soon()).await;
        }
        self.inbox.leave_fetched().await;
    }

    fn is_connected(&self) -> bool {
        self.broker.is_connected()
    }

    async fn forget_run(&self, run: Uuid) {
        self.publisher.forget_run(run).await;
    }

    async fn close(&self) {
        self.publisher.close().await;
        self.broker.flush().await;
    }
}
