//! Datasets on disk: identities with their photos and attributes, and the prompts for each
//! identity.
//!
//! ```text
//! prepare   a CelebA-Dialog download and the Stellar prompts → a folder in the Stellar layout
//!           or everyone else in the download → training data for generators
//! open      a folder in the Stellar layout or with dataset.jsonl → [`Dataset`] and its problems
//! check     the same, and all images are decoded
//! masks     photos that have no mask, and where it belongs
//! ```
//!
//! `docs/DATASETS.md` describes both layouts for users.

mod check;
mod contents;
mod manifest;
mod masks;
mod prepare;
mod sample;
mod stellar;

use std::path::Path;

pub use check::decode_images;
pub use contents::{
    Dataset, Findings, Identity, Layout, MANIFEST, OpenError, Photo, Problem, Prompt,
};
pub use masks::{MissingMask, MissingMasks, SameMask};
pub use prepare::{
    PrepareError, Prepared, Sources, TrainingData, TrainingSources, prepare, prepare_training,
};
pub use sample::{SAMPLE_QUALITY, SampleFolders, SampleSize, make_sample, make_sample_of};
pub use stellar::TEST_IDENTITIES;

impl Dataset {
    /// Reads a folder of either layout without decoding its images, and collects all problems.
    ///
    /// # Errors
    /// If the folder cannot be read, or has none of the files of a dataset.
    pub fn open(root: &Path) -> Result<(Self, Findings), OpenError> {
        let mut findings = Findings::default();
        let dataset = if root.join(MANIFEST).is_file() {
            manifest::read(root, &mut findings)?
        } else {
            stellar::read(root, &mut findings)?
        };
        if dataset.identities.is_empty() && findings.fatal() == 0 {
            return Err(OpenError::NoDataset(root.to_owned()));
        }
        dataset.look_for_twins(&mut findings);
        Ok((dataset, findings))
    }
}
