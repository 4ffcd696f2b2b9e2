//! Errors of backups, each with what to do about it.

use std::{io, path::PathBuf};

use crate::store::{RestoreError, StoreError};

/// Reason why a backup could not be made, read or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The archive exists.
    #[error("{0} exists: name another file, or a folder, in which the file is named by the time")]
    Exists(PathBuf),
    /// A file or folder cannot be read or written.
    #[error("cannot use {path}: {source}")]
    Io {
        /// Path of the file or folder.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A spool folder belongs to another database.
    #[error(
        "the spool folder {folder} belongs to the database {theirs}, but store.url names the \
            database {ours}: correct store.url or store.spool"
    )]
    OtherDatabase {
        /// Path of the folder.
        folder: PathBuf,
        /// Id of the database that it belongs to.
        theirs: String,
        /// Id of the database.
        ours: String,
    },
    /// The spool folder has files or is in use.
    #[error(
        "the spool folder {0} has files, or a service uses it: restore into an empty folder \
            (store.spool)"
    )]
    SpoolNotEmpty(PathBuf),
    /// The file is not a whole backup.
    #[error("{path} is damaged or no backup: {problem}; use another backup")]
    Damaged {
        /// Path of the archive.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The archive has a layout that this program does not know.
    #[error(
        "{path} has the format {found}, made by version {version}, but this program reads format \
            {known}: use the newer program"
    )]
    Format {
        /// Path of the archive.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The program that made it.
        version: String,
        /// The format that this program reads.
        known: u32,
    },
    /// The rows could not be restored. Nothing was changed.
    #[error("cannot restore, and nothing was changed: {0}")]
    Restore(#[from] RestoreError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
