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

/// How long files are deleted before a backup may begin. A part of them may take longer.
const TURN: Duration = Duration::from_millis(500);

/// How long a backup waits for deletions, which let it begin after each [`TURN`].
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
struct Deletion {
    _lock: Option<File>,
}

/// Returns the right to delete files; `None` while a backup reads them.
fn deletion(root: &Path) -> Option<Deletion> {
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

/// The right to delete many files, given up now and then so that a backup can begin.
pub(super) struct Turns<'a> {
    root: &'a Path,
    turn: Option<(Deletion, Instant)>,
}

impl<'a> Turns<'a> {
    pub(super) fn new(root: &'a Path) -> Self {
        Self { root, turn: None }
    }

    /// Returns whether files may be deleted until the next call; false while a backup reads them.
    pub(super) async fn next(&mut self) -> bool {
        if let Some((_, since)) = &self.turn {
            if since.elapsed() < TURN {
                return true;
            }
            self.turn = None;
            // A backup that waits looks at least once in this time.
            tokio::time::sleep(2 * EVERY).await;
        }
        self.turn = deletion(self.root).map(|deletion| (deletion, Instant::now()));
        self.turn.is_some()
    }
}
