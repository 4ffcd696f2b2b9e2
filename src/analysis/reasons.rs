//! Why a number that could be expected is null.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a number has no interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoInterval {
    /// So few people stand behind it that resampling them says nothing.
    TooFewPeople,
    /// So few prompts stand behind a share of votes that resampling them says nothing.
    TooFewPrompts,
    /// So few pairs or images were judged by several annotators that resampling them says nothing.
    TooFewShared,
    /// All people, or all resamples of them, give the same number.
    NoVariation,
    /// The run changed within the last seconds: ask again.
    Pending,
}

impl NoInterval {
    /// The reason if there is a number and no lower end: `too_few` below `fewest` clusters, which resampling needs.
    #[must_use]
    pub fn of(
        number: Option<f64>,
        low: Option<f64>,
        clusters: usize,
        fewest: usize,
        too_few: Self,
    ) -> Option<Self> {
        let reason = || if clusters < fewest { too_few } else { Self::NoVariation };
        (number.is_some() && low.is_none()).then(reason)
    }

    /// The same for a mean, whose interval needs two people.
    #[must_use]
    pub fn of_mean(mean: Option<f64>, low: Option<f64>, clusters: usize) -> Option<Self> {
        Self::of(mean, low, clusters, 2, Self::TooFewPeople)
    }
}

/// Why there is no alpha.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoAlpha {
    /// Nothing was judged by two annotators.
    NothingShared,
    /// All shared judgements are the same: alpha compares disagreement with what chance would give, and here that is none.
    NoVariation,
}

/// Why two series have no coefficient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoCoefficient {
    /// Fewer than two samples have both.
    TooFewSamples,
    /// One of them is the same for all samples that have both: a metric, or people who preferred neither image of any pair.
    Constant,
}
