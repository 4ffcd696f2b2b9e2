//! The spool: image files of accepted samples on disk, content-addressed, bounded in bytes, and
//! durable before any row names them.
//!
//! A file is written under a temporary name, synced and hard-linked to its final name, and its
//! folder is synced; only then does a row in the database name it. A file that no row names is
//! unreferenced: it is deleted when its last guard is dropped or, after a crash, moved to the trash
//! at the next start. The folder records the id of its database and refuses any other.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::sync::{Notify, RwLock};
use uuid::Uuid;

use crate::{
    blocking::blocking,
    content::ContentHash,
    store::{Store, StoreError},
};

/// Subfolder for files that the database does not name.
const TRASH: &str = "trash";

/// Number of files per query to the database.
const AT_ONCE: usize = 500;

/// Reason why the spool folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolOpenError {
    /// Another process uses the folder.
    #[error(
        "the spool folder {0} is in use by another process: give each process its own store.spool, because each removes files that it does not know"
    )]
    Taken(PathBuf),
    /// The folder belongs to another database.
    #[error(
        "the spool folder {folder} belongs to the database {theirs}, but store.url names the database {ours}: correct store.url or store.spool. Nothing was changed. If that database is gone for good, remove the file `database` in the folder: its images then go to the trash"
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
        "cannot use the spool folder {0}: {1}; set store.spool to a folder that this service can write to"
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
    /// Subfolders that are known to exist and to be durable; at most 256.
    made: Mutex<BTreeSet<PathBuf>>,
    /// Lock file, held for the life of this process and released however it ends.
    _lock: File,
    /// Retention of files in the trash.
    trash: Duration,
}

impl Spool {
    /// Opens the folder, creating it if it is missing, and moves unreferenced files to the trash.
    pub(super) async fn open(
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
            made: Mutex::default(),
            _lock: lock,
            trash,
        });
        files.check_database(store).await?;
        files.sweep(store).await?;
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

    fn path(&self, file: ContentHash) -> PathBuf {
        let hex = file.to_hex();
        self.root.join(&hex[..2]).join(&hex[2..])
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
            SpoolGuard { files: Arc::clone(self), hashes: images.iter().map(|(file, _)| *file).collect() }
        };
        // The guard moves into the write, which completes even if the request is cancelled.
        blocking(move || {
            images.iter().try_for_each(|(file, bytes)| held.files.write(*file, bytes)).map(|()| held)
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
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SpoolReadError::Lost(file)),
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

    /// Deletes those of these files that no guard holds and no row names.
    pub(super) async fn delete_unreferenced(
        self: &Arc<Self>,
        store: &Store,
        files: &[ContentHash],
    ) -> Result<(), StoreError> {
        for files in files.chunks(AT_ONCE) {
            let _alone = self.gate.write().await;
            let gone = self.unneeded(store, files).await?;
            let this = Arc::clone(self);
            blocking(move || gone.into_iter().for_each(|file| this.remove(file))).await;
        }
        Ok(())
    }

    /// Returns those of these files that no guard holds and no row names.
    ///
    /// Guards are checked before the database: a guard is dropped only after its row is written, so
    /// a file that is no longer held is already named when the database is queried.
    async fn unneeded(&self, store: &Store, files: &[ContentHash]) -> Result<Vec<ContentHash>, StoreError> {
        let loose: Vec<_> = {
            let held = self.held();
            files.iter().copied().filter(|file| !held.contains_key(file)).collect()
        };
        let needed = store.needed_files(&self.id, &loose).await?;
        Ok(loose.into_iter().filter(|file| !needed.contains(file)).collect())
    }

    /// Deletes files that another instance, or an earlier process of this one, has released.
    pub(super) async fn delete_released(self: &Arc<Self>, store: &Store) -> Result<(), StoreError> {
        loop {
            let files = store.released_files(&self.id).await?;
            if files.is_empty() {
                return Ok(());
            }
            self.delete_unreferenced(store, &files).await?;
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

    /// Counts the files, and moves those that the database does not name to the trash: a crash
    /// orphaned them, or the database was restored from an older copy. Also deletes files from the
    /// trash whose retention is over.
    async fn sweep(self: &Arc<Self>, store: &Store) -> Result<(), SpoolOpenError> {
        let root = self.root.clone();
        let (files, bytes) =
            blocking(move || list(&root).map_err(|error| SpoolOpenError::Io(root, error))).await?;
        self.used.store(bytes, Ordering::Relaxed);
        self.delete_released(store).await?;
        let restored = self.restore(store).await?;
        let mut unknown = 0;
        for some in files.chunks(AT_ONCE) {
            let _alone = self.gate.write().await;
            let gone = self.unneeded(store, some).await?;
            let this = Arc::clone(self);
            unknown +=
                blocking(move || gone.into_iter().filter(|file| this.move_to_trash(*file)).count()).await;
        }
        let emptied =
            self.empty_trash().await.map_err(|error| SpoolOpenError::Io(self.root.clone(), error))?;
        if unknown > 0 {
            tracing::warn!(
                files = unknown,
                folder = %self.root.join(TRASH).display(),
                "moved unreferenced files to the trash; they are deleted after store.trash_retention_days"
            );
        }
        tracing::info!(
            files = files.len() - unknown,
            mib = self.used() >> 20,
            restored,
            emptied,
            "spool scanned"
        );
        Ok(())
    }

    /// Restores trashed files that the database names, and returns their number. They were trashed
    /// under another database, or under an older copy of this one.
    async fn restore(self: &Arc<Self>, store: &Store) -> Result<usize, SpoolOpenError> {
        let root = self.root.clone();
        let trashed =
            blocking(move || in_trash(&root).map_err(|error| SpoolOpenError::Io(root, error))).await?;
        let mut restored = 0;
        for some in trashed.chunks(AT_ONCE) {
            let needed = store.needed_files(&self.id, some).await?;
            let this = Arc::clone(self);
            restored +=
                blocking(move || needed.into_iter().filter(|file| this.put_back(*file)).count()).await;
        }
        Ok(restored)
    }

    fn put_back(&self, file: ContentHash) -> bool {
        let (path, trashed) = (self.path(file), self.root.join(TRASH).join(file.to_hex()));
        let folder = path.parent().expect("every file is in a folder");
        if path.exists() {
            return false;
        }
        let moved = self.make(folder).and_then(|()| {
            fs::rename(&trashed, &path)?;
            File::open(folder)?.sync_all()?;
            path.metadata()
        });
        match moved {
            Ok(metadata) => {
                self.used.fetch_add(metadata.len(), Ordering::Relaxed);
                true
            }
            Err(error) => {
                tracing::warn!(%error, %file, "failed to restore a referenced file from the trash");
                false
            }
        }
    }

    /// Deletes files that have been in the trash for `store.trash_retention_days`, and returns
    /// their number.
    pub(super) async fn empty_trash(&self) -> io::Result<usize> {
        let (root, after) = (self.root.clone(), self.trash);
        blocking(move || empty_trash(&root, after)).await
    }

    /// Deletes images from the trash that were deleted on request.
    pub(super) async fn delete_trashed(&self, images: Vec<ContentHash>) {
        let trash = self.root.join(TRASH);
        blocking(move || {
            for image in images {
                match fs::remove_file(trash.join(image.to_hex())) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        tracing::warn!(%error, %image, "failed to delete an image from the trash");
                    }
                    _ => {}
                }
            }
        })
        .await;
    }

    /// Subtracts the size of a removed file. A damaged file may be larger than it was when it was
    /// counted, and a count below zero would be read as a full spool.
    fn subtract(&self, size: u64) {
        let less = |used: u64| Some(used.saturating_sub(size));
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Moves a file to the trash. Returns whether it was moved.
    fn move_to_trash(&self, file: ContentHash) -> bool {
        let (path, trash) = (self.path(file), self.root.join(TRASH));
        let moved = path.metadata().and_then(|metadata| {
            fs::create_dir_all(&trash)?;
            let trashed = trash.join(file.to_hex());
            fs::rename(&path, &trashed)?;
            // The retention starts now.
            File::options().append(true).open(trashed)?.set_modified(SystemTime::now())?;
            Ok(metadata.len())
        });
        match moved {
            Ok(size) => {
                self.subtract(size);
                true
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, %file, "failed to move an unreferenced file to the trash");
                }
                false
            }
        }
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

/// Creates and locks the folder, and reads or generates its id.
fn prepare(root: &Path) -> Result<(String, File), SpoolOpenError> {
    let unusable = |error| SpoolOpenError::Io(root.to_owned(), error);
    fs::create_dir_all(root).map_err(unusable)?;
    let lock = File::create(root.join("lock")).map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(SpoolOpenError::Taken(root.to_owned())),
        Err(TryLockError::Error(error)) => return Err(unusable(error)),
    }
    let name = root.join("id");
    let id = match fs::read_to_string(&name) {
        Ok(id) if Uuid::parse_str(id.trim()).is_ok() => id.trim().to_owned(),
        _ => {
            let id = Uuid::now_v7().to_string();
            let _ = fs::remove_file(&name);
            write_new(root, &name, id.as_bytes()).map_err(unusable)?;
            id
        }
    };
    File::open(root).and_then(|folder| folder.sync_all()).map_err(unusable)?;
    Ok((id, lock))
}

/// Lists the trash. It is empty if its folder does not exist.
fn trash_entries(root: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(root.join(TRASH)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.collect(),
    }
}

/// Returns the hashes of the files in the trash.
fn in_trash(root: &Path) -> io::Result<Vec<ContentHash>> {
    let names = trash_entries(root)?.into_iter().map(|entry| entry.file_name());
    Ok(names.filter_map(|name| ContentHash::from_hex(&name.to_string_lossy())).collect())
}

/// Deletes files that have been in the trash for at least `after`, and returns their number.
fn empty_trash(root: &Path, after: Duration) -> io::Result<usize> {
    let mut emptied = 0;
    for entry in trash_entries(root)? {
        // A time in the future means that the clock was set back: the file stays.
        let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        if age >= after {
            fs::remove_file(entry.path())?;
            emptied += 1;
        }
    }
    Ok(emptied)
}

/// Writes a file atomically, and returns whether it is new. The caller must sync its folder.
fn write_new(root: &Path, path: &Path, bytes: &[u8]) -> io::Result<bool> {
    let temporary = root.join(format!("new-{}", Uuid::now_v7().simple()));
    let written = File::create_new(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    // Unlike a rename, a hard link fails if another request was faster.
    let linked = written.and_then(|()| match fs::hard_link(&temporary, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    });
    let removed = fs::remove_file(&temporary);
    let is_new = linked?;
    removed?;
    Ok(is_new)
}

/// Returns all spooled files and their total size in bytes. Deletes partial writes of an earlier
/// process.
fn list(root: &Path) -> io::Result<(Vec<ContentHash>, u64)> {
    let (mut files, mut bytes) = (Vec::new(), 0);
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        if name.starts_with("new-") {
            fs::remove_file(entry.path())?;
        } else if name.len() == 2 && entry.file_type()?.is_dir() {
            for file in fs::read_dir(entry.path())? {
                let file = file?;
                let rest = file.file_name().into_string().unwrap_or_default();
                if let Some(hash) = ContentHash::from_hex(&format!("{name}{rest}")) {
                    files.push(hash);
                    bytes += file.metadata()?.len();
                }
            }
        }
    }
    Ok((files, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;

    const WEEK: Duration = Duration::from_hours(7 * 24);

    async fn store() -> Store {
        Store::open("sqlite::memory:", &StoreOptions::default()).await.unwrap()
    }

    fn image(bytes: &'static [u8]) -> (ContentHash, Bytes) {
        (ContentHash::of(bytes), Bytes::from_static(bytes))
    }

    #[tokio::test]
    async fn an_unreferenced_file_is_deleted_when_its_last_guard_is_dropped() {
        let (folder, store) = (tempfile::tempdir().unwrap(), store().await);
        let files = Spool::open(folder.path(), 1 << 20, WEEK, &store).await.unwrap();
        let one = files.keep(vec![image(b"a"), image(b"bc")]).await.unwrap();
        let two = files.keep(vec![image(b"a")]).await.unwrap();
        assert_eq!(files.used(), 3, "equal files are stored once");
        let folders =
            fs::read_dir(folder.path()).unwrap().filter(|each| each.as_ref().unwrap().path().is_dir());
        assert_eq!(folders.count(), 2, "subfolders are created on demand");
        assert_eq!(&files.read(ContentHash::of(b"bc")).await.unwrap()[..], b"bc");
        drop(one);
        let released = files.released().await;
        assert_eq!(released.len(), 2);
        files.delete_unreferenced(&store, &released).await.unwrap();
        assert!(matches!(files.read(ContentHash::of(b"bc")).await, Err(SpoolReadError::Lost(_))));
        assert!(files.read(ContentHash::of(b"a")).await.is_ok(), "the other guard still holds it");
        drop(two);
        files.delete_unreferenced(&store, &files.released().await).await.unwrap();
        assert_eq!(files.used(), 0);
    }

    #[tokio::test]
    async fn files_orphaned_by_a_crash_are_in_the_trash_after_the_next_start() {
        let (folder, store) = (tempfile::tempdir().unwrap(), store().await);
        let files = Spool::open(folder.path(), 1 << 20, WEEK, &store).await.unwrap();
        let id = files.id().to_owned();
        let _held = files.keep(vec![image(b"orphan")]).await.unwrap();
        fs::write(folder.path().join("new-half"), b"half").unwrap();
        let path = files.path(ContentHash::of(b"orphan"));
        assert!(path.exists());
        // The folder as a killed process leaves it.
        let copy = tempfile::tempdir().unwrap();
        let status = std::process::Command::new("cp")
            .arg("-r")
            .arg(folder.path().join("."))
            .arg(copy.path())
            .status()
            .unwrap();
        assert!(status.success());
        let files = Spool::open(copy.path(), 1 << 20, WEEK, &store).await.unwrap();
        assert_eq!((files.id(), files.used()), (id.as_str(), 0));
        assert!(!files.path(ContentHash::of(b"orphan")).exists() && !copy.path().join("new-half").exists());
        let thrown = copy.path().join(TRASH).join(ContentHash::of(b"orphan").to_hex());
        assert!(thrown.exists());
        drop(files);
        drop(Spool::open(copy.path(), 1 << 20, WEEK, &store).await.unwrap());
        assert!(thrown.exists(), "its retention is not over");
        let files = Spool::open(copy.path(), 1 << 20, Duration::ZERO, &store).await.unwrap();
        assert!(!thrown.exists() && files.used() == 0);
    }

    #[tokio::test]
    async fn deleted_and_expired_files_are_removed_from_the_trash() {
        let (folder, store) = (tempfile::tempdir().unwrap(), store().await);
        let files = Spool::open(folder.path(), 1 << 20, WEEK, &store).await.unwrap();
        let _held = files.keep(vec![image(b"deleted"), image(b"old")]).await.unwrap();
        let thrown = |bytes| folder.path().join(TRASH).join(ContentHash::of(bytes).to_hex());
        for bytes in [&b"deleted"[..], b"old"] {
            assert!(files.move_to_trash(ContentHash::of(bytes)) && thrown(bytes).exists());
        }
        files.delete_trashed(vec![ContentHash::of(b"deleted"), ContentHash::of(b"never there")]).await;
        assert!(!thrown(b"deleted").exists() && thrown(b"old").exists());
        assert_eq!(
            (files.empty_trash().await.unwrap(), empty_trash(folder.path(), Duration::ZERO).unwrap()),
            (0, 1)
        );
        assert!(!thrown(b"old").exists());
    }

    #[tokio::test]
    async fn a_folder_of_another_database_is_refused_and_left_unchanged() {
        let (folder, ours) = (tempfile::tempdir().unwrap(), store().await);
        let files = Spool::open(folder.path(), 1 << 20, WEEK, &ours).await.unwrap();
        let held = files.keep(vec![image(b"accepted")]).await.unwrap();
        let path = files.path(ContentHash::of(b"accepted"));
        // As if the process were killed: the released files are never processed.
        drop(held);
        drop(files);
        let other = store().await;
        let error = Spool::open(folder.path(), 1 << 20, WEEK, &other).await.err().expect("it is not its own");
        assert!(matches!(error, SpoolOpenError::OtherDatabase { .. }), "{error}");
        for word in ["store.url", "store.spool", "Nothing was changed"] {
            assert!(error.to_string().contains(word), "{error}");
        }
        assert!(path.exists());
    }

    #[tokio::test]
    async fn files_of_a_cancelled_request_are_deleted() {
        let (folder, store) = (tempfile::tempdir().unwrap(), store().await);
        let files = Spool::open(folder.path(), 1 << 20, WEEK, &store).await.unwrap();
        {
            let mut leaving = std::pin::pin!(files.keep(vec![image(b"a"), image(b"b")]));
            // Polled once, so that the write has begun.
            let begun =
                std::future::poll_fn(|context| std::task::Poll::Ready(leaving.as_mut().poll(context)));
            assert!(begun.await.is_pending());
        }
        let mut gone = Vec::new();
        while gone.len() < 2 {
            gone.extend(files.released().await);
        }
        files.delete_unreferenced(&store, &gone).await.unwrap();
        assert_eq!(files.used(), 0);
        assert!(!files.path(ContentHash::of(b"a")).exists() && !files.path(ContentHash::of(b"b")).exists());
    }

    #[tokio::test]
    async fn the_spool_stays_within_its_budget() {
        let (folder, store) = (tempfile::tempdir().unwrap(), store().await);
        let files = Spool::open(folder.path(), 4, WEEK, &store).await.unwrap();
        let held = files.keep(vec![image(b"abc")]).await.unwrap();
        assert!(matches!(files.keep(vec![image(b"de")]).await, Err(SpoolWriteError::Full(_))));
        assert!(files.keep(vec![image(b"abc")]).await.is_ok(), "an existing file costs nothing");
        assert_eq!(files.used(), 3);
        drop(held);
    }

    #[tokio::test]
    async fn a_file_that_grew_does_not_make_the_spool_full() {
        let (folder, store) = (tempfile::tempdir().unwrap(), store().await);
        let spool = Spool::open(folder.path(), 1 << 20, WEEK, &store).await.unwrap();
        let _guard = spool.keep(vec![image(b"image")]).await.unwrap();
        let hash = ContentHash::of(b"image");
        fs::write(spool.path(hash), [0; 100]).unwrap();
        spool.remove(hash);
        assert_eq!(spool.used(), 0);
    }

    #[tokio::test]
    async fn a_damaged_file_is_never_read_as_the_image() {
        let (folder, store) = (tempfile::tempdir().unwrap(), store().await);
        let files = Spool::open(folder.path(), 1 << 20, WEEK, &store).await.unwrap();
        let _held = files.keep(vec![image(b"image")]).await.unwrap();
        fs::write(files.path(ContentHash::of(b"image")), b"other").unwrap();
        assert!(matches!(files.read(ContentHash::of(b"image")).await, Err(SpoolReadError::Lost(_))));
    }

    #[tokio::test]
    async fn a_folder_in_use_is_refused_with_advice() {
        let (folder, store) = (tempfile::tempdir().unwrap(), store().await);
        let _first = Spool::open(folder.path(), 1 << 20, WEEK, &store).await.unwrap();
        let error = Spool::open(folder.path(), 1 << 20, WEEK, &store).await.err().expect("it is taken");
        assert!(
            matches!(&error, SpoolOpenError::Taken(_)) && error.to_string().contains("store.spool"),
            "{error}"
        );
    }
}
