//! The file with the settings of a folder and the digests of its photos. All images have the same
//! settings.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::{format_description::BorrowedFormatItem, macros::format_description};

use super::error::FolderError;
use super::kept::{self, Digests};
use super::plan::Job;
use super::settings::FolderSettings;
use crate::clock;

/// Name of the file with the settings. Our commands ignore hidden files; the toolkit reads them too
/// if they end like an image or its description, so this one has no ending.
pub const STATE: &str = ".generation";

/// Name of the file that a running command locks.
const LOCK: &str = ".generation-lock";

/// Version of the file. Version 1 had no photos.
const SCHEMA: u32 = 2;

/// The toolkit's format of a time.
const TIME: &[BorrowedFormatItem] =
    format_description!("[year][month][day]_[hour][minute][second]");

/// A folder that this process writes, and no other.
#[derive(Debug)]
pub struct FolderState {
    /// The folder.
    pub folder: PathBuf,
    /// The settings of its images.
    pub settings: FolderSettings,
    /// When the first command began, in the toolkit's format. All descriptions have it, so that an
    /// interrupted folder ends with the same bytes.
    pub begun: String,
    /// Digests of the photos that images are made from.
    pub(super) photos: Digests,
    /// Locked until this is dropped, or the process ends.
    _lock: File,
}

/// The version of the file, which is read before its other keys.
#[derive(Deserialize)]
struct Version {
    schema: u32,
}

/// The file.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    schema: u32,
    begun: String,
    settings: Value,
    photos: Digests,
}

impl FolderState {
    /// Opens a folder to write images with these settings, and creates it if needed.
    ///
    /// `plan` are all images of the dataset, and `wanted` those of them that are written now. Every
    /// image that is there must be one of the plan, made from the same prompt, photo and mask. The
    /// photos of `wanted` and of images that are there are read once.
    ///
    /// The settings of a folder without images are replaced: nothing depends on them.
    ///
    /// # Errors
    /// Another process writes it, it has images of other settings or of another dataset, or it
    /// cannot be written.
    pub fn open(
        folder: &Path,
        settings: FolderSettings,
        plan: &[Job],
        wanted: &[Job],
    ) -> Result<Self, FolderError> {
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
        let lock = lock(folder)?;
        let visible = kept::visible(folder).map_err(failed(folder))?;
        let before = stored(folder, &visible)?;
        let value = serde_json::to_value(&settings).expect("plain data always serialises");
        if let Some(before) = before.as_ref().filter(|before| before.settings != value) {
            return Err(FolderError::Other {
                folder: folder.to_owned(),
                differences: differences("", &before.settings, &value).join(", "),
            });
        }
        let kept = kept::kept(folder, &settings, plan, &visible)?;
        let (begun, photos) = match &before {
            Some(before) => (before.begun.clone(), kept::digests(&before.photos, &kept, wanted)?),
            None => (now(), kept::digests(&Digests::new(), &kept, wanted)?),
        };
        let after = Stored { schema: SCHEMA, begun, settings: value, photos };
        if before.as_ref() != Some(&after) {
            let path = folder.join(STATE);
            let mut text = serde_json::to_vec_pretty(&after).expect("plain data always serialises");
            text.push(b'\n');
            crate::write::file(&path, &text).map_err(failed(&path))?;
        }
        let Stored { begun, photos, .. } = after;
        Ok(Self { folder: folder.to_owned(), settings, begun, photos, _lock: lock })
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> FolderError + use<> {
    let path = path.to_owned();
    move |source| FolderError::Io { path, source }
}

fn now() -> String {
    clock::now().format(TIME).expect("the format has no time zone")
}

/// Locks a folder against other processes.
fn lock(folder: &Path) -> Result<File, FolderError> {
    let path = folder.join(LOCK);
    let lock = File::options().create(true).append(true).open(&path).map_err(failed(&path))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(FolderError::Busy(folder.to_owned())),
        Err(error) => Err(FolderError::Io { path, source: error.into() }),
    }
}

/// Reads the file of a folder with these visible files; `None` if the folder has no images yet.
fn stored(folder: &Path, visible: &[PathBuf]) -> Result<Option<Stored>, FolderError> {
    let path = folder.join(STATE);
    let text = match crate::read::text(&path) {
        Ok(_) if !visible.iter().any(|file| kept::is_of_an_image(file)) => return Ok(None),
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && visible.is_empty() => {
            return Ok(None);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(FolderError::Foreign(folder.to_owned()));
        }
        Err(source) => return Err(FolderError::Io { path, source }),
    };
    let invalid = |problem: String| FolderError::State { path: path.clone(), problem };
    let version: Version =
        serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
    if version.schema != SCHEMA {
        return Err(invalid(format!("schema {} is not {SCHEMA}", version.schema)));
    }
    let mut stored: Stored =
        serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
    if let Some(settings) = stored.settings.as_object_mut() {
        // Folders of earlier versions do not say it.
        settings.entry("people").or_insert_with(|| "photos".into());
    }
    Ok(Some(stored))
}

/// Returns the keys whose values differ, with both values.
fn differences(prefix: &str, there: &Value, wanted: &Value) -> Vec<String> {
    let (Value::Object(there), Value::Object(wanted)) = (there, wanted) else {
        return if there == wanted {
            Vec::new()
        } else {
            vec![format!("{prefix} is {there} there and {wanted} here")]
        };
    };
    let mut keys: Vec<_> = there.keys().chain(wanted.keys()).collect();
    keys.sort();
    keys.dedup();
    let value =
        |map: &serde_json::Map<String, Value>, key| map.get(key).cloned().unwrap_or(Value::Null);
    keys.into_iter()
        .flat_map(|key| {
            let dot = if prefix.is_empty() { "" } else { "." };
            let name = format!("{prefix}{dot}{key}");
            differences(&name, &value(there, key), &value(wanted, key))
        })
        .collect()
}
