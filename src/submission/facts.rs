//! What a bundle says about its run and its samples.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::card::{CollectedSettings, MethodCard};
use crate::pack_id::PackId;
use crate::scoring::Metadata;

/// Facts of a bundle: the run, who computed its scores, and what its authors declare.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BundleFacts {
    /// The method.
    pub method: String,
    /// The run of the method.
    pub run: String,
    /// Dataset that the prompts are from.
    pub dataset: Option<String>,
    /// Split of the dataset.
    pub split: Option<String>,
    /// The pack of all scores.
    pub pack: PackId,
    /// Version of the program that made the bundle.
    pub program: String,
    /// Versions of the service that computed the scores.
    pub service_versions: BTreeSet<String>,
    /// Version of each metric's definition.
    pub metric_versions: BTreeMap<String, u32>,
    /// What the authors declare.
    pub declarations: Declarations,
    /// Settings of the images.
    pub image_settings: CollectedSettings,
    /// Number of samples.
    pub samples: u64,
    /// Counts and means by metric.
    pub metrics: BTreeMap<String, BundleTotals>,
}

/// Declarations of a method's authors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Declarations {
    /// The card of the method; null without one.
    pub card: Option<MethodCard>,
    /// Flags of the run about training.
    pub flags: BTreeMap<String, bool>,
    /// Settings that the run declared: a JSON object.
    #[schema(value_type = Object)]
    pub settings: serde_json::Map<String, serde_json::Value>,
}

/// Counts and mean of one metric.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BundleTotals {
    /// Number of samples with a number.
    pub n: u64,
    /// Number of samples without one.
    pub nulls: u64,
    /// Mean of the numbers, as measured and without penalty; null without any.
    pub mean: Option<f64>,
}

/// A sample of a bundle. Hashes are BLAKE3, as 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleSample {
    /// Name within the run.
    pub name: String,
    /// Hash of all inputs together.
    pub content: String,
    /// Hash of the file of the generated image.
    pub image: String,
    /// Hash of the prompt's text; null without a prompt.
    pub prompt: Option<String>,
    /// Hashes of the files of the reference images.
    pub references: Vec<String>,
    /// Hashes of the files of the auxiliary images.
    pub auxiliary: Vec<String>,
    /// Metadata, which scores may depend on, with the settings of the image.
    pub metadata: Metadata,
    /// Scores by metric.
    pub scores: BTreeMap<String, BundleScore>,
}

impl BundleSample {
    /// Counts its scores, hashes and labels.
    pub(super) fn entries(&self) -> usize {
        let Metadata { attributes, finegrained_attributes, detectables, relations, .. } =
            &self.metadata;
        self.scores.len()
            + self.references.len()
            + self.auxiliary.len()
            + attributes.len()
            + finegrained_attributes.len()
            + detectables.len()
            + 3 * relations.len()
            + self.metadata.categories.len()
    }
}

/// A score: a number, or null with a reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleScore {
    /// The number.
    pub value: Option<f64>,
    /// Reason why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Computes the counts and means of samples, in their order.
#[must_use]
pub fn totals(samples: &[BundleSample]) -> BTreeMap<String, BundleTotals> {
    let mut sums: BTreeMap<String, (BundleTotals, f64)> = BTreeMap::new();
    for (metric, score) in samples.iter().flat_map(|sample| &sample.scores) {
        let (of, sum) = match sums.get_mut(metric) {
            Some(found) => found,
            None => sums.entry(metric.clone()).or_default(),
        };
        match score.value {
            Some(value) => {
                of.n += 1;
                *sum += value;
            }
            None => of.nulls += 1,
        }
    }
    let mean = |(metric, (of, sum)): (String, (BundleTotals, f64))| {
        (metric, BundleTotals { mean: (of.n > 0).then(|| sum / of.n as f64), ..of })
    };
    sums.into_iter().map(mean).collect()
}
