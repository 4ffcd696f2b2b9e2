//! The penalty for metric exploitation: which samples it hits, and what becomes of their scores.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::stats::summarize;

/// What happens to samples whose image does not follow the prompt.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// `ips` and `sis` become 0, predictions of attributes count as wrong. Samples without `clip_t` or `clip_n` cannot
    /// be judged and have no value in these metrics.
    #[default]
    Stellar,
    /// Exactly the reference toolkit's analysis on pandas 2: as above, but predictions change their sign, so that a
    /// wrong one becomes right; samples that cannot be judged fail; nulls of failing samples become 0.
    Toolkit,
    /// Nothing: scores as measured.
    None,
}

/// What the penalty says of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    Failed,
    Undecided,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Stellar, Self::Toolkit, Self::None];

    /// The word in requests and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stellar => "stellar",
            Self::Toolkit => "toolkit",
            Self::None => "none",
        }
    }

    /// Whether a metric's scores depend on the policy: those of the person's identity.
    #[must_use]
    pub fn concerns(metric: &str) -> bool {
        PENALISED.contains(&metric)
    }

    /// The toolkit fails whom it cannot judge.
    pub(super) fn settle(self, verdict: Verdict) -> Verdict {
        match (self, verdict) {
            (Self::None, _) => Verdict::Passed,
            (Self::Toolkit, Verdict::Undecided) => Verdict::Failed,
            (_, verdict) => verdict,
        }
    }

    /// A sample's score under the policy, given the settled verdict. `aps` of one sample is the share of its answers that are
    /// right: none where all count as wrong, the others where each is turned around.
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

/// The metrics whose scores the penalty takes.
pub(crate) const PENALISED: [&str; 3] = ["aps", "ips", "sis"];

/// Which samples pass, given `clip_t` and `clip_n` of the whole run.
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
