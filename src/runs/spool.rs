//! The spool: image files of accepted samples on disk, content-addressed, bounded in bytes, and
//! durable before any row names them.
//!
//! A file is written under a temporary name, synced and hard-linked to its final name, and its
//! folder is synced; only then does a row in the database name it. A file that no row names is
//! unreferenced: it is deleted when its last guard is dropped or, after a crash, moved to the trash
//! at the next start. The folder records the id of its database and refuses any other.

mod disk;
mod error;
mod folder;
mod hold;
mod sweep;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Notify, RwLock};

use self::disk::{path_of, prepare, write_new};
pub(super) use self::error::SpoolReadError;
pub use self::error::{SpoolOpenError, SpoolWriteError};
pub use self::folder::{EmptySpool, SpoolFolder};
pub use self::hold::SpoolHold;
use self::hold::Turns;
use crate::{
    blocking::blocking,
    config::Store as Settings,
    content::ContentHash,
    store::{Store, StoreError},
};

/// Number of files per query to the database.
const AT_ONCE: usize = 500;

/// The spool folder. One process uses it at a time.
pub struct Spool {
    root: PathBuf,
    id: String,
    budget: u64,
    used: AtomicU64,
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
    /// Subfolders that are known to exist and to be durable; at most 256.
    made: Mutex<BTreeSet<PathBuf>>,
    /// Lock file, held for the life of this process and released however it ends.
    _lock: File,
    /// Retention of files in the trash.
    trash: Duration,
}

impl Spool {
    /// Opens the configured folder, creating it if it is missing, and moves unreferenced files to
    /// the trash.
    ///
    /// # Errors
    /// The folder is in use by another process, belongs to another database or cannot be written,
    /// or the store is unavailable.
    pub async fn of(settings: &Settings, store: &Store) -> Result<Arc<Self>, SpoolOpenError> {
        Self::open(&settings.spool, settings.spool_bytes(), settings.trash(), store).await
    }

    async fn open(
        root: &Path,
        budget: u64,
        trash: Duration,
        store: &Store,
    ) -> Result<Arc<Self>, SpoolOpenError> {
        let (root, (id, lock)) = {
            let root = root.to_owned();
            let prepare = move || prepare(&root).map(|prepared| (root, prepared));
            blocking(prepare).await?
        };
        let files = Arc::new(Self {
            root,
            id,
            budget,
            used: AtomicU64::new(0),
            held: Mutex::default(),
            gate: RwLock::default(),
            loose: Mutex::default(),
            loosened: Notify::new(),
            postponed: Mutex::default(),
            found: Mutex::default(),
            made: Mutex::default(),
            _lock: lock,
            trash,
        });
        files.check_database(store).await?;
        files.scan(store).await?;
        Ok(files)
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

    /// Returns the id by which the database knows this folder.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the total size of the spooled files in bytes.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns the limit of [`used`](Self::used).
    #[must_use]
    pub fn budget(&self) -> u64 {
        self.budget
    }

    fn path(&self, file: ContentHash) -> PathBuf {
        path_of(&self.root, file)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<ContentHash, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes images to disk. They stay for as long as the returned guard lives, and afterwards if
    /// the database names them.
    pub async fn keep(
        self: &Arc<Self>,
        images: Vec<(ContentHash, Bytes)>,
    ) -> Result<SpoolGuard, SpoolWriteError> {
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
        // The guard moves into the write, which completes even if the request is cancelled.
        blocking(move || {
            images
                .iter()
                .try_for_each(|(file, bytes)| held.files.write(*file, bytes))
                .map(|()| held)
        })
        .await
    }

    fn write(&self, file: ContentHash, bytes: &[u8]) -> Result<(), SpoolWriteError> {
        let path = self.path(file);
        let folder = path.parent().expect("every file is in a folder");
        if !path.exists() {
            let size = bytes.len() as u64;
            let grown = |used: u64| used.checked_add(size).filter(|used| *used <= self.budget);
            if self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_err() {
                return Err(SpoolWriteError::Full(self.budget >> 20));
            }
            let written = self.make(folder).and_then(|()| write_new(&self.root, &path, bytes));
            if !matches!(written, Ok(true)) {
                self.used.fetch_sub(size, Ordering::Relaxed);
            }
            written?;
        }
        // Also if another request has just linked the file: that request may not have synced the
        // folder yet when this request's row is written.
        File::open(folder)?.sync_all()?;
        Ok(())
    }

    /// Creates a subfolder for files; it is durable when this returns.
    fn make(&self, folder: &Path) -> io::Result<()> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.contains(folder) {
            return Ok(());
        }
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            // Also if it exists: an earlier process may have ended before it was synced.
            _ => File::open(&self.root)?.sync_all()?,
        }
        made.insert(folder.to_owned());
        Ok(())
    }

    /// Reads a spooled image and verifies its hash.
    pub async fn read(self: &Arc<Self>, file: ContentHash) -> Result<Bytes, SpoolReadError> {
        let this = Arc::clone(self);
        let read = move || match fs::read(this.path(file)) {
            Ok(bytes) if ContentHash::of(&bytes) == file => Ok(bytes.into()),
            Ok(_) => {
                // Deleted, so that a client can send the file again.
                this.remove(file);
                Err(SpoolReadError::Lost(file))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(SpoolReadError::Lost(file))
            }
            Err(error) => Err(SpoolReadError::Io(file, error)),
        };
        blocking(read).await
    }

    fn loose(&self) -> MutexGuard<'_, BTreeSet<ContentHash>> {
        self.loose.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn postponed(&self) -> MutexGuard<'_, BTreeSet<ContentHash>> {
        self.postponed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes those of these files that no guard holds and no row names. While a backup reads the
    /// spool, they are only noted: the next call after it deletes them.
    pub(super) async fn delete_unreferenced(
        self: &Arc<Self>,
        store: &Store,
        files: &[ContentHash],
    ) -> Result<(), StoreError> {
        self.postponed().extend(files);
        let mut turns = Turns::new(&self.root);
        loop {
            let files: Vec<_> = self.postponed().iter().copied().take(AT_ONCE).collect();
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
        let this = Arc::clone(self);
        blocking(move || gone.into_iter().for_each(|file| this.remove(file))).await;
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
    /// a backup reads the spool, nothing happens: their rows stay until the files are deleted.
    pub(super) async fn delete_released(self: &Arc<Self>, store: &Store) -> Result<(), StoreError> {
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

    fn remove(&self, file: ContentHash) {
        let path = self.path(file);
        let size = path.metadata().map(|metadata| metadata.len());
        match size.and_then(|size| fs::remove_file(&path).map(|()| size)) {
            Ok(size) => self.subtract(size),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, %file, "failed to delete an unreferenced file"),
        }
    }

    /// Subtracts the size of a removed file. A damaged file may be larger than it was when it was
    /// counted, and a count below zero would be read as a full spool.
    fn subtract(&self, size: u64) {
        let less = |used: u64| Some(used.saturating_sub(size));
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
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
