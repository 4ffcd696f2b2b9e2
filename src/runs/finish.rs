//! Finishing a run: what only the whole run has is computed, and its photos are let go.

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Runs, SERVICE_VERSION, background::wait, backoff::Backoff};
use crate::{
    analysis,
    metrics::{self, AttributePrediction, NullReason, share_right},
    scoring::{AttributesError, Metadata, RunFaces},
    store::{AttributeLabels, RunRecord, RunWideScores, ScoreValue, StoreError},
};

/// A run that could not be finished is tried again then; also one that another process left unfinished.
const AGAIN: Duration = Duration::from_secs(5);

/// Why a run could not be finished yet.
#[derive(Debug, thiserror::Error)]
enum FinishError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Attributes(#[from] AttributesError),
    #[error("the metadata of a sample cannot be read: {0}")]
    Metadata(#[from] serde_json::Error),
}

/// Who judges the attributes of a run.
enum Judges {
    /// The loaded pack.
    Here,
    /// A pack that is not loaded.
    AnotherPack,
    /// They are not wanted, or there is no pack.
    Nobody,
}

impl Runs {
    pub(super) async fn finish_runs(self: Arc<Self>) {
        let mut stopping = self.stopping();
        let mut failing = Backoff::new();
        while !*stopping.borrow() {
            let left = self.finish_all(&mut failing).await;
            tokio::select! {
                () = self.finish.notified() => {
                    // Each scored sample rings; a look serves all that rang meanwhile.
                    if wait(&mut stopping, Duration::from_millis(if left { 1000 } else { 50 })).await {
                        return;
                    }
                }
                _ = wait(&mut stopping, AGAIN) => {}
            }
        }
    }

    /// Finishes what can be finished, and says whether something could not.
    async fn finish_all(&self, failing: &mut Backoff<Uuid>) -> bool {
        let runs = match self.store.finishable_runs().await {
            Ok(runs) => runs,
            Err(error) => {
                tracing::warn!(%error, "runs that are to be finished could not be read; tried again soon");
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
                    tracing::warn!(%error, %run, seconds, "a run could not be finished; tried again later");
                    left = true;
                }
            }
        }
        self.telemetry.failing_runs.with_label_values(&["finish"]).set(failing.len() as i64);
        left
    }

    /// Writes what is missing and closes the run. Doing it again after a crash gives the same.
    ///
    /// A run whose attributes only another pack can judge stays as it is until that is loaded: finished without them, it could
    /// never get them. Says whether it was finished.
    async fn finish_one(&self, id: Uuid) -> Result<bool, FinishError> {
        let Some(run) = self.store.run(id).await? else { return Ok(false) };
        match self.judges(&run) {
            Judges::Here => self.judge(&run).await?,
            Judges::Nobody => {}
            Judges::AnotherPack => return Ok(false),
        }
        // Before it is called finished, so that a finished run is ranked with its interval at once.
        analysis::refresh_run(&self.store, id).await?;
        let files = self.store.run_finished(id, OffsetDateTime::now_utc()).await?;
        self.files.release(files);
        Ok(true)
    }

    /// Whether the attributes of the run's images are to be judged, and by whom.
    fn judges(&self, run: &RunRecord) -> Judges {
        let wanted = run.facts.metrics.as_ref().is_none_or(|codes| codes.iter().any(|code| code == "aps"));
        let loaded = self.scoring.pack().digest.to_string();
        // Imported runs have no pack: their scores are what they are.
        match &run.pack {
            Some(pack) if wanted && pack.digest == loaded => Judges::Here,
            Some(_) if wanted => Judges::AnotherPack,
            _ => Judges::Nobody,
        }
    }

    /// Attribute preservation as the reference toolkit has it: by what the run's own reference photos teach.
    async fn judge(&self, run: &RunRecord) -> Result<(), FinishError> {
        let aps = metrics::find("aps").expect("the registry has it");
        let samples = self.store.run_samples(run.id).await?.unwrap_or_default();
        let (mut ids, mut rows) = (Vec::new(), Vec::new());
        for sample in samples {
            let (Some(image), Some(reference)) = (sample.image, sample.reference) else { continue };
            let Metadata { attributes, .. } = serde_json::from_value(sample.metadata)?;
            ids.push(sample.id);
            rows.push(RunFaces { image, reference, attributes });
        }
        let (judged, known) = self.scoring.run_attributes(rows).await?;
        let ids = ids.into_iter().zip(known).filter_map(|(id, known)| known.then_some(id));
        let (mut scores, mut outcomes) = (Vec::new(), Vec::new());
        for (id, predictions) in ids.zip(&judged.predictions) {
            let score = share_right(predictions).map_or_else(
                || ScoreValue::Null { reason: NullReason::NoAttributes.code().to_owned() },
                ScoreValue::Number,
            );
            scores.push((id, score));
            outcomes.push((id, outcomes_of(predictions)));
        }
        let written = self
            .store
            .add_run_wide(&RunWideScores {
                run: run.id,
                created: OffsetDateTime::now_utc(),
                pack: self.scoring.pack().id(),
                service_version: SERVICE_VERSION.to_owned(),
                metric: aps.code.to_owned(),
                metric_version: aps.version,
                scores,
                outcomes,
            })
            .await?;
        tracing::info!(run = %run.id, written, auc = judged.auc, "attributes of the run judged");
        Ok(())
    }
}

/// What was predicted, for those attributes that count.
fn outcomes_of(predictions: &[AttributePrediction]) -> AttributeLabels {
    let counted = predictions
        .iter()
        .filter_map(|said| Some((said.attribute.clone(), (said.target?, said.prediction?))));
    counted.collect()
}
