//! Files in a bucket with the S3 protocol, which all instances of the service share.
//!
//! The object `PREFIX/ab/cdef…` is the file `abcdef…`, as in a folder. `PREFIX/spool.json` says
//! whose bucket it is.

use std::{error::Error as _, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use object_store::{
    BackoffConfig, Error, ObjectStore as _, ObjectStoreExt as _, PutMode, PutPayload, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{
    error::{ReadError, Unavailable, WriteError},
    http::Connector,
    interface::{Blobs, Entry},
    room::Room,
};
use crate::{clock, config::S3 as Settings, content::ContentHash};

/// How long the object store may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// One request with its response.
    pub(super) request: Duration,
    /// No retry begins after this time.
    pub(super) retrying: Duration,
    /// An operation with its retries, and waiting for credentials.
    pub(super) operation: Duration,
    /// A probe, which is not repeated.
    pub(super) probe: Duration,
}

/// A request with 32 MiB passes at 13 Mbit/s.
const PATIENCE: Patience = Patience {
    request: Duration::from_secs(20),
    retrying: Duration::from_secs(25),
    operation: Duration::from_secs(50),
    probe: Duration::from_secs(2),
};

/// Someone waits for the command.
const OF_COMMANDS: Patience = Patience {
    request: Duration::from_secs(4),
    retrying: Duration::from_secs(2),
    operation: Duration::from_secs(8),
    ..PATIENCE
};

/// Number of retries of a request, with pauses that double from 100 ms to 2 s.
pub(super) const RETRIES: usize = 6;

/// Files of one request that are put at the same time.
const CONCURRENT_PUTS: usize = 4;

/// Whose bucket it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Id by which rows know the bucket, instead of that of a folder.
    pub id: String,
    /// Id of the database that names its files.
    pub database: String,
}

/// Reads whose bucket it is; `None` before its first use. Changes nothing.
pub async fn bucket_note(settings: &Settings) -> Result<Option<Note>, Unavailable> {
    S3::build(AmazonS3Builder::from_env(), settings, 0, OF_COMMANDS)?.note().await
}

/// A bucket. The limit of its size is checked against what this instance knows.
#[derive(Clone)]
pub(crate) struct S3(Arc<Inner>);

struct Inner {
    store: AmazonS3,
    /// For messages.
    name: String,
    prefix: Path,
    room: Room,
    patience: Patience,
}

impl S3 {
    /// Prepares the client. Nothing is requested yet.
    pub(crate) fn new(settings: &Settings, limit: u64) -> Result<Self, Unavailable> {
        // Credentials: variables of the environment, a token of the orchestrator, or the metadata
        // service of the machine.
        Self::build(AmazonS3Builder::from_env(), settings, limit, PATIENCE)
    }

    /// Prepares a client with the credentials of `builder`.
    pub(super) fn build(
        builder: AmazonS3Builder,
        settings: &Settings,
        limit: u64,
        patience: Patience,
    ) -> Result<Self, Unavailable> {
        let name = settings.name();
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(2),
                base: 2.0,
            },
            max_retries: RETRIES,
            retry_timeout: patience.retrying,
        };
        let mut builder = builder
            .with_bucket_name(&settings.bucket)
            .with_region(&settings.region)
            .with_allow_http(settings.allow_http)
            .with_http_connector(Connector { request: patience.request })
            .with_retry(retry);
        if !settings.endpoint.is_empty() {
            builder = builder.with_endpoint(settings.endpoint.trim_end_matches('/'));
        }
        let prefix = Path::parse(&settings.prefix)
            .map_err(|error| Unavailable { store: name.clone(), why: error.to_string() })?;
        match builder.build() {
            Ok(store) => {
                let room = Room::new(limit);
                Ok(Self(Arc::new(Inner { store, name, prefix, room, patience })))
            }
            Err(error) => Err(Unavailable { store: name, why: reason(&error) }),
        }
    }

    /// Returns the bucket and its prefix, for messages.
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// Reads whose bucket it is; `None` before its first use.
    pub(crate) async fn note(&self) -> Result<Option<Note>, Unavailable> {
        match self.within(self.0.patience.operation, self.read(&self.note_path())).await? {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| self.unavailable(format!("spool.json is damaged: {error}"))),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Writes whose bucket it is, unless it is written already, and returns what is.
    pub(crate) async fn take(&self, new: &Note) -> Result<Note, Unavailable> {
        let json = serde_json::to_vec(new).expect("a note is JSON");
        let path = self.note_path();
        let put = self.0.store.put_opts(&path, json.into(), PutMode::Create.into());
        match self.within(self.0.patience.operation, put).await? {
            // The other instance that was faster is found below.
            Ok(_) | Err(Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(self.failed(&error)),
        }
        let gone = || self.unavailable("spool.json is gone after it was written".to_owned());
        self.note().await?.ok_or_else(gone)
    }

    /// Asks for one small object, without retries.
    pub(crate) async fn probe(&self) -> Result<(), Unavailable> {
        match self.within(self.0.patience.probe, self.0.store.head(&self.note_path())).await? {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn note_path(&self) -> Path {
        self.0.prefix.clone().join("spool.json")
    }

    fn path(&self, file: ContentHash) -> Path {
        let hex = file.to_hex();
        self.0.prefix.clone().join(&hex[..2]).join(&hex[2..])
    }

    fn file(&self, path: &Path) -> Option<ContentHash> {
        let rest: Vec<_> = path.prefix_match(&self.0.prefix)?.collect();
        let [folder, name] = &rest[..] else { return None };
        let hex = format!("{}{}", folder.as_ref(), name.as_ref());
        ContentHash::from_hex(&hex).filter(|file| self.path(*file) == *path)
    }

    async fn read(&self, path: &Path) -> Result<Bytes, Error> {
        self.0.store.get(path).await?.bytes().await
    }

    /// Ends an operation that takes too long.
    async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, Unavailable> {
        let silent = || format!("no answer within {} s", limit.as_secs());
        tokio::time::timeout(limit, work).await.map_err(|_| self.unavailable(silent()))
    }

    fn unavailable(&self, why: String) -> Unavailable {
        Unavailable { store: self.0.name.clone(), why }
    }

    fn failed(&self, error: &Error) -> Unavailable {
        self.unavailable(match error {
            Error::NotFound { .. } => "the bucket, or spool.json in it, is missing".to_owned(),
            other => reason(other),
        })
    }
}

#[async_trait]
impl Blobs for S3 {
    /// Files are written again if they exist: that costs less than a question for each, and repairs
    /// a damaged one.
    async fn put(&self, files: Vec<(ContentHash, Bytes)>) -> Result<(), WriteError> {
        let bytes = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        self.0.room.take(bytes)?;
        let puts = files.into_iter().map(|(file, bytes)| async move {
            self.0.store.put(&self.path(file), PutPayload::from_bytes(bytes)).await.map(drop)
        });
        let puts = stream::iter(puts).buffer_unordered(CONCURRENT_PUTS).try_collect::<()>();
        let put = self.within(self.0.patience.operation, puts).await;
        let put = put.and_then(|put| put.map_err(|error| self.failed(&error)));
        if put.is_err() {
            self.0.room.subtract(bytes);
        }
        Ok(put?)
    }

    async fn get(&self, file: ContentHash) -> Result<Bytes, ReadError> {
        let path = self.path(file);
        let twice = async {
            match self.read(&path).await {
                Ok(bytes) if ContentHash::of(&bytes) != file => self.read(&path).await,
                first => first,
            }
        };
        match self.within(self.0.patience.operation, twice).await? {
            Ok(bytes) if ContentHash::of(&bytes) == file => Ok(bytes),
            Ok(_) => Err(ReadError::Damaged(file)),
            Err(Error::NotFound { .. }) => {
                // The response is the same if the bucket is gone, or is another one.
                self.probe().await?;
                Err(ReadError::Absent(file))
            }
            Err(error) => Err(self.failed(&error).into()),
        }
    }

    async fn delete(&self, files: &[ContentHash]) -> Result<(), Unavailable> {
        let paths: Vec<_> = files.iter().map(|file| Ok(self.path(*file))).collect();
        let deletions = self.0.store.delete_stream(stream::iter(paths).boxed());
        let deletions = deletions.try_for_each(|_| std::future::ready(Ok(())));
        match self.within(self.0.patience.operation, deletions).await? {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn list(&self) -> BoxStream<'_, Result<Entry, Unavailable>> {
        let entries = self.0.store.list(Some(&self.0.prefix)).filter_map(move |object| {
            std::future::ready(match object {
                Ok(object) => self.file(&object.location).map(|file| {
                    let seconds = object.last_modified.timestamp();
                    let modified = OffsetDateTime::from_unix_timestamp(seconds);
                    let modified = modified.unwrap_or_else(|_| clock::now());
                    Ok(Entry { file, bytes: object.size, modified })
                }),
                Err(error) => Some(Err(self.failed(&error))),
            })
        });
        entries.boxed()
    }

    fn room(&self) -> &Room {
        &self.0.room
    }
}

/// Returns the message of an error, and that of its cause, which says what is wrong.
fn reason(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    text
}
