//! Files in a folder: written under a temporary name, synced, hard-linked to their final name, and
//! their subfolder synced.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    error::{ReadError, Unavailable, WriteError},
    interface::{Blobs, Entry},
    room::Room,
};
use crate::{blocking::blocking, content::ContentHash, sync::lock};

/// Files in a folder of this machine. The caller sees to it that no other process writes to it.
#[derive(Clone)]
pub(crate) struct Folder(Arc<Inner>);

struct Inner {
    root: PathBuf,
    room: Room,
    /// Subfolders that are known to exist and to be durable; at most 256.
    made: Mutex<BTreeSet<PathBuf>>,
}

impl Folder {
    /// Names a folder that exists. What it holds is not counted yet.
    pub(crate) fn new(root: PathBuf, limit: u64) -> Self {
        Self(Arc::new(Inner { root, room: Room::new(limit), made: Mutex::default() }))
    }

    pub(crate) fn path(&self, file: ContentHash) -> PathBuf {
        path_of(&self.0.root, file)
    }

    fn write(&self, file: ContentHash, bytes: &[u8]) -> Result<(), WriteError> {
        let path = self.path(file);
        let folder = path.parent().expect("every file is in a folder");
        if !path.exists() {
            let size = bytes.len() as u64;
            self.0.room.take(size)?;
            let written = self.make(folder).and_then(|()| write_new(&self.0.root, &path, bytes));
            if !matches!(written, Ok(true)) {
                self.0.room.subtract(size);
            }
            written?;
        }
        // Also if another request has just linked the file: that request may not have synced the
        // folder yet when this request's row is written.
        File::open(folder)?.sync_all()?;
        Ok(())
    }

    /// Creates a subfolder for files; it is durable when this returns.
    pub(crate) fn make(&self, folder: &Path) -> io::Result<()> {
        let mut made = lock(&self.0.made);
        if made.contains(folder) {
            return Ok(());
        }
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            // Also if it exists: an earlier process may have ended before it was synced.
            _ => File::open(&self.0.root)?.sync_all()?,
        }
        made.insert(folder.to_owned());
        Ok(())
    }

    fn read(&self, file: ContentHash) -> Result<Bytes, ReadError> {
        match fs::read(self.path(file)) {
            Ok(bytes) if ContentHash::of(&bytes) == file => Ok(bytes.into()),
            Ok(_) => {
                // Deleted, so that a client can send the file again.
                self.remove(file);
                Err(ReadError::Damaged(file))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ReadError::Absent(file)),
            Err(error) => Err(ReadError::Io(file, error)),
        }
    }

    /// Deletes a file. One that cannot be deleted is logged, and found again at the next start.
    pub(crate) fn remove(&self, file: ContentHash) {
        let path = self.path(file);
        let size = path.metadata().map(|metadata| metadata.len());
        match size.and_then(|size| fs::remove_file(&path).map(|()| size)) {
            Ok(size) => self.0.room.subtract(size),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, %file, "failed to delete an unreferenced file"),
        }
    }
}

#[async_trait]
impl Blobs for Folder {
    async fn put(&self, files: Vec<(ContentHash, Bytes)>) -> Result<(), WriteError> {
        let this = self.clone();
        blocking(move || files.iter().try_for_each(|(file, bytes)| this.write(*file, bytes))).await
    }

    async fn get(&self, file: ContentHash) -> Result<Bytes, ReadError> {
        let this = self.clone();
        blocking(move || this.read(file)).await
    }

    async fn delete(&self, files: &[ContentHash]) -> Result<(), Unavailable> {
        let (this, files) = (self.clone(), files.to_vec());
        blocking(move || files.into_iter().for_each(|file| this.remove(file))).await;
        Ok(())
    }

    fn list(&self) -> BoxStream<'_, Result<Entry, Unavailable>> {
        let root = self.0.root.clone();
        let listed = async move {
            let store = root.display().to_string();
            let listed = blocking(move || list(&root, false)).await;
            match listed.map_err(|error| Unavailable { store, why: error.to_string() }) {
                Ok(files) => stream::iter(files).map(Ok).boxed(),
                Err(error) => stream::iter([Err(error)]).boxed(),
            }
        };
        stream::once(listed).flatten().boxed()
    }

    fn room(&self) -> &Room {
        &self.0.room
    }
}

/// Returns the path of a file.
pub(crate) fn path_of(root: &Path, file: ContentHash) -> PathBuf {
    let hex = file.to_hex();
    root.join(&hex[..2]).join(&hex[2..])
}

/// Writes a file atomically, and returns whether it is new. The caller must sync its folder.
pub(crate) fn write_new(root: &Path, path: &Path, bytes: &[u8]) -> io::Result<bool> {
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

/// Lists the files of a folder. With `tidy`, partial writes of an earlier process are deleted.
pub(crate) fn list(root: &Path, tidy: bool) -> io::Result<Vec<Entry>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        if name.starts_with("new-") {
            if tidy {
                fs::remove_file(entry.path())?;
            }
        } else if name.len() == 2 && entry.file_type()?.is_dir() {
            for file in fs::read_dir(entry.path())? {
                let file = file?;
                let rest = file.file_name().into_string().unwrap_or_default();
                if let Some(hash) = ContentHash::from_hex(&format!("{name}{rest}")) {
                    // A running service deletes files meanwhile.
                    let Ok(metadata) = file.metadata() else { continue };
                    let modified = metadata.modified().map(OffsetDateTime::from)?;
                    files.push(Entry { file: hash, bytes: metadata.len(), modified });
                }
            }
        }
    }
    Ok(files)
}
