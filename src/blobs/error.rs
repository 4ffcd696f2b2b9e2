//! Errors of stored files.

use std::io;

use crate::content::ContentHash;

/// An object store that cannot be reached, or refuses a request: who it is, and why.
#[derive(Debug, thiserror::Error)]
#[error("the object store {store} is unavailable: {why}")]
pub struct Unavailable {
    /// Bucket and prefix.
    pub store: String,
    /// Cause, without secrets.
    pub why: String,
}

/// Reason why a file could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The limit of the size of all files is reached; it is in MiB.
    #[error("the {0} MiB reserved for accepted samples (store.spool_mib) are used up")]
    Full(u64),
    /// The file could not be written to the folder.
    #[error("failed to write a spool file: {0}")]
    Io(#[from] io::Error),
    /// The object store cannot be used now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Reason why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such file.
    #[error("the spooled file {0} is missing")]
    Absent(ContentHash),
    /// The content of the file is not that of its name.
    #[error("the spooled file {0} is damaged")]
    Damaged(ContentHash),
    /// The file is there but could not be read.
    #[error("failed to read the spooled file {0}: {1}")]
    Io(ContentHash, #[source] io::Error),
    /// The object store cannot be used now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}
