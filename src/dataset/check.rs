//! Checks of the image files of a dataset.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{Dataset, Findings};
use crate::content::ContentHash;
use crate::vision::{self, DecodeLimits};

/// Decodes every photo and mask, adds problems to the findings, and calls `done` after each image.
pub fn decode_images(
    dataset: &Dataset,
    limits: &DecodeLimits,
    findings: &mut Findings,
    mut done: impl FnMut(),
) {
    let mut seen: HashMap<ContentHash, PathBuf> = HashMap::new();
    for photo in dataset.identities.iter().flat_map(|identity| &identity.photos) {
        if let Some(hash) = decode(dataset, &photo.path, limits, findings)
            && let Some(other) = seen.insert(hash, photo.path.clone())
        {
            let what = format!(
                "is the same file as {}: each photo must be a different image",
                other.display()
            );
            findings.note(&photo.path, what);
        }
        done();
        if let Some(mask) = &photo.mask {
            decode(dataset, mask, limits, findings);
            done();
        }
    }
}

fn decode(
    dataset: &Dataset,
    path: &Path,
    limits: &DecodeLimits,
    findings: &mut Findings,
) -> Option<ContentHash> {
    let decoded = crate::read::bytes(&dataset.file(path))
        .map_err(|error| error.to_string())
        .and_then(|bytes| {
            vision::decode(&bytes, limits).map_err(|error| error.to_string())?;
            Ok(ContentHash::of(&bytes))
        });
    match decoded {
        Ok(hash) => Some(hash),
        Err(error) => {
            findings.problem(path, format!("cannot be used: {error}"));
            None
        }
    }
}
