//! Reasons for null statistics.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Reason if a number has no interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoInterval {
    /// Too few identities to resample.
    TooFewPeople,
    /// Too few prompts behind a share of votes to resample.
    TooFewPrompts,
    /// Too few pairs or images judged by several annotators to resample.
    TooFewShared,
    /// All identities, or all resamples of them, give the same number.
    NoVariation,
    /// The run changed within the last seconds; repeat the request.
    Pending,
    /// The number is declared by the method's card, and not measured.
    Declared,
}

impl NoInterval {
    /// Returns the reason if there is a number without a lower end: `too_few` below `fewest`
    /// clusters, the minimum for resampling.
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

    /// Like [`of`](Self::of) for a mean, whose interval needs two identities.
    #[must_use]
    pub fn of_mean(mean: Option<f64>, low: Option<f64>, clusters: usize) -> Option<Self> {
        Self::of(mean, low, clusters, 2, Self::TooFewPeople)
    }
}

/// Reason if there is no alpha.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoAlpha {
    /// No pair or image was judged by two annotators.
    NothingShared,
    /// All shared judgements are the same. Alpha compares disagreement with that expected by
    /// chance, which is then 0.
    NoVariation,
}

/// Reason if two series have no coefficient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoCoefficient {
    /// Fewer than two samples have both numbers.
    TooFewSamples,
    /// One series is constant over all samples that have both: a metric, or annotators without any
    /// preference.
    Constant,
}
