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
    /// So few pairs or pictures were judged by several annotators that resampling them says nothing.
    TooFewShared,
    /// All people, or all resamples of them, give the same number.
    NoVariation,
    /// The run changed within the last seconds: ask again.
    Pending,
}

impl NoInterval {
    /// The reason for a number over `clusters` clusters without an interval, where resampling needs at least `fewest` and gives
    /// up on fewer as `too_few`.
    #[must_use]
    pub fn of(clusters: usize, fewest: usize, too_few: Self) -> Self {
        if clusters < fewest { too_few } else { Self::NoVariation }
    }

    /// The reason for a mean, whose interval needs two people.
    #[must_use]
    pub fn of_mean(clusters: usize) -> Self {
        Self::of(clusters, 2, Self::TooFewPeople)
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
    /// One of them is the same for all samples that have both: a metric, or people who preferred neither picture of any pair.
    Constant,
}
