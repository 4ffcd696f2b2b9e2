//! The numbers of one metric over some samples, in leaderboards and slices.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::analysis::NoInterval;

/// The numbers of one metric over some samples.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = MetricNumbers)]
pub(crate) struct Numbers {
    /// Version of the metric's definition.
    pub(crate) version: u32,
    /// Number of samples with a number.
    pub(crate) n: u64,
    /// Number of measured samples without a number.
    pub(crate) nulls: u64,
    /// Share of the measured samples that have a number.
    pub(crate) coverage: f64,
    /// Mean of the numbers; null if `n` is 0. For `aps` it is the mean share of correct predictions
    /// (`sample_mean` in a run's report), not the area under the ROC curve, which is defined for a
    /// whole run only.
    pub(crate) mean: Option<f64>,
    /// Standard deviation of the numbers (ddof 1); null if `n` is below 2.
    pub(crate) std: Option<f64>,
    /// Lower end of the mean's 95 % interval, by identity; null while pending, and below two
    /// identities.
    pub(crate) low: Option<f64>,
    /// Upper end of the interval.
    pub(crate) high: Option<f64>,
    /// Reason why the mean has no interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) no_interval: Option<NoInterval>,
}

/// Returns the part of `all`, and 0 of nothing.
pub(super) fn share(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 }
}
