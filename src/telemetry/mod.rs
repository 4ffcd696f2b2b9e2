//! The service's own telemetry: service metrics for Prometheus, the log, and traces.
//!
//! Evaluation metrics and scores are not a part of it. `docs/TELEMETRY.md` lists every service
//! metric.

mod adapters;
mod admission;
mod dispatch;
mod generation;
mod log;
mod pack;
mod process;
mod renamed;
mod runs;
#[cfg(test)]
mod tests;
mod traces;

use std::time::Duration;

use prometheus::{
    Encoder as _, Histogram, HistogramVec, IntCounterVec, IntGauge, Registry, TextEncoder,
    register_histogram_vec_with_registry as histograms,
    register_histogram_with_registry as histogram,
    register_int_counter_vec_with_registry as counters,
    register_int_gauge_vec_with_registry as gauges, register_int_gauge_with_registry as gauge,
};

#[cfg(test)]
pub(crate) use self::log::log_filter;
use self::process::ProcessCollector;
pub use self::{
    adapters::AdaptersTelemetry,
    admission::{AdmissionTelemetry, Bound},
    dispatch::{DispatchTelemetry, NatsTelemetry},
    generation::{GenerationOutcome, GenerationTelemetry},
    log::init_log,
    pack::{CertificateState, PackTelemetry},
    renamed::RenamedGauge,
    runs::RunsTelemetry,
    traces::TraceExport,
};
use crate::{
    engine::{EngineTelemetry, Gpus},
    store::StoreTelemetry,
};

/// All service metrics, in one registry.
#[derive(Debug, Clone)]
pub struct Telemetry {
    registry: Registry,
    /// Metrics of the engine.
    pub engine: EngineTelemetry,
    /// Metrics of background scoring.
    pub runs: RunsTelemetry,
    /// Metrics of the store.
    pub store: StoreTelemetry,
    /// Metrics of admission.
    pub admission: AdmissionTelemetry,
    /// Metrics of the adapters for reward clients.
    pub adapters: AdaptersTelemetry,
    /// Metrics of generated images.
    pub generation: GenerationTelemetry,
    /// Metrics of the loaded pack.
    pub pack: PackTelemetry,
    requests: IntCounterVec,
    duration: HistogramVec,
    /// In-flight requests.
    pub in_flight: IntGauge,
    /// Memory of cached responses in bytes, by kind.
    pub response_cache: RenamedGauge,
    /// 1 if `/readyz` would return 200.
    pub ready: IntGauge,
    body_bytes: Histogram,
}

/// Buckets of request durations in seconds, from a cached response (a millisecond) to a first score
/// with full-size models on a CPU (minutes).
const SECONDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
/// Buckets of body sizes in bytes, from a form without images to the default limit.
const BYTES: &[f64] = &[1e4, 1e5, 1e6, 4e6, 16e6, 64e6, 134_217_728.0];

impl Telemetry {
    /// Creates and registers all service metrics.
    ///
    /// # Panics
    /// Never: names are constant and distinct, which every test checks.
    #[must_use]
    pub fn new() -> Self {
        Self::register(Registry::new()).expect("constant names are valid and distinct")
    }

    fn register(registry: Registry) -> prometheus::Result<Self> {
        let build = gauges!(
            "stellar_build_info",
            "Always 1, with the version as label.",
            &["version"],
            registry
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let requests = counters!(
            "stellar_http_requests_total",
            "Finished requests, by route, method and status.",
            &["route", "method", "status"],
            registry
        )?;
        let duration = histograms!(
            "stellar_http_request_seconds",
            "Time from the request head to the response head.",
            &["route", "method"],
            SECONDS.to_vec(),
            registry
        )?;
        let response_cache = RenamedGauge::register(
            &registry,
            ["stellar_response_cache_bytes", "stellar_kept_answers_bytes"],
            "Memory of cached responses, by kind.",
            &["of"],
        )?;
        let body_bytes = histogram!(
            "stellar_http_request_body_bytes",
            "Declared length of request bodies.",
            BYTES.to_vec(),
            registry
        )?;
        registry.register(Box::new(ProcessCollector::new()?))?;
        registry.register(Box::new(traces::SPANS.clone()))?;
        Ok(Self {
            engine: EngineTelemetry::register(&registry)?,
            runs: RunsTelemetry::register(&registry)?,
            store: StoreTelemetry::register(&registry)?,
            admission: AdmissionTelemetry::register(&registry)?,
            adapters: AdaptersTelemetry::register(&registry)?,
            generation: GenerationTelemetry::register(&registry)?,
            pack: PackTelemetry::register(&registry)?,
            requests,
            duration,
            in_flight: gauge!("stellar_http_requests_in_flight", "In-flight requests.", registry)?,
            response_cache,
            ready: gauge!(
                "stellar_ready",
                "1 if the service is ready (/readyz), otherwise 0.",
                registry
            )?,
            body_bytes,
            registry,
        })
    }

    /// Adds the metrics of the machine's GPUs. If they cannot be read, the reason is logged.
    pub fn watch_gpus(&self) {
        match Gpus::open() {
            Ok(gpus) => {
                self.registry.register(Box::new(gpus)).expect("GPU metrics are registered once");
            }
            Err(reason) => tracing::warn!(reason, "GPU metrics are unavailable"),
        }
    }

    /// Records a finished request. `route` is the pattern and never the path, so that labels stay
    /// few.
    pub fn request(
        &self,
        route: &str,
        method: &str,
        status: u16,
        took: Duration,
        body: Option<u64>,
    ) {
        self.requests.with_label_values(&[route, method, &status.to_string()]).inc();
        self.duration.with_label_values(&[route, method]).observe(took.as_secs_f64());
        if let Some(body) = body {
            self.body_bytes.observe(body as f64);
        }
    }

    /// Returns all service metrics in the text format of Prometheus.
    #[must_use]
    pub fn export(&self) -> String {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("writing to memory does not fail");
        String::from_utf8(text).expect("the format is UTF-8")
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}
