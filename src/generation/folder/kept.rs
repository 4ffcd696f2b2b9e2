//! Images that a folder has, and whether they are of this dataset and its photos.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::error::FolderError;
use super::inputs;
use super::plan::Job;
use super::settings::FolderSettings;

/// Digest of each photo with its mask, or of its learned words, by the photo's path in
/// descriptions. What cannot be read has none.
pub(super) type Digests = BTreeMap<String, String>;

/// Returns the files of a folder that `submit` would read.
pub(super) fn visible(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Returns whether a file is named like an image or its description.
pub(super) fn is_of_an_image(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "png" || ending == "json")
}

/// Returns the files of a job: image and description.
pub(super) fn files(folder: &Path, job: &Job) -> [PathBuf; 2] {
    [".png", ".json"].map(|ending| folder.join(format!("{}{ending}", job.name)))
}

/// Returns whether an image is there with its description.
pub(super) fn is_there(folder: &Path, job: &Job) -> bool {
    files(folder, job).iter().all(|file| file.is_file())
}

/// Returns the jobs of the plan whose images are there.
///
/// # Errors
/// An image is of no job of the plan, or was made from something else than its job.
pub(super) fn kept<'a>(
    folder: &Path,
    settings: &FolderSettings,
    plan: &'a [Job],
    visible: &[PathBuf],
) -> Result<Vec<&'a Job>, FolderError> {
    let by_name: HashMap<&str, &Job> = plan.iter().map(|job| (job.name.as_str(), job)).collect();
    let mut kept = Vec::new();
    for path in visible.iter().filter(|path| is_of_an_image(path)) {
        let name = path.file_stem().and_then(|name| name.to_str());
        let Some(&job) = name.and_then(|name| by_name.get(name)) else {
            return Err(FolderError::OtherDataset(path.clone()));
        };
        let is_image = path.extension().is_some_and(|ending| ending == "png");
        if is_image && is_there(folder, job) {
            check(folder, settings, job)?;
            kept.push(job);
        }
    }
    Ok(kept)
}

/// Compares the description of an image with its job.
fn check(folder: &Path, settings: &FolderSettings, job: &Job) -> Result<(), FolderError> {
    let [_, json] = files(folder, job);
    let text = crate::read::text(&json)
        .map_err(|source| FolderError::Io { path: json.clone(), source })?;
    let about: Value = serde_json::from_str(&text).unwrap_or_default();
    let is_it = about["index"] == job.index
        && about["prompt"] == job.prompt.as_str()
        && about["image_path"] == job.image_path.as_str()
        && about["model_seed"] == settings.of(job).seed;
    if is_it { Ok(()) } else { Err(FolderError::Changed(json)) }
}

/// Returns the digests of all photos that the folder has images of, and of those that are wanted.
///
/// `stored` are the digests when the images that are kept were made. A photo without images may
/// have another digest than before: it may have been damaged.
///
/// # Errors
/// A photo or its mask is another one than that of an image that is kept.
pub(super) fn digests(
    stored: &Digests,
    kept: &[&Job],
    wanted: &[Job],
) -> Result<Digests, FolderError> {
    let mut digests = Digests::new();
    for job in kept {
        if digests.contains_key(&job.image_path) {
            continue;
        }
        let before = stored.get(&job.image_path);
        let now = inputs::read(job).ok().map(|inputs| inputs.digest());
        match (before, now) {
            (Some(before), Some(now)) if *before == now => {
                digests.insert(job.image_path.clone(), now);
            }
            // It cannot be read any more. What was made from it stays; what is left will fail.
            (Some(before), None) => {
                digests.insert(job.image_path.clone(), before.clone());
            }
            _ => {
                let of = job.words.as_ref().unwrap_or(&job.photo);
                return Err(FolderError::OtherPhoto(of.clone()));
            }
        }
    }
    for job in wanted {
        if digests.contains_key(&job.image_path) {
            continue;
        }
        if let Ok(inputs) = inputs::read(job) {
            digests.insert(job.image_path.clone(), inputs.digest());
        }
    }
    Ok(digests)
}
