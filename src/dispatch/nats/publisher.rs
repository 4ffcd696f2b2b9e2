//! Publishes ids of samples.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use futures_util::{StreamExt as _, stream};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use uuid::Uuid;

use super::broker::{Broker, short};
use crate::store::{PendingId, Store, StoreError};
use crate::supervisor::Supervisor;

/// Samples that are announced and not published yet. Further ones are found by the next comparison.
const QUEUE: usize = 65_536;

/// Samples that are published together.
const IN_FLIGHT: usize = 512;

/// Rows that a comparison reads at once.
const PAGE: u32 = 2_000;

/// Time limit of publishing what is left at the end.
const CLOSING: Duration = Duration::from_secs(5);

/// Interval of publishing everything that is pending, however many messages there are: messages of
/// deleted samples may hide that others are missing.
const ALL_EVERY: Duration = Duration::from_mins(10);

/// Publishes ids of samples.
pub(super) struct Publisher {
    broker: Broker,
    queue: mpsc::Sender<Order>,
    compared: Mutex<Compared>,
}

/// What the publishing task is to do, in order.
enum Order {
    Publish(PendingId),
    /// Tell that everything before is published.
    Tell(oneshot::Sender<()>),
}

/// The last comparison of rows with messages.
struct Compared {
    /// When everything was published.
    all: Instant,
    /// Whether messages were missing.
    lacked: bool,
}

/// What became of published ids.
#[derive(Default)]
struct Published {
    new: u64,
    queued: u64,
    failed: u64,
}

impl Publisher {
    pub(super) fn start(
        broker: Broker,
        supervisor: &Arc<Supervisor>,
        stopping: &watch::Receiver<bool>,
    ) -> Self {
        let (queue, announced) = mpsc::channel(QUEUE);
        let (of_task, announced) = (broker.clone(), Arc::new(Mutex::new(announced)));
        drop(supervisor.watch("publishing", stopping.clone(), move || {
            publish_announced(of_task.clone(), Arc::clone(&announced))
        }));
        let compared = Mutex::new(Compared { all: Instant::now(), lacked: false });
        Self { broker, queue, compared }
    }

    /// Publishes a sample soon.
    pub(super) fn announce(&self, sample: PendingId) {
        if self.queue.try_send(Order::Publish(sample)).is_err() {
            self.broker.telemetry().published("failed", 1);
        }
    }

    /// Waits until everything that was announced is published.
    pub(super) async fn close(&self) {
        let (told, done) = oneshot::channel();
        let published = async {
            let _ = self.queue.send(Order::Tell(told)).await;
            let _ = done.await;
        };
        if tokio::time::timeout(CLOSING, published).await.is_err() {
            tracing::warn!("samples are not published yet: another instance will do it");
        }
    }

    /// Removes the messages of a run.
    pub(super) async fn forget_run(&self, run: Uuid) {
        let subject = self.broker.subject(&format!("work.*.{run}.>"));
        let purged = async {
            self.broker.stream().await?.purge().filter(subject).await?;
            Ok::<_, async_nats::Error>(())
        };
        if let Err(error) = purged.await {
            // Workers drop them, since they find no rows.
            tracing::debug!(%error, %run, "failed to remove the messages of a run");
        }
    }

    /// Publishes what is pending and missing in the stream.
    pub(super) async fn reconcile(
        &self,
        store: &Store,
        (spool, pack): (&str, &str),
    ) -> Result<(), StoreError> {
        let mut compared = self.compared.lock().await;
        // Before the messages, so that what is accepted meanwhile does not count as missing.
        let pending = store.pending_count(spool).await?;
        let queued = async {
            let stream = self.broker.stream().await?;
            // Also where no worker runs yet: autoscalers read the lag of the consumer.
            self.broker.consumer(&stream, pack).await?;
            Ok::<_, async_nats::Error>(stream.cached_info().state.messages)
        };
        let queued = match queued.await {
            Ok(queued) => queued,
            Err(error) => {
                tracing::warn!(%error, "failed to compare samples with the broker, will retry");
                return Ok(());
            }
        };
        let lacked = std::mem::replace(&mut compared.lacked, pending > queued);
        // Twice in a row: samples of the last moment are still being published.
        if !(lacked && compared.lacked) && compared.all.elapsed() < ALL_EVERY {
            return Ok(());
        }
        let (mut after, mut new) = (Uuid::nil(), 0);
        loop {
            let page = store.pending_ids(spool, after, PAGE).await?;
            let Some(last) = page.last() else {
                *compared = Compared { all: Instant::now(), lacked: false };
                break;
            };
            after = last.id;
            let published = publish(&self.broker, page).await;
            new += published.new;
            if published.failed > 0 {
                break;
            }
        }
        if new > 0 {
            self.broker.telemetry().republished.inc_by(new);
            tracing::warn!(samples = new, "samples were missing in the stream, published again");
        }
        Ok(())
    }
}

async fn publish_announced(broker: Broker, announced: Arc<Mutex<mpsc::Receiver<Order>>>) {
    let mut announced = announced.lock().await;
    let mut orders = Vec::new();
    while announced.recv_many(&mut orders, IN_FLIGHT).await > 0 {
        let mut samples = Vec::new();
        for order in orders.drain(..) {
            match order {
                Order::Publish(sample) => samples.push(sample),
                Order::Tell(told) => {
                    publish(&broker, std::mem::take(&mut samples)).await;
                    let _ = told.send(());
                }
            }
        }
        publish(&broker, samples).await;
    }
}

async fn publish(broker: &Broker, samples: Vec<PendingId>) -> Published {
    let mut outcomes = Published::default();
    let (homeless, mut failure) = publish_to_stream(broker, samples, &mut outcomes).await;
    if !homeless.is_empty() {
        // There is no stream: it is the first start, or the storage of the broker is lost.
        match broker.stream().await {
            Ok(_) => {
                let (left, error) = publish_to_stream(broker, homeless, &mut outcomes).await;
                outcomes.failed += left.len() as u64;
                failure = error.or(failure);
            }
            Err(error) => {
                outcomes.failed += homeless.len() as u64;
                tracing::warn!(%error, "failed to create the stream, will retry");
            }
        }
    }
    if let Some(error) = failure {
        let samples = outcomes.failed;
        tracing::warn!(%error, samples, "failed to publish samples: the next comparison will");
    }
    for (outcome, count) in
        [("new", outcomes.new), ("queued", outcomes.queued), ("failed", outcomes.failed)]
    {
        broker.telemetry().published(outcome, count);
    }
    outcomes
}

/// Publishes samples, and returns those for which there was no stream.
async fn publish_to_stream(
    broker: &Broker,
    samples: Vec<PendingId>,
    outcomes: &mut Published,
) -> (Vec<PendingId>, Option<PublishError>) {
    let one = async |sample: PendingId| {
        let published = publish_one(broker, &sample).await;
        (sample, published)
    };
    let (mut homeless, mut failure) = (Vec::new(), None);
    let mut published = std::pin::pin!(stream::iter(samples).map(one).buffer_unordered(IN_FLIGHT));
    while let Some((sample, published)) = published.next().await {
        match published.map_err(|error| (error.kind(), error)) {
            Ok(()) => outcomes.new += 1,
            // There is a message on the subject: the sample is queued or in flight.
            Err((PublishErrorKind::WrongLastSequence, _)) => outcomes.queued += 1,
            Err((PublishErrorKind::StreamNotFound, _)) => homeless.push(sample),
            Err((_, error)) => {
                outcomes.failed += 1;
                failure = Some(error);
            }
        }
    }
    (homeless, failure)
}

async fn publish_one(broker: &Broker, sample: &PendingId) -> Result<(), PublishError> {
    let PendingId { id, run, pack } = sample;
    let subject = broker.subject(&format!("work.{}.{run}.{id}", short(pack)));
    let message = PublishMessage::build()
        .payload(id.into_bytes().to_vec().into())
        .expected_last_subject_sequence(0);
    broker.context().send_publish(subject, message).await?.await.map(drop)
}
