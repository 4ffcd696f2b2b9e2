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
        let path = |name: &str| format!("figures/{name}.svg");
        let is_taken =
            |name: &str| self.files.iter().any(|file| file.path.eq_ignore_ascii_case(&path(name)));
        let path = path(&free(name, is_taken));
        self.files.push(File { path, bytes: document.into_bytes() });
        self
    }

    /// Gives the part a name that no other part has, and its tables too.
    pub(super) fn renamed(mut self, others: &[Self]) -> Self {
        let is_taken =
            |name: &str| others.iter().any(|other| other.name.eq_ignore_ascii_case(name));
        let name = free(&self.name, is_taken);
        for file in &mut self.files {
            let ending = file.path.strip_prefix("tables/");
            let ending = ending.and_then(|path| path.strip_prefix(&self.name));
            if let Some(ending) = ending.filter(|ending| ending.starts_with('.')) {
                file.path = format!("tables/{name}{ending}");
            }
        }
        self.name = name;
        self
    }

    /// Returns the path of the file that `paper.tex` includes, without its ending.
    pub(super) fn input(&self) -> Option<&str> {
        self.files.iter().find_map(|file| file.path.strip_suffix(".tex"))
    }
}

/// Returns a name, with a number at its end if it is taken. Some file systems do not tell names
/// apart that differ in case only.
fn free(name: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let mut free = name.to_owned();
    let mut at = 1;
    while is_taken(&free) {
        at += 1;
        free = format!("{name}-{at}");
    }
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_drawings_of_one_name_have_files_of_their_own() {
        let mut parts: Vec<Part> = Vec::new();
        for name in ["methods-other", "methods-Other", "methods-other", "methods-other-2"] {
            let part = Part::new(name, "Methods", String::new()).tex("t");
            let part = part.svg("one", "1".to_owned()).svg("ONE", "2".to_owned());
            parts.push(part.renamed(&parts));
        }
        let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        let numbered = ["methods-other", "methods-Other-2", "methods-other-3", "methods-other-2-2"];
        assert_eq!(names, numbered);
        for (part, name) in parts.iter().zip(numbered) {
            let paths: Vec<&str> = part.files.iter().map(|file| file.path.as_str()).collect();
            let table = format!("tables/{name}.tex");
            assert_eq!(paths, [&*table, "figures/one.svg", "figures/ONE-2.svg"]);
        }
    }
}
