//! Selection, order and page of the leaderboard.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::penalty::Policy;
use crate::store::StandingsFilter;

/// Selection, order and page of the leaderboard.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaderboardQuery {
    /// The runs and scores.
    pub filter: StandingsFilter,
    /// Only these metrics; all if empty.
    pub metrics: Vec<String>,
    /// Only runs with these declared flags; a flag that was not declared is `false`.
    pub flags: BTreeMap<String, bool>,
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
            filter: StandingsFilter::default(),
            metrics: Vec::new(),
            flags: BTreeMap::new(),
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
