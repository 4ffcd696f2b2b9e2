//! Published numbers of papers, for comparison with the numbers measured here.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
    /// Agreement of metrics with annotators.
    pub alignment: Vec<PublishedAlignment>,
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
    /// Means by metric code.
    pub metrics: BTreeMap<String, f64>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics;

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
