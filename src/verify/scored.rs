//! Scoring of samples on disk, like the service scores samples of a run.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Mutex,
};

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use time::OffsetDateTime;

use super::Case;
use crate::{
    content::ContentHash,
    metrics::{self, Explanation, Metric, MetricResult, NullReason, Score, share_right},
    scoring::{
        EncodedImage, FaceStorage, FaceStorageError, RunFaces, Sample, Scoring, ScoringError,
    },
    sync::lock,
};

/// Attribute preservation, which is computed over all samples together.
pub(super) const APS: &str = "aps";

/// A metric that detects the faces needed by attribute preservation.
const OF_FACES: &str = "ips";

/// A sample's scores.
#[derive(Debug, Clone)]
pub struct Scored {
    /// Results of the requested metrics.
    pub outcomes: BTreeMap<&'static str, MetricResult>,
    /// Images and attributes, if attributes can be predicted.
    faces: Option<RunFaces>,
}

impl Scored {
    /// Wraps scores without faces.
    #[must_use]
    pub fn new(outcomes: BTreeMap<&'static str, MetricResult>) -> Self {
        Self { outcomes, faces: None }
    }
}

/// Scores in the order of samples, or the error if a sample's images cannot be used.
pub type AllScored = Vec<Result<Scored, String>>;

/// Scores samples, `at_once` concurrently, and calls `done` after each.
///
/// # Errors
/// A graph that fails, since it would fail for all further samples too.
pub async fn score_all(
    scoring: &Scoring,
    cases: &[Case],
    metrics: &[&'static Metric],
    at_once: usize,
    read: impl Fn(&Path) -> anyhow::Result<EncodedImage>,
    done: impl Fn(),
) -> anyhow::Result<AllScored> {
    let judged = metrics.iter().find(|metric| metric.code == APS);
    if judged.is_some() {
        // More faces may be needed at the end than the cache holds.
        scoring.set_face_store(std::sync::Arc::new(Faces::default()));
    }
    let mut computed = metrics.to_vec();
    if judged.is_some() && !metrics.iter().any(|metric| metric.code == OF_FACES) {
        computed.extend(metrics::find(OF_FACES));
    }
    let (read, done, computed) = (&read, &done, &computed);
    let one = |case: &Case| {
        let sample = case.read(read);
        async move {
            let scored = match sample {
                Ok(sample) => score(scoring, &sample, computed).await?,
                Err(error) => Err(format!("{error:#}")),
            };
            done();
            anyhow::Ok(scored)
        }
        .boxed_local()
    };
    let mut all: AllScored =
        stream::iter(cases).map(one).buffered(at_once.max(1)).try_collect().await?;
    if judged.is_some() {
        judge(scoring, &mut all).await?;
    }
    for scored in all.iter_mut().flatten() {
        scored.outcomes.retain(|code, _| metrics.iter().any(|metric| metric.code == *code));
    }
    Ok(all)
}

async fn score(
    scoring: &Scoring,
    sample: &Sample,
    metrics: &[&'static Metric],
) -> anyhow::Result<Result<Scored, String>> {
    let card = match scoring.score(sample, metrics).await {
        Ok(card) => card,
        Err(error @ ScoringError::Decode { .. }) => return Ok(Err(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    let attributes = &sample.metadata.attributes;
    let faces =
        sample.references.first().filter(|_| !attributes.is_empty()).map(|reference| RunFaces {
            image: sample.image.hash,
            reference: reference.hash,
            attributes: attributes.clone(),
            // As the toolkit does: one fit over the whole folder.
            prompt_kind: None,
        });
    let outcomes =
        card.scores.into_iter().map(|score| (score.metric.code, score.outcome)).collect();
    Ok(Ok(Scored { outcomes, faces }))
}

/// Computes attribute preservation like for a finished run: linear probes are fitted on the
/// samples' own reference images.
async fn judge(scoring: &Scoring, all: &mut AllScored) -> anyhow::Result<()> {
    let mut with_faces: Vec<&mut Scored> =
        all.iter_mut().flatten().filter(|scored| scored.faces.is_some()).collect();
    let rows = with_faces.iter().filter_map(|scored| scored.faces.clone()).collect();
    let (judged, known) = scoring.run_attributes(rows).await?;
    let known =
        with_faces.iter_mut().zip(known).filter_map(|(scored, known)| known.then_some(scored));
    for (scored, predictions) in known.zip(judged.predictions) {
        let outcome = match share_right(&predictions) {
            Some(value) => {
                let explanation = Explanation::Predictions(predictions);
                Ok(Score { explanation, ..value.into() })
            }
            None => Err(NullReason::NoAttributes),
        };
        scored.outcomes.insert(APS, outcome);
    }
    Ok(())
}

/// Stores the faces found by one scoring, whose graphs are always the same.
#[derive(Default)]
struct Faces(Mutex<HashMap<ContentHash, Vec<u8>>>);

impl FaceStorage for Faces {
    fn load<'a>(
        &'a self,
        images: &'a [ContentHash],
        _graphs: ContentHash,
    ) -> BoxFuture<'a, Result<HashMap<ContentHash, Vec<u8>>, FaceStorageError>> {
        let stored = lock(&self.0);
        let known =
            images.iter().filter_map(|image| Some((*image, stored.get(image)?.clone()))).collect();
        async { Ok(known) }.boxed()
    }

    fn save(
        &self,
        image: ContentHash,
        _graphs: ContentHash,
        faces: Vec<u8>,
        _began: Option<OffsetDateTime>,
    ) -> BoxFuture<'_, Result<(), FaceStorageError>> {
        lock(&self.0).insert(image, faces);
        async { Ok(()) }.boxed()
    }
}
