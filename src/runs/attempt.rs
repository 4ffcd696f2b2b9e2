//! Outcomes of attempts to score a pending sample.

use crate::{
    engine::{EngineError, Health},
    scoring::ScoringError,
    vision::DecodeError,
};

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
    /// Returns a word for traces.
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
