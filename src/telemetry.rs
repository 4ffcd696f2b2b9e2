//! The service's own telemetry: service metrics for Prometheus, and the log.
//!
//! Evaluation metrics and scores are not a part of it.

use std::{borrow::Cow, ffi::OsStr, io::IsTerminal as _, time::Duration};

use prometheus::{
    Counter, Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tracing_subscriber::{EnvFilter, util::SubscriberInitExt as _};

use crate::{
    config::{Log, LogFormat},
    engine::{Cards, EngineTelemetry},
    label, machine,
};

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
        let parts: [Box<dyn prometheus::core::Collector>; 8] = [
            Box::new(ProcessCollector::new().expect(expect)),
            Box::new(build),
            Box::new(requests.clone()),
            Box::new(duration.clone()),
            Box::new(in_flight.clone()),
            Box::new(upload_bytes.clone()),
            Box::new(connections.clone()),
            Box::new(body_bytes.clone()),
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

/// A collector of CPU time and memory of the process, read at each scrape.
struct ProcessCollector {
    descriptions: Vec<Desc>,
}

/// CPU time, resident memory and peak memory of the process.
struct ProcessNumbers {
    processor: Counter,
    resident: IntGauge,
    peak: IntGauge,
}

impl ProcessNumbers {
    /// Creates the metrics anew for each scrape, so that concurrent scrapes cannot mix their
    /// values.
    fn new() -> prometheus::Result<Self> {
        Ok(Self {
            // The standard name in Prometheus client libraries.
            processor: Counter::new("process_cpu_seconds_total", "CPU time of the process.")?,
            resident: IntGauge::new(
                "stellar_resident_memory_bytes",
                "Resident memory of the process.",
            )?,
            peak: IntGauge::new(
                "stellar_peak_memory_bytes",
                "Peak resident memory of the process.",
            )?,
        })
    }

    fn collectors(&self) -> [&dyn Collector; 3] {
        [&self.processor, &self.resident, &self.peak]
    }
}

impl ProcessCollector {
    fn new() -> prometheus::Result<Self> {
        let numbers = ProcessNumbers::new()?;
        let descriptions = numbers.collectors().iter().flat_map(|of| of.desc()).cloned().collect();
        Ok(Self { descriptions })
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(numbers) = ProcessNumbers::new() else { return Vec::new() };
        numbers.processor.inc_by(machine::processor_seconds().unwrap_or_default());
        numbers.resident.set(machine::resident_bytes().unwrap_or_default() as i64);
        numbers.peak.set(machine::peak_bytes().unwrap_or_default() as i64);
        numbers.collectors().iter().flat_map(|of| of.collect()).collect()
    }
}

/// A gauge that is also exported under its 0.1 name, until 0.3.
#[derive(Debug, Clone)]
pub struct RenamedGauge([IntGaugeVec; 2]);

impl RenamedGauge {
    fn register(
        registry: &Registry,
        [name, old]: [&str; 2],
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<Self> {
        let old_help = format!("Old name of {name}, to be removed in 0.3.");
        let gauges = [
            IntGaugeVec::new(Opts::new(name, help), labels)?,
            IntGaugeVec::new(Opts::new(old, old_help), labels)?,
        ];
        for gauge in &gauges {
            registry.register(Box::new(gauge.clone()))?;
        }
        Ok(Self(gauges))
    }

    /// Sets the value for these labels, under both names.
    pub fn set(&self, labels: &[&str], value: i64) {
        for gauge in &self.0 {
            gauge.with_label_values(labels).set(value);
        }
    }
}

/// Service metrics of background scoring.
#[derive(Debug, Clone)]
pub struct RunsTelemetry {
    samples: IntGaugeVec,
    attempts: IntCounterVec,
    /// Size of the spool's files, in bytes.
    pub spool_bytes: RenamedGauge,
    /// Share of the pixel budget in use by decoded images and images being decoded, in bytes.
    pub pixel_bytes: IntGauge,
    /// Restarts of background tasks that panicked, by task.
    pub restarts: IntCounterVec,
    /// Runs that repeatedly fail to be summarised or finished, by the failing step.
    pub failing_runs: IntGaugeVec,
}

impl RunsTelemetry {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let samples = IntGaugeVec::new(
            Opts::new("stellar_run_samples", "Samples of all runs, by state."),
            &["state"],
        )?;
        let attempts = IntCounterVec::new(
            Opts::new(
                "stellar_background_attempts_total",
                "Attempts to score a pending sample, by outcome.",
            ),
            &["outcome"],
        )?;
        let spool_bytes = RenamedGauge::register(
            registry,
            ["stellar_spool_bytes", "stellar_kept_files_bytes"],
            "Size of the spool's files.",
            &[],
        )?;
        registry.register(Box::new(samples.clone()))?;
        registry.register(Box::new(attempts.clone()))?;
        let restarts = IntCounterVec::new(
            Opts::new(
                "stellar_background_restarts_total",
                "Restarts of background tasks that panicked.",
            ),
            &["task"],
        )?;
        let failing_runs = IntGaugeVec::new(
            Opts::new(
                "stellar_failing_runs",
                "Runs that fail to be summarised or finished, retried with growing pauses.",
            ),
            &["what"],
        )?;
        let pixel_bytes = IntGauge::new(
            "stellar_pixel_bytes",
            "Pixel budget in use by decoded images and images being decoded.",
        )?;
        registry.register(Box::new(pixel_bytes.clone()))?;
        registry.register(Box::new(restarts.clone()))?;
        registry.register(Box::new(failing_runs.clone()))?;
        Ok(Self { samples, attempts, spool_bytes, pixel_bytes, restarts, failing_runs })
    }

    /// Counts an attempt to score a pending sample by its outcome.
    pub fn attempt(&self, outcome: &str) {
        self.attempts.with_label_values(&[outcome]).inc();
    }

    /// Sets the number of samples in each state.
    pub fn backlog(&self, waiting: u64, failed: u64, scored: u64) {
        for (state, count) in [("pending", waiting), ("failed", failed), ("scored", scored)] {
            self.samples.with_label_values(&[state]).set(count as i64);
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

/// Starts logging to standard error.
///
/// # Errors
/// `log.filter` cannot be parsed. The message says where.
pub fn init_log(log: &Log) -> anyhow::Result<()> {
    use anyhow::Context as _;
    let filter = EnvFilter::try_new(&log.filter)
        .with_context(|| format!("log.filter = `{}` is not a valid tracing filter", log.filter))?;
    let coloured =
        colours(std::env::var_os("NO_COLOR").as_deref(), std::io::stderr().is_terminal());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(coloured)
        // Failed writes (full disk, closed pipe) would be reported on standard error again, which
        // panics.
        .log_internal_errors(false)
        .with_writer(move || OneLine { to: std::io::stderr(), coloured });
    match log.format {
        LogFormat::Text => builder.finish().init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().init(),
    }
    Ok(())
}

/// A writer that escapes control characters, so that each event is one line.
///
/// Names and error texts from outside can neither forge a line nor hide one on a terminal.
struct OneLine<W> {
    to: W,
    coloured: bool,
}

impl<W: std::io::Write> std::io::Write for OneLine<W> {
    /// Writes one event. The subscriber passes whole events.
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        // The subscriber escapes colour codes in fields, so that the remaining ones are its own.
        let keep = |character| character == '\t' || (self.coloured && character == '\u{1b}');
        match label::escaped(line, keep) {
            Cow::Borrowed(_) => self.to.write_all(text.as_bytes())?,
            Cow::Owned(line) => self.to.write_all(&[line.as_bytes(), b"\n"].concat())?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

/// Returns whether to write colours: on a terminal, unless `NO_COLOR` is set and not empty.
fn colours(no_color: Option<&OsStr>, terminal: bool) -> bool {
    terminal && no_color.is_none_or(OsStr::is_empty)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use prometheus::proto::MetricType;

    use super::*;

    #[test]
    fn colours_are_written_to_terminals_without_no_color() {
        assert!(colours(None, true) && colours(Some(OsStr::new("")), true));
        assert!(!colours(Some(OsStr::new("1")), true) && !colours(None, false));
    }

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

    #[test]
    fn every_event_is_written_as_one_line() {
        let written = |event: &str, coloured| {
            let mut to = Vec::new();
            assert_eq!(
                OneLine { to: &mut to, coloured }.write(event.as_bytes()).unwrap(),
                event.len()
            );
            String::from_utf8(to).unwrap()
        };
        assert_eq!(written("INFO a é\tb\n", false), "INFO a é\tb\n");
        assert_eq!(
            written("INFO a\nERROR b\r\u{1b}[2J\n", false),
            "INFO a\\nERROR b\\r\\u001b[2J\n"
        );
        assert_eq!(
            written("a\u{85}b\u{2028}\u{202e}c\u{e0041}\u{7f}\n", true),
            "a\\u0085b\\u2028\\u202ec\\udb40\\udc41\\u007f\n"
        );
        assert_eq!(
            written("\u{1b}[32mINFO\u{1b}[0m a\nb\n", true),
            "\u{1b}[32mINFO\u{1b}[0m a\\nb\n"
        );
    }
}
