//! Reads a backup, verifies it, and restores it.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
};

use zip::ZipArchive;

use super::{
    BackupError, Manifest, SpoolPart, TablePart,
    manifest::{FORMAT, NAME},
};
use crate::{
    content::ContentHash,
    runs::{EmptySpool, SpoolFolder},
    store::{Cell, Restoration, Store, StoreOptions},
};

/// Most bytes of a manifest: a thousand tables, or a million missing files.
const MANIFEST: u64 = 128 << 20;

/// Most bytes of a row or a spooled file.
const LARGEST: u64 = 1 << 30;

/// A verified backup.
pub struct Archive {
    path: PathBuf,
    zip: ZipArchive<BufReader<File>>,
    manifest: Manifest,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Number of rows of all tables.
    pub rows: u64,
    /// Number of files of the spool.
    pub files: u64,
}

impl Archive {
    /// Opens a backup and verifies every part of it.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or has a newer format.
    pub fn open(path: &Path) -> Result<Self, BackupError> {
        let file =
            File::open(path).map_err(|source| BackupError::Io { path: path.to_owned(), source })?;
        let mut zip =
            ZipArchive::new(BufReader::with_capacity(1 << 20, file)).map_err(|error| {
                BackupError::Damaged { path: path.to_owned(), problem: error.to_string() }
            })?;
        let manifest = manifest(path, &mut zip)?;
        let mut archive = Self { path: path.to_owned(), zip, manifest };
        archive.verify()?;
        Ok(archive)
    }

    /// Returns what the backup contains.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn damaged(&self, problem: impl Into<String>) -> BackupError {
        BackupError::Damaged { path: self.path.clone(), problem: problem.into() }
    }

    fn verify(&mut self) -> Result<(), BackupError> {
        for table in self.manifest.tables.clone() {
            let name = TablePart::path(&table.name);
            let (mut hasher, mut rows) = (blake3::Hasher::new(), 0);
            self.chunks(&name, u64::MAX, |chunk| {
                hasher.update(chunk);
                rows += chunk.split(|byte| *byte == b'\n').count() as u64 - 1;
            })?;
            if hasher.finalize().to_hex().as_str() != table.blake3 || rows != table.rows {
                return Err(self.damaged(format!("{name} is not what the manifest says")));
            }
        }
        let (mut count, mut size) = (0, 0);
        for file in self.files()? {
            let mut hasher = blake3::Hasher::new();
            self.chunks(&SpoolPart::path(file), LARGEST, |chunk| {
                hasher.update(chunk);
                size += chunk.len() as u64;
            })?;
            if hasher.finalize().as_bytes() != file.as_bytes() {
                return Err(self.damaged(format!("the file {file} is not what its name says")));
            }
            count += 1;
        }
        let spool = &self.manifest.spool;
        if (count, size) != (spool.files, spool.bytes) {
            return Err(self.damaged(format!("it has {count} files of {}", spool.files)));
        }
        Ok(())
    }

    /// Reads a part of at most `most` bytes piece by piece.
    fn chunks(
        &mut self,
        name: &str,
        most: u64,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), BackupError> {
        let (mut chunk, mut left) = (vec![0; 256 << 10], most);
        let problem = match self.zip.by_name(name) {
            Err(error) => format!("{name}: {error}"),
            Ok(mut part) => loop {
                match part.read(&mut chunk) {
                    Ok(0) => return Ok(()),
                    Ok(read) if read as u64 > left => break format!("{name} is too large"),
                    Ok(read) => {
                        left -= read as u64;
                        take(&chunk[..read]);
                    }
                    Err(error) => break format!("{name}: {error}"),
                }
            },
        };
        Err(self.damaged(problem))
    }

    /// Returns the files of the spool.
    fn files(&self) -> Result<Vec<ContentHash>, BackupError> {
        let mut files = Vec::new();
        for name in self.zip.file_names() {
            let name = name.map_err(|error| self.damaged(error.to_string()))?;
            let Some(hash) = name.strip_prefix(SpoolPart::PREFIX) else { continue };
            let hash = ContentHash::from_hex(hash);
            files.push(hash.ok_or_else(|| self.damaged(format!("it has an entry {name:?}")))?);
        }
        Ok(files)
    }

    /// Restores everything into an empty database and an empty spool folder.
    ///
    /// Files are durable before the rows that need them are committed, as in the service. If
    /// anything fails before that, files and rows are removed.
    ///
    /// # Errors
    /// The database or the folder is not empty, the schema is newer than this program, or
    /// something cannot be written.
    pub async fn restore(mut self, url: &str, spool: &Path) -> Result<Restored, BackupError> {
        let mut restoration = Restoration::begin(url, self.manifest.schema).await?;
        let filled = self.fill(spool)?;
        let mut rows = 0;
        for table in restoration.order().to_vec() {
            let part = self.manifest.tables.iter().find(|part| part.name == table).cloned();
            let Some(part) = part else { continue };
            rows += self.insert(&mut restoration, &part).await?;
        }
        let total: u64 = self.manifest.tables.iter().map(|part| part.rows).sum();
        if rows != total {
            return Err(self.damaged(format!("{rows} of {total} rows belong to its schema")));
        }
        if let [first, others @ ..] = &self.manifest.spool.folders[..] {
            restoration.merge_spools(others, first).await?;
        }
        restoration.commit().await?;
        if let Some(filled) = filled {
            filled.keep();
        }
        // Applies the migrations since.
        Store::open(url, &StoreOptions::default()).await?.close().await;
        Ok(Restored { rows, files: self.manifest.spool.files })
    }

    /// Writes the files of the spool. The folder gets the id under which rows know it.
    fn fill(&mut self, spool: &Path) -> Result<Option<EmptySpool>, BackupError> {
        let failed = |source| BackupError::Io { path: spool.to_owned(), source };
        let (Some(id), Some(installation)) =
            (self.manifest.spool.folders.first().cloned(), self.manifest.installation.clone())
        else {
            return Ok(None);
        };
        let folder = SpoolFolder::new(spool).fill().map_err(failed)?;
        let Some(mut folder) = folder else {
            return Err(BackupError::SpoolNotEmpty(spool.to_owned()));
        };
        for file in self.files()? {
            let mut bytes = Vec::new();
            self.chunks(&SpoolPart::path(file), LARGEST, |chunk| {
                bytes.extend_from_slice(chunk);
            })?;
            folder.write(file, &bytes).map_err(failed)?;
        }
        folder.belong(&id, &installation).map_err(failed)?;
        Ok(Some(folder))
    }

    async fn insert(
        &mut self,
        restoration: &mut Restoration,
        table: &TablePart,
    ) -> Result<u64, BackupError> {
        let name = TablePart::path(&table.name);
        let wrong = |path: &Path, problem: String| BackupError::Damaged {
            path: path.to_owned(),
            problem: format!("{name}: {problem}"),
        };
        let path = self.path.clone();
        let part = self.zip.by_name(&name).map_err(|error| wrong(&path, error.to_string()))?;
        let mut lines = BufReader::with_capacity(256 << 10, part);
        let mut line = Vec::new();
        let next = || -> Result<Option<Vec<Cell>>, BackupError> {
            line.clear();
            let read = (&mut lines).take(LARGEST).read_until(b'\n', &mut line);
            if read.map_err(|error| wrong(&path, error.to_string()))? == 0 {
                return Ok(None);
            }
            let row = serde_json::from_slice(&line);
            Ok(Some(row.map_err(|error| wrong(&path, error.to_string()))?))
        };
        restoration.insert(&table.name, &table.columns, next).await
    }
}

/// Reads the manifest, and refuses formats that this program does not know.
fn manifest(path: &Path, zip: &mut ZipArchive<BufReader<File>>) -> Result<Manifest, BackupError> {
    let damaged = |problem: String| BackupError::Damaged { path: path.to_owned(), problem };
    let part = zip.by_name(NAME).map_err(|error| damaged(format!("{NAME}: {error}")))?;
    let mut text = Vec::new();
    part.take(MANIFEST)
        .read_to_end(&mut text)
        .map_err(|error| damaged(format!("{NAME}: {error}")))?;
    let value: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| damaged(format!("{NAME}: {error}")))?;
    let found = value["format"].as_u64().and_then(|format| u32::try_from(format).ok());
    let found = found.ok_or_else(|| damaged(format!("{NAME} names no format")))?;
    if found > FORMAT {
        return Err(BackupError::Format {
            path: path.to_owned(),
            found,
            version: value["version"].as_str().unwrap_or("unknown").to_owned(),
            known: FORMAT,
        });
    }
    serde_json::from_value(value).map_err(|error| damaged(format!("{NAME}: {error}")))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;

    /// Writes an archive without tables, with these files in the spool.
    fn archive(path: &Path, files: &[&[u8]]) {
        let mut zip = ZipWriter::new(File::create(path).unwrap());
        let mut part = |name: &str, bytes: &[u8]| {
            zip.start_file(name, SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        };
        for file in files {
            part(&SpoolPart::path(ContentHash::of(file)), file);
        }
        let spool = SpoolPart {
            files: files.len() as u64,
            bytes: files.iter().map(|file| file.len() as u64).sum(),
            ..SpoolPart::default()
        };
        let manifest = Manifest {
            format: FORMAT,
            version: "0".to_owned(),
            created: String::new(),
            database: "sqlite".to_owned(),
            schema: 1,
            installation: None,
            tables: Vec::new(),
            spool,
        };
        part(NAME, &serde_json::to_vec(&manifest).unwrap());
        zip.finish().unwrap();
    }

    #[test]
    fn a_part_is_never_read_beyond_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup.zip");
        let zeros = vec![0; 1 << 20];
        archive(&path, &[&zeros]);
        assert!(path.metadata().unwrap().len() < 10_000, "it is compressed");
        let mut archive = Archive::open(&path).unwrap();
        let name = SpoolPart::path(ContentHash::of(&zeros));
        let mut read = 0;
        archive.chunks(&name, 1 << 20, |chunk| read += chunk.len()).unwrap();
        assert_eq!(read, zeros.len());
        let error = archive.chunks(&name, (1 << 20) - 1, |_| ()).unwrap_err().to_string();
        assert!(error.contains("is too large"), "{error}");
    }
}
