//! What all images of a folder have in common.

use serde::{Deserialize, Serialize};

use super::plan::{Job, People, Selection};
use crate::content::ContentHash;
use crate::generation::Settings;
use crate::pack_id::PackId;

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
    /// Where the words of the people are from.
    pub people: People,
    /// Seed, steps, guidance and size.
    pub settings: Settings,
    /// Whether every image has a seed of its own, from the seed and its name.
    pub seed_by_name: bool,
    /// What the images must not show.
    pub negative_prompt: Option<String>,
}

impl FolderSettings {
    /// Returns the settings of a job: those of the folder, and the seed by its name if requested.
    pub(super) fn of(&self, job: &Job) -> Settings {
        let mut settings = self.settings;
        if self.seed_by_name {
            let parts = [b"seed".as_slice(), &settings.seed.to_le_bytes(), job.name.as_bytes()];
            let hash = ContentHash::of_parts(parts);
            let [a, b, c, d, ..] = *hash.as_bytes();
            // The noise depends on 32 bits of a seed.
            settings.seed = u32::from_le_bytes([a, b, c, d]).into();
        }
        settings
    }
}
