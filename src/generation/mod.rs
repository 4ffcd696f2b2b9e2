//! Generation: one image from a prompt and a photo, with the graphs of a generator pack.
//!
//! ```text
//! request ── photo      decode, black background, the graph's pixels          (photo)
//!         ── words      the vectors that stand for the person      (condition, words)
//!         ── prompt     split at `{}`, token ids around the words             (prompt)
//!         ── condition  both text towers, with the prompt and without         (condition)
//!         ── steps      noise → denoiser, guidance, step → latents            (steps)
//!         ── picture    decoder → bytes → PNG with its provenance             (picture)
//! ```
//!
//! Photos, words and texts are cached features of the engine. The denoiser's items of all images
//! and timesteps share batches, and dropping the future of an image stops it between two steps.
//! [`folder`] writes the images of a dataset. [`Generator::mask`] finds the person of a photo, for
//! photos that have no mask.

mod condition;
mod engine;
mod error;
#[cfg(test)]
pub(crate) mod fake;
pub mod folder;
mod generator;
mod mask;
mod photo;
mod picture;
mod prompt;
mod request;
mod steps;
#[cfg(test)]
mod tests;
mod tower;
mod words;

pub use engine::engine_config;
pub use error::GenerationError;
pub use generator::Generator;
pub use mask::Mask;
pub use picture::{ImageFlag, ImageProvenance, Picture};
pub use request::{Person, Request, Settings, Subject};
pub use words::{WORD_FILES, Words};
