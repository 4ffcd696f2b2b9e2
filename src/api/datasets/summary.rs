//! Totals over all photos of a dataset.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Totals over all photos of a dataset.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = DatasetTotals)]
pub(crate) struct Summary {
    /// Number of photos in which the loaded pack finds a face.
    pub(crate) with_face: usize,
    /// Number of photos in which the loaded pack finds no face: nothing is learnt from them.
    pub(crate) without_face: usize,
    /// Number of photos enrolled with another pack: enrol them again to learn from them.
    pub(crate) unknown: usize,
    /// Number of photos with a face by attribute and label, for the attributes that are judged.
    pub(crate) attributes: BTreeMap<String, Labels>,
}

impl Summary {
    /// Returns an estimate of its memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        128 * self.attributes.len()
    }
}

/// Number of photos by label of one attribute.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct Labels {
    /// Number of photos labelled `true`.
    pub(crate) present: usize,
    /// Number of photos labelled `false`.
    pub(crate) absent: usize,
}
