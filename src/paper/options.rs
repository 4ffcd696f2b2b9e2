//! What goes into a paper.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::analysis::Policy;

/// What goes into a paper.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Methods; all if empty.
    pub(crate) methods: Vec<String>,
    /// Runs, each of which stands for its method; all runs of the methods if empty.
    pub(crate) runs: BTreeSet<Uuid>,
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

impl Options {
    /// Returns whether something is left out of the service's analyses.
    pub(super) fn is_selective(&self) -> bool {
        !self.methods.is_empty() || !self.runs.is_empty()
    }

    /// Returns whether the numbers of a method over these runs are wanted.
    pub(super) fn keeps(&self, method: &str, runs: &[Uuid]) -> bool {
        let is_named = self.methods.is_empty() || self.methods.iter().any(|each| each == method);
        is_named && (self.runs.is_empty() || runs.iter().all(|run| self.runs.contains(run)))
    }

    /// Returns what a row of an analysis is, if it is not a method.
    pub(super) fn by(&self) -> Option<&'static str> {
        (!self.runs.is_empty()).then_some("run")
    }
}

/// Checks kinds of prompts whose tables are wanted.
///
/// # Errors
/// A table would have the name of the one over all prompts.
pub(crate) fn check_kinds(kinds: &[String]) -> anyhow::Result<()> {
    for kind in kinds {
        anyhow::ensure!(
            !slug(kind).eq_ignore_ascii_case("all"),
            "--kinds {kind}: the table over all prompts is always there, under the name `all`"
        );
    }
    Ok(())
}

/// Returns a text as a part of a file's name. Several texts may have the same one.
pub(super) fn slug(text: &str) -> String {
    let plain = |char: char| if char.is_ascii_alphanumeric() { char } else { '-' };
    let name: String = text.chars().map(plain).take(40).collect();
    let name = name.trim_matches('-').to_owned();
    if name.is_empty() { "other".to_owned() } else { name }
}
