//! `/v1/leaderboard` and `/v1/analysis`: statements about methods and metrics.

pub(crate) mod alignment;
pub(crate) mod alignment_differences;
pub(crate) mod board;
mod board_csv;
mod chosen;
pub(crate) mod correlations;
pub(crate) mod first_places;
pub(crate) mod gallery;
pub(crate) mod leaderboard;
pub(crate) mod matrix;
mod numbers;
pub(crate) mod published;
pub(crate) mod slices;
pub(crate) mod trade_off;
