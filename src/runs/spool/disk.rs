//! The folder of the spool: creates and locks it, and keeps its trash.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use uuid::Uuid;

use super::error::SpoolOpenError;
use crate::{
    blobs::{path_of, write_new},
    content::ContentHash,
};

/// Subfolder for files that the database does not name.
pub(super) const TRASH: &str = "trash";

/// Creates and locks the folder, and reads or generates its id.
pub(super) fn prepare(root: &Path) -> Result<(String, File), SpoolOpenError> {
    let unusable = |error| SpoolOpenError::Io(root.to_owned(), error);
    fs::create_dir_all(root).map_err(unusable)?;
    let lock = File::create(root.join("lock")).map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(SpoolOpenError::Taken(root.to_owned())),
        Err(TryLockError::Error(error)) => return Err(unusable(error)),
    }
    super::hold::create(root).map_err(unusable)?;
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
pub(super) fn in_trash(root: &Path) -> io::Result<Vec<ContentHash>> {
    let names = trash_entries(root)?.into_iter().map(|entry| entry.file_name());
    Ok(names.filter_map(|name| ContentHash::from_hex(&name.to_string_lossy())).collect())
}

/// Deletes files that have been in the trash for at least `after`, and returns their number.
pub(super) fn empty_trash(root: &Path, after: Duration) -> io::Result<usize> {
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

/// Moves a file to the trash, and returns its size. Its retention starts now.
pub(super) fn to_trash(root: &Path, file: ContentHash) -> io::Result<u64> {
    let (path, trash) = (path_of(root, file), root.join(TRASH));
    let size = path.metadata()?.len();
    fs::create_dir_all(&trash)?;
    let trashed = trash.join(file.to_hex());
    fs::rename(&path, &trashed)?;
    File::options().append(true).open(trashed)?.set_modified(SystemTime::now())?;
    Ok(size)
}
