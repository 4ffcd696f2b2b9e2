//! Types of slices and of their summaries.

use std::collections::HashMap;

use crate::store::db::check_name;

/// A part of a run's samples: those with a label, or by default all.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slice {
    /// Kind of the label: one of the constants; empty for all samples.
    pub kind: String,
    /// The label; empty for all samples.
    pub label: String,
}

impl Slice {
    /// Kind of the prompt. These slices are benchmarks: each is summarised like a run of its own.
    pub const PROMPT_KIND: &'static str = "prompt_kind";
    /// Category of the prompt.
    pub const CATEGORY: &'static str = "category";
    /// Kind of relation that the prompt asks for.
    pub const RELATION: &'static str = "relation";
    /// Attribute of the subject: its name if it is present, with the prefix `!` if it is absent.
    pub const ATTRIBUTE: &'static str = "attribute";
    /// Class of the image's shorter side.
    pub const SIZE: &'static str = "size";
    /// Object that the prompt names.
    pub const DETECTABLE: &'static str = "detectable";
    /// Predicate of a relation that the prompt asks for.
    pub const PREDICATE: &'static str = "predicate";
    /// Template of the prompt: its text without the objects.
    pub const TEMPLATE: &'static str = "template";
    /// Level of a fine-grained attribute of the subject, as `Smiling=3`.
    pub const FINE_ATTRIBUTE: &'static str = "fine_attribute";
    /// Attribute that `aps` predicts: its only metric is `aps`, over this attribute alone.
    pub const APS_ATTRIBUTE: &'static str = "aps_attribute";

    /// Returns `true` if a label can be stored: names that predate the checks may be too long for
    /// an index, or contain U+0000.
    #[must_use]
    pub fn can_store(label: &str) -> bool {
        check_name("a slice's label", label).is_ok()
    }

    /// Creates the slice of a label.
    pub fn new(kind: &str, label: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), label: label.into() }
    }

    /// Returns the slice of all samples.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Returns `true` for the slice of all samples.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.kind.is_empty()
    }
}

/// Code under which summaries have `aps` as the area under the ROC curve, beside `aps` itself,
/// which is the mean share of correct predictions. It is no metric of a sample.
pub const APS_AREA: &str = "aps_area";

/// One metric over a slice of a run under a penalty policy.
#[derive(Clone, Debug, PartialEq)]
pub struct SliceSummary {
    /// Slice of the run.
    pub slice: Slice,
    /// Name of the penalty policy.
    pub policy: String,
    /// Code of the metric.
    pub metric: String,
    /// Version of the metric's definition.
    pub version: u32,
    /// Number of samples in the slice, measured or not.
    pub samples: u64,
    /// Number of samples with a number.
    pub n: u64,
    /// Number of samples that were measured and have no number.
    pub nulls: u64,
    /// Number of samples that the penalty applies to.
    pub penalised: u64,
    /// Number of samples for which the penalty cannot be decided.
    pub undecided: u64,
    /// Number of samples without a face in the image, as far as this metric looked for one.
    pub faceless: u64,
    /// Mean of the numbers.
    pub mean: Option<f64>,
    /// Standard deviation of the numbers, ddof 1.
    pub std: Option<f64>,
    /// Lower end of the mean's 95 % interval.
    pub low: Option<f64>,
    /// Upper end of the mean's 95 % interval.
    pub high: Option<f64>,
    /// Number of clusters among the numbers: identities, and samples without one.
    pub clusters: u64,
    /// Sum and count of the numbers in each cluster, in the order of the run's keys. Empty if they
    /// were not requested.
    pub sums: Vec<(f64, usize)>,
}

/// Sum and count in each cluster of a run, by metric and policy.
pub type MetricSums = HashMap<(String, String), Vec<(f64, usize)>>;
