//! Progress bars on standard error. Nothing is drawn if it is not a terminal.

use std::{io::Write as _, sync::LazyLock};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Visible bars; they are suspended while a note is printed.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Returns a bar that counts `what`, with position, length, rate and remaining time.
pub(super) fn bar(what: &'static str) -> ProgressBar {
    let template =
        "{wide_bar} {human_pos} of {human_len} {prefix}, {per_sec:.0} per second, {eta} left {msg}";
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    BARS.add(ProgressBar::new(0).with_style(style).with_prefix(what))
}

/// Prints a note on standard error; standard output has only the result.
pub(super) fn note(text: &str) {
    // A note that cannot be written is not worth a failure.
    BARS.suspend(|| drop(std::io::stderr().write_all(text.as_bytes())));
}

/// Prints why the command waits for a server.
pub(super) fn note_waiting(reason: &str) {
    note(&format!("note: waiting for the server: {reason}\n"));
}
