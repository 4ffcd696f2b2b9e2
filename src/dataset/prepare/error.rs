//! Errors of preparing a dataset.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Reason why nothing, or not everything, was prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A text file is invalid.
    #[error("{path}: {problem}")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// The line and the problem.
        problem: String,
    },
    /// An archive is invalid.
    #[error("{path}: {problem}; download it again")]
    Archive {
        /// Path of the file.
        path: PathBuf,
        /// The entry and the problem.
        problem: String,
    },
    /// The files do not match each other.
    #[error("the files do not match each other: {}", listed(.0))]
    Mismatch(Vec<String>),
}

fn listed(problems: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut text = problems.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
    if problems.len() > SHOWN {
        let _ = write!(text, "; and {} more", problems.len() - SHOWN);
    }
    text
}

impl PrepareError {
    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}
