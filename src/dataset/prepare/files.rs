//! Files of the download and of what is made from it.

use std::path::Path;

use super::error::PrepareError;
use crate::vision::{self, DecodeLimits};

/// Photos, in the download.
pub(super) const IMAGES: &str = "image.zip";
/// Masks of the photos, in the download.
pub(super) const MASKS: &str = "mask/CelebAMask-HQ-mask-color-palette.zip";
/// The person of each photo, in the download.
pub(super) const IDENTITIES: &str = "identity/identity_CelebA-HQ.txt";
/// The photos of the evaluation, beside the prompts.
pub(super) const SPLITS: &str = "celebahq_ids.txt";

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, PrepareError> {
    std::fs::read(path).map_err(|source| PrepareError::io(path, source))
}

/// Reads and parses a text file.
pub(super) fn parse<T>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, PrepareError> {
    let wrong = |problem| PrepareError::File { path: path.to_owned(), problem };
    let text =
        String::from_utf8(read(path)?).map_err(|_| wrong("it is not UTF-8 text".to_owned()))?;
    parse(text.strip_prefix('\u{feff}').unwrap_or(&text)).map_err(wrong)
}

/// Writes a file unless it exists with these bytes, and returns whether it was written.
pub(super) fn put(path: &Path, bytes: &[u8]) -> Result<bool, PrepareError> {
    if std::fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(false);
    }
    let failed = |source| PrepareError::io(path, source);
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, bytes).map_err(failed)?;
    std::fs::rename(&partial, path).map_err(failed)?;
    Ok(true)
}

/// Checks that an image of an archive has a valid header within the limits.
pub(super) fn check_image(
    bytes: &[u8],
    number: u32,
    archive: &Path,
    limits: &DecodeLimits,
) -> Result<(), PrepareError> {
    let header = vision::read_header(bytes, limits);
    header.map(drop).map_err(|error| PrepareError::Archive {
        path: archive.to_owned(),
        problem: format!("image {number}: {error}"),
    })
}
