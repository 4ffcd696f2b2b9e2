//! Outcomes of attempts to score a pending sample.

use std::time::Duration;

use uuid::Uuid;

use super::pause::AFTER_FAILURE;
use crate::{
    engine::{EngineError, Health},
    scoring::ScoringError,
    vision::DecodeError,
};

/// Pause after a full queue, which drains quickly.
const AFTER_FULL: Duration = Duration::from_millis(500);

/// Pause after an attempt that failed because a graph fails or hangs for every request, or because
/// the spool's bucket cannot be used.
const AFTER_UNHEALTHY: Duration = Duration::from_secs(5);

/// Longest pause after a failure; the pause quadruples with each further one.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// Outcome of an attempt.
pub(super) enum Attempt {
    Recorded,
    /// The sample is no longer pending: it was deleted, or recorded elsewhere.
    Gone,
    /// Permanent failure: the sample cannot be scored as it was sent.
    Failed {
        reason: String,
        detail: String,
    },
    /// Transient failure: the sample will be retried.
    Later {
        why: String,
        blame: Blame,
    },
    /// The service is stopping or offloaded, or the store is unavailable: there is no outcome, and
    /// the sample stays due.
    Untouched,
}

impl Attempt {
    /// Turns the last transient failure that a sample may have into a permanent one. `number` is
    /// that of this attempt, from 1.
    pub(super) fn or_failed(self, number: u32, most: u32) -> Self {
        match self {
            Self::Later { why, blame: Blame::Sample } if number >= most => Self::Failed {
                reason: "internal".to_owned(),
                detail: format!("{number} attempts failed; the last error: {why}"),
            },
            other => other,
        }
    }

    /// Returns a word for traces and metrics.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Gone => "gone",
            Self::Failed { .. } => "failed",
            Self::Later { .. } => "postponed",
            Self::Untouched => "untouched",
        }
    }
}

/// Cause of a transient failure. It decides whether the attempt counts and how long the pause is.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Blame {
    /// Probably the sample itself: the attempt counts.
    Sample,
    /// A full queue or an unavailable dependency: the attempt does not count.
    Room,
    /// A graph that fails or hangs for every input. This must not fail a sample, so the attempt
    /// does not count.
    Graph,
    /// The bucket of the spool, which is the same for every sample.
    Bucket,
}

impl Blame {
    /// Returns the pause of a sample after this many failed attempts that count.
    pub(super) fn pause(self, sample: Uuid, attempts: u32) -> Duration {
        let pause = match self {
            Self::Sample => AFTER_FAILURE * 4_u32.saturating_pow(attempts),
            Self::Room => AFTER_FULL,
            Self::Graph | Self::Bucket => AFTER_UNHEALTHY,
        };
        // Jitter from the id, so that postponed samples do not all become due at once.
        let jitter = 0.75 + f64::from(sample.as_bytes()[15]) / 512.0;
        pause.min(LONGEST_PAUSE).mul_f64(jitter)
    }
}

/// Returns the outcome of an attempt that this error has ended.
pub(super) fn attempt(error: ScoringError, health: &Health) -> Attempt {
    let why = error.to_string();
    let source = match error {
        ScoringError::Decode { of, source } => return broken(&of, &source),
        ScoringError::Engine { source, .. } => source,
    };
    match source {
        EngineError::Overloaded { .. } | EngineError::NotStored(_) => {
            Attempt::Later { why, blame: Blame::Room }
        }
        EngineError::Stopping | EngineError::Offloaded => Attempt::Untouched,
        source if source.graph().is_some_and(|graph| health.failing.contains(graph)) => {
            Attempt::Later { why, blame: Blame::Graph }
        }
        _ => Attempt::Later { why, blame: Blame::Sample },
    }
}

/// Returns the outcome of an attempt on an image that cannot be decoded.
pub(super) fn broken(of: &str, source: &DecodeError) -> Attempt {
    Attempt::Failed { reason: source.problem().to_owned(), detail: format!("{of}: {source}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_failure_of_a_sample_itself_is_permanent() {
        let later = |blame| Attempt::Later { why: "no".into(), blame };
        assert_eq!(later(Blame::Sample).or_failed(1, 2).outcome(), "postponed");
        assert_eq!(later(Blame::Sample).or_failed(2, 2).outcome(), "failed");
        for blame in [Blame::Room, Blame::Graph, Blame::Bucket] {
            assert_eq!(later(blame).or_failed(9, 2).outcome(), "postponed");
        }
        assert_eq!(Attempt::Untouched.or_failed(9, 2).outcome(), "untouched");
    }
}
