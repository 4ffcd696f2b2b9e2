//! The spool: image files of accepted samples, content-addressed, bounded in bytes, and durable
//! before any row names them.
//!
//! The files are in a folder that this process owns, or in a bucket that all instances share
//! (`blobs/`). Only when a file is durable does a row in the database name it. A file that no row
//! names is unreferenced. In a folder it is deleted when its last guard is dropped or, after a
//! crash, moved to the trash at the next start. `shared.rs` says how a bucket differs. Both record
//! the id of their database and refuse any other.

mod disk;
mod error;
mod folder;
mod hold;
mod pace;
mod shared;
mod sweep;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Notify, RwLock};

use self::disk::prepare;
pub use self::error::{SpoolKeepError, SpoolOpenError};
pub use self::folder::{EmptySpool, SpoolFolder};
pub use self::hold::SpoolHold;
use self::hold::Turns;
use self::pace::Pace;
use crate::{
    blobs::{Blobs, Folder, ReadError, S3, write_new},
    blocking::blocking,
    config::Store as Settings,
    content::ContentHash,
    store::{Store, StoreError},
    sync::lock,
};

/// Number of files per query to the database.
const FILES_AT_ONCE: usize = 500;

/// Where the files are.
enum Files {
    /// In the folder, which only this process uses.
    Own(Folder),
    /// In a bucket that other instances use too.
    Shared(S3),
}

/// The spool. One process uses the folder at a time, also if files are in a bucket: then it has
/// only notes.
pub struct Spool {
    root: PathBuf,
    id: String,
    files: Files,
    /// Files that requests are about to name in the database, with the number of guards of each
    /// file.
    held: Mutex<HashMap<ContentHash, usize>>,
    /// Locked shared to begin holding files, and exclusively to delete files.
    gate: RwLock<()>,
    /// Files that may be unreferenced; bounded by the number of files.
    loose: Mutex<BTreeSet<ContentHash>>,
    loosened: Notify,
    /// Released files that are to be deleted as soon as no backup reads the spool; bounded by the
    /// number of files.
    postponed: Mutex<BTreeSet<ContentHash>>,
    /// Files that the start found and that are not yet compared with the database.
    found: Mutex<Vec<ContentHash>>,
    /// When a bucket was last looked at.
    pace: Pace,
    /// Lock file, held for the life of this process and released however it ends.
    _lock: File,
    /// Retention of files in the trash.
    trash: Duration,
}

impl Spool {
    /// Opens the configured folder or bucket. Creates the folder if it is missing, and moves
    /// unreferenced files in it to the trash.
    ///
    /// # Errors
    /// The folder is in use by another process, folder or bucket belong to another database or
    /// cannot be used, or the store is unavailable.
    pub async fn of(settings: &Settings, store: &Store) -> Result<Arc<Self>, SpoolOpenError> {
        let (root, limit, trash) = (&settings.spool, settings.spool_bytes(), settings.trash());
        if settings.s3.is_used() {
            let bucket = S3::new(&settings.s3, limit)?;
            Self::open_shared(root, bucket, trash, store, Pace::default()).await
        } else {
            Self::open(root, limit, trash, store).await
        }
    }

    async fn open(
        root: &Path,
        limit: u64,
        trash: Duration,
        store: &Store,
    ) -> Result<Arc<Self>, SpoolOpenError> {
        let (root, id, lock) = Self::prepare(root).await?;
        let files = Files::Own(Folder::new(root.clone(), limit));
        let spool = Self::new((root, lock), id, files, trash, Pace::default());
        spool.check_database(store).await?;
        spool.scan(store).await?;
        Ok(spool)
    }

    async fn prepare(root: &Path) -> Result<(PathBuf, String, File), SpoolOpenError> {
        let root = root.to_owned();
        blocking(move || prepare(&root).map(|(id, lock)| (root, id, lock))).await
    }

    fn new(
        (root, lock): (PathBuf, File),
        id: String,
        files: Files,
        trash: Duration,
        pace: Pace,
    ) -> Arc<Self> {
        Arc::new(Self {
            root,
            id,
            files,
            held: Mutex::default(),
            gate: RwLock::default(),
            loose: Mutex::default(),
            loosened: Notify::new(),
            postponed: Mutex::default(),
            found: Mutex::default(),
            pace,
            _lock: lock,
            trash,
        })
    }

    /// Refuses a database that the folder does not belong to: every file that this database does
    /// not name would go to the trash.
    async fn check_database(&self, store: &Store) -> Result<(), SpoolOpenError> {
        let (root, ours) = (self.root.clone(), store.installation().await?);
        let unusable = |error| SpoolOpenError::Io(self.root.clone(), error);
        let (path, text) = (root.join("database"), ours.clone());
        let recorded = blocking(move || match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_new(&root, &path, text.as_bytes())?;
                File::open(&root)?.sync_all()?;
                Ok(text)
            }
            read => read,
        })
        .await
        .map_err(unusable)?;
        if recorded.trim() == ours {
            return Ok(());
        }
        Err(SpoolOpenError::OtherDatabase {
            folder: self.root.clone(),
            theirs: recorded.trim().to_owned(),
            ours,
        })
    }

    /// Returns the id by which the database knows the folder or bucket.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns whether other instances use the files too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.files, Files::Shared(_))
    }

    fn blobs(&self) -> &dyn Blobs {
        match &self.files {
            Files::Own(folder) => folder,
            Files::Shared(bucket) => bucket,
        }
    }

    /// Returns the total size of the spooled files in bytes.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.blobs().room().used()
    }

    /// Returns the limit of [`used`](Self::used).
    #[must_use]
    pub fn budget(&self) -> u64 {
        self.blobs().room().limit()
    }

    fn held(&self) -> MutexGuard<'_, HashMap<ContentHash, usize>> {
        lock(&self.held)
    }

    /// Stores images. They stay for as long as the returned guard lives, and afterwards if the
    /// database names them. With a bucket, it must name them within a minute.
    pub async fn keep(
        self: &Arc<Self>,
        store: &Store,
        images: Vec<(ContentHash, Bytes)>,
    ) -> Result<SpoolGuard, SpoolKeepError> {
        let held = {
            let _open = self.gate.read().await;
            let mut counts = self.held();
            for (file, _) in &images {
                *counts.entry(*file).or_default() += 1;
            }
            SpoolGuard {
                files: Arc::clone(self),
                hashes: images.iter().map(|(file, _)| *file).collect(),
            }
        };
        if self.is_shared() {
            self.reclaim(store, &held.hashes).await?;
        }
        // The guard moves into a task, which completes even if the request is cancelled.
        let put = async move { held.files.blobs().put(images).await.map(|()| held) };
        let put = tokio::spawn(put);
        match put.await {
            Ok(put) => Ok(put?),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Reads a spooled image and verifies its hash.
    pub(super) async fn read(&self, file: ContentHash) -> Result<Bytes, ReadError> {
        self.blobs().get(file).await
    }

    fn loose(&self) -> MutexGuard<'_, BTreeSet<ContentHash>> {
        lock(&self.loose)
    }

    /// Marks files as possibly unreferenced. They are deleted later, unless a guard or a row still
    /// needs them.
    pub fn release(&self, files: impl IntoIterator<Item = ContentHash>) {
        self.loose().extend(files);
        self.loosened.notify_one();
    }

    /// Waits for released files, and returns them.
    pub(super) async fn released(&self) -> Vec<ContentHash> {
        loop {
            let files = std::mem::take(&mut *self.loose());
            if !files.is_empty() {
                return files.into_iter().collect();
            }
            self.loosened.notified().await;
        }
    }

    /// Releases what the last samples of a stopping service have left, if other instances delete
    /// it. In a folder, the next start finds it.
    pub(super) async fn release_last(self: &Arc<Self>, store: &Store) {
        if !self.is_shared() {
            return;
        }
        let files: Vec<_> = std::mem::take(&mut *self.loose()).into_iter().collect();
        if let Err(error) = self.delete_unreferenced(store, &files).await {
            tracing::warn!(%error, files = files.len(), "failed to release files: the sweep will");
        }
    }

    fn postponed(&self) -> MutexGuard<'_, BTreeSet<ContentHash>> {
        lock(&self.postponed)
    }

    /// Deletes those of these files that no guard holds and no row names, or releases them if other
    /// instances use the spool too. While a backup reads a folder, they are only noted: the next
    /// call after it deletes them.
    pub(super) async fn delete_unreferenced(
        self: &Arc<Self>,
        store: &Store,
        files: &[ContentHash],
    ) -> Result<(), StoreError> {
        if self.is_shared() {
            let noted = async {
                let gone = self.unneeded(store, files).await?;
                store.note_released(&self.id, &gone).await
            };
            return noted.await.inspect_err(|_| self.release(files.iter().copied()));
        }
        self.postponed().extend(files);
        let mut turns = Turns::new(&self.root);
        loop {
            let files: Vec<_> = self.postponed().iter().copied().take(FILES_AT_ONCE).collect();
            if files.is_empty() || !turns.next().await {
                return Ok(());
            }
            self.delete_now(store, &files).await?;
            let mut postponed = self.postponed();
            for file in &files {
                postponed.remove(file);
            }
        }
    }

    async fn delete_now(
        self: &Arc<Self>,
        store: &Store,
        files: &[ContentHash],
    ) -> Result<(), StoreError> {
        let _alone = self.gate.write().await;
        let gone = self.unneeded(store, files).await?;
        if let Err(error) = self.blobs().delete(&gone).await {
            tracing::warn!(%error, "failed to delete unreferenced files");
        }
        Ok(())
    }

    /// Returns those of these files that no guard holds and no row names.
    ///
    /// Guards are checked before the database: a guard is dropped only after its row is written, so
    /// a file that is no longer held is already named when the database is queried.
    async fn unneeded(
        &self,
        store: &Store,
        files: &[ContentHash],
    ) -> Result<Vec<ContentHash>, StoreError> {
        let loose: Vec<_> = {
            let held = self.held();
            files.iter().copied().filter(|file| !held.contains_key(file)).collect()
        };
        let needed = store.needed_files(&self.id, &loose).await?;
        Ok(loose.into_iter().filter(|file| !needed.contains(file)).collect())
    }

    /// Deletes files that another instance, or an earlier process of this one, has released. While
    /// a backup reads a folder, nothing happens: their rows stay until the files are deleted.
    pub(super) async fn delete_released(self: &Arc<Self>, store: &Store) -> Result<(), StoreError> {
        if let Files::Shared(bucket) = &self.files {
            return self.delete_quarantined(bucket, store).await;
        }
        let mut turns = Turns::new(&self.root);
        loop {
            let files = store.released_files(&self.id).await?;
            if files.is_empty() || !turns.next().await {
                return Ok(());
            }
            self.delete_now(store, &files).await?;
            store.forget_released(&self.id, &files).await?;
        }
    }

    /// Returns the spool folder, where notes such as the samples in flight are stored too.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }
}

/// Holds spooled files that the database does not name yet. Dropping it releases them.
pub struct SpoolGuard {
    files: Arc<Spool>,
    hashes: Vec<ContentHash>,
}

impl Drop for SpoolGuard {
    fn drop(&mut self) {
        {
            let mut counts = self.files.held();
            for hash in &self.hashes {
                if let Some(count) = counts.get_mut(hash) {
                    *count -= 1;
                    if *count == 0 {
                        counts.remove(hash);
                    }
                }
            }
        }
        // They are named by now, or unreferenced: the request may have been refused or cancelled.
        self.files.release(self.hashes.iter().copied());
    }
}
