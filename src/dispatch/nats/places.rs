//! Which worker has room for a request: a question to all workers of a pack, which those with room
//! answer.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_nats::RequestErrorKind;
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

use super::broker::{Broker, short};
use crate::content::ContentHash;
use crate::supervisor::{Supervisor, stopped};

/// Time limit of an answer. Workers without room do not answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// Interval of counting the workers.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// How long a count waits for answers.
const COUNTING: Duration = Duration::from_secs(1);

/// Pause before a subscription is tried again.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// A question to all workers.
#[derive(Debug, Serialize, Deserialize)]
enum Question {
    /// Who has room for a request, except the workers with these URLs?
    Room(BTreeSet<String>),
    /// Who is there?
    Present,
}

/// No worker takes a request now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// No worker has answered in time: none has room.
    Busy,
    /// No worker listens.
    NoWorker,
    /// Workers have answered, but a connection to them fails.
    Unreachable,
    /// The broker cannot be reached.
    NoBroker,
}

/// Finds workers with room for a request.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    broker: Broker,
    pack: String,
}

impl Places {
    pub(crate) fn new(broker: Broker, pack: String) -> Self {
        Self { broker, pack }
    }

    fn subject(&self) -> String {
        let (of, pack) = (self.broker.installation(), short(&self.pack));
        self.broker.subject(&format!("ask.{of}.{pack}"))
    }

    /// Returns what proves to a worker that a request comes from an instance on the same database.
    pub(crate) fn proof(&self) -> String {
        ContentHash::of(format!("forwarded by {}", self.broker.installation()).as_bytes()).to_hex()
    }

    /// Counts a forwarded request.
    pub(crate) fn count(&self, outcome: &str) {
        self.broker.telemetry().forwarded(outcome);
    }

    /// Returns the URL of the worker with room that answers first, except these.
    pub(crate) async fn find(&self, but: &BTreeSet<String>) -> Result<String, NoPlace> {
        if !self.broker.is_connected() {
            // The client would send the question after its next connection.
            return Err(NoPlace::NoBroker);
        }
        let question = encoded(&Question::Room(but.clone()));
        let request = self.broker.client().request(self.subject(), question);
        match tokio::time::timeout(PATIENCE, request).await {
            Ok(Ok(answer)) => String::from_utf8(answer.payload.into()).map_err(|_| NoPlace::Busy),
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => {
                Err(NoPlace::NoWorker)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "failed to ask for a worker");
                Err(NoPlace::NoBroker)
            }
            Err(_) => Err(NoPlace::Busy),
        }
    }

    /// Answers for this worker, under its URL.
    pub(crate) fn offer(
        self,
        url: String,
        has_room: impl Fn() -> bool + Send + Sync + 'static,
        supervisor: &Arc<Supervisor>,
        stopping: &watch::Receiver<bool>,
    ) {
        let (this, has_room, stop) = (Arc::new(self), Arc::new(has_room), stopping.clone());
        drop(supervisor.watch("places", stopping.clone(), move || {
            let (this, has_room, url) = (Arc::clone(&this), Arc::clone(&has_room), url.clone());
            let stop = stop.clone();
            async move { this.answer(&url, &*has_room, stop).await }
        }));
    }

    async fn answer(
        &self,
        url: &str,
        has_room: &(dyn Fn() -> bool + Send + Sync),
        mut stopping: watch::Receiver<bool>,
    ) {
        let client = self.broker.client();
        while !*stopping.borrow() {
            // A subscription survives a lost connection.
            let Ok(mut questions) = client.subscribe(self.subject()).await else {
                tokio::time::sleep(AFTER_FAILURE).await;
                continue;
            };
            loop {
                let question = tokio::select! {
                    question = questions.next() => question,
                    () = stopped(&mut stopping) => return,
                };
                let Some(question) = question else { break };
                let answers = match serde_json::from_slice(&question.payload) {
                    Ok(Question::Room(but)) => has_room() && !but.contains(url),
                    Ok(Question::Present) => true,
                    Err(_) => false,
                };
                let Some(reply) = question.reply.filter(|_| answers) else { continue };
                if let Err(error) = client.publish(reply, url.to_owned().into()).await {
                    tracing::debug!(%error, "failed to answer a question for room");
                }
            }
        }
    }

    /// Counts the workers every few seconds, for the service metrics.
    pub(crate) fn count_workers(
        self,
        supervisor: &Arc<Supervisor>,
        stopping: &watch::Receiver<bool>,
    ) {
        let this = Arc::new(self);
        let stop = stopping.clone();
        drop(supervisor.watch("workers", stopping.clone(), move || {
            let (this, mut stopping) = (Arc::clone(&this), stop.clone());
            async move {
                loop {
                    this.broker.telemetry().workers.set(this.count_once().await as i64);
                    tokio::select! {
                        () = tokio::time::sleep(COUNT_EVERY) => {}
                        () = stopped(&mut stopping) => return,
                    }
                }
            }
        }));
    }

    async fn count_once(&self) -> usize {
        let client = self.broker.client();
        let inbox = client.new_inbox();
        let Ok(mut answers) = client.subscribe(inbox.clone()).await else { return 0 };
        let question = encoded(&Question::Present);
        let asked = client.publish_with_reply(self.subject(), inbox, question).await;
        if asked.is_err() {
            return 0;
        }
        let mut urls = BTreeSet::new();
        let until = Instant::now() + COUNTING;
        while let Ok(Some(answer)) = tokio::time::timeout_at(until, answers.next()).await {
            if answer.status.is_none() {
                urls.insert(answer.payload);
            }
        }
        urls.len()
    }
}

fn encoded(question: &Question) -> Bytes {
    serde_json::to_vec(question).expect("plain data always serialises").into()
}
