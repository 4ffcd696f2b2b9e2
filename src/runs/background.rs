//! Scoring what waits: oldest first, a bounded number at once, and fewer while requests wait for scores.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use time::OffsetDateTime;
use tokio::{
    sync::watch,
    task::{Id, JoinHandle, JoinSet},
};
use uuid::Uuid;

use super::{
    ProbesError, Runs,
    attempts::{Attempts, DEATHS},
    new_sample, probes,
    spool::SpoolReadError,
};
use crate::{
    blocking::blocking,
    engine::{EngineError, Health},
    machine,
    metrics::{self, Metric, REGISTRY},
    scoring::{EncodedImage, Metadata, Sample, ScoringError, in_background},
    store::{BlockedSamples, NewSample, PendingRecord, StoreError},
    vision::{self, DecodeError},
};

/// Rows that are read ahead, so that not each sample costs a query of its own.
const AHEAD: u32 = 64;

/// Nothing waits longer than this for a look, also where another process accepted it.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How soon it is seen that a sample need rest no longer.
const AFTER_REST: Duration = Duration::from_secs(1);

/// A full queue is empty again soon.
const AFTER_FULL: Duration = Duration::from_millis(500);

/// The wait after the first failure; each further one is four times as long.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// The wait for a graph that fails or hangs, whoever asks it.
const AFTER_UNHEALTHY: Duration = Duration::from_secs(5);

/// How often graphs are looked at that may hang.
const GRAPHS_EVERY: Duration = Duration::from_millis(500);

/// How long a file that another instance released may stay.
const RELEASED_EVERY: Duration = Duration::from_secs(2);

/// How often the trash is looked through, in which files stay for days.
const TRASH_EVERY: Duration = Duration::from_hours(1);

/// How often memory that is free is given back to the system, which takes milliseconds.
const TRIM_EVERY: Duration = Duration::from_mins(1);

/// How often the gauges are read.
const GAUGES_EVERY: Duration = Duration::from_secs(2);

/// Background work that was started.
pub struct Background(Vec<JoinHandle<()>>);

impl Background {
    /// Waits until what was being done when the service began to stop is done.
    pub async fn ended(self) {
        for task in self.0 {
            if let Err(error) = task.await {
                tracing::error!(%error, "background work ended before its time");
            }
        }
    }
}

/// What became of an attempt.
enum Attempt {
    Recorded,
    /// Deleted meanwhile, or recorded by somebody else.
    Gone,
    /// It will never be scored as it is.
    Failed {
        reason: String,
        detail: String,
    },
    /// Worth trying again.
    Later {
        why: String,
        blame: Blame,
    },
    /// The service stops, or the store does not answer: the row stays as it is.
    Untouched,
}

/// Whose fault it is that an attempt came to nothing.
#[derive(Clone, Copy, PartialEq)]
enum Blame {
    /// The sample's, as far as anybody knows: the attempt counts.
    Sample,
    /// Nobody's: there is no room at the moment.
    Room,
    /// That of a graph which fails or hangs whatever it is asked. No sample may fail of that, so the attempt does not count.
    Graph,
}

impl Runs {
    /// Begins to score what waits, also from former lives of the service, and to finish runs.
    pub fn start(self: &Arc<Self>) -> Background {
        Background(vec![
            self.watch("scoring", Self::score_pending),
            self.watch("finishing", Self::finish_runs),
            self.watch("summaries", Self::summarise_runs),
            self.watch("gauges", Self::report_gauges),
            self.watch("graphs", Self::notice_hanging_graphs),
            self.watch("spool", Self::delete_unreferenced),
            self.watch("deletions", Self::follow_deletions),
            self.watch("trash", Self::empty_trash),
        ])
    }

    fn watch<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        name: &'static str,
        work: impl Fn(Arc<Self>) -> F + Send + 'static,
    ) -> JoinHandle<()> {
        let this = Arc::clone(self);
        self.supervisor.watch(name, self.stopping(), move || work(Arc::clone(&this)))
    }

    fn concurrency_limit(&self) -> usize {
        match self.requests.load(Ordering::Relaxed) {
            0 => self.at_once,
            _ => self.settings.concurrency_under_load.min(self.at_once),
        }
    }

    /// Says in the log which samples wait in vain: those of another pack.
    async fn log_blocked(&self) {
        let loaded = self.scoring.pack().id();
        match self.store.held_samples(self.files.id(), &loaded.digest).await {
            Ok(held) => {
                for BlockedSamples { pack, samples, runs } in held {
                    tracing::warn!(
                        samples, runs, %pack, %loaded,
                        "samples wait for a pack that is not loaded: start the service with it, or delete their runs"
                    );
                }
            }
            Err(error) => tracing::warn!(%error, "samples that wait for other packs could not be read"),
        }
    }

    async fn score_pending(self: Arc<Self>) {
        self.log_blocked().await;
        let mut stopping = self.stopping();
        let mut tasks: JoinSet<()> = JoinSet::new();
        let mut running: HashMap<Id, Uuid> = HashMap::new();
        let mut ahead: VecDeque<PendingRecord> = VecDeque::new();
        while !*stopping.borrow() {
            let room = self.concurrency_limit().saturating_sub(running.len());
            if room > 0 && ahead.iter().all(|next| self.attempts.rests(next.id)) {
                ahead = self.fetch_due(&running).await;
            }
            while running.len() < self.concurrency_limit() && !alone(&running, &self.attempts) {
                // Behind those that rest others go first.
                let Some(at) = ahead.iter().position(|next| !self.attempts.rests(next.id)) else { break };
                let (id, suspected) = (ahead[at].id, self.attempts.suspected(ahead[at].id));
                if suspected.is_some() && !running.is_empty() {
                    // It was being scored when the process died: it goes alone.
                    break;
                }
                let next = ahead.remove(at).expect("it was there");
                if suspected.is_some_and(|deaths| deaths >= DEATHS) {
                    self.give_up_on_killer(id).await;
                    continue;
                }
                self.attempts.begin(id);
                let task = tasks.spawn(Arc::clone(&self).score(next));
                running.insert(task.id(), id);
            }
            let idle = match ahead.front() {
                None => self.until_due().await,
                Some(next) if self.attempts.rests(next.id) => AFTER_REST,
                Some(_) => LOOK_EVERY,
            };
            tokio::select! {
                Some(ended) = tasks.join_next_with_id(), if !tasks.is_empty() => {
                    self.on_task_joined(ended, &mut running).await;
                }
                () = self.work.notified() => {}
                () = tokio::time::sleep(idle) => {}
                () = stopped(&mut stopping) => {}
            }
        }
        while let Some(ended) = tasks.join_next_with_id().await {
            self.on_task_joined(ended, &mut running).await;
        }
    }

    /// The oldest samples that are due and are not being scored.
    async fn fetch_due(&self, running: &HashMap<Id, Uuid>) -> VecDeque<PendingRecord> {
        let limit = AHEAD + running.len() as u32;
        let pack = self.scoring.pack().digest.to_string();
        let now = OffsetDateTime::now_utc();
        match self.store.waiting(self.files.id(), &pack, now, limit).await {
            Ok(found) => {
                found.into_iter().filter(|found| !running.values().any(|id| *id == found.id)).collect()
            }
            Err(error) => {
                tracing::warn!(%error, "what waits to be scored could not be read; tried again soon");
                VecDeque::new()
            }
        }
    }

    /// How long until a sample that was put off is due, within bounds.
    async fn until_due(&self) -> Duration {
        let (pack, now) = (self.scoring.pack().digest.to_string(), OffsetDateTime::now_utc());
        let due = self.store.next_due(self.files.id(), &pack, now).await.ok().flatten();
        let wait = due.and_then(|due| Duration::try_from(due - now).ok());
        wait.unwrap_or(LOOK_EVERY).clamp(Duration::from_millis(10), LOOK_EVERY)
    }

    /// Fails a sample that ended the process again and again while nothing else was being scored.
    async fn give_up_on_killer(&self, id: Uuid) {
        tracing::error!(sample = %id, deaths = DEATHS, "a sample ended the process each time it was scored, and is given up");
        let detail = format!(
            "the service ended {DEATHS} times while nothing but this sample was being scored: its images may need more memory than there is"
        );
        self.settle_attempt(id, 0, Attempt::Failed { reason: "service_ended".to_owned(), detail }).await;
        self.attempts.end(id);
    }

    async fn on_task_joined(
        &self,
        ended: Result<(Id, ()), tokio::task::JoinError>,
        running: &mut HashMap<Id, Uuid>,
    ) {
        let task = ended.as_ref().map_or_else(tokio::task::JoinError::id, |(task, ())| *task);
        let Some(sample) = running.remove(&task) else { return };
        self.attempts.end(sample);
        if let Err(panic) = ended {
            tracing::error!(%panic, %sample, "scoring a sample panicked");
            let failed = Attempt::Failed {
                reason: "internal".to_owned(),
                detail: "a defect of the service; the log has the cause".to_owned(),
            };
            self.settle_attempt(sample, 0, failed).await;
        }
    }

    async fn score(self: Arc<Self>, waiting: PendingRecord) {
        let (id, attempts) = (waiting.id, waiting.attempts);
        let attempt = match tokio::time::timeout(self.deadline, self.prepare(&waiting)).await {
            // Not under the deadline: of a transaction that is cut off nobody could say whether it happened.
            Ok(Ok(row)) => self.record(&row, waiting.run_id).await,
            Ok(Err(attempt)) => attempt,
            Err(_) => {
                let why = format!("not scored within {} s", self.deadline.as_secs());
                let healthy = self.scoring.engine().health().borrow().failing.is_empty();
                Attempt::Later { why, blame: if healthy { Blame::Sample } else { Blame::Graph } }
            }
        };
        self.settle_attempt(id, attempts, attempt).await;
    }

    /// Reads the images, scores them, and makes the row.
    async fn prepare(&self, waiting: &PendingRecord) -> Result<NewSample, Attempt> {
        let mut sample = self.sample(waiting).await?;
        sample.dataset = match probes(&self.store, &self.scoring, &sample.metadata).await {
            Ok(dataset) => dataset,
            Err(error @ ProbesError::NoDataset) => {
                return Err(Attempt::Failed { reason: "not_found".to_owned(), detail: error.to_string() });
            }
            Err(error) => return Err(Attempt::Later { why: error.to_string(), blame: Blame::Room }),
        };
        let metrics = chosen(waiting.metrics.as_deref());
        let card = in_background(self.scoring.score(&sample, &metrics))
            .await
            .map_err(|error| attempt(error, &self.scoring.engine().health().borrow()))?;
        Ok(NewSample {
            id: waiting.id,
            run: Some(waiting.run.clone()),
            name: Some(waiting.name.clone()),
            content: waiting.content,
            ..new_sample(&sample, &card, self.scoring.pack().id())
        })
    }

    async fn sample(&self, waiting: &PendingRecord) -> Result<Sample, Attempt> {
        let image = self.read_image(waiting.image, "image".to_owned()).await?;
        let (mut references, mut auxiliary) = (Vec::new(), Vec::new());
        for (at, photo) in waiting.references.iter().enumerate() {
            references.push(self.read_image(*photo, format!("reference[{at}]")).await?);
        }
        for (at, photo) in waiting.auxiliary.iter().enumerate() {
            auxiliary.push(self.read_image(*photo, format!("auxiliary[{at}]")).await?);
        }
        let metadata: Metadata = serde_json::from_value(waiting.metadata.clone()).map_err(|error| {
            Attempt::Failed { reason: "internal".to_owned(), detail: format!("metadata: {error}") }
        })?;
        Ok(Sample { image, prompt: waiting.prompt.clone(), references, auxiliary, metadata, dataset: None })
    }

    async fn read_image(
        &self,
        hash: crate::content::ContentHash,
        of: String,
    ) -> Result<EncodedImage, Attempt> {
        let bytes = self.files.read(hash).await.map_err(|error| match &error {
            SpoolReadError::Lost(_) => Attempt::Failed {
                reason: "file_lost".to_owned(),
                detail: format!("{of}: {error}: send the sample again with its files"),
            },
            SpoolReadError::Io(..) => Attempt::Later { why: error.to_string(), blame: Blame::Sample },
        })?;
        let header = vision::read_header(&bytes, self.scoring.decode_limits())
            .map_err(|source| broken(&of, &source))?;
        Ok(EncodedImage { bytes, hash, header })
    }

    async fn record(&self, row: &NewSample, run: Uuid) -> Attempt {
        match self.store.record_pending(row, run).await {
            Ok(Some(_)) => {
                // Nobody names the image any more; photos are looked at in vain until the run is finished.
                self.files.release([row.image]);
                Attempt::Recorded
            }
            Ok(None) => Attempt::Gone,
            Err(error @ (StoreError::SampleConflict { .. } | StoreError::Invalid { .. })) => {
                Attempt::Failed { reason: "sample_conflict".to_owned(), detail: error.to_string() }
            }
            Err(error) => {
                tracing::warn!(%error, sample = %row.id, "scores could not be stored; tried again soon");
                Attempt::Untouched
            }
        }
    }

    /// Writes down what became of an attempt.
    async fn settle_attempt(&self, id: Uuid, attempts: u32, attempt: Attempt) {
        let written = match attempt {
            Attempt::Recorded => {
                self.telemetry.attempt("recorded");
                Ok(())
            }
            Attempt::Gone => Ok(()),
            Attempt::Failed { reason, detail } => self.fail(id, &reason, &detail).await,
            Attempt::Later { why, blame: Blame::Sample } if attempts + 1 >= self.settings.attempts => {
                let detail = format!("{} attempts failed, the last one because: {why}", attempts + 1);
                self.fail(id, "internal", &detail).await
            }
            Attempt::Later { why, blame } => {
                self.telemetry.attempt("postpone");
                let wait = match blame {
                    Blame::Sample => AFTER_FAILURE * 4_u32.saturating_pow(attempts),
                    Blame::Room => AFTER_FULL,
                    Blame::Graph => AFTER_UNHEALTHY,
                };
                // Apart from each other, so that not all come back at the same moment.
                let wait = wait.min(LONGEST_WAIT).mul_f64(0.75 + f64::from(id.as_bytes()[15]) / 512.0);
                tracing::debug!(sample = %id, %why, milliseconds = wait.as_millis() as u64, "put off");
                self.store.postpone(id, OffsetDateTime::now_utc() + wait, blame == Blame::Sample).await
            }
            Attempt::Untouched => {
                // The row is due still: without a pause it would be tried again and again.
                wait(&mut self.stopping(), AFTER_FAILURE).await;
                Ok(())
            }
        };
        if let Err(error) = written {
            tracing::warn!(%error, sample = %id, "what became of a sample could not be stored; tried again soon");
            tokio::time::sleep(AFTER_FAILURE).await;
        }
        self.notify_finishing();
    }

    async fn fail(&self, id: Uuid, reason: &str, detail: &str) -> Result<(), StoreError> {
        self.telemetry.attempt("failed");
        tracing::info!(sample = %id, reason, detail, "a sample cannot be scored");
        self.store.fail_pending(id, reason, detail).await.map(|image| self.files.release(image))
    }

    /// Takes files away that nobody needs: those that this process lets go, and those that another instance released.
    async fn delete_unreferenced(self: Arc<Self>) {
        let mut stopping = self.stopping();
        loop {
            let files = tokio::select! {
                files = self.files.released() => files,
                () = tokio::time::sleep(RELEASED_EVERY) => Vec::new(),
                () = stopped(&mut stopping) => return,
            };
            let mut done = self.files.delete_unreferenced(&self.store, &files).await;
            if done.is_ok() && files.is_empty() {
                done = self.files.delete_released(&self.store).await;
            }
            if let Err(error) = done {
                tracing::warn!(%error, "files that nobody needs could not be removed; tried again soon");
                self.files.release(files);
                if wait(&mut stopping, AFTER_FAILURE).await {
                    return;
                }
            }
        }
    }

    async fn empty_trash(self: Arc<Self>) {
        let mut stopping = self.stopping();
        while !wait(&mut stopping, TRASH_EVERY).await {
            if let Err(error) = self.files.empty_trash().await {
                tracing::warn!(%error, "the trash could not be emptied of what is old; tried again in an hour");
            }
        }
    }

    /// Looks for graphs whose batch takes longer than any request may.
    async fn notice_hanging_graphs(self: Arc<Self>) {
        let mut stopping = self.stopping();
        while !wait(&mut stopping, GRAPHS_EVERY).await {
            self.scoring.engine().notice_hanging(self.deadline);
        }
    }

    /// Keeps the gauges up to date.
    async fn report_gauges(self: Arc<Self>) {
        let mut stopping = self.stopping();
        let mut trimmed = Instant::now();
        machine::give_back_free_memory();
        while !wait(&mut stopping, GAUGES_EVERY).await {
            if trimmed.elapsed() > TRIM_EVERY {
                trimmed = Instant::now();
                blocking(machine::give_back_free_memory).await;
            }
            self.telemetry.spool_bytes.set(&[], self.files.used() as i64);
            self.telemetry.pixel_bytes.set(self.scoring.pixel_bytes() as i64);
            match self.store.backlog().await {
                Ok(counts) => self.telemetry.backlog(counts.waiting, counts.failed, counts.scored),
                Err(error) => tracing::debug!(%error, "the backlog could not be read"),
            }
        }
    }
}

/// Whether what is being scored is to be left alone.
fn alone(running: &HashMap<Id, Uuid>, attempts: &Attempts) -> bool {
    running.values().any(|id| attempts.suspected(*id).is_some())
}

/// Waits until the service stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // Without a sender there is nothing left to wait for.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Waits so long, and says whether the service stops.
pub(super) async fn wait(stopping: &mut watch::Receiver<bool>, time: Duration) -> bool {
    tokio::time::timeout(time, stopped(stopping)).await.is_ok()
}

/// The metrics of a run; a code that this version does not know any more is left out.
fn chosen(codes: Option<&[String]>) -> Vec<&'static Metric> {
    match codes {
        None => REGISTRY.iter().collect(),
        Some(codes) => codes.iter().filter_map(|code| metrics::find(code)).collect(),
    }
}

fn attempt(error: ScoringError, health: &Health) -> Attempt {
    let why = error.to_string();
    let source = match error {
        ScoringError::EncodedImage { of, source } => return broken(&of, &source),
        ScoringError::Engine { source, .. } => source,
    };
    match source {
        EngineError::Overloaded { .. } => Attempt::Later { why, blame: Blame::Room },
        EngineError::Stopping => Attempt::Untouched,
        source if source.graph().is_some_and(|graph| health.failing.contains(graph)) => {
            Attempt::Later { why, blame: Blame::Graph }
        }
        _ => Attempt::Later { why, blame: Blame::Sample },
    }
}

fn broken(of: &str, source: &DecodeError) -> Attempt {
    Attempt::Failed { reason: source.problem().to_owned(), detail: format!("{of}: {source}") }
}
