//! The service's own telemetry: service metrics for Prometheus, the log, and traces.
//!
//! Evaluation metrics and scores are not a part of it.

mod log;
mod process;
mod renamed;
mod runs;
mod traces;

use std::time::Duration;

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

#[cfg(test)]
pub(crate) use self::log::log_filter;
use self::process::ProcessCollector;
pub use self::{log::init_log, renamed::RenamedGauge, runs::RunsTelemetry, traces::TraceExport};
use crate::engine::{Cards, EngineTelemetry};

/// All service metrics, in one registry.
#[derive(Debug, Clone)]
pub struct Telemetry {
    registry: Registry,
    /// Metrics of the engine.
    pub engine: EngineTelemetry,
    /// Metrics of background scoring.
    pub runs: RunsTelemetry,
    requests: IntCounterVec,
    duration: HistogramVec,
    /// In-flight requests.
    pub in_flight: IntGauge,
    /// Memory held by uploads, in bytes.
    pub upload_bytes: IntGauge,
    /// Open connections.
    pub connections: IntGauge,
    /// Memory of cached responses in bytes, by kind.
    pub response_cache: RenamedGauge,
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
        let registry = Registry::new();
        let build = IntGaugeVec::new(
            Opts::new("stellar_build_info", "Always 1, with the version as label."),
            &["version"],
        );
        let requests = IntCounterVec::new(
            Opts::new(
                "stellar_http_requests_total",
                "Finished requests, by route, method and status.",
            ),
            &["route", "method", "status"],
        );
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "stellar_http_request_seconds",
                "Time from the request head to the response head.",
            )
            .buckets(SECONDS.to_vec()),
            &["route", "method"],
        );
        let in_flight = IntGauge::new("stellar_http_requests_in_flight", "In-flight requests.");
        let upload_bytes = IntGauge::new("stellar_upload_bytes", "Memory held by uploads.");
        let connections = IntGauge::new("stellar_http_connections", "Open connections.");
        let response_cache = RenamedGauge::register(
            &registry,
            ["stellar_response_cache_bytes", "stellar_kept_answers_bytes"],
            "Memory of cached responses, by kind.",
            &["of"],
        );
        let body_bytes = Histogram::with_opts(
            HistogramOpts::new(
                "stellar_http_request_body_bytes",
                "Declared length of request bodies.",
            )
            .buckets(BYTES.to_vec()),
        );
        let expect = "constant names are valid";
        let (
            build,
            requests,
            duration,
            in_flight,
            upload_bytes,
            connections,
            response_cache,
            body_bytes,
        ) = (
            build.expect(expect),
            requests.expect(expect),
            duration.expect(expect),
            in_flight.expect(expect),
            upload_bytes.expect(expect),
            connections.expect(expect),
            response_cache.expect(expect),
            body_bytes.expect(expect),
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let parts: [Box<dyn prometheus::core::Collector>; 9] = [
            Box::new(ProcessCollector::new().expect(expect)),
            Box::new(build),
            Box::new(requests.clone()),
            Box::new(duration.clone()),
            Box::new(in_flight.clone()),
            Box::new(upload_bytes.clone()),
            Box::new(connections.clone()),
            Box::new(body_bytes.clone()),
            Box::new(traces::SPANS.clone()),
        ];
        for part in parts {
            registry.register(part).expect("constant names are distinct");
        }
        let engine = EngineTelemetry::register(&registry).expect("constant names are distinct");
        let runs = RunsTelemetry::register(&registry).expect("constant names are distinct");
        Self {
            registry,
            engine,
            runs,
            requests,
            duration,
            in_flight,
            upload_bytes,
            connections,
            response_cache,
            body_bytes,
        }
    }

    /// Adds the metrics of the machine's GPUs. If they cannot be read, the reason is logged.
    pub fn watch_cards(&self) {
        match Cards::open() {
            Ok(cards) => {
                self.registry.register(Box::new(cards)).expect("GPU metrics are registered once");
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
#[cfg(test)]
mod tests {
    use prometheus::proto::MetricType;

    use super::*;

    /// Checks the rules of `promtool check metrics`.
    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let telemetry = Telemetry::new();
        telemetry.request("/v1/score", "POST", 200, Duration::from_millis(3), Some(1000));
        telemetry.runs.attempt("recorded");
        telemetry.runs.backlog(1, 2, 3);
        for family in telemetry.registry.gather() {
            let name = family.name();
            assert!(!family.help().is_empty(), "{name}");
            let total = name.ends_with("_total");
            let counter = family.get_field_type() == MetricType::COUNTER;
            assert_eq!(total, counter, "{name}: only counters end in _total");
            for end in ["_info", "_count", "_sum", "_bucket"] {
                let allowed = end == "_info" && family.get_field_type() == MetricType::GAUGE;
                assert!(allowed || !name.ends_with(end), "{name}");
            }
            for unit in ["_ms", "_milliseconds", "_mib", "_kib", "_minutes"] {
                assert!(!name.contains(unit), "{name} is not in a base unit");
            }
        }
    }

    #[test]
    fn exported_names_have_the_prefix() {
        let telemetry = Telemetry::new();
        telemetry.request("/v1/score", "POST", 200, Duration::from_millis(3), Some(1000));
        let text = telemetry.export();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.starts_with("stellar_") || line.starts_with("process_"), "{line}");
        }
        assert!(text.contains(
            r#"stellar_http_requests_total{method="POST",route="/v1/score",status="200"} 1"#
        ));
    }
}
