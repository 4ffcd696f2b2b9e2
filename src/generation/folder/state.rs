//! The settings of a folder. All of its images have the same ones.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use super::error::FolderError;
use super::file::write_file;
use super::plan::Selection;
use crate::generation::Settings;
use crate::pack_id::PackId;

/// Name of the file with the settings. Our commands ignore hidden files; the toolkit reads them too
/// if they end like an image or its description, so this one has no ending.
pub const STATE: &str = ".generation";

/// Name of the file that a running command locks.
const LOCK: &str = ".generation-lock";

/// The toolkit's format of a time.
const TIME: &[BorrowedFormatItem] =
    format_description!("[year][month][day]_[hour][minute][second]");

/// What all images of a folder have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderSettings {
    /// The pack with the weights.
    pub pack: PackId,
    /// Name of the method.
    pub method: String,
    /// Which images are generated.
    pub selection: Selection,
    /// Seed, steps, guidance and size.
    pub settings: Settings,
    /// Whether every image has a seed of its own, from the seed and its name.
    pub seed_by_name: bool,
    /// What the images must not show.
    pub negative_prompt: Option<String>,
}

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
    /// Locked until this is dropped, or the process ends.
    _lock: File,
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    schema: u32,
    begun: String,
    settings: Value,
}

impl FolderState {
    /// Opens a folder to write images with these settings, and creates it if needed.
    ///
    /// # Errors
    /// Another process writes it, it has images of other settings, or it cannot be written.
    pub fn open(folder: &Path, settings: FolderSettings) -> Result<Self, FolderError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| FolderError::Io { path, source }
        };
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
        let lock_path = folder.join(LOCK);
        let lock = File::options().create(true).append(true).open(&lock_path);
        let lock = lock.map_err(failed(&lock_path))?;
        if let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            return Err(match error {
                rustix::io::Errno::WOULDBLOCK => FolderError::Busy(folder.to_owned()),
                error => FolderError::Io { path: lock_path, source: error.into() },
            });
        }
        let path = folder.join(STATE);
        let wanted = serde_json::to_value(&settings).expect("plain data always serialises");
        let begun = match crate::read::text(&path) {
            Ok(text) => {
                let invalid = |problem: String| FolderError::State { path: path.clone(), problem };
                let stored: Stored =
                    serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
                if stored.schema != 1 {
                    return Err(invalid(format!("schema {} is not 1", stored.schema)));
                }
                if stored.settings != wanted {
                    return Err(FolderError::Other {
                        folder: folder.to_owned(),
                        differences: differences("", &stored.settings, &wanted).join(", "),
                    });
                }
                stored.begun
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if has_images(folder).map_err(failed(folder))? {
                    return Err(FolderError::Foreign(folder.to_owned()));
                }
                let begun =
                    OffsetDateTime::now_utc().format(TIME).expect("the format has no time zone");
                let stored = Stored { schema: 1, begun: begun.clone(), settings: wanted };
                let mut text =
                    serde_json::to_vec_pretty(&stored).expect("plain data always serialises");
                text.push(b'\n');
                write_file(&path, &text).map_err(failed(&path))?;
                begun
            }
            Err(source) => return Err(FolderError::Io { path, source }),
        };
        Ok(Self { folder: folder.to_owned(), settings, begun, _lock: lock })
    }
}

/// Returns whether a folder has files that `submit` would read.
fn has_images(folder: &Path) -> io::Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        if !entry?.file_name().to_string_lossy().starts_with('.') {
            return Ok(true);
        }
    }
    Ok(false)
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
