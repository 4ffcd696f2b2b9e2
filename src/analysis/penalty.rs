//! The penalty for metric exploitation: which samples are penalised, and how their scores change.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::stats::summarize;

/// Penalty policy for samples whose image does not follow the prompt.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// `ips` and `sis` become 0, and attribute predictions count as wrong. Samples without `clip_t`
    /// or `clip_n` cannot be judged and have no value in these metrics.
    #[default]
    Stellar,
    /// Exactly the reference toolkit's analysis on pandas 2: like `stellar`, but predictions are
    /// inverted, so that a wrong one becomes right; samples that cannot be judged fail; nulls of
    /// failing samples become 0.
    Toolkit,
    /// No penalty: scores as measured.
    None,
}

/// The penalty's decision on one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    Failed,
    Undecided,
}

impl Policy {
    /// All policies.
    pub const ALL: [Self; 3] = [Self::Stellar, Self::Toolkit, Self::None];

    /// Returns the policy's name in requests and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stellar => "stellar",
            Self::Toolkit => "toolkit",
            Self::None => "none",
        }
    }

    /// Returns whether a metric's scores depend on the policy: the metrics of identity.
    #[must_use]
    pub fn concerns(metric: &str) -> bool {
        PENALISED.contains(&metric)
    }

    /// Applies the policy to undecided samples: the toolkit fails them.
    pub(super) fn settle(self, verdict: Verdict) -> Verdict {
        match (self, verdict) {
            (Self::None, _) => Verdict::Passed,
            (Self::Toolkit, Verdict::Undecided) => Verdict::Failed,
            (_, verdict) => verdict,
        }
    }

    /// Returns a sample's score under the policy, given the settled verdict. `aps` of one sample is
    /// the share of correct predictions: 0 if all count as wrong, and 1 − share if each is
    /// inverted.
    pub(super) fn apply(self, metric: &str, verdict: Verdict, value: Option<f64>) -> Option<f64> {
        match (verdict, self) {
            _ if !Self::concerns(metric) => value,
            (Verdict::Passed, _) => value,
            (Verdict::Undecided, _) => None,
            (Verdict::Failed, Self::Toolkit) if metric == "aps" => value.map(|share| 1.0 - share),
            (Verdict::Failed, Self::Toolkit) => Some(0.0),
            (Verdict::Failed, _) => value.map(|_| 0.0),
        }
    }
}

/// Metrics whose scores the penalty changes.
pub(crate) const PENALISED: [&str; 3] = ["aps", "ips", "sis"];

/// Decides which samples pass, given `clip_t` and `clip_n` of the whole run.
pub(super) fn verdicts(with_prompt: &[Option<f64>], baseline: &[Option<f64>]) -> Vec<Verdict> {
    let known: Vec<f64> = baseline.iter().flatten().copied().collect();
    let std = summarize(&known).std;
    let pairs = with_prompt.iter().zip(baseline);
    let verdicts = pairs.map(|pair| match (pair, std) {
        ((Some(with_prompt), Some(baseline)), Some(std)) if baseline + 2.0 * std < *with_prompt => {
            Verdict::Passed
        }
        ((Some(_), Some(_)), Some(_)) => Verdict::Failed,
        _ => Verdict::Undecided,
    });
    verdicts.collect()
}
