//! Image files under the hash of their content, behind one trait with two implementations: a folder
//! (`folder.rs`) and a bucket with the S3 protocol (`s3.rs`).
//!
//! They know neither rows nor runs. Which files are needed, and when one may be deleted, is decided
//! in `runs/spool`. `contract.rs` tests what every implementation guarantees.

#[cfg(test)]
pub(crate) mod contract;
mod error;
mod folder;
mod http;
mod interface;
mod room;
mod s3;

pub use self::error::{ReadError, Unavailable, WriteError};
pub(crate) use self::folder::{Folder, list, path_of, write_new};
pub(crate) use self::interface::{Blobs, Entry};
pub(crate) use self::s3::S3;
pub use self::s3::{Note, bucket_note};
