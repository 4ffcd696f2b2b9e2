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

/// Returns where the mask of a photo belongs: beside it, `0_bg.png` of `0.jpg`, as in Stellar.
#[must_use]
pub fn mask_beside(photo: &Path) -> PathBuf {
    let stem = photo.file_stem().unwrap_or_default().to_string_lossy();
    photo.with_file_name(format!("{stem}_bg.png"))
}

impl Dataset {
    /// Returns the photos that have no mask, in the order of the identities.
    ///
    /// # Errors
    /// Two photos would have the same mask.
    pub fn missing_masks(&self) -> Result<Vec<MissingMask>, SameMask> {
        let photos = self.identities.iter().flat_map(|identity| &identity.photos);
        let mut missing: Vec<MissingMask> = Vec::new();
        let mut seen: HashMap<PathBuf, usize> = HashMap::new();
        for photo in photos.filter(|photo| photo.mask.is_none()) {
            let photo = self.file(&photo.path);
            let mask = mask_beside(&photo);
            match seen.get(&mask) {
                // One photo may be in the manifest twice, under two names.
                Some(at) if missing[*at].photo == photo => {}
                Some(at) => {
                    let first = missing[*at].photo.clone();
                    return Err(SameMask { first, second: photo, mask });
                }
                None => {
                    seen.insert(mask.clone(), missing.len());
                    missing.push(MissingMask { photo, mask });
                }
            }
        }
        Ok(missing)
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
        assert_eq!(dataset.missing_masks(), Ok(vec![MissingMask { photo, mask }]));
    }

    #[test]
    fn two_photos_with_one_mask_are_refused() {
        let lines = r#"
{"identity": "ada", "photo": "ada.jpg"}
{"identity": "ada", "photo": "ada.png", "name": "other"}
"#;
        let (_folder, dataset) = dataset(lines, &["ada.jpg", "ada.png"]);
        let error = dataset.missing_masks().unwrap_err().to_string();
        assert!(error.contains("ada.jpg and ") && error.contains("ada_bg.png"), "{error}");
    }
}
