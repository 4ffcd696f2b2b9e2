//! The trait of stored files.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use time::OffsetDateTime;

use super::{
    error::{ReadError, Unavailable, WriteError},
    room::Room,
};
use crate::content::ContentHash;

/// A stored file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its name.
    pub(crate) file: ContentHash,
    /// Its size.
    pub(crate) bytes: u64,
    /// When it was last put, by the clock of the storage.
    pub(crate) modified: OffsetDateTime,
}

/// Files by the hash of their content. Other names cannot be expressed, and anything else that lies
/// beside the files is never read, listed or deleted.
///
/// All methods but `list` end within a minute, also if an object store does not answer; a folder on
/// a disk that hangs hangs.
#[async_trait]
pub(crate) trait Blobs: Send + Sync {
    /// Stores files, and returns when all of them are durable.
    ///
    /// A reader sees a file whole or not at all. Putting a file that exists changes nothing, and
    /// concurrent puts of one file all succeed. After an error some of the files may be stored.
    /// Dropping the future does not stop a put that has begun.
    async fn put(&self, files: Vec<(ContentHash, Bytes)>) -> Result<(), WriteError>;

    /// Reads a file and verifies its hash.
    ///
    /// [`ReadError::Absent`] and [`ReadError::Damaged`] are final: the file must be put again.
    /// After any other error it may still be there.
    async fn get(&self, file: ContentHash) -> Result<Bytes, ReadError>;

    /// Deletes files. One that does not exist is no error, so it can be repeated. After an error
    /// some of the files may be deleted.
    async fn delete(&self, files: &[ContentHash]) -> Result<(), Unavailable>;

    /// Lists the files in any order: every file that was stored before the call and is not deleted
    /// meanwhile, and perhaps others that are put or deleted meanwhile.
    fn list(&self) -> BoxStream<'_, Result<Entry, Unavailable>>;

    /// Returns what the files take and may take.
    fn room(&self) -> &Room;
}
