//! Progress bars on standard error; nothing is drawn where that is no terminal.

use std::{io::Write as _, sync::LazyLock};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// The bars that are drawn, which give way while something is said beside them.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// A bar that counts `what`: how many of how many, how fast, how long it will take.
pub(super) fn bar(what: &'static str) -> ProgressBar {
    let template = "{wide_bar} {human_pos} of {human_len} {prefix}, {per_sec:.0} a second, {eta} left {msg}";
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    BARS.add(ProgressBar::new(0).with_style(style).with_prefix(what))
}

/// Says something beside the answer, which stands alone on standard output.
pub(super) fn note(text: &str) {
    // A note that cannot be written is not worth a failure.
    BARS.suspend(|| drop(std::io::stderr().write_all(text.as_bytes())));
}

/// Says why a server is waited for.
pub(super) fn note_waiting(reason: &str) {
    note(&format!("note: waiting for the server: {reason}\n"));
}
