//! Errors of the spool.

use std::{io, path::PathBuf};

use crate::{
    blobs::{Unavailable, WriteError},
    store::StoreError,
};

/// Reason why the spool cannot be used.
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
    /// The bucket belongs to another database.
    #[error(
        "the bucket {bucket} belongs to the database {theirs}, but store.url names the database \
            {ours}: correct store.url, or store.s3.bucket or store.s3.prefix. Nothing was changed"
    )]
    BucketOfOther {
        /// Name and prefix of the bucket.
        bucket: String,
        /// Id of the database that it belongs to.
        theirs: String,
        /// Id of the database that was opened.
        ours: String,
    },
    /// The bucket cannot be used.
    #[error(
        "{0}; check store.s3 and the credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
            the role of the machine"
    )]
    Bucket(#[from] Unavailable),
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

/// Reason why images could not be spooled.
#[derive(Debug, thiserror::Error)]
pub enum SpoolKeepError {
    /// They could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// An equal file in the bucket is being deleted.
    #[error("an equal image is being deleted from the object store; retry in a few seconds")]
    Busy,
    /// The database could not be asked whether equal files are being deleted.
    #[error(transparent)]
    Store(#[from] StoreError),
}
