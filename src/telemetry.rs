//! What the service says of itself: Prometheus numbers and the log.
//!
//! Evaluation metrics are never meant here: a score is no telemetry.

use std::{borrow::Cow, ffi::OsStr, io::IsTerminal as _, time::Duration};

use prometheus::{
    Counter, Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tracing_subscriber::{EnvFilter, util::SubscriberInitExt as _};

use crate::{
    config::{Log, LogFormat},
    engine::{Cards, EngineTelemetry},
    label, machine,
};

/// Everything that is counted, in one registry.
#[derive(Debug, Clone)]
pub struct Telemetry {
    registry: Registry,
    /// The engine's part.
    pub engine: EngineTelemetry,
    /// The background's part.
    pub runs: RunsTelemetry,
    requests: IntCounterVec,
    duration: HistogramVec,
    /// Requests being answered.
    pub in_flight: IntGauge,
    /// Connections that are open.
    pub connections: IntGauge,
    /// Memory of cached responses, by kind.
    pub response_cache: RenamedGauge,
    body_bytes: Histogram,
}

/// From a cached answer (a millisecond) to a first one with full-size models on a CPU (minutes).
const SECONDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
/// From a form without images to the default limit of a request.
const BYTES: &[f64] = &[1e4, 1e5, 1e6, 4e6, 16e6, 64e6, 134_217_728.0];

impl Telemetry {
    /// Registers everything.
    ///
    /// # Panics
    /// Never: the names are constants and distinct, which the first test would show.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let build = IntGaugeVec::new(
            Opts::new("stellar_build_info", "Always 1; the version is the label."),
            &["version"],
        );
        let requests = IntCounterVec::new(
            Opts::new("stellar_http_requests_total", "Requests answered, by route, method and status."),
            &["route", "method", "status"],
        );
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "stellar_http_request_seconds",
                "From the request's head to the answer's head.",
            )
            .buckets(SECONDS.to_vec()),
            &["route", "method"],
        );
        let in_flight = IntGauge::new("stellar_http_requests_in_flight", "Requests being answered.");
        let connections = IntGauge::new("stellar_http_connections", "Connections that are open.");
        let response_cache = RenamedGauge::register(
            &registry,
            ["stellar_response_cache_bytes", "stellar_kept_answers_bytes"],
            "Memory of cached responses, by kind.",
            &["of"],
        );
        let body_bytes = Histogram::with_opts(
            HistogramOpts::new("stellar_http_request_body_bytes", "Announced length of request bodies.")
                .buckets(BYTES.to_vec()),
        );
        let expect = "constant names are valid";
        let (build, requests, duration, in_flight, connections, response_cache, body_bytes) = (
            build.expect(expect),
            requests.expect(expect),
            duration.expect(expect),
            in_flight.expect(expect),
            connections.expect(expect),
            response_cache.expect(expect),
            body_bytes.expect(expect),
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let parts: [Box<dyn prometheus::core::Collector>; 7] = [
            Box::new(ProcessCollector::new().expect(expect)),
            Box::new(build),
            Box::new(requests.clone()),
            Box::new(duration.clone()),
            Box::new(in_flight.clone()),
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
            connections,
            response_cache,
            body_bytes,
        }
    }

    /// Adds what the machine's cards say; where they cannot be asked, the log says why.
    pub fn watch_cards(&self) {
        match Cards::open() {
            Ok(cards) => self.registry.register(Box::new(cards)).expect("cards are watched once"),
            Err(reason) => tracing::warn!(reason, "/metrics has no stellar_device_ numbers"),
        }
    }

    /// Counts an answered request; `route` is the pattern, never the path, so that labels stay few.
    pub fn request(&self, route: &str, method: &str, status: u16, took: Duration, body: Option<u64>) {
        self.requests.with_label_values(&[route, method, &status.to_string()]).inc();
        self.duration.with_label_values(&[route, method]).observe(took.as_secs_f64());
        if let Some(body) = body {
            self.body_bytes.observe(body as f64);
        }
    }

    /// All numbers in the text format of Prometheus.
    #[must_use]
    pub fn export(&self) -> String {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("writing to memory does not fail");
        String::from_utf8(text).expect("the format is UTF-8")
    }
}

/// What the process has taken, read when it is asked for.
struct ProcessCollector {
    descriptions: Vec<Desc>,
}

/// Processor time, memory now, and the most memory so far.
struct ProcessNumbers {
    processor: Counter,
    resident: IntGauge,
    peak: IntGauge,
}

impl ProcessNumbers {
    /// New ones each time: of several who ask at once nobody sees another's half-set numbers.
    fn new() -> prometheus::Result<Self> {
        Ok(Self {
            // The name that all of Prometheus' own clients use.
            processor: Counter::new("process_cpu_seconds_total", "Processor time of the process.")?,
            resident: IntGauge::new("stellar_resident_memory_bytes", "Memory that the process holds.")?,
            peak: IntGauge::new("stellar_peak_memory_bytes", "The most memory that the process has held.")?,
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

/// A gauge that also has its name of 0.1, until 0.3.
#[derive(Debug, Clone)]
pub struct RenamedGauge([IntGaugeVec; 2]);

impl RenamedGauge {
    fn register(
        registry: &Registry,
        [name, old]: [&str; 2],
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<Self> {
        let old_help = format!("Old name of {name}, until 0.3.");
        let gauges = [
            IntGaugeVec::new(Opts::new(name, help), labels)?,
            IntGaugeVec::new(Opts::new(old, old_help), labels)?,
        ];
        for gauge in &gauges {
            registry.register(Box::new(gauge.clone()))?;
        }
        Ok(Self(gauges))
    }

    /// Sets the value of these labels.
    pub fn set(&self, labels: &[&str], value: i64) {
        for gauge in &self.0 {
            gauge.with_label_values(labels).set(value);
        }
    }
}

/// What happens to samples of runs beside requests.
#[derive(Debug, Clone)]
pub struct RunsTelemetry {
    samples: IntGaugeVec,
    attempts: IntCounterVec,
    /// Size of the files in the spool.
    pub spool_bytes: RenamedGauge,
    /// Bytes of pixels that are decoded or being decoded.
    pub pixel_bytes: IntGauge,
    /// Restarts of background tasks that panicked, by task.
    pub restarts: IntCounterVec,
    /// Runs whose summaries or end fail again and again, by what fails.
    pub failing_runs: IntGaugeVec,
}

impl RunsTelemetry {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let samples = IntGaugeVec::new(
            Opts::new("stellar_run_samples", "Samples of all runs by where they stand."),
            &["state"],
        )?;
        let attempts = IntCounterVec::new(
            Opts::new("stellar_background_attempts_total", "Attempts to score a waiting sample, by outcome."),
            &["outcome"],
        )?;
        let spool_bytes = RenamedGauge::register(
            registry,
            ["stellar_spool_bytes", "stellar_kept_files_bytes"],
            "Size of the files in the spool.",
            &[],
        )?;
        registry.register(Box::new(samples.clone()))?;
        registry.register(Box::new(attempts.clone()))?;
        let restarts = IntCounterVec::new(
            Opts::new("stellar_background_restarts_total", "Restarts of background tasks that panicked."),
            &["task"],
        )?;
        let failing_runs = IntGaugeVec::new(
            Opts::new(
                "stellar_failing_runs",
                "Runs that cannot be summarised or finished, tried again with growing pauses.",
            ),
            &["what"],
        )?;
        let pixel_bytes = IntGauge::new(
            "stellar_pixel_bytes",
            "Pixels that are decoded or being decoded, by what they have taken of the budget.",
        )?;
        registry.register(Box::new(pixel_bytes.clone()))?;
        registry.register(Box::new(restarts.clone()))?;
        registry.register(Box::new(failing_runs.clone()))?;
        Ok(Self { samples, attempts, spool_bytes, pixel_bytes, restarts, failing_runs })
    }

    /// Counts what became of an attempt to score a waiting sample.
    pub fn attempt(&self, outcome: &str) {
        self.attempts.with_label_values(&[outcome]).inc();
    }

    /// Sets how many samples are where.
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

/// Starts the log on standard error.
///
/// # Errors
/// A filter that cannot be parsed; the message says where.
pub fn init_log(log: &Log) -> anyhow::Result<()> {
    use anyhow::Context as _;
    let filter = EnvFilter::try_new(&log.filter)
        .with_context(|| format!("log.filter = `{}` is not a tracing filter", log.filter))?;
    let coloured = colours(std::env::var_os("NO_COLOR").as_deref(), std::io::stderr().is_terminal());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(coloured)
        // What cannot be written, to a file on a full disk or a pipe that nobody reads, would be told on standard error again,
        // and that panics.
        .log_internal_errors(false)
        .with_writer(move || OneLine { to: std::io::stderr(), coloured });
    match log.format {
        LogFormat::Text => builder.finish().init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().init(),
    }
    Ok(())
}

/// Writes each event as one line, so that no name or error text from outside can make a line of its own, or hide one on a terminal.
struct OneLine<W> {
    to: W,
    coloured: bool,
}

impl<W: std::io::Write> std::io::Write for OneLine<W> {
    /// The subscriber writes a whole event at once.
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        // The subscriber escapes what looks like a colour in a field, and writes its own.
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

/// Colours are for a terminal whose user did not refuse them (`NO_COLOR`, any value but the empty one).
fn colours(no_color: Option<&OsStr>, terminal: bool) -> bool {
    terminal && no_color.is_none_or(OsStr::is_empty)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use prometheus::proto::MetricType;

    use super::*;

    #[test]
    fn colours_are_for_terminals_without_no_color() {
        assert!(colours(None, true) && colours(Some(OsStr::new("")), true));
        assert!(!colours(Some(OsStr::new("1")), true) && !colours(None, false));
    }

    /// The rules of `promtool check metrics`.
    #[test]
    fn names_keep_the_conventions_of_prometheus() {
        let telemetry = Telemetry::new();
        telemetry.request("/v1/score", "POST", 200, Duration::from_millis(3), Some(1000));
        telemetry.runs.attempt("recorded");
        telemetry.runs.backlog(1, 2, 3);
        for family in telemetry.registry.gather() {
            let name = family.name();
            assert!(!family.help().is_empty(), "{name}");
            let total = name.ends_with("_total");
            let counter = family.get_field_type() == MetricType::COUNTER;
            assert_eq!(total, counter, "{name}: counters, and only they, end in _total");
            for end in ["_info", "_count", "_sum", "_bucket"] {
                let allowed = end == "_info" && family.get_field_type() == MetricType::GAUGE;
                assert!(allowed || !name.ends_with(end), "{name}");
            }
            for unit in ["_ms", "_milliseconds", "_mib", "_kib", "_minutes"] {
                assert!(!name.contains(unit), "{name} is in no base unit");
            }
        }
    }

    #[test]
    fn names_have_the_prefix_a_unit_and_a_help_text() {
        let telemetry = Telemetry::new();
        telemetry.request("/v1/score", "POST", 200, Duration::from_millis(3), Some(1000));
        let text = telemetry.export();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.starts_with("stellar_") || line.starts_with("process_"), "{line}");
        }
        assert!(
            text.contains(r#"stellar_http_requests_total{method="POST",route="/v1/score",status="200"} 1"#)
        );
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let written = |event: &str, coloured| {
            let mut to = Vec::new();
            assert_eq!(OneLine { to: &mut to, coloured }.write(event.as_bytes()).unwrap(), event.len());
            String::from_utf8(to).unwrap()
        };
        assert_eq!(written("INFO a é\tb\n", false), "INFO a é\tb\n");
        assert_eq!(written("INFO a\nERROR b\r\u{1b}[2J\n", false), "INFO a\\nERROR b\\r\\u001b[2J\n");
        assert_eq!(
            written("a\u{85}b\u{2028}\u{202e}c\u{e0041}\u{7f}\n", true),
            "a\\u0085b\\u2028\\u202ec\\udb40\\udc41\\u007f\n"
        );
        assert_eq!(written("\u{1b}[32mINFO\u{1b}[0m a\nb\n", true), "\u{1b}[32mINFO\u{1b}[0m a\\nb\n");
    }
}
