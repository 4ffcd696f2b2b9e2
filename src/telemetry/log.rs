//! The log on standard error: one event is one line.

use std::{borrow::Cow, ffi::OsStr, io::IsTerminal as _};

use anyhow::Context as _;
use serde_json::Value;
use tracing_subscriber::{
    EnvFilter, Layer as _, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use super::traces::TraceExport;
use crate::{
    config::{Log, LogFormat, Traces},
    label, trace,
};

/// Starts logging to standard error and, if `traces` are given and on, their export.
///
/// # Errors
/// `log.filter` cannot be parsed, or the export cannot be started. The message says why.
pub fn init_log(log: &Log, traces: Option<&Traces>) -> anyhow::Result<Option<TraceExport>> {
    let filter = log_filter(&log.filter)?;
    let export = traces.map(TraceExport::start).transpose()?.flatten();
    let coloured =
        colours(std::env::var_os("NO_COLOR").as_deref(), std::io::stderr().is_terminal());
    let json = log.format == LogFormat::Json;
    let lines = fmt::layer()
        .with_ansi(coloured)
        // Failed writes (full disk, closed pipe) would be reported on standard error again, which
        // panics.
        .log_internal_errors(false)
        .with_writer(move || OneLine { to: std::io::stderr(), coloured, json });
    let lines = match log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let spans = export.as_ref().map(TraceExport::layer);
    tracing_subscriber::registry().with(spans).with(lines.with_filter(filter)).init();
    Ok(export)
}

/// Parses `log.filter`. Spans of traces are never logged.
pub(crate) fn log_filter(filter: &str) -> anyhow::Result<EnvFilter> {
    let without = format!("{}=off", trace::TARGET).parse().expect("the target is a word");
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("log.filter = `{filter}` is not a valid tracing filter"))?;
    Ok(filter.add_directive(without))
}

/// A writer that escapes control characters, so that each event is one line, and adds the trace. In
/// JSON, it also lifts the id of the request out of its span, so that one name finds all its lines.
///
/// Names and error texts from outside can neither forge a line nor hide one on a terminal.
struct OneLine<W> {
    to: W,
    coloured: bool,
    json: bool,
}

/// Adds a field to a line.
fn with_field(line: &str, name: &str, value: &str, json: bool) -> String {
    match line.strip_prefix('{') {
        Some(fields) if json => format!("{{\"{name}\":{},{fields}", Value::from(value)),
        _ => format!("{line} {name}={value}"),
    }
}

/// Returns the id of the request in whose span a JSON line was logged, unless the event has one.
fn request_of(line: &str) -> Option<String> {
    const ID: &str = "request_id";
    // Few lines belong to a request.
    line.find(ID)?;
    let line: Value = serde_json::from_str(line).ok()?;
    let spans = line.get("spans").filter(|_| line.get(ID).is_none())?.as_array()?;
    spans.iter().find_map(|span| span.get(ID)?.as_str()).map(str::to_owned)
}

impl<W: std::io::Write> std::io::Write for OneLine<W> {
    /// Writes one event. The subscriber passes whole events.
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        // The subscriber escapes colour codes in fields, so that the remaining ones are its own.
        let keep = |character| character == '\t' || (self.coloured && character == '\u{1b}');
        let mut line = label::escaped(line, keep);
        // The subscriber writes while the event's span is entered.
        if let Some(current) = trace::current() {
            line = with_field(&line, "trace_id", &current.trace_id().to_string(), self.json).into();
        }
        if let Some(request) = request_of(&line).filter(|_| self.json) {
            line = with_field(&line, "request_id", &request, true).into();
        }
        match line {
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

    use super::*;

    #[test]
    fn colours_are_written_to_terminals_without_no_color() {
        assert!(colours(None, true) && colours(Some(OsStr::new("")), true));
        assert!(!colours(Some(OsStr::new("1")), true) && !colours(None, false));
    }

    #[test]
    fn the_trace_is_a_field_of_the_line() {
        let text = with_field("INFO stored sample=1", "trace_id", "0af7", false);
        assert_eq!(text, "INFO stored sample=1 trace_id=0af7");
        let json = with_field(r#"{"level":"INFO","spans":[{}]}"#, "trace_id", "0af7", true);
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["trace_id"], &json["level"]), (&"0af7".into(), &"INFO".into()));
    }

    #[test]
    fn a_json_line_of_a_request_has_its_id() {
        let written = |line: &str| {
            let mut to = Vec::new();
            let event = format!("{line}\n");
            let mut writer = OneLine { to: &mut to, coloured: false, json: true };
            assert_eq!(writer.write(event.as_bytes()).unwrap(), event.len());
            let text = String::from_utf8(to).unwrap();
            assert_eq!(text.lines().count(), 1, "{text}");
            serde_json::from_str::<Value>(&text).unwrap()["request_id"].clone()
        };
        let span = r#"{"request_id":"r-7","name":"request"}"#;
        assert_eq!(
            written(&format!(r#"{{"level":"INFO","span":{span},"spans":[{span}]}}"#)),
            "r-7"
        );
        let inner = r#"{"name":"inner"}"#;
        let nested = format!(r#"{{"level":"INFO","span":{inner},"spans":[{span},{inner}]}}"#);
        assert_eq!(written(&nested), "r-7");
        let own = format!(r#"{{"request_id":"own","span":{span},"spans":[{span}]}}"#);
        assert_eq!(written(&own), "own");
        assert_eq!(written(r#"{"message":"no request_id here","level":"INFO"}"#), Value::Null);
    }

    #[test]
    fn every_event_is_written_as_one_line() {
        let written = |event: &str, coloured| {
            let mut to = Vec::new();
            assert_eq!(
                OneLine { to: &mut to, coloured, json: false }.write(event.as_bytes()).unwrap(),
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
