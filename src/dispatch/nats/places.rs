//! Which worker has room for a request: a question to the workers of a pack, which NATS gives to
//! one of them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

use super::broker::{Broker, short};
use crate::supervisor::{Supervisor, stopped};

/// Time limit of an answer. A worker answers at once, or is gone.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often other workers are asked.
const TRIES: usize = 5;

/// Pause before a worker is asked again, after one had no room.
const AFTER_BUSY: Duration = Duration::from_millis(20);

/// Interval of counting the workers.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// How long a count waits for answers.
const COUNTING: Duration = Duration::from_secs(1);

/// Pause before a subscription is tried again.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// A worker's answer.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    /// URL of the worker.
    url: String,
    /// Whether it would take a request now.
    has_room: bool,
}

/// No worker takes a request now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// All that answered are busy.
    Busy,
    /// None answered.
    NoWorker,
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

    fn subject(&self, of: &str) -> String {
        self.broker.subject(&format!("{of}.{}", short(&self.pack)))
    }

    /// Counts a forwarded request.
    pub(crate) fn count(&self, outcome: &str) {
        self.broker.telemetry().forwarded(outcome);
    }

    /// Returns the URL of a worker with room, other than these.
    pub(crate) async fn find(&self, but: &BTreeSet<String>) -> Result<String, NoPlace> {
        let mut why = NoPlace::NoWorker;
        for _ in 0..TRIES {
            let request = self.broker.client().request(self.subject("place"), "".into());
            let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, request).await else {
                return Err(why);
            };
            match serde_json::from_slice::<Answer>(&answer.payload) {
                Ok(Answer { url, has_room: true }) if !but.contains(&url) => return Ok(url),
                _ => why = NoPlace::Busy,
            }
            tokio::time::sleep(AFTER_BUSY).await;
        }
        Err(why)
    }

    /// Answers for this worker, under its URL.
    pub(crate) fn offer(
        self,
        url: String,
        has_room: impl Fn() -> bool + Send + Sync + 'static,
        supervisor: &Arc<Supervisor>,
        stopping: &watch::Receiver<bool>,
    ) {
        let (this, has_room, stopped) = (Arc::new(self), Arc::new(has_room), stopping.clone());
        drop(supervisor.watch("places", stopping.clone(), move || {
            let (this, has_room, url) = (Arc::clone(&this), Arc::clone(&has_room), url.clone());
            let stopped = stopped.clone();
            async move { this.answer(&url, &*has_room, stopped).await }
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
            // Subscriptions survive a lost connection.
            let places = client.queue_subscribe(self.subject("place"), "workers".to_owned()).await;
            let counts = client.subscribe(self.subject("count")).await;
            let (Ok(places), Ok(counts)) = (places, counts) else {
                tokio::time::sleep(AFTER_FAILURE).await;
                continue;
            };
            let mut questions = futures_util::stream::select(places, counts);
            loop {
                let question = tokio::select! {
                    question = questions.next() => question,
                    () = stopped(&mut stopping) => return,
                };
                let Some(question) = question else { break };
                let Some(reply) = question.reply else { continue };
                let answer = Answer { url: url.to_owned(), has_room: has_room() };
                let answer = serde_json::to_vec(&answer).expect("plain data always serialises");
                if let Err(error) = client.publish(reply, answer.into()).await {
                    tracing::debug!(%error, "failed to answer a request for a place");
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
        let stopped = stopping.clone();
        drop(supervisor.watch("workers", stopping.clone(), move || {
            let (this, mut stopping) = (Arc::clone(&this), stopped.clone());
            async move {
                loop {
                    this.broker.telemetry().workers.set(this.count_once().await as i64);
                    tokio::select! {
                        () = tokio::time::sleep(COUNT_EVERY) => {}
                        () = crate::supervisor::stopped(&mut stopping) => return,
                    }
                }
            }
        }));
    }

    async fn count_once(&self) -> usize {
        let client = self.broker.client();
        let inbox = client.new_inbox();
        let Ok(mut answers) = client.subscribe(inbox.clone()).await else { return 0 };
        let asked = client.publish_with_reply(self.subject("count"), inbox, "".into()).await;
        if asked.is_err() {
            return 0;
        }
        let mut urls = BTreeSet::new();
        let until = Instant::now() + COUNTING;
        while let Ok(Some(answer)) = tokio::time::timeout_at(until, answers.next()).await {
            if let Ok(answer) = serde_json::from_slice::<Answer>(&answer.payload) {
                urls.insert(answer.url);
            }
        }
        urls.len()
    }
}
