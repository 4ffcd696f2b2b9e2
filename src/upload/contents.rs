//! The hash of a folder's samples.

use std::collections::HashMap;
use std::io::{Error, Result};
use std::path::Path;

use super::Item;
use crate::content::ContentHash;
use crate::read;
use crate::scoring::content;

/// Returns a hash of the samples: of their names, images, prompts, photos and metadata.
///
/// # Errors
/// A file cannot be read.
pub fn contents(items: &[Item]) -> Result<ContentHash> {
    let mut photos: HashMap<&Path, ContentHash> = HashMap::new();
    let mut hashes = Vec::new();
    for item in items {
        for path in item.auxiliary.iter().chain([&item.reference]) {
            if !photos.contains_key(&**path) {
                photos.insert(path, of_file(path)?);
            }
        }
        let auxiliary: Vec<ContentHash> =
            item.auxiliary.iter().map(|path| photos[&**path]).collect();
        let reference = photos[&*item.reference];
        let image = of_file(&item.image)?;
        hashes.push((item.name.as_str(), address(item, image, reference, &auxiliary)));
    }
    hashes.sort_unstable();
    let parts = hashes.iter().flat_map(|(name, hash)| [name.as_bytes(), &hash.as_bytes()[..]]);
    Ok(ContentHash::of_parts(parts))
}

/// Returns the hash of a sample, as the server computes it.
pub(super) fn address(
    item: &Item,
    image: ContentHash,
    reference: ContentHash,
    auxiliary: &[ContentHash],
) -> ContentHash {
    content(image, Some(&item.prompt), &[reference], auxiliary, &item.metadata)
}

fn of_file(path: &Path) -> Result<ContentHash> {
    let named =
        |error: Error| Error::new(error.kind(), format!("cannot read {}: {error}", path.display()));
    Ok(ContentHash::of(&read::bytes(path).map_err(named)?))
}
