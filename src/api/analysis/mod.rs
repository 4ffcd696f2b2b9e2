//! `/v1/leaderboard` and `/v1/analysis`: statements about methods and metrics.

pub(crate) mod alignment;
pub(crate) mod correlations;
pub(crate) mod gallery;
pub(crate) mod leaderboard;
mod numbers;
pub(crate) mod slices;
pub(crate) mod trade_off;
