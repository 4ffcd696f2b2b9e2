//! Progress bars on standard error; nothing is drawn where that is no terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that counts `what`: how many of how many, how fast, how long it will take.
pub(super) fn bar(what: &'static str) -> ProgressBar {
    let template = "{wide_bar} {human_pos} of {human_len} {prefix}, {per_sec:.0} a second, {eta} left {msg}";
    let style = ProgressStyle::with_template(template).expect("the template is valid");
    ProgressBar::new(0).with_style(style).with_prefix(what)
}
