//! The parts of a paper: tables and figures with their files.

use super::text::portable;
use crate::figures::table::Table;

/// A table or a figure.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// Name of its files and of its label.
    pub(super) name: String,
    /// Section that it belongs to.
    pub(super) section: &'static str,
    /// Caption in LaTeX.
    pub(super) caption: String,
    /// Notes below it, in LaTeX.
    pub(super) notes: Vec<String>,
    /// Its files; one that ends in `.tex` is included.
    pub(super) files: Vec<File>,
    /// The requests whose responses it shows.
    pub(super) requests: Vec<String>,
    /// What the reader of its numbers must know, in plain text.
    pub(super) remarks: Vec<String>,
}

/// A file of a part.
#[derive(Debug)]
pub(super) struct File {
    /// Path below the paper's folder.
    pub(super) path: String,
    pub(super) bytes: Vec<u8>,
}

/// A part that is not in the paper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) what: String,
    pub(super) why: String,
}

impl Missing {
    pub(super) fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.into() }
    }
}

impl Part {
    pub(super) fn new(name: impl Into<String>, section: &'static str, caption: String) -> Self {
        Self { name: name.into(), section, caption, ..Self::default() }
    }

    pub(super) fn requested(mut self, request: &str) -> Self {
        self.requests.push(request.to_owned());
        self
    }

    /// Adds the table of the paper.
    pub(super) fn latex(self, table: &Table) -> Self {
        self.tex(&table.latex())
    }

    /// Adds LaTeX that `paper.tex` includes.
    pub(super) fn tex(mut self, tex: &str) -> Self {
        let path = format!("tables/{}.tex", self.name);
        self.files.push(File { path, bytes: portable(tex).into_bytes() });
        self
    }

    /// Adds the table with all digits.
    pub(super) fn csv(mut self, table: &Table) -> Self {
        let path = format!("tables/{}.csv", self.name);
        self.files.push(File { path, bytes: table.csv().into_bytes() });
        self
    }

    /// Adds a drawing.
    pub(super) fn svg(mut self, name: &str, document: String) -> Self {
        let path = format!("figures/{name}.svg");
        self.files.push(File { path, bytes: document.into_bytes() });
        self
    }

    /// Returns the path of the file that `paper.tex` includes, without its ending.
    pub(super) fn input(&self) -> Option<&str> {
        self.files.iter().find_map(|file| file.path.strip_suffix(".tex"))
    }
}
