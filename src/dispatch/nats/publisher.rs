//! Publishes ids of samples.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use futures_util::{StreamExt as _, stream};
use tokio::sync::{Mutex, mpsc, watch};
use uuid::Uuid;

use super::broker::{Broker, short};
use crate::store::{PendingId, Store, StoreError};
use crate::supervisor::{Supervisor, stopped};

/// Samples that are announced and not published yet. Further ones are found by the next comparison.
const QUEUE: usize = 65_536;

/// Samples that are published together.
const AT_ONCE: usize = 512;

/// Rows that a comparison reads at once.
const PAGE: u32 = 2_000;

/// Interval of publishing everything that is pending, however many messages there are: messages of
/// deleted samples may hide that others are missing.
const ALL_EVERY: Duration = Duration::from_mins(10);

/// Publishes ids of samples.
pub(super) struct Publisher {
    broker: Broker,
    queue: mpsc::Sender<PendingId>,
    compared: Mutex<Instant>,
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
        let (queue, announced) = mpsc::channel::<PendingId>(QUEUE);
        let (of_task, announced) = (broker.clone(), Arc::new(Mutex::new(announced)));
        let stopped = stopping.clone();
        supervisor.watch("publishing", stopping.clone(), move || {
            publish_announced(of_task.clone(), Arc::clone(&announced), stopped.clone())
        });
        Self { broker, queue, compared: Mutex::new(Instant::now()) }
    }

    /// Publishes a sample soon.
    pub(super) fn announce(&self, sample: PendingId) {
        if self.queue.try_send(sample).is_err() {
            self.broker.telemetry().published("failed", 1);
        }
    }

    /// Publishes what is pending and missing in the stream.
    pub(super) async fn reconcile(
        &self,
        store: &Store,
        (spool, pack): (&str, &str),
    ) -> Result<(), StoreError> {
        let mut compared = self.compared.lock().await;
        let queued = async {
            // Also where no worker runs yet: autoscalers read the lag of the consumer.
            self.broker.consumer(pack).await?;
            self.broker.stream().await?.get_info().await.map_err(Into::into)
        };
        let queued = match queued.await {
            Ok(info) => info.state.messages,
            Err(error) => {
                let error: async_nats::Error = error;
                tracing::debug!(%error, "the broker does not say how many samples are queued");
                return Ok(());
            }
        };
        // Messages of recorded samples are acknowledged a moment later: a few too many are normal.
        if store.backlog().await?.waiting <= queued && compared.elapsed() < ALL_EVERY {
            return Ok(());
        }
        *compared = Instant::now();
        let (mut after, mut new) = (Uuid::nil(), 0);
        loop {
            let page = store.pending_ids(spool, after, PAGE).await?;
            let Some(last) = page.last() else { break };
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

async fn publish_announced(
    broker: Broker,
    announced: Arc<Mutex<mpsc::Receiver<PendingId>>>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut announced = announced.lock().await;
    let mut some = Vec::new();
    loop {
        tokio::select! {
            count = announced.recv_many(&mut some, AT_ONCE) => {
                if count == 0 {
                    return;
                }
            }
            () = stopped(&mut stopping) => {
                // Samples of the last requests.
                while let Ok(sample) = announced.try_recv() {
                    some.push(sample);
                }
                publish(&broker, some).await;
                return;
            }
        }
        publish(&broker, std::mem::take(&mut some)).await;
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
        tracing::warn!(%error, samples, "failed to publish samples, will retry");
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
    let mut published = std::pin::pin!(stream::iter(samples).map(one).buffer_unordered(AT_ONCE));
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
