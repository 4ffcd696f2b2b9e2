//! Totals over all photos of a dataset.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Totals over all photos of a dataset.
#[derive(Clone)]
pub(crate) struct Summary {
    pub(crate) with_face: usize,
    pub(crate) without_face: usize,
    pub(crate) unknown: usize,
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
