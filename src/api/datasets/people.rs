//! The people of a dataset, with how alike their photos are.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::metrics::{Disagreement, NoConsistency};

/// The photos of a person.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct PersonEntry {
    /// The person.
    pub(crate) identity: String,
    /// Number of enrolled photos.
    pub(crate) photos: usize,
    /// Number of photos in which the loaded pack finds a face.
    pub(crate) with_face: usize,
    /// Number of photos whose faces are not stored, or were found by another pack.
    pub(crate) unknown: usize,
    /// Mean similarity of the photos to the person's other photos: each is compared with the
    /// others as `ips` compares an image with reference images. 1 for equal faces.
    pub(crate) consistency: Option<f64>,
    /// Reason if there is no consistency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<NoConsistency>,
    /// Similarity of the photo that is least like the others.
    pub(crate) lowest: Option<f64>,
    /// Name of that photo.
    pub(crate) lowest_photo: Option<String>,
    /// Why the photos should be looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disagreement: Option<Disagreement>,
    /// Photos that are more like another person than like this person's other photos.
    pub(crate) outliers: Vec<OutlierEntry>,
}

/// A photo that does not look like its person.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct OutlierEntry {
    /// Name of the photo among those of its person.
    pub(crate) name: String,
    /// BLAKE3 hash of the photo's file.
    pub(crate) image: String,
    /// Mean similarity to the person's other photos.
    pub(crate) similarity: Option<f64>,
    /// The person whom the photo is more like.
    pub(crate) closer_to: String,
}

/// The people of a dataset, as they are cached.
pub(crate) struct People(pub(crate) Vec<PersonEntry>);

impl People {
    /// Returns an estimate of its memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let of = |person: &PersonEntry| {
            size_of::<PersonEntry>() + person.identity.len() + 256 * person.outliers.len()
        };
        self.0.iter().map(of).sum()
    }
}
