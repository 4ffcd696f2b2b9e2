//! The spool folder as commands see it: beside a running service, or before one uses it.

use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use super::disk::TRASH;
use crate::{
    blobs::{list, path_of, write_new},
    content::ContentHash,
};

/// A spool folder that another process may use.
#[derive(Clone, Debug)]
pub struct SpoolFolder {
    root: PathBuf,
}

/// A spool folder that this process fills. No service can start with it meanwhile.
pub struct EmptySpool {
    root: PathBuf,
    made: BTreeSet<PathBuf>,
    written: Vec<PathBuf>,
    kept: bool,
    _lock: File,
}

impl SpoolFolder {
    /// Names a folder, which need not exist.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Returns the path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Returns the id by which the database knows the folder; `None` before its first use.
    pub fn id(&self) -> io::Result<Option<String>> {
        self.note("id")
    }

    /// Returns the id of the database that the folder belongs to; `None` before its first use.
    pub fn database(&self) -> io::Result<Option<String>> {
        self.note("database")
    }

    fn note(&self, name: &str) -> io::Result<Option<String>> {
        match fs::read_to_string(self.root.join(name)) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a file; `None` if it is missing or damaged.
    pub fn read(&self, file: ContentHash) -> io::Result<Option<Vec<u8>>> {
        match fs::read(path_of(&self.root, file)) {
            Ok(bytes) => Ok(Some(bytes).filter(|bytes| ContentHash::of(bytes) == file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the number of files and their size in bytes. Changes nothing.
    pub fn contents(&self) -> io::Result<(usize, u64)> {
        let files = list(&self.root, false)?;
        Ok((files.len(), files.iter().map(|file| file.bytes).sum()))
    }

    /// Returns whether a process uses the folder.
    pub fn is_in_use(&self) -> io::Result<bool> {
        let lock = match File::open(self.root.join("lock")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened?,
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Takes the folder to fill it; `None` if it has files or a process uses it.
    pub fn fill(&self) -> io::Result<Option<EmptySpool>> {
        fs::create_dir_all(&self.root)?;
        let lock = File::create(self.root.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let files = list(&self.root, true)?;
        if !files.is_empty() || self.root.join(TRASH).exists() {
            return Ok(None);
        }
        let root = self.root.clone();
        Ok(Some(EmptySpool {
            root,
            made: BTreeSet::new(),
            written: Vec::new(),
            kept: false,
            _lock: lock,
        }))
    }
}

impl EmptySpool {
    /// Writes a file durably.
    pub fn write(&mut self, file: ContentHash, bytes: &[u8]) -> io::Result<()> {
        let path = path_of(&self.root, file);
        let folder = path.parent().expect("every file is in a folder").to_owned();
        if self.made.insert(folder.clone()) {
            fs::create_dir_all(&folder)?;
        }
        self.written.push(path.clone());
        write_new(&self.root, &path, bytes).map(drop)
    }

    /// Writes the ids of the folder and its database, and makes all that was written durable.
    pub fn belong(&mut self, id: &str, database: &str) -> io::Result<()> {
        for (name, text) in [("id", id), ("database", database)] {
            let path = self.root.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            write_new(&self.root, &path, text.as_bytes())?;
            self.written.push(path);
        }
        self.made.iter().chain([&self.root]).try_for_each(|folder| File::open(folder)?.sync_all())
    }

    /// Leaves the files in the folder. Otherwise they are removed when this is dropped.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for EmptySpool {
    fn drop(&mut self) {
        if !self.kept {
            for path in &self.written {
                let _ = fs::remove_file(path);
            }
        }
    }
}
