//! The log on standard error: one event is one line.

use std::{borrow::Cow, ffi::OsStr, io::IsTerminal as _};

use tracing_subscriber::{EnvFilter, util::SubscriberInitExt as _};

use crate::{
    config::{Log, LogFormat},
    label,
};

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

    use super::*;

    #[test]
    fn colours_are_written_to_terminals_without_no_color() {
        assert!(colours(None, true) && colours(Some(OsStr::new("")), true));
        assert!(!colours(Some(OsStr::new("1")), true) && !colours(None, false));
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
