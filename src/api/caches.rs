//! Caches of responses that take seconds to compute.

use std::sync::Arc;

use crate::api::datasets::people::People;
use crate::api::datasets::summary::Summary;
use crate::api::runs::judged::JudgedRun;
use crate::api::runs::table::{Table, TableKey};
use crate::{
    analysis::LeaderboardRow,
    cache::{Cache, Caches},
    store::{FacesState, ImagesOf, LEADERBOARD_BYTES, RUN_DATA_BYTES},
};

/// Limit of the tables of reports, in bytes: thousands of tables of some twenty rows.
const REPORT_BYTES: u64 = 16 << 20;

/// Limit of the rows over common samples, in bytes: leaderboards of some hundred rows.
const BOARD_BYTES: u64 = 16 << 20;

/// Limit of the judged runs, in bytes: some 200,000 samples.
const JUDGED_BYTES: u64 = 128 << 20;

/// Limit of the summaries of datasets, in bytes; a summary takes a few hundred.
const DATASET_BYTES: u64 = 1 << 20;

/// Limit of the consistency of photos, in bytes: some 20,000 people.
const CONSISTENCY_BYTES: u64 = 4 << 20;

/// Returns the limit of all response caches and of the cached runs together, in bytes.
#[must_use]
pub fn response_cache_bytes() -> u64 {
    REPORT_BYTES
        + BOARD_BYTES
        + JUDGED_BYTES
        + DATASET_BYTES
        + CONSISTENCY_BYTES
        + LEADERBOARD_BYTES
        + RUN_DATA_BYTES
}

/// The inputs of a response about faces: images, the revision of their owner, and the stored faces.
/// The same key always has the same response.
pub(super) type FacesKey = (ImagesOf, u64, FacesState);

/// The response caches.
pub(super) struct ResponseCaches {
    pub(super) reports: Arc<Cache<TableKey, Table>>,
    /// Rows over common samples, by what they are computed from.
    pub(super) boards: Arc<Cache<String, Vec<LeaderboardRow>>>,
    pub(super) judged: Arc<Cache<FacesKey, JudgedRun>>,
    pub(super) datasets: Arc<Cache<FacesKey, Summary>>,
    pub(super) consistency: Arc<Cache<FacesKey, People>>,
}

impl ResponseCaches {
    /// Adds the caches, with their names in the service metrics.
    pub(super) fn new(caches: &Caches) -> Self {
        let rows = |_: &String, rows: &Vec<LeaderboardRow>| {
            let row = |row: &LeaderboardRow| 512 + 16 * row.runs.len() + 320 * row.metrics.len();
            rows.iter().map(row).sum()
        };
        Self {
            reports: caches.add("reports", REPORT_BYTES, None, |_, table| Table::bytes(table)),
            boards: caches.add("boards", BOARD_BYTES, None, rows),
            judged: caches.add("attributes", JUDGED_BYTES, None, |_, run| JudgedRun::bytes(run)),
            consistency: caches
                .add("consistency", CONSISTENCY_BYTES, None, |_, of| People::bytes(of)),
            datasets: caches.add("datasets", DATASET_BYTES, None, |_, of| Summary::bytes(of)),
        }
    }
}
