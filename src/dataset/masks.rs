//! Masks that a dataset's photos lack.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::contents::Dataset;

/// A photo without a mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingMask {
    /// File of the photo.
    pub photo: PathBuf,
    /// Where its mask belongs.
    pub mask: PathBuf,
}

/// Photos that have no mask, each once.
#[derive(Debug, Default)]
pub struct MissingMasks {
    list: Vec<MissingMask>,
    by_mask: HashMap<PathBuf, usize>,
}

/// Two photos whose masks would be one file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} and {} would have the same mask {}: rename one of them, or name its mask in dataset.jsonl",
    first.display(), second.display(), mask.display()
)]
pub struct SameMask {
    first: PathBuf,
    second: PathBuf,
    mask: PathBuf,
}

/// End of the names of masks, as in Stellar.
const ENDING: &str = "_bg.png";

/// Returns where the mask of a photo belongs: beside it, `0_bg.png` of `0.jpg`, as in Stellar.
pub(super) fn mask_beside(photo: &Path) -> PathBuf {
    let stem = photo.file_stem().unwrap_or_default().to_string_lossy();
    photo.with_file_name(format!("{stem}{ENDING}"))
}

impl MissingMasks {
    /// Adds the photos of a dataset that have no mask, in the order of the identities.
    ///
    /// # Errors
    /// Two photos would have the same mask.
    pub fn add_dataset(&mut self, dataset: &Dataset) -> Result<(), SameMask> {
        let photos = dataset.identities.iter().flat_map(|identity| &identity.photos);
        for photo in photos.filter(|photo| photo.mask.is_none()) {
            let photo = dataset.file(&photo.path);
            let mask = mask_beside(&photo);
            self.add(photo, mask)?;
        }
        Ok(())
    }

    /// Adds a photo, unless its mask is there or it is a mask itself.
    ///
    /// # Errors
    /// Two photos would have the same mask.
    pub fn add_photo(&mut self, photo: PathBuf) -> Result<(), SameMask> {
        let is_mask = photo.to_string_lossy().ends_with(ENDING);
        let mask = mask_beside(&photo);
        if is_mask || mask.is_file() { Ok(()) } else { self.add(photo, mask) }
    }

    fn add(&mut self, photo: PathBuf, mask: PathBuf) -> Result<(), SameMask> {
        match self.by_mask.get(&mask) {
            // One photo may be in a manifest twice, under two names.
            Some(at) if self.list[*at].photo == photo => Ok(()),
            Some(at) => {
                let first = self.list[*at].photo.clone();
                Err(SameMask { first, second: photo, mask })
            }
            None => {
                self.by_mask.insert(mask.clone(), self.list.len());
                self.list.push(MissingMask { photo, mask });
                Ok(())
            }
        }
    }

    /// Returns the photos in the order in which they were added.
    #[must_use]
    pub fn into_list(self) -> Vec<MissingMask> {
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::MANIFEST;

    fn dataset(lines: &str, files: &[&str]) -> (tempfile::TempDir, Dataset) {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        std::fs::write(folder.path().join(MANIFEST), lines).unwrap();
        let (dataset, findings) = Dataset::open(folder.path()).unwrap();
        assert_eq!(findings.fatal(), 0, "{:?}", findings.list);
        (folder, dataset)
    }

    #[test]
    fn photos_without_a_mask_are_found_once() {
        let lines = r#"
{"identity": "ada", "photo": "ada.jpg"}
{"identity": "ada", "photo": "ada.jpg", "name": "again"}
{"identity": "bob", "photo": "bob.png", "mask": "drawn.png"}
{"identity": "eve", "photo": "eve.png"}
"#;
        let files = ["ada.jpg", "bob.png", "drawn.png", "eve.png", "eve_bg.png"];
        let (folder, dataset) = dataset(lines, &files);
        let masks: Vec<_> = dataset
            .identities
            .iter()
            .flat_map(|identity| &identity.photos)
            .map(|photo| photo.mask.as_ref().map(|mask| mask.display().to_string()))
            .collect();
        assert_eq!(masks, [None, None, Some("drawn.png".into()), Some("eve_bg.png".into())]);
        let (photo, mask) = (folder.path().join("ada.jpg"), folder.path().join("ada_bg.png"));
        let mut missing = MissingMasks::default();
        missing.add_dataset(&dataset).unwrap();
        // Paths on the command line: the same photo, one with a mask, and a mask.
        for name in ["ada.jpg", "eve.png", "eve_bg.png"] {
            missing.add_photo(folder.path().join(name)).unwrap();
        }
        assert_eq!(missing.into_list(), [MissingMask { photo, mask }]);
    }

    #[test]
    fn two_photos_with_one_mask_are_refused() {
        let lines = r#"
{"identity": "ada", "photo": "ada.jpg"}
{"identity": "ada", "photo": "ada.png", "name": "other"}
"#;
        let (folder, dataset) = dataset(lines, &["ada.jpg", "ada.png"]);
        let mut missing = MissingMasks::default();
        let error = missing.add_dataset(&dataset).unwrap_err().to_string();
        assert!(error.contains("ada.jpg and ") && error.contains("ada_bg.png"), "{error}");
        assert!(missing.add_photo(folder.path().join("ada.png")).is_err(), "in whatever order");
    }
}
