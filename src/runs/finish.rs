//! Finishes runs: computes the run-wide scores (`aps`), refreshes the summaries, and releases the
//! spooled files.

use std::{sync::Arc, time::Duration};

use serde::Deserialize as _;
use uuid::Uuid;

use super::{Runs, backoff::Backoff, leader::Duty, pause::wait};
use crate::{
    analysis,
    card::{CollectedSettings, GeneratorSettings},
    clock,
    metrics::{self, AttributePrediction, NullReason, share_right},
    scoring::{AttributesError, Metadata, RunFaces},
    store::{
        AttributeLabels, RunRecord, RunSample, RunWideScore, RunWideScores, ScoreValue, StoreError,
    },
};

/// Interval between passes without a notification. Such a pass retries failed runs, and picks up
/// runs that another process left unfinished.
const AGAIN: Duration = Duration::from_secs(5);

/// The same where other instances score samples and finish runs, whose notifications are not heard.
const AGAIN_SHARED: Duration = Duration::from_secs(1);

/// Reason why a run could not be finished yet.
#[derive(Debug, thiserror::Error)]
enum FinishError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Attributes(#[from] AttributesError),
    #[error("cannot parse the metadata of a sample: {0}")]
    Metadata(#[from] serde_json::Error),
}

/// Pack that predicts the attributes of a run.
#[derive(PartialEq, Eq)]
enum Judges {
    /// The loaded pack.
    Here,
    /// A pack that is not loaded.
    AnotherPack,
    /// None: the run does not want `aps`, or its scores were imported without a pack.
    Nobody,
}

impl Runs {
    pub(super) async fn finish_runs(self: Arc<Self>) {
        let mut stopping = self.stopping();
        let mut failing = Backoff::new();
        let again = if self.files.is_shared() { AGAIN_SHARED } else { AGAIN };
        while !*stopping.borrow() {
            let left = self.leader.has(Duty::Finishing) && self.finish_all(&mut failing).await;
            tokio::select! {
                () = self.finish.notified() => {
                    // Coalesces notifications: one pass handles all samples scored since the last.
                    if wait(&mut stopping, Duration::from_millis(if left { 1000 } else { 50 })).await {
                        return;
                    }
                }
                _ = wait(&mut stopping, again) => {}
            }
        }
    }

    /// Finishes a run that has nothing pending. If it cannot, the background tries again.
    pub async fn finish_now(&self, run: Uuid) {
        if let Err(error) = self.finish_one(run).await {
            tracing::warn!(%error, %run, "failed to finish run, will retry");
            self.notify_finishing();
        }
    }

    /// Finishes all finishable runs. Returns whether any of them needs a retry.
    async fn finish_all(&self, failing: &mut Backoff<Uuid>) -> bool {
        let runs = match self.store.finishable_runs().await {
            Ok(runs) => runs,
            Err(error) => {
                tracing::warn!(%error, "failed to list finishing runs, will retry");
                return true;
            }
        };
        let mut left = false;
        failing.retain(|run| runs.contains(run));
        for run in runs {
            if *self.stopping.borrow() {
                return true;
            }
            if failing.rests(&run) {
                continue;
            }
            match self.finish_one(run).await {
                Ok(finished) => {
                    failing.succeeded(&run);
                    if finished {
                        tracing::info!(%run, "run finished");
                    }
                }
                Err(error) => {
                    let seconds = failing.failed(run).as_secs();
                    tracing::warn!(%error, %run, seconds, "failed to finish run, will retry");
                    left = true;
                }
            }
        }
        self.telemetry.failing_runs.with_label_values(&["finish"]).set(failing.len() as i64);
        left
    }

    /// Writes the missing scores and closes the run. It is idempotent, so it can be repeated after
    /// a crash.
    ///
    /// A run whose attributes need a pack that is not loaded stays in state `finishing` until that
    /// pack is loaded: once finished without them, it could never get them. Returns whether the run
    /// was finished.
    async fn finish_one(&self, id: Uuid) -> Result<bool, FinishError> {
        let Some(run) = self.store.run(id).await? else { return Ok(false) };
        let judges = self.judges(&run);
        if judges == Judges::AnotherPack {
            return Ok(false);
        }
        let samples = self.store.run_samples(id).await?.unwrap_or_default();
        self.collect_settings(id, &samples).await?;
        if judges == Judges::Here {
            self.judge(&run, samples).await?;
        }
        // Before the state changes, so that a finished run is ranked with its interval at once.
        analysis::refresh_run(&self.store, id).await?;
        let files = self.store.run_finished(id, clock::now()).await?;
        self.files.release(files);
        Ok(true)
    }

    /// Returns the pack that must predict the attributes of the run's images, if any.
    fn judges(&self, run: &RunRecord) -> Judges {
        let wanted =
            run.facts.metrics.as_ref().is_none_or(|codes| codes.iter().any(|code| code == "aps"));
        let loaded = self.scoring.pack().digest.to_string();
        // Imported runs have no pack: their scores are final.
        match &run.pack {
            Some(pack) if wanted && pack.digest == loaded => Judges::Here,
            Some(_) if wanted => Judges::AnotherPack,
            _ => Judges::Nobody,
        }
    }

    /// Counts the settings that the images were generated with.
    async fn collect_settings(&self, run: Uuid, samples: &[RunSample]) -> Result<(), FinishError> {
        let settings = samples.iter().map(|sample| match sample.metadata.get("settings") {
            Some(settings) => GeneratorSettings::deserialize(settings),
            None => Ok(GeneratorSettings::default()),
        });
        let settings = settings.collect::<Result<Vec<_>, _>>()?;
        let collected = CollectedSettings::of(&settings);
        if !collected.settings.is_empty() {
            self.store.keep_settings(run, &collected).await?;
        }
        Ok(())
    }

    /// Computes attribute preservation (`aps`) as the reference toolkit does: with linear probes
    /// fitted on the run's own reference images, separately for each kind of prompt.
    async fn judge(&self, run: &RunRecord, samples: Vec<RunSample>) -> Result<(), FinishError> {
        let aps = metrics::find("aps").expect("the registry has `aps`");
        let (mut scored, mut rows) = (Vec::new(), Vec::new());
        for sample in samples {
            let (Some(image), Some(reference)) = (sample.image, sample.reference) else { continue };
            let Metadata { attributes, prompt_kind, .. } = serde_json::from_value(sample.metadata)?;
            scored.push((sample.id, vec![image, reference]));
            rows.push(RunFaces { image, reference, attributes, prompt_kind });
        }
        let (judged, known) = self.scoring.run_attributes(rows).await?;
        let with_faces =
            scored.into_iter().zip(known).filter_map(|(sample, known)| known.then_some(sample));
        let score =
            |((sample, images), predictions): (_, &Vec<AttributePrediction>)| RunWideScore {
                sample,
                value: share_right(predictions).map_or_else(
                    || ScoreValue::Null { reason: NullReason::NoAttributes.code().to_owned() },
                    ScoreValue::Number,
                ),
                outcomes: Some(outcomes_of(predictions)),
                images,
            };
        let scores = with_faces.zip(&judged.predictions).map(score).collect();
        let written = self
            .store
            .add_run_wide(&RunWideScores {
                run: run.id,
                created: clock::now(),
                pack: self.scoring.pack().id(),
                service_version: crate::VERSION.to_owned(),
                metric: aps.code.to_owned(),
                metric_version: aps.version,
                graphs: self.scoring.stored_face_graphs(),
                scores,
            })
            .await?;
        tracing::info!(run = %run.id, written, auc = judged.auc, "attributes of run evaluated");
        Ok(())
    }
}

/// Returns target and prediction of each attribute that counts.
fn outcomes_of(predictions: &[AttributePrediction]) -> AttributeLabels {
    let counted = predictions
        .iter()
        .filter_map(|one| Some((one.attribute.clone(), (one.target?, one.prediction?))));
    counted.collect()
}
