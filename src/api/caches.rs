//! Caches of responses that take seconds to compute.

use crate::api::datasets::summary::Summary;
use crate::api::http::response_cache::ResponseCache;
use crate::api::runs::judged::JudgedRun;
use crate::api::runs::table::{Table, TableKey};
use crate::{
    analysis::LeaderboardRow,
    store::{FacesState, ImagesOf, LEADERBOARD_BYTES},
};

/// Limit of the tables of reports, in bytes: thousands of tables of some twenty rows.
const REPORT_BYTES: u64 = 16 << 20;

/// Limit of the rows over common samples, in bytes: leaderboards of some hundred rows.
const BOARD_BYTES: u64 = 16 << 20;

/// Limit of the judged runs, in bytes: some 200,000 samples.
const JUDGED_BYTES: u64 = 128 << 20;

/// Limit of the summaries of datasets, in bytes; a summary takes a few hundred.
const DATASET_BYTES: u64 = 1 << 20;

/// Returns the limit of all response caches together, in bytes.
#[must_use]
pub fn response_cache_bytes() -> u64 {
    REPORT_BYTES + BOARD_BYTES + JUDGED_BYTES + DATASET_BYTES + LEADERBOARD_BYTES
}

/// The inputs of a response about faces: images, the revision of their owner, and the stored faces.
/// The same key always has the same response.
pub(super) type FacesKey = (ImagesOf, u64, FacesState);

/// The response caches.
pub(super) struct Caches {
    pub(super) reports: ResponseCache<TableKey, Table>,
    /// Rows over common samples, by what they are computed from.
    pub(super) boards: ResponseCache<String, Vec<LeaderboardRow>>,
    pub(super) judged: ResponseCache<FacesKey, JudgedRun>,
    pub(super) datasets: ResponseCache<FacesKey, Summary>,
}

impl Caches {
    pub(super) fn new() -> Self {
        let rows = |rows: &Vec<LeaderboardRow>| {
            let row = |row: &LeaderboardRow| 512 + 16 * row.runs.len() + 320 * row.metrics.len();
            rows.iter().map(row).sum()
        };
        Self {
            reports: ResponseCache::new(REPORT_BYTES, Table::bytes),
            boards: ResponseCache::new(BOARD_BYTES, rows),
            judged: ResponseCache::new(JUDGED_BYTES, JudgedRun::bytes),
            datasets: ResponseCache::new(DATASET_BYTES, Summary::bytes),
        }
    }

    /// Removes all entries.
    pub(super) fn clear(&self) {
        self.reports.clear();
        self.boards.clear();
        self.judged.clear();
        self.datasets.clear();
    }

    /// Returns the size of each cache in bytes, with its name in the service metrics.
    pub(super) fn bytes(&self) -> [(&'static str, u64); 4] {
        [
            ("reports", self.reports.bytes()),
            ("boards", self.boards.bytes()),
            ("attributes", self.judged.bytes()),
            ("datasets", self.datasets.bytes()),
        ]
    }
}
