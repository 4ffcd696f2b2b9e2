//! Makes a backup.
//!
//! The order matters, because the service goes on:
//!
//! 1. **Hold the spool.** From now on no file of it is deleted (`runs/spool/hold.rs`).
//! 2. **Snapshot the database.** Every file that a row of the snapshot needs exists, since files
//!    are written before rows; and it stays, since they are held.
//! 3. **Copy these files, and release the spool.** Files that are accepted meanwhile have no row
//!    in the snapshot and are not copied.
//! 4. **Copy the rows** of the same snapshot, which may take long and holds nothing up.
//! 5. **Write the manifest**, sync the file and give it its name. A backup that was interrupted
//!    has no manifest and another name.
//!
//! Without the hold neither order would do: with the database first, a sample that is scored
//! before its file is copied loses the file that its row needs; with the spool first, one that is
//! accepted in between does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, Metadata, TryLockError},
    io::{self, BufWriter, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::{
    BackupError, Manifest, SpoolPart, TablePart,
    manifest::{FORMAT, NAME},
};
use crate::{
    VERSION, clock,
    content::ContentHash,
    runs::{SpoolFolder, SpoolHold},
    store::{Snapshot, StoreError, TableShape},
};

/// Bytes of rows that are collected before they are compressed.
const CHUNK: usize = 256 << 10;

/// Makes a backup of the database at `url` and these spool folders of its instances.
///
/// `to` is the archive, or a folder in which it is named by the time. Returns its path.
///
/// # Errors
/// The archive exists, a spool folder belongs to another database, or something cannot be read or
/// written.
pub async fn create(
    url: &str,
    spools: &[PathBuf],
    to: &Path,
) -> Result<(PathBuf, Manifest), BackupError> {
    let now = clock::now().replace_nanosecond(0).expect("0 is in range");
    let path = if to.is_dir() { to.join(file_name(now)) } else { to.to_owned() };
    if path.exists() {
        return Err(BackupError::Exists(path));
    }
    let mut holds = Vec::new();
    let mut folders = Vec::new();
    for root in spools {
        let folder = SpoolFolder::new(root);
        // Before the first start there is none.
        if folder.id().map_err(at(root))?.is_none() {
            continue;
        }
        holds.push(SpoolHold::acquire(root).await.map_err(at(root))?);
        folders.push(folder);
    }
    let mut snapshot = Snapshot::open(url).await?;
    let installation = snapshot.installation().await?;
    let mut archive = Partial::begin(&path)?;
    let spool = {
        let needed = snapshot.files().await?;
        let spool = archive.spool(&folders, needed, installation.as_deref())?;
        drop(holds);
        spool
    };
    let mut tables = Vec::new();
    for table in snapshot.tables() {
        tables.push(archive.table(&mut snapshot, table).await?);
    }
    let manifest = Manifest {
        format: FORMAT,
        version: VERSION.to_owned(),
        created: now.format(&Rfc3339).unwrap_or_default(),
        database: snapshot.kind().to_owned(),
        schema: snapshot.schema(),
        installation,
        tables,
        spool,
    };
    archive.finish(&manifest)?;
    Ok((path, manifest))
}

/// Names sort by time.
fn file_name(now: OffsetDateTime) -> String {
    let (date, time) = (now.date(), now.time());
    format!(
        "stellar-{:04}{:02}{:02}T{:02}{:02}{:02}Z.zip",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// Locks a file that was opened under this name.
///
/// Another backup may have completed or removed it since: then it has another name, or none, and
/// must not be emptied.
fn take(file: &File, name: &Path) -> io::Result<()> {
    let busy = || io::Error::new(io::ErrorKind::WouldBlock, "another backup is writing this file");
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(busy()),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let identity = |of: Metadata| (of.dev(), of.ino());
    let named = name.symlink_metadata().map(identity);
    if named.is_ok_and(|named| file.metadata().is_ok_and(|of| identity(of) == named)) {
        Ok(())
    } else {
        Err(busy())
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> BackupError + use<> {
    let path = path.to_owned();
    move |source| BackupError::Io { path: path.clone(), source }
}

/// An archive under a temporary name, removed when it is dropped unfinished.
struct Partial {
    path: PathBuf,
    temporary: PathBuf,
    zip: Option<ZipWriter<BufWriter<File>>>,
    is_in_place: bool,
}

impl Partial {
    fn begin(path: &Path) -> Result<Self, BackupError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let temporary = path.with_file_name(name);
        // The archive contains personal data, so only its owner may read it. A file that a killed
        // backup left behind is overwritten.
        let file = File::options()
            .create(true)
            .write(true)
            // Another backup may be writing it: it is emptied only under the lock.
            .truncate(false)
            .mode(0o600)
            .open(&temporary)
            .map_err(at(&temporary))?;
        take(&file, &temporary).map_err(at(&temporary))?;
        if path.exists() {
            let _ = fs::remove_file(&temporary);
            return Err(BackupError::Exists(path.to_owned()));
        }
        file.set_len(0).map_err(at(&temporary))?;
        let zip = Some(ZipWriter::new(BufWriter::with_capacity(1 << 20, file)));
        Ok(Self { path: path.to_owned(), temporary, zip, is_in_place: false })
    }

    fn failed(&self) -> impl Fn(zip::result::ZipError) -> BackupError + use<> {
        let of_file = at(&self.temporary);
        move |error| of_file(error.into())
    }

    fn zip(&mut self) -> &mut ZipWriter<BufWriter<File>> {
        self.zip.as_mut().expect("it is there until it is finished")
    }

    /// Begins a part.
    fn part(&mut self, name: &str, method: CompressionMethod) -> Result<(), BackupError> {
        let options = SimpleFileOptions::default()
            .compression_method(method)
            .unix_permissions(0o600)
            // The size of a table is not known beforehand.
            .large_file(true);
        let failed = self.failed();
        self.zip().start_file(name, options).map_err(failed)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        let failed = at(&self.temporary);
        self.zip().write_all(bytes).map_err(failed)
    }

    /// Copies the needed files of these folders.
    fn spool(
        &mut self,
        folders: &[SpoolFolder],
        mut needed: BTreeMap<String, BTreeSet<ContentHash>>,
        installation: Option<&str>,
    ) -> Result<SpoolPart, BackupError> {
        let mut part = SpoolPart::default();
        let mut written = BTreeSet::new();
        for folder in folders {
            let failed = at(folder.path());
            let theirs = folder.database().map_err(&failed)?;
            if let (Some(theirs), Some(ours)) = (theirs, installation)
                && theirs != ours
            {
                let folder = folder.path().to_owned();
                return Err(BackupError::OtherDatabase { folder, theirs, ours: ours.to_owned() });
            }
            let Some(id) = folder.id().map_err(&failed)? else { continue };
            for file in needed.remove(&id).unwrap_or_default() {
                if written.contains(&file) {
                    continue;
                }
                match folder.read(file).map_err(&failed)? {
                    Some(bytes) => {
                        // Images are compressed already.
                        self.part(&SpoolPart::path(file), CompressionMethod::Stored)?;
                        self.write(&bytes)?;
                        part.files += 1;
                        part.bytes += bytes.len() as u64;
                        written.insert(file);
                    }
                    None => part.missing.push(file.to_hex()),
                }
            }
            part.folders.push(id);
        }
        part.elsewhere = needed.into_iter().map(|(id, files)| (id, files.len() as u64)).collect();
        Ok(part)
    }

    /// Copies the rows of a table.
    async fn table(
        &mut self,
        snapshot: &mut Snapshot,
        table: TableShape,
    ) -> Result<TablePart, BackupError> {
        self.part(&TablePart::path(&table.name), CompressionMethod::Deflated)?;
        let mut hasher = blake3::Hasher::new();
        let (mut rows, mut chunk, mut failure) = (0, Vec::with_capacity(CHUNK), None);
        let copied = snapshot
            .rows(&table.name, |cells| {
                serde_json::to_writer(&mut chunk, cells).expect("cells are JSON");
                chunk.push(b'\n');
                rows += 1;
                if chunk.len() < CHUNK {
                    return Ok(());
                }
                hasher.update(&chunk);
                let written = self.write(&chunk);
                chunk.clear();
                written.map_err(|error| {
                    let reason = error.to_string();
                    failure = Some(error);
                    StoreError::invalid("the backup", reason)
                })
            })
            .await;
        if let Some(failure) = failure {
            return Err(failure);
        }
        copied?;
        hasher.update(&chunk);
        self.write(&chunk)?;
        let blake3 = hasher.finalize().to_hex().to_string();
        Ok(TablePart { name: table.name, columns: table.columns, rows, blake3 })
    }

    fn finish(mut self, manifest: &Manifest) -> Result<(), BackupError> {
        self.part(NAME, CompressionMethod::Deflated)?;
        let json = serde_json::to_vec_pretty(manifest).expect("a manifest is JSON");
        self.write(&json)?;
        let zip = self.zip.take().expect("it is finished once");
        let file = zip.finish().map_err(self.failed())?;
        let file = file.into_inner().map_err(|error| at(&self.temporary)(error.into_error()))?;
        file.sync_all().map_err(at(&self.temporary))?;
        fs::rename(&self.temporary, &self.path).map_err(at(&self.path))?;
        self.is_in_place = true;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.is_in_place {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_another_backup_writes_or_has_completed_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (partial, whole) = (folder.path().join("a.zip.partial"), folder.path().join("a.zip"));
        let first = File::create(&partial).unwrap();
        take(&first, &partial).unwrap();
        let second = File::options().write(true).open(&partial).unwrap();
        let error = take(&second, &partial).unwrap_err();
        assert!(error.to_string().contains("another backup"), "{error}");
        fs::rename(&partial, &whole).unwrap();
        drop(first);
        assert!(take(&second, &partial).is_err(), "it is the finished archive of the other one");
        assert!(take(&second, &whole).is_ok());
    }
}
