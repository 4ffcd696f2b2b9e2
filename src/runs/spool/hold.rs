//! Keeps backups and the deletion of files apart, also between processes.
//!
//! A backup reads the database at one moment, and the files that its rows need afterwards. Files
//! are written before any row names them, so each of them existed at that moment. But the service
//! deletes a file as soon as its row is gone, which may be before the backup has read it. So a
//! backup holds the files: it locks a file of the folder shared, and a deletion locks it
//! exclusively. The operating system unlocks it if the backup is killed.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
    time::{Duration, Instant},
};

/// The locked file.
const FILE: &str = "backup.lock";

/// How often a lock is tried again.
const EVERY: Duration = Duration::from_millis(20);

/// How long a deletion may hold the lock: a thousand times as long as it takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// While it lives, no file of the folder is deleted.
pub struct SpoolHold {
    _lock: File,
}

impl SpoolHold {
    /// Holds the files of a spool folder, as soon as a deletion in progress ends.
    ///
    /// # Errors
    /// The folder does not exist or cannot be used.
    pub async fn acquire(root: &Path) -> io::Result<Self> {
        let path = root.join(FILE);
        // A backup may have no right to write. The service creates the file at its start.
        let lock = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(root)?,
            opened => opened?,
        };
        let started = Instant::now();
        loop {
            match lock.try_lock_shared() {
                Ok(()) => return Ok(Self { _lock: lock }),
                Err(TryLockError::WouldBlock) if started.elapsed() < PATIENCE => {
                    tokio::time::sleep(EVERY).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Creates the locked file.
pub(super) fn create(root: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).write(true).read(true).open(root.join(FILE))
}

/// While it lives, no backup begins.
pub(super) struct Deletion {
    _lock: Option<File>,
}

/// Returns the right to delete files; `None` while a backup reads them.
pub(super) fn deletion(root: &Path) -> Option<Deletion> {
    // Where files cannot be locked, a backup fails, so there is none to wait for.
    let Ok(lock) = File::open(root.join(FILE)) else { return Some(Deletion { _lock: None }) };
    match lock.try_lock() {
        Ok(()) => Some(Deletion { _lock: Some(lock) }),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Error(error)) => {
            tracing::debug!(%error, "failed to lock the spool against backups");
            Some(Deletion { _lock: None })
        }
    }
}

/// Waits for the right to delete files.
pub(super) async fn await_deletion(root: &Path) -> Deletion {
    let mut told = false;
    loop {
        if let Some(deletion) = deletion(root) {
            return deletion;
        }
        if !told {
            tracing::info!("waiting for a backup that reads the spool");
            told = true;
        }
        tokio::time::sleep(EVERY).await;
    }
}
