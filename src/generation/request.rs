//! What an image is generated from, and its bounds.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{GenerationError, Words};
use crate::content::ContentHash;
use crate::engine::pack::GeneratorSpec;

/// Largest guidance scale. Images saturate far below it.
const MOST_GUIDANCE: f32 = 100.0;

/// An image to generate.
#[derive(Debug, Clone)]
pub struct Request {
    /// The prompt; `{}` stands for the person.
    pub prompt: String,
    /// What the image must not show, without placeholder. If `None`, the guidance is away from
    /// nothing: zeros instead of a text, as the model was trained.
    pub negative_prompt: Option<String>,
    /// The person, if the prompt has a placeholder.
    pub person: Option<Person>,
    /// Seed, steps, guidance and size.
    pub settings: Settings,
}

/// Who `{}` stands for.
#[derive(Debug, Clone)]
pub enum Person {
    /// The person in a photo: the pack makes the words.
    Photo(Subject),
    /// Words that were learned for the person.
    Words(Words),
}

/// A photo and what of it counts.
#[derive(Clone)]
pub struct Subject {
    /// The file of the photo.
    pub photo: Bytes,
    /// The file of the mask: every pixel with a channel above 0 is foreground. Without a mask, the
    /// whole photo is.
    pub mask: Option<Bytes>,
}

/// Shows only the sizes: photos are private, and would flood a log.
impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mask = self.mask.as_ref().map_or(0, Bytes::len);
        write!(f, "Subject(photo {} bytes, mask {mask} bytes)", self.photo.len())
    }
}

impl Subject {
    /// Returns the content hashes of photo and mask.
    pub(super) fn hashes(&self) -> (ContentHash, Option<ContentHash>) {
        (ContentHash::of(&self.photo), self.mask.as_ref().map(|mask| ContentHash::of(mask)))
    }
}

/// Settings of an image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Seed of the noise. Only its low 32 bits count, as in PyTorch.
    pub seed: u64,
    /// Number of denoising steps.
    pub steps: usize,
    /// Guidance scale; 1 and less is no guidance and half of the work.
    pub guidance: f32,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
}

impl Settings {
    /// Checks the settings with a pack, except for the number of steps.
    pub(super) fn check(&self, spec: &GeneratorSpec) -> Result<(), GenerationError> {
        let (multiple, most) = (spec.side_multiple, spec.largest_side);
        for (key, side) in [("width", self.width), ("height", self.height)] {
            if side == 0 || side > most || !side.is_multiple_of(multiple) {
                let problem =
                    format!("is {side}: it must be a multiple of {multiple}, at most {most}");
                return Err(GenerationError::request(key, problem));
            }
        }
        // NaN is in no range.
        if !(0.0..=MOST_GUIDANCE).contains(&self.guidance) {
            let problem = format!("is {}: it must be 0 to {MOST_GUIDANCE}", self.guidance);
            return Err(GenerationError::request("guidance", problem));
        }
        Ok(())
    }

    /// Returns whether the denoiser also runs without the prompt.
    pub(super) fn is_guided(&self) -> bool {
        self.guidance > 1.0
    }
}
