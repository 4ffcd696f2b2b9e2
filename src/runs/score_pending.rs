//! Scores pending samples: roughly oldest first, with bounded concurrency that shrinks while
//! interactive requests are in flight.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::task::{Id, JoinSet};
use tracing::{Instrument as _, Span};
use uuid::Uuid;

use super::{
    Runs,
    attempt::{Attempt, Blame, attempt, broken},
    pause::{AFTER_FAILURE, LOOK_EVERY, stopped, wait},
};
use crate::{
    blobs::ReadError,
    clock,
    content::ContentHash,
    dispatch::{Outcome, Taken},
    engine::Residency,
    metrics::{self, Metric, REGISTRY},
    scoring::{EncodedImage, Metadata, Sample, Scorecard, in_background},
    service::{ProbesError, new_sample, probes},
    store::{
        BlockedSamples, Extras, NeededFaces, NewSample, PendingRecord, SampleInputs, StoreError,
    },
    trace::span,
    vision,
};

/// Pause before checking again whether a resting sample may be retried.
const AFTER_REST: Duration = Duration::from_secs(1);

/// Samples are taken once at least one part in this many of the concurrency limit is free.
const PARTS: usize = 4;

/// Maximum number of images of a sample that are read at once.
const IMAGES_AT_ONCE: usize = 4;

/// A sample that is being scored.
struct Running {
    sample: Uuid,
    /// Nothing else may be scored beside it.
    alone: bool,
}

impl Runs {
    fn concurrency_limit(&self) -> usize {
        match self.requests.load(Ordering::Relaxed) {
            // Samples wait until the models are loaded again.
            _ if self.scoring.engine().residency() != Residency::Resident => 0,
            // The bucket does not respond, so attempts could not read their images.
            _ if self.files.is_troubled() => 0,
            // Other workers score them meanwhile.
            _ if self.has_workers && !self.scoring.engine().health().borrow().is_ready() => 0,
            0 => self.at_once,
            _ => self.settings.concurrency_under_load.min(self.at_once),
        }
    }

    /// Logs the blocked samples: those that need a pack that is not loaded.
    async fn log_blocked(&self) {
        let loaded = self.scoring.pack().id();
        match self.store.blocked_samples(self.files.id(), &loaded.digest).await {
            Ok(held) => {
                for BlockedSamples { pack, samples, runs } in held {
                    tracing::warn!(
                        samples, runs, %pack, %loaded,
                        "samples are blocked by a pack that is not loaded: start the service with \
                            that pack, or delete their runs"
                    );
                }
            }
            Err(error) => tracing::warn!(%error, "failed to list blocked samples"),
        }
    }

    /// Logs the pending samples of other spools, which this process does not score: those of other
    /// instances, and those left behind when `store.spool` or `store.s3` was changed.
    async fn log_elsewhere(&self) {
        match self.store.pending_elsewhere(self.files.id()).await {
            Ok(others) => {
                for (spool, samples) in others {
                    tracing::warn!(
                        samples,
                        spool,
                        "samples are pending in another spool: unless another instance has it, \
                         start one with the spool of this id (store.spool or store.s3), or delete \
                         their runs"
                    );
                }
            }
            Err(error) => tracing::warn!(%error, "failed to list pending samples of other spools"),
        }
    }

    pub(super) async fn score_pending(self: Arc<Self>) {
        self.log_blocked().await;
        self.log_elsewhere().await;
        // Gives up what an earlier call had taken before it panicked.
        self.dispatch.leave().await;
        let mut stopping = self.stopping();
        let mut engine = self.scoring.engine().health();
        let mut tasks: JoinSet<()> = JoinSet::new();
        let mut running: HashMap<Id, Running> = HashMap::new();
        let mut ahead: VecDeque<Taken> = VecDeque::new();
        while !*stopping.borrow() {
            let limit = self.concurrency_limit();
            let room = limit.saturating_sub(running.len());
            // Several at a time, since each call is a round trip to the database.
            let enough = room >= limit.div_ceil(PARTS) || running.is_empty();
            if room > 0 && enough && ahead.iter().all(Taken::rests) {
                match self.dispatch.take(room).await {
                    Ok(taken) => ahead.extend(taken),
                    Err(error) => {
                        tracing::warn!(%error, "failed to get pending samples, will retry");
                    }
                }
            }
            if limit == 0 {
                for taken in ahead.drain(..) {
                    self.dispatch.end(taken.sample.id, Outcome::Left).await;
                }
                if running.is_empty() {
                    // The suspects as well: other workers can score them.
                    self.dispatch.leave().await;
                }
            }
            let alone = |running: &HashMap<Id, Running>| running.values().any(|one| one.alone);
            while running.len() < self.concurrency_limit() && !alone(&running) {
                // Resting samples are skipped in favour of later ones.
                let Some(at) = ahead.iter().position(|next| !next.rests()) else { break };
                let suspect = ahead[at].suspect;
                if suspect.is_some() && !running.is_empty() {
                    // It may kill the process, so it must run alone.
                    break;
                }
                let Taken { sample, .. } = ahead.remove(at).expect("the position was just found");
                if let Some(suspect) = suspect.filter(|suspect| suspect.gives_up) {
                    self.give_up_on_killer(sample.id, suspect.deaths).await;
                    continue;
                }
                let id = sample.id;
                self.dispatch.begin(id);
                let span = self.traces.attempt(&sample);
                let task = tasks.spawn(Arc::clone(&self).score(sample).instrument(span));
                running.insert(task.id(), Running { sample: id, alone: suspect.is_some() });
            }
            let idle = match ahead.front() {
                None if limit == 0 => AFTER_REST,
                None => self.dispatch.pause().await,
                Some(next) if next.rests() => AFTER_REST,
                Some(_) => LOOK_EVERY,
            };
            tokio::select! {
                Some(ended) = tasks.join_next_with_id(), if !tasks.is_empty() => {
                    self.on_task_joined(ended, &mut running).await;
                }
                () = self.work.notified() => {}
                // The models may have been loaded again.
                Ok(()) = engine.changed() => {}
                () = tokio::time::sleep(idle) => {}
                () = stopped(&mut stopping) => {}
            }
        }
        for taken in ahead {
            self.dispatch.end(taken.sample.id, Outcome::Left).await;
        }
        while let Some(ended) = tasks.join_next_with_id().await {
            self.on_task_joined(ended, &mut running).await;
        }
        self.dispatch.leave().await;
    }

    /// Fails a sample that repeatedly crashed the process while it was the only one in flight.
    async fn give_up_on_killer(&self, id: Uuid, deaths: u32) {
        tracing::error!(sample = %id, deaths, "giving up on a sample that crashed the process on \
            every attempt");
        let detail = format!(
            "the service crashed {deaths} times while this was the only sample being scored: its \
                images may need more memory than is available"
        );
        self.settle_attempt(id, 0, Attempt::Failed { reason: "service_ended".to_owned(), detail })
            .await;
    }

    async fn on_task_joined(
        &self,
        ended: Result<(Id, ()), tokio::task::JoinError>,
        running: &mut HashMap<Id, Running>,
    ) {
        let task = ended.as_ref().map_or_else(tokio::task::JoinError::id, |(task, ())| *task);
        let Some(Running { sample, .. }) = running.remove(&task) else { return };
        if let Err(panic) = ended {
            tracing::error!(%panic, %sample, "sample scoring panicked");
            let failed = Attempt::Failed {
                reason: "internal".to_owned(),
                detail: "internal error; the service log has the cause".to_owned(),
            };
            self.settle_attempt(sample, 0, failed).await;
        }
    }

    async fn score(self: Arc<Self>, pending: PendingRecord) {
        let (id, attempts) = (pending.id, pending.attempts);
        let attempt = match tokio::time::timeout(self.deadline, self.prepare(&pending)).await {
            // Outside the deadline: if the transaction were cut off, its outcome would be unknown.
            Ok(Ok(row)) => self.record(&row, pending.run_id).await,
            Ok(Err(attempt)) => attempt,
            Err(_) => {
                let why = format!("not scored within {} s", self.deadline.as_secs());
                let healthy = self.scoring.engine().health().borrow().failing.is_empty();
                Attempt::Later { why, blame: if healthy { Blame::Sample } else { Blame::Graph } }
            }
        };
        self.settle_attempt(id, attempts, attempt).await;
    }

    /// Reads the images, scores the sample, and builds the row to store.
    async fn prepare(&self, pending: &PendingRecord) -> Result<NewSample, Attempt> {
        let mut sample = self.sample(&pending.inputs).instrument(span!("read")).await?;
        sample.dataset = match probes(&self.store, &self.scoring, &sample.metadata).await {
            Ok(dataset) => dataset,
            Err(error @ ProbesError::NoDataset) => {
                return Err(Attempt::Failed {
                    reason: "not_found".to_owned(),
                    detail: error.to_string(),
                });
            }
            Err(error) => {
                return Err(Attempt::Later { why: error.to_string(), blame: Blame::Room });
            }
        };
        let _loaded = self.scoring.engine().enter().map_err(|_| Attempt::Untouched)?;
        let metrics = chosen(pending.metrics.as_deref());
        let card = in_background(self.scoring.score(&sample, &metrics))
            .instrument(span!("score"))
            .await
            .map_err(|error| attempt(error, &self.scoring.engine().health().borrow()))?;
        // `None` instead of a start time: a requested deletion fails the pending sample, so none is
        // missed, and other deletions carry the time of another machine's clock.
        let extras = self.keeping.extras(&self.store, &self.scoring, &sample, &card, None);
        let extras = Extras { faces: self.needed_faces(&card), ..in_background(extras).await };
        Ok(NewSample {
            id: pending.id,
            run: Some(pending.run.clone()),
            name: Some(pending.name.clone()),
            inputs: pending.inputs.clone(),
            extras,
            ..new_sample(&sample, &card, self.scoring.pack().id())
        })
    }

    /// Returns the faces that are needed when the run is finished, perhaps by another instance.
    fn needed_faces(&self, card: &Scorecard) -> Option<NeededFaces> {
        let graphs = self.scoring.stored_face_graphs()?;
        Some(NeededFaces { images: card.searched.clone(), graphs })
    }

    async fn sample(&self, inputs: &SampleInputs) -> Result<Sample, Attempt> {
        let of = |hashes: &[ContentHash], kind: &'static str| {
            let named = |(at, hash): (usize, &ContentHash)| (*hash, format!("{kind}[{at}]"));
            hashes.iter().enumerate().map(named).collect::<Vec<_>>()
        };
        let mut images = vec![(inputs.image, "image".to_owned())];
        images.extend(of(&inputs.references, "reference"));
        images.extend(of(&inputs.auxiliary, "auxiliary"));
        let reads = images.into_iter().map(|(hash, of)| self.read_image(hash, of));
        let reads = stream::iter(reads).buffered(IMAGES_AT_ONCE);
        let mut images = reads.try_collect::<Vec<_>>().await?;
        let auxiliary = images.split_off(1 + inputs.references.len());
        let references = images.split_off(1);
        let image = images.remove(0);
        let metadata: Metadata =
            serde_json::from_value(inputs.metadata.clone()).map_err(|error| Attempt::Failed {
                reason: "internal".to_owned(),
                detail: format!("metadata: {error}"),
            })?;
        Ok(Sample {
            image,
            prompt: inputs.prompt.clone(),
            references,
            auxiliary,
            metadata,
            dataset: None,
        })
    }

    async fn read_image(&self, hash: ContentHash, of: String) -> Result<EncodedImage, Attempt> {
        let bytes = self.files.read(hash).await.map_err(|error| match &error {
            ReadError::Absent(_) | ReadError::Damaged(_) => Attempt::Failed {
                reason: "file_lost".to_owned(),
                detail: format!("{of}: {error}; send the sample again with its files"),
            },
            ReadError::Io(..) => Attempt::Later { why: error.to_string(), blame: Blame::Sample },
            ReadError::Unavailable(_) => {
                Attempt::Later { why: error.to_string(), blame: Blame::Bucket }
            }
        })?;
        let header = vision::read_header(&bytes, self.scoring.decode_limits())
            .map_err(|source| broken(&of, &source))?;
        Ok(EncodedImage { bytes, hash, header })
    }

    async fn record(&self, row: &NewSample, run: Uuid) -> Attempt {
        let mut recorded = self.store.record_pending(row, run).await;
        if let (Err(StoreError::FacesNotStored { .. }), Some(needed)) =
            (&recorded, &row.extras.faces)
        {
            // The faces came from this process's cache. Their row was deleted with another run.
            if let Err(error) = self.scoring.store_faces_again(&needed.images).await {
                return Attempt::Later { why: error.to_string(), blame: Blame::Room };
            }
            recorded = self.store.record_pending(row, run).await;
        }
        match recorded {
            Ok(Some(_)) => {
                // The image is no longer referenced. Reference and auxiliary images are needed
                // until the run is finished, so there is no point in checking them now.
                self.files.release([row.inputs.image]);
                Attempt::Recorded
            }
            Ok(None) => Attempt::Gone,
            Err(error @ StoreError::FacesNotStored { .. }) => {
                // They are no longer cached either: the next attempt finds them again.
                Attempt::Later { why: error.to_string(), blame: Blame::Room }
            }
            Err(error @ (StoreError::SampleConflict { .. } | StoreError::Invalid { .. })) => {
                Attempt::Failed { reason: "sample_conflict".to_owned(), detail: error.to_string() }
            }
            Err(error) => {
                tracing::warn!(%error, sample = %row.id, "failed to store scores, will retry");
                Attempt::Untouched
            }
        }
    }

    /// Stores the outcome of an attempt.
    async fn settle_attempt(&self, id: Uuid, attempts: u32, attempt: Attempt) {
        let attempt = attempt.or_failed(attempts + 1, self.settings.attempts);
        let word = attempt.outcome();
        Span::current().record("stellar.outcome", word);
        if !matches!(attempt, Attempt::Later { .. } | Attempt::Untouched) {
            self.traces.forget(id);
        }
        let settled = match attempt {
            Attempt::Recorded => {
                self.telemetry.attempt(word);
                Ok(Outcome::Settled)
            }
            Attempt::Gone => Ok(Outcome::Settled),
            Attempt::Failed { reason, detail } => {
                self.fail(id, &reason, &detail).await.map(|()| Outcome::Settled)
            }
            Attempt::Later { why, blame } => {
                self.telemetry.attempt(word);
                let pause = blame.pause(id, attempts);
                tracing::debug!(sample = %id, %why, ?pause, "sample postponed");
                let due = clock::now() + pause;
                let counts = blame == Blame::Sample;
                self.store.postpone(id, due, counts).await.map(|()| Outcome::Postponed(pause))
            }
            Attempt::Untouched => {
                // The row is still due: without a pause it would be retried in a tight loop.
                wait(&mut self.stopping(), AFTER_FAILURE).await;
                Ok(Outcome::Left)
            }
        };
        let outcome = match settled {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::warn!(%error, sample = %id, "failed to store the outcome of an attempt, \
                    will retry");
                tokio::time::sleep(AFTER_FAILURE).await;
                Outcome::Left
            }
        };
        self.dispatch.end(id, outcome).await;
        self.notify_finishing();
    }

    /// Fails a sample, unless it is no longer pending.
    async fn fail(&self, id: Uuid, reason: &str, detail: &str) -> Result<(), StoreError> {
        if let Some(image) = self.store.fail_pending(id, reason, detail).await? {
            self.telemetry.attempt("failed");
            tracing::info!(sample = %id, reason, detail, "sample cannot be scored");
            self.files.release([image]);
        }
        Ok(())
    }
}

/// Returns the metrics of a run. Codes that this version no longer knows are skipped.
fn chosen(codes: Option<&[String]>) -> Vec<&'static Metric> {
    match codes {
        None => REGISTRY.iter().collect(),
        Some(codes) => codes.iter().filter_map(|code| metrics::find(code)).collect(),
    }
}
