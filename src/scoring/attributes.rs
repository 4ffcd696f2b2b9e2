//! Attribute preservation from stored faces: linear probes of a dataset, fitted once per revision,
//! and whole runs.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use uuid::Uuid;

use super::{DatasetProbes, FaceStorageError, Scoring};
use crate::{
    blocking::blocking,
    content::ContentHash,
    metrics::{FeatureSource, LabelledFace, Probes, RunAttributes, RunRow, evaluate, largest},
    stats::LogisticError,
    tensor::Features,
};

/// A sample of a run, given by the hashes of its images.
#[derive(Debug, Clone)]
pub struct RunFaces {
    /// The generated image.
    pub image: ContentHash,
    /// The first reference image.
    pub reference: ContentHash,
    /// Attribute labels of the person, by CelebA name.
    pub attributes: BTreeMap<String, bool>,
    /// Kind of the prompt, if probes are to be fitted for each kind.
    pub prompt_kind: Option<String>,
}

/// Error of fitting probes or evaluating a run.
#[derive(Debug, thiserror::Error)]
pub enum AttributesError {
    /// The stored faces could not be read.
    #[error("failed to read stored faces: {0}")]
    Storage(FaceStorageError),
    /// The stored faces cannot be used together.
    #[error("stored faces cannot be used: {0}")]
    Faces(#[from] LogisticError),
}

impl Scoring {
    /// Returns the probes of this revision of a dataset if they are cached.
    #[must_use]
    pub fn known_probes(&self, dataset: Uuid, revision: u64) -> Option<Arc<DatasetProbes>> {
        self.probes.peek(&(dataset, revision))
    }

    /// Returns true if the probes of this revision of a dataset are being fitted, for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn is_fitting(&self, dataset: Uuid, revision: u64) -> bool {
        self.probes.is_computing(&(dataset, revision))
    }

    /// Returns the probes of this revision of a dataset. Unless they are cached, they are fitted on
    /// its photos, which `photos` reads. Photos without a known face are left out.
    ///
    /// Single flight: concurrent requests for one revision share one fit.
    ///
    /// # Errors
    /// Fails if the photos or the stored faces cannot be read or used.
    pub async fn fit_probes<E: From<AttributesError>>(
        &self,
        dataset: Uuid,
        name: String,
        revision: u64,
        photos: impl Future<Output = Result<Vec<(ContentHash, BTreeMap<String, bool>)>, E>>,
    ) -> Result<Arc<DatasetProbes>, E> {
        let fit = async {
            let photos = photos.await?;
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
            // Takes seconds for thousands of faces.
            let (faces, probes) = blocking(fit).await.map_err(AttributesError::from)?;
            Ok(DatasetProbes { name, revision, faces, probes: Arc::new(probes) })
        };
        self.probes.get((dataset, revision), fit).await
    }

    /// Evaluates attribute preservation of a run from the known faces of its images.
    ///
    /// The second value states for each row whether its faces are known. Rows with unknown faces
    /// are left out, so the predictions are those of the other rows, in order.
    ///
    /// # Errors
    /// Fails if the stored faces cannot be read or used.
    pub async fn run_attributes(
        &self,
        rows: Vec<RunFaces>,
    ) -> Result<(RunAttributes, Vec<bool>), AttributesError> {
        let mut images: Vec<_> = rows.iter().flat_map(|row| [row.image, row.reference]).collect();
        images.sort_unstable();
        images.dedup();
        let known = self.known_faces(&images).await?;
        let judge = move || {
            let is_known = |row: &RunFaces| {
                known.contains_key(&row.image) && known.contains_key(&row.reference)
            };
            let flags: Vec<bool> = rows.iter().map(is_known).collect();
            let rows: Vec<_> = rows
                .iter()
                .filter(|row| is_known(row))
                .map(|row| RunRow {
                    image: face(&known, row.image),
                    reference: face(&known, row.reference),
                    attributes: &row.attributes,
                    prompt_kind: row.prompt_kind.as_deref(),
                })
                .collect();
            evaluate(&rows).map(|run| (run, flags))
        };
        Ok(blocking(judge).await?)
    }

    /// Returns the digest of the pack's face graphs, their weights and preprocessing; `None` if the
    /// pack has none.
    #[must_use]
    pub fn face_graphs(&self) -> Option<ContentHash> {
        self.engine().family_digest(FeatureSource::Faces.name())
    }

    /// Returns the faces of the images for which they are known. Does not search any image.
    ///
    /// # Errors
    /// Fails if the stored faces cannot be read or used.
    pub async fn known_faces(
        &self,
        images: &[ContentHash],
    ) -> Result<HashMap<ContentHash, Arc<Features>>, AttributesError> {
        self.sources.faces.known(images).await.map_err(AttributesError::Storage)
    }
}

/// Returns the embedding of the largest face in an image.
fn face(known: &HashMap<ContentHash, Arc<Features>>, image: ContentHash) -> Option<&[f32]> {
    largest(known.get(&image)?.get("embedding")?)
}
