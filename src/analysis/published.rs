//! Published numbers of papers, for comparison with the numbers measured here.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{penalty::Policy, quantity::Quantity};

/// Numbers of a paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Citation of the paper.
    pub source: String,
    /// How to read the numbers.
    pub note: String,
    /// Mean scores of methods.
    pub methods: Vec<PublishedMethod>,
    /// What people preferred in the paper's user study.
    pub user_study: UserStudy,
    /// Agreement of metrics with annotators.
    pub alignment: Vec<PublishedAlignment>,
    /// Figures of the prompts of datasets.
    pub datasets: Vec<PublishedDataset>,
}

/// Figures of the prompts of a dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishedDataset {
    /// The dataset.
    pub dataset: String,
    /// Kind of its prompts, as in `prompt_kind`.
    pub prompt_kind: String,
    /// Numbers of different words of each kind.
    pub distinct: BTreeMap<Quantity, usize>,
}

/// Mean scores of a method over a dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishedMethod {
    /// The method.
    #[schema(example = "DreamBooth")]
    pub method: String,
    /// The dataset.
    #[schema(example = "Stellar-T")]
    pub dataset: String,
    /// Kind of the dataset's prompts, as in `prompt_kind`.
    #[schema(example = "T")]
    pub prompt_kind: String,
    /// The flags that a run of the method would declare here.
    pub flags: BTreeMap<String, bool>,
    /// Means by metric code.
    pub metrics: BTreeMap<String, f64>,
}

/// The user study of a paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserStudy {
    /// Number of answers.
    pub answers: u32,
    /// What was asked, and how to read the shares.
    pub note: String,
    /// Shares of the answers, largest first.
    pub shares: Vec<PreferredShare>,
}

/// Share of a user study's answers that prefer a method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PreferredShare {
    /// The method; null for the next best one, which is not named.
    pub method: Option<String>,
    /// The share, in [0, 1].
    pub share: f64,
}

/// Kendall's tau of a metric with annotators' judgements on three questions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishedAlignment {
    /// Code of the metric.
    pub metric: String,
    /// Tau for the question whether the objects are present.
    pub object: f64,
    /// Tau for the question whether the relations are right.
    pub relation: f64,
    /// Tau for the question which image is better overall.
    pub overall: f64,
}

static STELLAR: LazyLock<Published> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../assets/published/stellar.json"))
        .expect("a test parses this file")
});

/// The tables of the Stellar paper.
#[must_use]
pub fn published() -> &'static Published {
    &STELLAR
}

/// Reason why a published number does not compare with the numbers measured here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NotComparable {
    /// The number is another statistic than the mean of the column.
    OtherStatistic,
    /// The metric is defined in another way here.
    OtherDefinition,
    /// In the authors' code, the images of a batch change each other's score.
    DependsOnBatch,
    /// The published number includes the penalty, and the requested policy has none.
    OtherPenalty,
    /// The measured rows are over other samples than the published one, or possibly so.
    OtherSamples,
    /// The rows were scored with other model weights than the official ones.
    OtherWeights,
    /// There is no measured row to compare with.
    NothingMeasured,
}

impl NotComparable {
    /// Says in words why a number does not compare.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::OtherStatistic => {
                "the paper's APS is an area under the ROC curve, and APS here is a share of \
                 correct predictions: compare it with the column APS, area"
            }
            Self::OtherDefinition => {
                "the paper's scene graph model and parser are not published: relation fidelity is \
                 defined in another way here"
            }
            Self::DependsOnBatch => {
                "in the authors' code the labels of a batch compete, so that images lower each \
                 other's score; here each image is scored by itself"
            }
            Self::OtherPenalty => {
                "the paper's number includes the penalty for metric exploitation, and these rows \
                 have none: choose the policy stellar"
            }
            Self::OtherSamples => {
                "the rows are not over this benchmark alone: choose the dataset and its kind of \
                 prompt, and all images"
            }
            Self::OtherWeights => "the rows were not scored with official model weights",
            Self::NothingMeasured => "no row was measured",
        }
    }
}

/// What the measured rows are, as far as published numbers depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// The penalty policy.
    pub policy: Policy,
    /// Whether the rows are over the benchmark of the published row, with all its samples.
    pub is_benchmark: bool,
    /// Whether there is a row, and every row is of official weights.
    pub weights: Option<bool>,
}

/// Code of the area under the ROC curve beside `aps`.
const AREA: &str = crate::store::APS_AREA;

/// Returns why a published number does not compare with the measured ones, if it does not.
#[must_use]
pub fn not_comparable(metric: &str, measured: Measured) -> Option<NotComparable> {
    let has_penalty = metric == AREA || Policy::concerns(metric);
    match metric {
        "aps" => Some(NotComparable::OtherStatistic),
        "rfs" => Some(NotComparable::OtherDefinition),
        "goa" => Some(NotComparable::DependsOnBatch),
        _ if has_penalty && measured.policy == Policy::None => Some(NotComparable::OtherPenalty),
        _ if !measured.is_benchmark => Some(NotComparable::OtherSamples),
        _ => match measured.weights {
            None => Some(NotComparable::NothingMeasured),
            Some(false) => Some(NotComparable::OtherWeights),
            Some(true) => None,
        },
    }
}

/// Returns whether a dataset's name means a published one: the same name without regard to case
/// and punctuation, or `stellar` for both parts of Stellar.
#[must_use]
pub fn names_dataset(name: &str, published: &str) -> bool {
    let name = plain(name);
    name == plain(published) || name == FAMILY
}

/// Returns whether a run over a dataset, restricted to a kind of prompt if one is given, is over
/// this published benchmark.
#[must_use]
pub fn is_benchmark(
    dataset: Option<&str>,
    kind: Option<&str>,
    published: &PublishedMethod,
) -> bool {
    let Some(dataset) = dataset.map(plain) else { return false };
    let is_kind = kind.map(|kind| kind == published.prompt_kind);
    if dataset == plain(&published.dataset) {
        is_kind.unwrap_or(true)
    } else {
        dataset == FAMILY && is_kind == Some(true)
    }
}

/// Name of the dataset of which Stellar-T and Stellar-H are parts.
const FAMILY: &str = "stellar";

fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics;

    fn measured() -> Measured {
        Measured { policy: Policy::Stellar, is_benchmark: true, weights: Some(true) }
    }

    #[test]
    fn a_number_compares_if_definition_penalty_samples_and_weights_agree() {
        use NotComparable::*;
        assert_eq!(not_comparable("ips", measured()), None);
        assert_eq!(not_comparable(AREA, measured()), None);
        let without = Measured { policy: Policy::None, ..measured() };
        assert_eq!(not_comparable(AREA, without), Some(OtherPenalty));
        assert_eq!(not_comparable("clip_t", without), None, "no penalty concerns it");
        let other = Measured { is_benchmark: false, ..measured() };
        assert_eq!(not_comparable("sis", other), Some(OtherSamples));
        for (weights, reason) in [(None, NothingMeasured), (Some(false), OtherWeights)] {
            assert_eq!(not_comparable("ips", Measured { weights, ..measured() }), Some(reason));
        }
        for (code, reason) in
            [("aps", OtherStatistic), ("rfs", OtherDefinition), ("goa", DependsOnBatch)]
        {
            assert_eq!(not_comparable(code, measured()), Some(reason), "{code}");
        }
    }

    #[test]
    fn a_dataset_has_aliases_and_a_benchmark_needs_its_kind_of_prompt() {
        assert!(names_dataset("stellar", "Stellar-T") && names_dataset("stellar_t", "Stellar-T"));
        assert!(!names_dataset("stellar-h", "Stellar-T") && !names_dataset("mine", "Stellar-T"));
        let row = published().methods.iter().find(|row| row.dataset == "Stellar-T").unwrap();
        assert!(is_benchmark(Some("Stellar-T"), None, row));
        assert!(is_benchmark(Some("stellar"), Some("T"), row));
        assert!(!is_benchmark(Some("stellar"), None, row), "it has both kinds");
        assert!(!is_benchmark(Some("Stellar-T"), Some("H"), row));
        assert!(!is_benchmark(None, Some("T"), row), "any dataset has this kind");
    }

    #[test]
    fn the_user_study_prefers_one_method() {
        let study = &published().user_study;
        assert_eq!(study.answers, 2_500);
        assert!(study.shares.is_sorted_by(|a, b| a.share >= b.share));
        assert!(study.shares.iter().map(|of| of.share).sum::<f64>() <= 1.0);
    }

    #[test]
    fn the_paper_has_four_methods_on_both_datasets() {
        let of = |dataset| published().methods.iter().filter(|row| row.dataset == dataset).count();
        assert_eq!((of("Stellar-T"), of("Stellar-H"), published().methods.len()), (4, 4, 8));
        assert_eq!(published().alignment.len(), 13);
    }

    #[test]
    fn published_metrics_are_metrics_of_this_service_or_still_to_come() {
        let codes = published().methods.iter().flat_map(|row| row.metrics.keys());
        for code in codes.chain(published().alignment.iter().map(|row| &row.metric)) {
            assert!(metrics::find(code).is_some() || code == "rfs", "{code}");
        }
    }
}
