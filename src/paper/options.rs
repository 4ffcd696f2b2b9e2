//! What goes into a paper.

use crate::analysis::Policy;

/// What goes into a paper.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Methods; all if empty.
    pub(crate) methods: Vec<String>,
    /// Name of the dataset of the runs.
    pub(crate) dataset: Option<String>,
    /// Split of the dataset.
    pub(crate) split: Option<String>,
    /// Digest of the pack; that of the service if not given.
    pub(crate) pack: Option<String>,
    /// Penalty policy.
    pub(crate) policy: Policy,
    /// Kinds of prompts, each a benchmark of its own.
    pub(crate) kinds: Vec<String>,
    /// Metrics that are compared by category.
    pub(crate) by_category: Vec<String>,
    /// Questions to people.
    pub(crate) questions: Vec<String>,
    /// Rows of the gallery.
    pub(crate) gallery: u32,
    /// The command, for the file that says how the numbers were made.
    pub(crate) command: String,
    /// What the numbers were read from, in words.
    pub(crate) server: String,
}

/// Returns a text as a part of a file's name.
pub(super) fn slug(text: &str) -> String {
    let plain = |char: char| if char.is_ascii_alphanumeric() { char } else { '-' };
    let name: String = text.chars().map(plain).take(40).collect();
    let name = name.trim_matches('-').to_owned();
    if name.is_empty() { "other".to_owned() } else { name }
}
