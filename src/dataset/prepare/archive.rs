//! Images in the download's ZIP archives.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Component, Path, PathBuf};

use zip::ZipArchive;

use super::PrepareError;
use super::annotations::image_number;

/// Maximum size of an image, in bytes. No image of the download has a hundredth of this; a larger
/// one means that the archive was made to fill a disk.
const MOST_BYTES: u64 = 64 << 20;

/// An archive and the entries of its images.
pub(super) struct Archive {
    path: PathBuf,
    zip: ZipArchive<BufReader<File>>,
    /// Entry indices by the number in their name: `…/12.jpg` is 12.
    entries: HashMap<u32, usize>,
}

impl Archive {
    /// Opens an archive and indexes its entries. Folders around the images do not matter.
    pub(super) fn open(path: &Path, extension: &str) -> Result<Self, PrepareError> {
        let wrong = |problem: String| PrepareError::Archive { path: path.to_owned(), problem };
        let file = File::open(path).map_err(|source| PrepareError::io(path, source))?;
        let zip =
            ZipArchive::new(BufReader::new(file)).map_err(|error| wrong(error.to_string()))?;
        let mut entries = HashMap::new();
        for index in 0..zip.len() {
            let name = match zip.name_for_index(index) {
                Some(Ok(name)) => name.into_owned(),
                Some(Err(error)) => return Err(wrong(error.to_string())),
                None => continue,
            };
            if !stays_inside(&name) {
                return Err(wrong(format!(
                    "the entry {name:?} points outside the folder: this is not the archive that \
                        CelebA-Dialog provides"
                )));
            }
            let image = Path::new(&name)
                .file_name()
                .and_then(|name| name.to_str())
                .filter(|name| !name.starts_with('.') && name.rsplit('.').next() == Some(extension))
                .and_then(image_number);
            if let Some(number) = image
                && entries.insert(number, index).is_some()
            {
                return Err(wrong(format!("two entries are image {number}, one of them {name:?}")));
            }
        }
        Ok(Self { path: path.to_owned(), zip, entries })
    }

    /// Returns whether the archive has an image.
    pub(super) fn has(&self, image: u32) -> bool {
        self.entries.contains_key(&image)
    }

    /// Reads an image's file and verifies its checksum.
    pub(super) fn read(&mut self, image: u32) -> Result<Vec<u8>, PrepareError> {
        let path = self.path.clone();
        let wrong = |problem: String| PrepareError::Archive { path: path.clone(), problem };
        let index =
            *self.entries.get(&image).ok_or_else(|| wrong(format!("has no image {image}")))?;
        let entry = self.zip.by_index(index).map_err(|error| wrong(error.to_string()))?;
        let name = entry.name().map_err(|error| wrong(error.to_string()))?.into_owned();
        let mut bytes = Vec::new();
        entry
            .take(MOST_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| wrong(format!("{name} cannot be read: {error}")))?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(wrong(format!("{name} has more than {} MiB", MOST_BYTES >> 20)));
        }
        Ok(bytes)
    }
}

/// Returns whether an entry's name, interpreted as a path on any system, stays below the folder.
fn stays_inside(name: &str) -> bool {
    !name.contains(['\\', '\0', ':'])
        && Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn archive(names: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.zip");
        let mut zip = ZipWriter::new(File::create(&path).unwrap());
        for name in names {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(name.as_bytes()).unwrap();
        }
        zip.finish().unwrap();
        (folder, path)
    }

    #[test]
    fn images_are_found_by_number_in_any_folder() {
        let (_folder, path) = archive(&[
            "image/",
            "image/3.jpg",
            "deep/er/41.jpg",
            "image/readme.txt",
            "__MACOSX/._3.jpg",
        ]);
        let mut archive = Archive::open(&path, "jpg").unwrap();
        assert!(archive.has(3) && archive.has(41) && !archive.has(4));
        assert_eq!(archive.read(41).unwrap(), b"deep/er/41.jpg");
        assert!(archive.read(4).unwrap_err().to_string().contains("no image 4"));
    }

    #[test]
    fn an_entry_that_points_outside_rejects_the_whole_archive() {
        for name in ["../3.jpg", "image/../../3.jpg", "/etc/3.jpg", r"..\3.jpg", r"C:\3.jpg"] {
            let (_folder, path) = archive(&["image/1.jpg", name]);
            let error = Archive::open(&path, "jpg").map(drop).unwrap_err().to_string();
            assert!(
                error.contains("points outside") && error.contains("image.zip"),
                "{name}: {error}"
            );
        }
    }

    #[test]
    fn two_images_with_the_same_number_are_rejected() {
        let (_folder, path) = archive(&["a/1.jpg", "b/1.jpg"]);
        assert!(
            Archive::open(&path, "jpg").map(drop).unwrap_err().to_string().contains("two entries")
        );
    }

    #[test]
    fn damage_is_detected_by_the_checksum() {
        let (_folder, path) = archive(&["image/1.jpg"]);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(11).position(|window| window == b"image/1.jpg").unwrap() + 11;
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(
            Archive::open(&path, "jpg")
                .unwrap()
                .read(1)
                .unwrap_err()
                .to_string()
                .contains("image/1.jpg")
        );
        std::fs::write(&path, &bytes[..20]).unwrap();
        assert!(Archive::open(&path, "jpg").is_err());
    }
}
