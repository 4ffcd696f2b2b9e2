//! Types of standings, and their cache.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::moments::Moments;
use super::slice::{MetricSums, Slice, SliceSummary};
use crate::cache::{Cache, Caches};
use crate::pack_id::{PackId, Weights};

/// Filter of the runs and scores of a leaderboard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StandingsFilter {
    /// Only this method.
    pub method: Option<String>,
    /// Only runs of this name.
    pub run: Option<String>,
    /// Only scores of the pack with this digest.
    pub pack: Option<String>,
    /// Only scores of packs with these weights.
    pub weights: Option<Weights>,
    /// Only runs over this dataset.
    pub dataset: Option<String>,
    /// Only runs over this split.
    pub split: Option<String>,
    /// Only runs that were created at this time or later.
    pub since: Option<OffsetDateTime>,
    /// Only runs that were created before this time.
    pub until: Option<OffsetDateTime>,
    /// Only the samples of this slice.
    pub slice: Slice,
}

/// Summaries that a leaderboard is based on.
#[derive(Clone, Debug, PartialEq)]
pub struct StandingsQuery {
    /// The runs and scores.
    pub filter: StandingsFilter,
    /// Penalty policy of the summaries of `penalised` metrics. Those of other metrics are the same
    /// under every policy, and stored under `none`.
    pub policy: String,
    /// Codes of the metrics that the policy affects.
    pub penalised: Vec<String>,
}

/// One metric of a run with one pack.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Name of the method.
    pub method: String,
    /// Name of the run.
    pub run: String,
    /// Id of the run.
    pub run_id: Uuid,
    /// Flags that the run declared.
    pub flags: BTreeMap<String, bool>,
    /// Pack of the scores.
    pub pack: PackId,
    /// Code of the metric.
    pub metric: String,
    /// Version of the metric's definition.
    pub version: u32,
    /// Moments of the whole run as it is now, whatever the slice and without any penalty.
    pub running: Moments,
    /// Summary of the slice under the policy, as it was when the run was last summarised.
    pub slice: Option<SliceSummary>,
}

/// Standings of one run with one pack.
#[derive(Debug)]
pub struct RunStandings {
    /// Id of the run.
    pub run: Uuid,
    /// Standings by metric and version; never empty.
    pub standings: Vec<Standing>,
    /// Keys of the run's clusters; empty until the run is summarised.
    pub keys: Vec<u64>,
    /// Fingerprint of the set of its samples; empty until the run is summarised.
    pub sample_set: String,
    /// Sum and count in each cluster, by metric and policy.
    pub sums: MetricSums,
    /// `aps` as the area under the ROC curve under the policy; only for all samples and for
    /// benchmarks of runs with predictions.
    pub area: Option<SliceSummary>,
    /// Version stamp of this read: it differs whenever anything may have changed.
    pub stamp: String,
}

impl RunStandings {
    /// Returns the digest of the pack of all its scores.
    #[must_use]
    pub fn pack(&self) -> &str {
        self.standings.first().map_or("", |standing| &standing.pack.digest)
    }
}

/// Cache key: run, pack, slice and policy.
pub(super) type StandingsKey = (Uuid, String, Slice, String);

/// Cache of standings. 100 methods of 15 metrics are thousands of rows, few of which change between
/// two requests. Each request reads one row per run, its stamp, and then only the runs whose stamp
/// has changed.
pub(crate) type StandingsCache = Cache<StandingsKey, RunStandings>;

/// Capacity of the standings cache in bytes.
pub const LEADERBOARD_BYTES: u64 = 128 << 20;

/// Idle entries expire after this time.
const IDLE: Duration = Duration::from_hours(1);

pub(crate) fn standings_cache(caches: &Caches) -> Arc<StandingsCache> {
    caches.add("leaderboards", LEADERBOARD_BYTES, Some(IDLE), weigh)
}

/// Returns the approximate memory of an entry and its key, in bytes.
pub(super) fn weigh(key: &StandingsKey, run: &RunStandings) -> usize {
    let texts = key.1.len() + key.2.kind.len() + key.2.label.len() + key.3.len() + run.stamp.len();
    let sums: usize = run.sums.values().map(|sums| 16 * sums.len() + 200).sum();
    texts + sums + 8 * run.keys.len() + 600 * run.standings.len()
}
