//! Spans of traces, for all modules. `telemetry/traces.rs` exports them.
//!
//! They have a target of their own, which the log never shows. So if traces are off, nobody wants
//! them and the macro creates nothing. Fields are sizes, counts and names of the service's own
//! parts, never what a client sent: traces leave the machine.

use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator as _},
    trace::TraceContextExt as _,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Span, span::Id};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

pub(crate) use opentelemetry::trace::SpanContext;

/// Target of all spans of traces.
pub(crate) const TARGET: &str = "stellar_trace";

/// The header with the caller's span (W3C Trace Context).
const TRACEPARENT: &str = "traceparent";

/// Creates a span of a trace, in the current span unless `parent:` names another. It is disabled if
/// traces are off.
macro_rules! span {
    (parent: $parent:expr, $($rest:tt)+) => {
        tracing::debug_span!(target: $crate::trace::TARGET, parent: $parent, $($rest)+)
    };
    ($($rest:tt)+) => {
        tracing::debug_span!(target: $crate::trace::TARGET, $($rest)+)
    };
}
pub(crate) use span;

/// A caller's header. `tracestate` is not read: the service would export it and use nothing of it.
struct Traceparent<'a>(&'a str);

impl Extractor for Traceparent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

/// Returns the span in the value of a `traceparent` header; `None` if it is malformed.
pub(crate) fn caller(traceparent: &str) -> Option<SpanContext> {
    let context = TraceContextPropagator::new()
        .extract_with_context(&Context::new(), &Traceparent(traceparent));
    let caller = context.span().span_context().clone();
    caller.is_valid().then_some(caller)
}

/// Makes a new span, which has no parent and was not entered yet, the child of a span elsewhere.
pub(crate) fn continue_from(span: &Span, parent: SpanContext) {
    // It fails only for a disabled span, for which there is nothing to do.
    let _ = span.set_parent(Context::new().with_remote_span_context(parent));
}

/// Returns what other spans need to refer to this one; `None` if it is disabled.
pub(crate) fn context(span: &Span) -> Option<SpanContext> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context().span().span_context().clone();
    context.is_valid().then_some(context)
}

/// Links a span to another one, such as a computation that it waits for.
pub(crate) fn link(span: &Span, to: Option<SpanContext>) {
    if let Some(to) = to {
        span.add_link(to);
    }
}

/// Links the span of joint work to the spans of everyone who shares it.
pub(crate) fn link_all<'a>(span: &Span, sharers: impl IntoIterator<Item = &'a Span>) {
    if !span.is_disabled() {
        for sharer in sharers {
            span.follows_from(sharer);
        }
    }
}

/// Returns the span that joint work is a child of: the first that is sampled, or the first.
pub(crate) fn leader<'a>(sharers: impl IntoIterator<Item = &'a Span>) -> Option<Id> {
    let mut enabled = sharers.into_iter().filter(|span| !span.is_disabled()).peekable();
    let first = enabled.peek().and_then(|span| span.id());
    let sampled = |span: &&Span| context(span).is_some_and(|context| context.is_sampled());
    enabled.find(sampled).and_then(Span::id).or(first)
}

/// Returns what other spans need to refer to the current one; `None` if there is none.
pub(crate) fn current() -> Option<SpanContext> {
    let context = Context::current();
    let span = context.span();
    let current = span.span_context();
    current.is_valid().then(|| current.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_traceparent_is_ignored() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        let parent = caller(&format!("00-{id}-b7ad6b7169203331-01")).unwrap();
        assert_eq!(parent.trace_id().to_string(), id);
        assert!(parent.is_sampled() && parent.is_remote());
        for wrong in [
            String::new(),
            "no trace".to_owned(),
            format!("00-{id}-b7ad6b7169203331"),
            format!("00-{id}-0000000000000000-01"),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("ff-{id}-b7ad6b7169203331-01"),
            "é".repeat(5000),
        ] {
            assert!(caller(&wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn spans_are_disabled_without_an_exporter_even_if_everything_is_logged() {
        let log = tracing_subscriber::fmt()
            .with_env_filter(crate::telemetry::log_filter("trace").unwrap())
            .with_writer(std::io::sink)
            .finish();
        tracing::subscriber::with_default(log, || {
            assert!(tracing::trace_span!("of the log").id().is_some());
            let span = span!("decode", images = 1);
            assert!(span.is_disabled() && context(&span).is_none() && current().is_none());
            assert_eq!(leader([&span, &span]), None);
        });
    }
}
