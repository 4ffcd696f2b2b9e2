//! Messages that this instance has: it fetches as many as it can use, and says until their end that
//! it is at it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    AckKind, Message,
    consumer::{Info, PullConsumer},
    message::Acker,
};
use futures_util::{StreamExt as _, stream};
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::broker::{Broker, consumer_name};
use crate::supervisor::{Supervisor, stopped};

/// How long a request for messages waits in the broker.
const EXPIRES: Duration = Duration::from_secs(10);

/// Pause after a failure of the broker.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Interval of the gauges of the consumer.
const GAUGES_EVERY: Duration = Duration::from_secs(5);

/// Pause of a sample that this instance had and could not use.
const AFTER_LEAVING: Duration = Duration::from_secs(1);

/// Time limit of an acknowledgement: while there is no connection, they wait for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Answers that are sent at the same time.
const ANSWERS: usize = 64;

/// The messages of one instance.
pub(super) struct Inbox {
    broker: Broker,
    pack: String,
    state: Mutex<State>,
    /// Notified when messages may be fetched.
    room: Notify,
    /// Notified when messages have come.
    work: Arc<Notify>,
}

#[derive(Default)]
struct State {
    /// Fetched, and not taken yet.
    fetched: VecDeque<Uuid>,
    /// All messages, fetched or taken. `None` for a sample whose message the broker has lost.
    held: HashMap<Uuid, Option<Arc<Acker>>>,
    taken_at: Option<Instant>,
    /// Messages that may wait to be taken.
    wanted: usize,
    /// Silence after which the broker gives a message to others, as the consumer has it.
    ack_wait: Option<Duration>,
    /// When the consumer was created.
    created: Option<OffsetDateTime>,
}

impl Inbox {
    /// Starts to fetch messages of the pack, as many as are [taken](Self::take).
    pub(super) fn start(
        broker: Broker,
        pack: String,
        work: Arc<Notify>,
        supervisor: &Arc<Supervisor>,
        stopping: &watch::Receiver<bool>,
    ) -> Arc<Self> {
        let (state, room) = (Mutex::default(), Notify::new());
        let this = Arc::new(Self { broker, pack, state, room, work });
        let [fetching, keeping, measuring] = std::array::from_fn(|_| Arc::clone(&this));
        let [of_fetching, of_keeping, of_measuring] = std::array::from_fn(|_| stopping.clone());
        supervisor.watch("fetching", stopping.clone(), move || {
            Arc::clone(&fetching).fetch_all(of_fetching.clone())
        });
        supervisor.watch("acknowledging", stopping.clone(), move || {
            Arc::clone(&keeping).keep(of_keeping.clone())
        });
        supervisor.watch("measuring", stopping.clone(), move || {
            Arc::clone(&measuring).measure(of_measuring.clone())
        });
        this
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up to this many messages, and has about as many fetched for the next call.
    pub(super) fn take(&self, room: usize) -> Vec<Uuid> {
        let mut state = self.state();
        state.taken_at = Some(Instant::now());
        state.wanted = room;
        let some = room.min(state.fetched.len());
        let taken = state.fetched.drain(..some).collect();
        self.room.notify_one();
        taken
    }

    /// Returns how many messages may be fetched now.
    fn lacking(&self) -> usize {
        let state = self.state();
        state.wanted.saturating_sub(state.fetched.len())
    }

    /// Returns whether messages wait to be taken.
    pub(super) fn has_some(&self) -> bool {
        !self.state().fetched.is_empty()
    }

    /// Answers a message.
    pub(super) async fn answer(&self, sample: Uuid, kind: AckKind) {
        let acker = self.state().held.remove(&sample);
        if let Some(Some(acker)) = acker {
            send(&acker, kind).await;
        }
    }

    /// Returns all messages that are not taken to the broker.
    pub(super) async fn leave_fetched(&self) {
        let left: Vec<_> = {
            let mut state = self.state();
            let fetched = std::mem::take(&mut state.fetched);
            fetched.into_iter().filter_map(|sample| state.held.remove(&sample)?).collect()
        };
        send_all(left, AckKind::Nak(None)).await;
    }

    async fn fetch_all(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        tokio::select! {
            () = self.fetch() => {}
            () = stopped(&mut stopping) => {}
        }
        self.leave_fetched().await;
    }

    async fn fetch(&self) {
        let mut consumer: Option<PullConsumer> = None;
        loop {
            let room = self.lacking();
            if room == 0 {
                self.room.notified().await;
                continue;
            }
            let fetched = async {
                if consumer.is_none() {
                    let found = self.broker.consumer(&self.pack).await?;
                    self.recognise(found.cached_info());
                    consumer = Some(found);
                }
                let consumer = consumer.as_ref().ok_or("no consumer")?;
                self.fetch_some(consumer, room).await
            };
            if let Err(error) = fetched.await {
                tracing::warn!(%error, "failed to get samples from the broker, will retry");
                consumer = None;
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }

    /// Takes over the settings of the consumer. Forgets the messages if it is another one than
    /// before, since the storage of the broker is lost: their answers would count for messages that
    /// have the same numbers now.
    fn recognise(&self, consumer: &Info) {
        let mut state = self.state();
        state.ack_wait = Some(consumer.config.ack_wait);
        let before = state.created.replace(consumer.created);
        if before.is_some_and(|before| before != consumer.created) {
            tracing::warn!(messages = state.held.len(), "the broker has lost its messages");
            for sample in std::mem::take(&mut state.fetched) {
                state.held.remove(&sample);
            }
            // Their samples are being scored here, and must not be taken a second time.
            state.held.values_mut().for_each(|acker| *acker = None);
        }
    }

    async fn fetch_some(
        &self,
        consumer: &PullConsumer,
        room: usize,
    ) -> Result<(), async_nats::Error> {
        let mut messages = consumer.batch().max_messages(room).expires(EXPIRES).messages().await?;
        while let Some(message) = messages.next().await {
            self.keep_one(message?);
            self.work.notify_one();
        }
        Ok(())
    }

    fn keep_one(&self, message: Message) {
        let (message, acker) = message.split();
        let Ok(sample) = Uuid::from_slice(&message.payload) else {
            tracing::error!(subject = %message.subject, "a message without the id of a sample");
            // It is not one of ours, and no other worker can use it.
            tokio::spawn(async move { send(&acker, AckKind::Term).await });
            return;
        };
        let mut state = self.state();
        // Redelivered while this instance still had it: the newer message counts.
        if state.held.insert(sample, Some(Arc::new(acker))).is_none() {
            state.fetched.push_back(sample);
        }
    }

    /// Says that this instance is at it, before the broker gives its samples to others.
    async fn keep(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        let mut beaten = Instant::now();
        let mut stops = false;
        while !(stops && self.state().held.is_empty()) {
            // The consumer has the settings of whoever created it.
            let ack_wait = self.state().ack_wait.unwrap_or_else(|| self.broker.ack_wait());
            tokio::select! {
                () = tokio::time::sleep((ack_wait / 3).saturating_sub(beaten.elapsed())) => {
                    beaten = Instant::now();
                    let unused = self.state().taken_at.is_some_and(|at| at.elapsed() > ack_wait);
                    if unused {
                        // Scoring pauses: others need not wait for it.
                        self.state().wanted = 0;
                        self.leave_fetched().await;
                    }
                    let held: Vec<_> = self.state().held.values().flatten().cloned().collect();
                    send_all(held, AckKind::Progress).await;
                }
                () = stopped(&mut stopping), if !stops => stops = true,
            }
        }
    }

    async fn measure(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(GAUGES_EVERY);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.report().await,
                () = stopped(&mut stopping) => return,
            }
        }
    }

    async fn report(&self) {
        let Ok(stream) = self.broker.stream().await else { return };
        if let Ok(info) = stream.consumer_info(consumer_name(&self.pack)).await {
            self.recognise(&info);
            let telemetry = self.broker.telemetry();
            telemetry.pending.set(info.num_pending as i64);
            telemetry.in_flight.set(info.num_ack_pending as i64);
        }
    }
}

/// Pause after which a sample may be taken again.
pub(super) fn soon() -> AckKind {
    AckKind::Nak(Some(AFTER_LEAVING))
}

/// Sends the same answer for several messages, without waiting for one after the other.
async fn send_all(ackers: Vec<Arc<Acker>>, kind: AckKind) {
    stream::iter(ackers)
        .for_each_concurrent(ANSWERS, |acker| {
            let kind = kind.clone();
            async move { send(&acker, kind).await }
        })
        .await;
}

/// Sends an answer. If it is lost, the broker gives the sample to somebody once more.
async fn send(acker: &Acker, kind: AckKind) {
    match tokio::time::timeout(PATIENCE, acker.ack_with(kind)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "failed to answer a message"),
        Err(_) => tracing::debug!("failed to answer a message in time"),
    }
}
