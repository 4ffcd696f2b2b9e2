//! Selection, order and page of the leaderboard.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::penalty::Policy;
use crate::store::{Slice, Weights};

/// Selection, order and page of the leaderboard.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaderboardQuery {
    /// Only this method.
    pub method: Option<String>,
    /// Only runs of this name.
    pub run: Option<String>,
    /// Only these metrics; all if empty.
    pub metrics: Vec<String>,
    /// Only scores of the pack with this digest.
    pub pack: Option<String>,
    /// Only scores of packs with these weights.
    pub weights: Option<Weights>,
    /// Only runs over this dataset.
    pub dataset: Option<String>,
    /// Only runs over this split.
    pub split: Option<String>,
    /// Only runs created at this time or later.
    pub since: Option<OffsetDateTime>,
    /// Only runs created before this time.
    pub until: Option<OffsetDateTime>,
    /// Only runs with these declared flags; a flag that was not declared is `false`.
    pub flags: BTreeMap<String, bool>,
    /// Only the samples of this slice.
    pub slice: Slice,
    /// Samples that a row is based on.
    pub on: Samples,
    /// The penalty policy.
    pub policy: Policy,
    /// Minimum number of samples of a metric in a row; metrics with fewer are left out.
    pub min_samples: u64,
    /// Whether a row is a method or a run.
    pub by: Grouping,
    /// The order of the rows.
    pub sort: Sort,
    /// Maximum number of rows to return, 1 to [`MAX_PAGE`](crate::store::MAX_PAGE).
    pub limit: u32,
    /// Cursor of the previous page: its [`LeaderboardPage::next`](super::LeaderboardPage::next).
    pub after: Option<String>,
}

impl Default for LeaderboardQuery {
    /// The first hundred methods by name, with all their metrics, over all samples and without a
    /// penalty.
    fn default() -> Self {
        Self {
            method: None,
            run: None,
            metrics: Vec::new(),
            pack: None,
            weights: None,
            dataset: None,
            split: None,
            since: None,
            until: None,
            flags: BTreeMap::new(),
            slice: Slice::all(),
            on: Samples::All,
            policy: Policy::None,
            min_samples: 0,
            by: Grouping::Method,
            sort: Sort::Name,
            limit: 100,
            after: None,
        }
    }
}

/// Samples that a row of the leaderboard is based on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Samples {
    /// All samples of the row: rows over different samples are not ranked against each other.
    #[default]
    All,
    /// Samples that all listed rows of its pack have, by name: all rows are ranked against each
    /// other.
    Common,
}

/// Unit of a row of the leaderboard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = By)]
pub enum Grouping {
    /// A method, over the samples of all its runs.
    #[default]
    Method,
    /// A single run.
    Run,
}

/// Order of the leaderboard's rows; ties are in order of method, run and pack.
///
/// Rows of different packs are never ranked against each other. If several packs are selected, the
/// rows are grouped by pack, in order of the packs' digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sort {
    /// By method, then run, then pack digest, compared as UTF-8 bytes.
    Name,
    /// By the mean of one metric. Rows without it come last, as do rows whose penalty is not
    /// computed yet.
    Metric {
        /// The metric's code. It must be among the query's metrics if those are limited.
        metric: String,
        /// The version of the metric's definition.
        version: u32,
        /// Whether the largest comes first.
        descending: bool,
    },
    /// By mean rank, best first.
    MeanRank,
}
