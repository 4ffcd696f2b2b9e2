//! Errors of the spool.

use std::{io, path::PathBuf};

use crate::{content::ContentHash, store::StoreError};

/// Reason why the spool folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolOpenError {
    /// Another process uses the folder.
    #[error(
        "the spool folder {0} is in use by another process: give each process its own store.spool, \
            because each removes files that it does not know"
    )]
    Taken(PathBuf),
    /// The folder belongs to another database.
    #[error(
        "the spool folder {folder} belongs to the database {theirs}, but store.url names the \
            database {ours}: correct store.url or store.spool. Nothing was changed. If that \
            database is gone for good, remove the file `database` in the folder: its images then \
            go to the trash"
    )]
    OtherDatabase {
        /// Path of the folder.
        folder: PathBuf,
        /// Id of the database that it belongs to.
        theirs: String,
        /// Id of the database that was opened.
        ours: String,
    },
    /// The folder cannot be read or written.
    #[error(
        "cannot use the spool folder {0}: {1}; set store.spool to a folder that this service can \
            write to"
    )]
    Io(PathBuf, #[source] io::Error),
    /// The database could not be queried for the referenced files.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reason why an image could not be spooled.
#[derive(Debug, thiserror::Error)]
pub enum SpoolWriteError {
    /// The budget is used up; its size is in MiB.
    #[error("the {0} MiB reserved for accepted samples (store.spool_mib) are used up")]
    Full(u64),
    /// The file could not be written.
    #[error("failed to write a spool file: {0}")]
    Io(#[from] io::Error),
}

/// Reason why a spooled image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SpoolReadError {
    /// The file is missing, or its content does not match its name.
    #[error("the spooled file {0} is missing or damaged")]
    Lost(ContentHash),
    /// The file exists but could not be read.
    #[error("failed to read the spooled file {0}: {1}")]
    Io(ContentHash, #[source] io::Error),
}
