//! Messages that this instance has: it fetches as many as it can use, and tells the broker that it
//! works on them until it answers them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
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
use crate::sync::lock;

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
    /// Notified when `ack_wait` has changed.
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Fetched, and not taken yet.
    fetched: VecDeque<Uuid>,
    /// All messages, fetched or taken.
    held: HashMap<Uuid, Held>,
    taken_at: Option<Instant>,
    /// Messages that may wait to be taken.
    wanted: usize,
    /// Silence after which the broker gives a message to others, as the consumer has it.
    ack_wait: Option<Duration>,
}

/// A message that this instance has.
#[derive(Clone)]
struct Held {
    acker: Arc<Acker>,
    /// When it came into the stream, by the broker's clock.
    published: OffsetDateTime,
    /// Whether the broker has lost it, with the rest of its storage. An answer would count for
    /// another message, which has its number now.
    lost: bool,
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
        let (state, room, changed) = (Mutex::default(), Notify::new(), Notify::new());
        let this = Arc::new(Self { broker, pack, state, room, work, changed });
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
        lock(&self.state)
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
        let held = self.state().held.remove(&sample);
        if let Some(held) = held.filter(|held| !held.lost) {
            send(&held.acker, kind).await;
        }
    }

    /// Returns all messages that are not taken to the broker.
    pub(super) async fn leave_fetched(&self) {
        let left: Vec<_> = {
            let mut state = self.state();
            state.wanted = 0;
            let fetched = std::mem::take(&mut state.fetched);
            fetched.into_iter().filter_map(|sample| state.held.remove(&sample)).collect()
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
                    let (found, created) = self.broker.configured_consumer(&self.pack).await?;
                    self.recognise(created, found.cached_info());
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

    /// Takes over the settings of the consumer, and notices if messages are of an earlier stream:
    /// the storage of the broker is lost.
    fn recognise(&self, stream_created: OffsetDateTime, consumer: &Info) {
        let mut state = self.state();
        if state.ack_wait.replace(consumer.config.ack_wait) != Some(consumer.config.ack_wait) {
            self.changed.notify_one();
        }
        let State { fetched, held, .. } = &mut *state;
        for held in held.values_mut() {
            held.lost |= held.published < stream_created;
        }
        fetched.retain(|sample| {
            let lost = held.get(sample).is_none_or(|held| held.lost);
            if lost {
                held.remove(sample);
            }
            !lost
        });
        // The others are being scored here, and must not be taken a second time.
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
        let published = message.info().map_or(OffsetDateTime::UNIX_EPOCH, |info| info.published);
        let (message, acker) = message.split();
        let Ok(sample) = Uuid::from_slice(&message.payload) else {
            tracing::error!(
                subject = %message.subject,
                "dropped a message that is not the id of a sample: does something else publish to \
                    this stream?"
            );
            // It is not one of ours, and no other worker can use it.
            tokio::spawn(async move { send(&acker, AckKind::Term).await });
            return;
        };
        let held = Held { acker: Arc::new(acker), published, lost: false };
        let mut state = self.state();
        // Redelivered while this instance still had it: the newer message counts.
        if state.held.insert(sample, held).is_none() {
            state.fetched.push_back(sample);
        }
    }

    /// Tells the broker that this instance works on its samples, before it gives them to others.
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
                        self.leave_fetched().await;
                    }
                    let held = {
                        let state = self.state();
                        state.held.values().filter(|held| !held.lost).cloned().collect()
                    };
                    send_all(held, AckKind::Progress).await;
                }
                // The next pause has the new length.
                () = self.changed.notified() => {}
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
            self.recognise(stream.cached_info().created, &info);
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
async fn send_all(messages: Vec<Held>, kind: AckKind) {
    stream::iter(messages)
        .for_each_concurrent(ANSWERS, |held| async move { send(&held.acker, kind).await })
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
