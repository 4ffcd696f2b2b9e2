//! Rows of the leaderboard.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::reasons::NoInterval;
use crate::stats::{FEWEST_CLUSTERS, Interval};
use crate::store::{MetricSummary, PackId};

/// A method or run with one pack: scores of different packs are in different rows.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaderboardRow {
    /// The method.
    pub method: String,
    /// The run, if rows are runs.
    pub run: Option<String>,
    /// Ids of the runs in this row.
    pub runs: Vec<Uuid>,
    /// Flags declared for any of these runs.
    pub flags: BTreeMap<String, bool>,
    /// The pack of all scores in this row.
    pub pack: PackId,
    /// Identifier of the set of samples: equal for rows over the same samples. `None` until all
    /// runs are summarised.
    pub sample_set: Option<String>,
    /// Index of the sample set among those of the pack, ordered by number of rows, largest first.
    /// Only rows of the same set are ranked against each other. `None` until all runs are
    /// summarised.
    pub set_place: Option<usize>,
    /// Mean rank among the rows of its pack and sample set on all pages; `None` without a number in
    /// a metric that has a direction.
    pub mean_rank: Option<f64>,
    /// Metrics, ordered by code and version.
    pub metrics: Vec<RankedMetric>,
}

/// One metric of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct RankedMetric {
    /// Counts, mean and standard deviation.
    pub summary: MetricSummary,
    /// Details, available once the runs are summarised, some seconds after the last score. Until
    /// then the mean is over the scores as measured, without interval and without penalty.
    pub detail: Option<RankedDetail>,
    /// For `aps` of a row over one run: the area under the ROC curve. It is defined for a whole run
    /// or benchmark, not for the samples of several runs together.
    pub area: Option<Area>,
    /// Rank, 1 for the best; rows whose intervals do not separate them share a rank.
    pub rank: Option<usize>,
    /// Last place that the intervals leave open: the number of ranked rows less those whose
    /// interval lies wholly on the worse side of this one's.
    pub last_rank: Option<usize>,
}

impl RankedMetric {
    /// Returns the reason if a mean has no interval.
    #[must_use]
    pub fn no_interval(&self) -> Option<NoInterval> {
        let Some(detail) = &self.detail else {
            return self.summary.mean.map(|_| NoInterval::Pending);
        };
        let low = detail.interval.map(|ends| ends.low);
        NoInterval::of_mean(self.summary.mean, low, detail.clusters as usize)
    }
}

/// `aps` as the mean over attributes of the area under the ROC curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Area {
    /// The area, in [0, 1]; `None` if every attribute is constant.
    pub mean: Option<f64>,
    /// Its 95 % confidence interval.
    pub interval: Option<Interval>,
    /// Number of samples with a prediction that counts.
    pub n: u64,
    /// Identities among them.
    pub clusters: u64,
}

impl Area {
    /// Returns the reason if an area has no interval.
    #[must_use]
    pub fn no_interval(&self) -> Option<NoInterval> {
        let low = self.interval.map(|ends| ends.low);
        let people = self.clusters as usize;
        NoInterval::of(self.mean, low, people, FEWEST_CLUSTERS, NoInterval::TooFewPeople)
    }
}

/// Statistics from the summaries of runs, in addition to mean and counts.
#[derive(Clone, Debug, PartialEq)]
pub struct RankedDetail {
    /// Number of samples, measured or not.
    pub samples: u64,
    /// Penalised samples.
    pub penalised: u64,
    /// Samples without the scores that the penalty needs.
    pub undecided: u64,
    /// Samples without a detected face in the generated image.
    pub faceless: u64,
    /// 95 % confidence interval of the mean.
    pub interval: Option<Interval>,
    /// Identities among the samples with a number, over all runs of the row; a sample without an
    /// identity counts as one.
    pub clusters: u64,
}
