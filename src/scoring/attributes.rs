//! Attribute preservation over kept faces: the classifiers of a dataset, fitted once a revision, and whole runs.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use uuid::Uuid;

use super::{FaceMemoryError, Scoring};
use crate::{
    blocking::blocking,
    content::ContentHash,
    metrics::{FACES, LabelledFace, Probes, RunAttributes, RunRow, evaluate, largest},
    stats::LogisticError,
    tensor::Features,
};

/// What the photos of a dataset teach.
#[derive(Debug, Clone)]
pub struct DatasetProbes {
    /// The dataset's name.
    pub name: String,
    /// Its revision.
    pub revision: u64,
    /// Photos with a face, which were learnt from.
    pub faces: usize,
    /// The classifiers.
    pub probes: Arc<Probes>,
}

/// A sample of a run, by its images.
#[derive(Debug, Clone)]
pub struct RunFaces {
    /// The generated image.
    pub image: ContentHash,
    /// The first reference photo.
    pub reference: ContentHash,
    /// What is true of the subject.
    pub attributes: BTreeMap<String, bool>,
}

/// What was fitted, by dataset: only the newest revision.
#[derive(Debug, Default)]
pub(super) struct ProbeCache(Mutex<Fitted>);

#[derive(Debug, Default)]
struct Fitted {
    by_dataset: HashMap<Uuid, DatasetProbes>,
    /// Grows when all are forgotten, so that what is being fitted then is not kept.
    cleared: u64,
    /// Whose turn it is to fit a dataset; only of those that somebody fits or waits for.
    turns: HashMap<Uuid, Weak<tokio::sync::Mutex<()>>>,
}

impl ProbeCache {
    fn lock(&self) -> MutexGuard<'_, Fitted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn clear(&self) {
        let mut fitted = self.lock();
        fitted.by_dataset.clear();
        fitted.cleared += 1;
    }
}

/// Why nothing could be learnt.
#[derive(Debug, thiserror::Error)]
pub enum AttributesError {
    /// The kept faces could not be read.
    #[error("kept faces cannot be read: {0}")]
    Memory(FaceMemoryError),
    /// The kept faces cannot be used together.
    #[error("kept faces cannot be used: {0}")]
    Faces(#[from] LogisticError),
}

impl Scoring {
    /// What was fitted on this revision of a dataset, if it still is in memory.
    #[must_use]
    pub fn known_probes(&self, dataset: Uuid, revision: u64) -> Option<DatasetProbes> {
        self.probes.lock().by_dataset.get(&dataset).filter(|probes| probes.revision == revision).cloned()
    }

    /// The lock of whoever fits the classifiers of a dataset.
    #[must_use]
    pub fn fitting(&self, dataset: Uuid) -> Arc<tokio::sync::Mutex<()>> {
        let mut fitted = self.probes.lock();
        if let Some(turn) = fitted.turns.get(&dataset).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        fitted.turns.retain(|_, turn| turn.strong_count() > 0);
        fitted.turns.insert(dataset, Arc::downgrade(&turn));
        turn
    }

    /// Fits the classifiers of a dataset on its photos, leaving out those without a known face.
    ///
    /// # Errors
    /// Faces that cannot be looked up.
    pub async fn fit_probes(
        &self,
        dataset: Uuid,
        name: &str,
        revision: u64,
        photos: Vec<(ContentHash, BTreeMap<String, bool>)>,
    ) -> Result<DatasetProbes, AttributesError> {
        let cleared = self.probes.lock().cleared;
        let images: Vec<_> = photos.iter().map(|(image, _)| *image).collect();
        let known = self.known_faces(&images).await?;
        let fit = move || {
            let labelled = photos.iter().filter_map(|(image, attributes)| {
                let embedding = face(&known, *image)?;
                Some(LabelledFace { embedding, attributes, weight: 1.0 })
            });
            let labelled: Vec<_> = labelled.collect();
            Probes::fit(&labelled).map(|probes| (labelled.len(), probes))
        };
        // Seconds for thousands of faces.
        let (faces, probes) = blocking(fit).await?;
        let probes = DatasetProbes { name: name.to_owned(), revision, faces, probes: Arc::new(probes) };
        let mut fitted = self.probes.lock();
        if fitted.cleared == cleared {
            fitted.by_dataset.insert(dataset, probes.clone());
        }
        Ok(probes)
    }

    /// Attribute preservation of a run, from the faces that are known of its images.
    ///
    /// The second value has, for each row, whether its faces are known; those of other rows are left out, so that the
    /// predictions are those of the known rows, in order.
    ///
    /// # Errors
    /// Faces that cannot be looked up.
    pub async fn run_attributes(
        &self,
        rows: Vec<RunFaces>,
    ) -> Result<(RunAttributes, Vec<bool>), AttributesError> {
        let mut images: Vec<_> = rows.iter().flat_map(|row| [row.image, row.reference]).collect();
        images.sort_unstable();
        images.dedup();
        let known = self.known_faces(&images).await?;
        let judge = move || {
            let is_known =
                |row: &RunFaces| known.contains_key(&row.image) && known.contains_key(&row.reference);
            let flags: Vec<bool> = rows.iter().map(is_known).collect();
            let rows: Vec<_> = rows
                .iter()
                .filter(|row| is_known(row))
                .map(|row| RunRow {
                    image: face(&known, row.image),
                    reference: face(&known, row.reference),
                    attributes: &row.attributes,
                })
                .collect();
            evaluate(&rows).map(|run| (run, flags))
        };
        Ok(blocking(judge).await?)
    }

    /// What the face graphs of the pack are, weights and preprocessing; none where it has none.
    #[must_use]
    pub fn face_graphs(&self) -> Option<ContentHash> {
        self.engine().family_digest(FACES)
    }

    /// The faces of those images that are known, without looking for any.
    ///
    /// # Errors
    /// Faces that cannot be looked up.
    pub async fn known_faces(
        &self,
        images: &[ContentHash],
    ) -> Result<HashMap<ContentHash, Arc<Features>>, AttributesError> {
        self.faces.known(images).await.map_err(AttributesError::Memory)
    }
}

/// The embedding of an image's largest face.
fn face(known: &HashMap<ContentHash, Arc<Features>>, image: ContentHash) -> Option<&[f32]> {
    largest(known.get(&image)?.get("embedding")?)
}
