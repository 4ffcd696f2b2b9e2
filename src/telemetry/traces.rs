//! Export of traces to a collector, as OTLP over HTTP.
//!
//! Finished spans go into a bounded queue, which a thread of its own sends in batches. If the
//! collector is slow or down, the queue fills and further spans are dropped and counted. No request
//! ever waits for it.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use opentelemetry::{Context, KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{Protocol, SpanExporter as OtlpExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData,
        SpanExporter, SpanProcessor,
    },
};
use prometheus::{IntCounterVec, Opts};
use tracing::{Metadata, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{Layer, filter::FilterFn, registry::LookupSpan};
use uuid::Uuid;

use crate::{config::Traces, trace};

/// Time limit of one request to the collector.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for the last spans at the end of the process. The drain has ended by then.
const FLUSH: Duration = Duration::from_secs(2);

/// Most spans per request to the collector: about 300 KiB.
const LARGEST: usize = 512;

/// Most links of a span: a batch has one for each item, and no pack has larger batches on a GPU.
const LINKS: u32 = 256;

/// Finished spans by outcome, of the whole process, since the export is.
pub(super) static SPANS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let spans = IntCounterVec::new(
        Opts::new(
            "stellar_trace_spans_total",
            "Finished spans of traces by outcome: exported, failed (the collector did not take \
                them), dropped (the queue was full).",
        ),
        &["outcome"],
    )
    .expect("the name is constant");
    for outcome in ["exported", "failed", "dropped"] {
        spans.with_label_values(&[outcome]).reset();
    }
    spans
});

fn count(outcome: &str, spans: usize) {
    SPANS.with_label_values(&[outcome]).inc_by(spans as u64);
}

/// The running export.
#[derive(Debug)]
pub struct TraceExport(SdkTracerProvider);

impl TraceExport {
    /// Starts the export; `None` if it is off.
    ///
    /// # Errors
    /// Fails if its HTTP client or thread cannot be created. It does not connect yet.
    pub(super) fn start(traces: &Traces) -> anyhow::Result<Option<Self>> {
        let Some(endpoint) = traces.url() else { return Ok(None) };
        let exporter = OtlpExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&endpoint)
            .with_timeout(TIMEOUT)
            .build()
            .with_context(|| format!("cannot export traces to {endpoint}"))?;
        let queued = Arc::new(AtomicUsize::new(0));
        let exporter =
            Counted { to: exporter, queued: Arc::clone(&queued), failing: AtomicBool::new(false) };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(traces.queue)
            .with_max_export_batch_size(LARGEST.min(traces.queue))
            .with_scheduled_delay(Duration::from_secs(traces.delay_seconds))
            .build();
        let queue = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let queue = Bounded { queue, queued, most: traces.queue };
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", traces.service_name.clone()),
                KeyValue::new("service.version", crate::VERSION),
                KeyValue::new("service.instance.id", Uuid::now_v7().to_string()),
            ])
            .build();
        let sampler = Sampler::TraceIdRatioBased(traces.sample_ratio);
        let provider = SdkTracerProvider::builder()
            .with_span_processor(queue)
            .with_sampler(Sampler::ParentBased(Box::new(sampler)))
            .with_max_links_per_span(LINKS)
            .with_resource(resource)
            .build();
        Ok(Some(Self(provider)))
    }

    /// The layer that turns the spans of traces, and nothing else, into spans to export. Log events
    /// are not among them: their texts stay on the machine.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let ours = |of: &Metadata<'_>| of.is_span() && of.target() == trace::TARGET;
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("stellar-score"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(FilterFn::new(ours).with_max_level_hint(LevelFilter::DEBUG))
    }

    /// Sends the queued spans, for at most two seconds, and ends the export.
    pub fn finish(self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH) {
            tracing::warn!(%error, "failed to export the last spans of traces");
        }
    }
}

/// The queue's bound and the count of what exceeds it: the queue itself does not tell.
#[derive(Debug)]
struct Bounded {
    queue: BatchSpanProcessor,
    /// Spans that are queued or being sent.
    queued: Arc<AtomicUsize>,
    most: usize,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.queue.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.queued.fetch_add(1, Ordering::Relaxed) < self.most {
            self.queue.on_end(span);
        } else {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            count("dropped", 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.queue.set_resource(resource);
    }
}

/// The exporter, with counts of its outcomes and one log line when they change.
#[derive(Debug)]
struct Counted {
    to: OtlpExporter,
    queued: Arc<AtomicUsize>,
    failing: AtomicBool,
}

impl SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.to.export(batch).await;
        self.queued.fetch_sub(spans, Ordering::Relaxed);
        count(if result.is_ok() { "exported" } else { "failed" }, spans);
        let failed_before = self.failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !failed_before => {
                tracing::warn!(%error, "failed to export traces: check traces.endpoint; spans are \
                    lost until the collector responds");
            }
            Ok(()) if failed_before => tracing::info!("traces are exported again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.to.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.to.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.to.set_resource(resource);
    }
}
