//! The leaderboard as the API has it: rows, and the numbers of each metric.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::analysis::numbers::{Numbers, share};
use crate::api::analysis::published::Reference;
use crate::{
    analysis::{Area, LeaderboardRow, NoInterval, Policy, RankedMetric, Samples},
    pack_id::PackId,
    stats::FEW_CLUSTERS,
};

/// One page of the leaderboard.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"policy": "stellar", "on": "all", "total": 1, "rows": [{
    "method": "mine", "runs": ["0197a7c6-6f00-7000-8000-000000000000"], "mean_rank": 1.0,
    "pack": {"name": "official", "digest": "…", "weights": "official"},
    "metrics": {"ips": {"version": 1, "n": 980, "nulls": 20, "coverage": 0.98, "mean": 0.61, "std": 0.12, "low": 0.59,
                        "high": 0.63, "rank": 1, "last_rank": 2, "samples": 1000, "clusters": 200, "few_clusters": false, "penalised": 31, "penalty_rate": 0.031, "undecided": 0,
                        "faceless": 4, "pending": false}}}]}))]
pub(crate) struct LeaderboardResponse {
    /// The penalty policy that was applied.
    pub(crate) policy: Policy,
    /// The samples that rows cover.
    #[serde(default)]
    pub(crate) on: Samples,
    /// Number of rows on all pages.
    pub(crate) total: usize,
    /// Methods or runs, sorted as requested.
    pub(crate) rows: Vec<Row>,
    /// Published results, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) published: Option<Reference>,
    /// Cursor of the next page, to be sent as `after`; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

/// A method or run with one pack: scores of different packs are never averaged or ranked together.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Row {
    /// The method.
    pub(crate) method: String,
    /// Name of the run, if rows are runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<String>,
    /// Ids of the runs that the row covers.
    pub(crate) runs: Vec<uuid::Uuid>,
    /// Flags declared by any of these runs.
    pub(crate) flags: BTreeMap<String, bool>,
    /// The pack of all scores in the row. With the weights `demo` the scores are meaningless.
    pub(crate) pack: PackId,
    /// Identifies the row's samples: rows with the same value are over the same samples. Null until
    /// the row's runs are summarised, which takes seconds.
    #[serde(default)]
    pub(crate) sample_set: Option<String>,
    /// True if the row is over the samples that most rows of its pack are over. Only rows with the
    /// same `sample_set` are ranked against each other: means over different samples are not
    /// comparable. Null until the row's runs are summarised.
    #[serde(default)]
    pub(crate) comparable: Option<bool>,
    /// Mean of the row's places in all metrics that rank, among rows with the same `sample_set`; a
    /// metric without a number counts as the last place. Null if no metric that ranks has a number.
    pub(crate) mean_rank: Option<f64>,
    /// Summaries of the metrics, by code.
    pub(crate) metrics: BTreeMap<String, Summary>,
}

/// Summary of one metric over the samples of a method or run.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Summary {
    /// Mean and interval.
    #[serde(flatten)]
    pub(crate) numbers: Numbers,
    /// 1 + the number of rows with the same pack and `sample_set` whose interval lies entirely on
    /// the better side of this one's. Null without an interval, and for metrics without a better
    /// end.
    pub(crate) rank: Option<usize>,
    /// Last place that the intervals leave open: the number of ranked rows less those whose
    /// interval lies entirely on the worse side of this one's. Rows between `rank` and `last_rank`
    /// are not separable.
    #[serde(default)]
    pub(crate) last_rank: Option<usize>,
    /// Number of samples in the row, measured or not. This and the following counts are null while
    /// pending.
    pub(crate) samples: Option<u64>,
    /// Number of identities among the samples with a number; a sample without an identity counts as
    /// one.
    pub(crate) clusters: Option<u64>,
    /// True if there are fewer than 8 such identities: with skewed scores, the coverage of the
    /// interval is then lower than stated.
    pub(crate) few_clusters: Option<bool>,
    /// Number of penalised samples.
    pub(crate) penalised: Option<u64>,
    /// Share of the samples that are penalised.
    pub(crate) penalty_rate: Option<f64>,
    /// Number of samples for which the penalty cannot be decided because `clip_t` or `clip_n` is
    /// missing.
    pub(crate) undecided: Option<u64>,
    /// Number of samples whose image has no face, for metrics that look for one.
    pub(crate) faceless: Option<u64>,
    /// `aps` as the area under the ROC curve, as in the report of a run and in the paper. Null for
    /// other metrics, for slices that are no benchmark, and for a row over several runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) area: Option<AreaNumbers>,
    /// True if the run changed within the last seconds: counts and mean are current, but without
    /// interval and penalty.
    pub(crate) pending: bool,
}

/// `aps` as the mean over attributes of the area under the ROC curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = ApsArea)]
pub(crate) struct AreaNumbers {
    /// The area in [0, 1], 0.5 for chance; null if every attribute is constant.
    pub(crate) mean: Option<f64>,
    /// Lower end of its 95 % interval (BCa, by identity); null below three identities.
    pub(crate) low: Option<f64>,
    /// Upper end of the interval.
    pub(crate) high: Option<f64>,
    /// Reason why the area has no interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) no_interval: Option<NoInterval>,
    /// Number of samples with a prediction that counts.
    pub(crate) n: u64,
    /// Number of identities among them.
    pub(crate) clusters: u64,
}

impl From<Area> for AreaNumbers {
    fn from(of: Area) -> Self {
        Self {
            mean: of.mean,
            low: of.interval.map(|ends| ends.low),
            high: of.interval.map(|ends| ends.high),
            no_interval: of.no_interval(),
            n: of.n,
            clusters: of.clusters,
        }
    }
}

impl From<LeaderboardRow> for Row {
    fn from(row: LeaderboardRow) -> Self {
        // A metric is shown in its newest version; older ones are read with the sample.
        let newest =
            row.metrics.into_iter().map(|of| (of.summary.metric.clone(), Summary::from(of)));
        let LeaderboardRow {
            method, run, runs, flags, pack, sample_set, set_place, mean_rank, ..
        } = row;
        let comparable = set_place.map(|place| place == 0);
        Self {
            method,
            run,
            runs,
            flags,
            pack,
            sample_set,
            comparable,
            mean_rank,
            metrics: newest.collect(),
        }
    }
}

impl From<RankedMetric> for Summary {
    fn from(of: RankedMetric) -> Self {
        let no_interval = of.no_interval();
        let RankedMetric { summary, detail, area, rank, last_rank } = of;
        let interval = detail.as_ref().and_then(|detail| detail.interval);
        Self {
            numbers: Numbers {
                version: summary.version,
                n: summary.n,
                nulls: summary.nulls,
                coverage: share(summary.n, summary.n + summary.nulls),
                mean: summary.mean,
                std: summary.std,
                low: interval.map(|ends| ends.low),
                high: interval.map(|ends| ends.high),
                no_interval,
            },
            rank,
            last_rank,
            samples: detail.as_ref().map(|detail| detail.samples),
            clusters: detail.as_ref().map(|detail| detail.clusters),
            few_clusters: detail.as_ref().map(|detail| detail.clusters < FEW_CLUSTERS as u64),
            penalised: detail.as_ref().map(|detail| detail.penalised),
            penalty_rate: detail
                .as_ref()
                .filter(|detail| detail.samples > 0)
                .map(|detail| detail.penalised as f64 / detail.samples as f64),
            undecided: detail.as_ref().map(|detail| detail.undecided),
            faceless: detail.as_ref().map(|detail| detail.faceless),
            area: area.map(Into::into),
            pending: detail.is_none(),
        }
    }
}
