//! Errors of generating an image.

use crate::engine::{EngineError, PackError};
use crate::vision::DecodeError;

/// An error from generating an image. Every message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// The pack scores images and does not make them.
    #[error(
        "the pack {pack} does not generate images: its manifest has no [generator] table; use a \
            generator pack, for example packs/demo-generator"
    )]
    NoGenerator {
        /// Name of the pack.
        pack: String,
    },
    /// The pack has no graph that finds the person of a photo.
    #[error(
        "the pack makes no masks: it has no graph `generator.mask`; export it with --mask-model, \
            or draw the masks"
    )]
    NoMasks,
    /// A file of the pack cannot be used.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A part of the request is invalid.
    #[error("{key} {problem}")]
    Request {
        /// Name of the part, as in requests.
        key: &'static str,
        /// The problem and what to do.
        problem: String,
    },
    /// The photo cannot be decoded.
    #[error("the photo cannot be used: {0}")]
    Photo(DecodeError),
    /// The mask cannot be used.
    #[error("the mask cannot be used: {0}")]
    Mask(DecodeError),
    /// Words that were learned cannot be used.
    #[error("{file} {problem}")]
    Words {
        /// Name of the file.
        file: &'static str,
        /// The problem and what to do.
        problem: String,
    },
    /// The engine refused an item, or a graph failed.
    #[error(transparent)]
    Engine(EngineError),
    /// A graph returned something else than its manifest says.
    #[error("graph `{graph}`: {problem}; export the pack again")]
    Output {
        /// Role of the graph.
        graph: &'static str,
        /// What it returned.
        problem: String,
    },
    /// The image cannot be encoded.
    #[error("the image cannot be written as PNG: {0}")]
    Encode(String),
}

impl GenerationError {
    pub(super) fn request(key: &'static str, problem: impl Into<String>) -> Self {
        Self::Request { key, problem: problem.into() }
    }
}

/// An error from preparing a photo within the engine, see [`EngineError::Prepare`].
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum PhotoError {
    #[error("the photo cannot be used: {0}")]
    Photo(DecodeError),
    #[error("the mask cannot be used: {0}")]
    Mask(DecodeError),
    #[error(
        "mask has no foreground: all of its pixels are black; leave it out to use the whole \
        photo"
    )]
    Empty,
}

impl From<EngineError> for GenerationError {
    fn from(error: EngineError) -> Self {
        let EngineError::Prepare(cause) = &error else { return Self::Engine(error) };
        match cause.downcast_ref::<PhotoError>() {
            Some(PhotoError::Photo(error)) => Self::Photo(error.clone()),
            Some(PhotoError::Mask(error)) => Self::Mask(error.clone()),
            Some(PhotoError::Empty) => Self::request(
                "mask",
                "has no foreground: all of its pixels are black; leave it out to use the whole \
                    photo",
            ),
            None => Self::Engine(error),
        }
    }
}
