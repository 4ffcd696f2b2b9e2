//! Text for the terminal.

use std::{borrow::Cow, fmt::Write as _, io::Write as _, process::ExitCode};

use crate::label;

/// Joins an error's causes: the outermost says what failed, the innermost why and what to do.
/// Many errors already contain the text of their cause; such a cause is not repeated.
pub(super) fn explain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string).filter(|cause| !cause.is_empty()) {
        if !text.contains(&cause) {
            let separator = if text.is_empty() { "" } else { ": " };
            text.push_str(separator);
            text.push_str(&cause);
        }
    }
    text
}

/// Returns a count with its noun, in the plural unless the count is 1.
pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Maximum number of lines of one kind on the terminal.
const SHOWN: usize = 20;

/// Formats the first [`SHOWN`] items, one per line, with a count of the others.
pub(super) fn first_lines(all: &[impl std::fmt::Display]) -> String {
    let mut text = lines(all.iter().take(SHOWN));
    if all.len() > SHOWN {
        let _ = writeln!(text, "and {} more", all.len() - SHOWN);
    }
    text
}

/// Formats items, one per line.
pub(super) fn lines(all: impl Iterator<Item = impl std::fmt::Display>) -> String {
    all.fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{line}");
        text
    })
}

/// Escapes control characters, so that names in files and responses can neither colour a terminal
/// nor reverse its text direction.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    label::escaped(text, |character| matches!(character, '\n' | '\t'))
}

/// Returns `word`, or that it is not so.
pub(super) fn verdict(passed: bool, word: &'static str) -> &'static str {
    if passed { word } else { "FAILED" }
}

pub(super) fn print(text: &str) -> anyhow::Result<ExitCode> {
    match std::io::stdout().write_all(shown(text).as_bytes()) {
        // `| head` closes the pipe early, which is not a failure.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!(counted(0, "error"), "0 errors");
        assert_eq!(counted(1, "error"), "1 error");
        assert_eq!(counted(2, "error"), "2 errors");
    }
}
