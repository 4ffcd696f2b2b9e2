//! Errors of opening a pack.

use std::path::PathBuf;

/// The manifest schema that this version reads.
pub(super) const SCHEMA: u32 = 1;

/// An error from opening a pack. Every message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The manifest is missing or unreadable.
    #[error(
        "cannot read the model pack's manifest {}: {source}; use a folder with a pack.toml, for \
            example packs/demo",
        path.display()
    )]
    Unreadable {
        /// The manifest's path.
        path: PathBuf,
        /// The I/O error.
        source: std::io::Error,
    },
    /// The manifest is not valid TOML, or its fields are wrong.
    #[error("{} is not a valid pack manifest: {problem}export the pack again with this version's \
        exporter", path.display())]
    Syntax {
        /// The manifest's path.
        path: PathBuf,
        /// The parser's message, with the position.
        problem: String,
    },
    /// The manifest has another schema.
    #[error(
        "{} has schema {found}, this version reads schema {SCHEMA}: export the pack again with \
            this version's exporter",
        path.display()
    )]
    Schema {
        /// The manifest's path.
        path: PathBuf,
        /// The schema of the manifest.
        found: i64,
    },
    /// An entry is inconsistent in itself or with another entry.
    #[error("pack `{pack}`: {entry}: {problem}; export the pack again")]
    Inconsistent {
        /// The pack's name.
        pack: String,
        /// The entry, for example ``graph `clip.image` ``.
        entry: String,
        /// The problem and what was expected.
        problem: String,
    },
    /// A file of the manifest is missing or unreadable.
    #[error(
        "pack `{pack}`: {entry}: cannot read {}: {source}; copy the whole pack folder again, or \
            export it again",
        path.display()
    )]
    File {
        /// The pack's name.
        pack: String,
        /// The entry that lists the file.
        entry: String,
        /// Path of the file.
        path: PathBuf,
        /// The I/O error.
        source: std::io::Error,
    },
    /// A file has another digest than in the manifest.
    #[error(
        "pack `{pack}`: {entry}: {} is damaged or was replaced: expected sha256 {expected}, found \
            {found}; copy the pack again, or export it again",
        path.display()
    )]
    Mismatch {
        /// The pack's name.
        pack: String,
        /// The entry that lists the file.
        entry: String,
        /// Path of the file.
        path: PathBuf,
        /// The digest in the manifest.
        expected: String,
        /// The digest of the file.
        found: String,
    },
}
