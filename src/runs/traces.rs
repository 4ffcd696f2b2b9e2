//! The trace of a pending sample: that of the request which sent it, as long as the process lives.

use tracing::{Span, field::Empty};
use uuid::Uuid;

use crate::{
    store::PendingRecord,
    trace::{self, SpanContext, span},
};

/// Most samples whose trace is remembered: some megabytes. Others get a trace of their own.
const MOST: u64 = 50_000;

/// The requests' spans, by sample. Empty if traces are off.
#[derive(Debug)]
#[expect(clippy::disallowed_types, reason = "ids of samples and spans are not personal data")]
pub(super) struct SampleTraces(moka::sync::Cache<Uuid, SpanContext>);

impl SampleTraces {
    #[expect(clippy::disallowed_types, reason = "as above")]
    pub(super) fn new() -> Self {
        Self(moka::sync::Cache::new(MOST))
    }

    /// Remembers that the current request sent this sample.
    pub(super) fn remember(&self, sample: Uuid) {
        if let Some(request) = trace::current() {
            self.0.insert(sample, request);
        }
    }

    /// Starts the span of an attempt, in the trace of the request if that is remembered.
    pub(super) fn attempt(&self, pending: &PendingRecord) -> Span {
        let span = span!(
            parent: None,
            "score sample",
            otel.kind = "consumer",
            stellar.sample = %pending.id,
            stellar.attempt = pending.attempts + 1,
            stellar.outcome = Empty,
        );
        if !span.is_disabled()
            && let Some(request) = self.0.get(&pending.id)
        {
            trace::continue_from(&span, request);
        }
        span
    }

    /// Forgets a sample that is no longer pending.
    pub(super) fn forget(&self, sample: Uuid) {
        self.0.invalidate(&sample);
    }
}
