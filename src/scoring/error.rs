//! Errors of scoring a sample.

use crate::{
    engine::EngineError,
    metrics::{FeatureSource, Input, Role},
    vision::DecodeError,
};

/// Error of scoring a sample.
#[derive(Debug, thiserror::Error)]
pub enum ScoringError {
    /// An image of the sample cannot be decoded.
    #[error("{of}: {source}")]
    Decode {
        /// The input: `image` or `reference[0]` and so on.
        of: String,
        /// The cause.
        source: DecodeError,
    },
    /// The engine failed to compute a feature.
    #[error("{graph} of {of}: {source}")]
    Engine {
        /// Role of the graph.
        graph: Role,
        /// The input.
        of: String,
        /// The cause.
        source: EngineError,
    },
}

impl ScoringError {
    /// Adds the feature that an engine's error is about.
    pub(super) fn of(source: FeatureSource, input: Input, error: EngineError) -> Self {
        if let EngineError::Prepare(cause) = &error {
            if let Some(decode) = cause.downcast_ref::<DecodeError>() {
                let whole = matches!(input, Input::ImageWithPrompt | Input::Objects);
                let of = if whole { Input::Image } else { input }.to_string();
                return Self::Decode { of, source: decode.clone() };
            }
            if let Some(tower) = cause.downcast_ref::<EngineError>() {
                return Self::of(source, input, tower.clone());
            }
        }
        Self::Engine { graph: source.name(), of: input.to_string(), source: error }
    }

    /// Wraps an error of mapping predicates to the scene graph.
    pub(super) fn of_words(source: EngineError) -> Self {
        let graph = FeatureSource::SCENE_GRAPH;
        Self::Engine { graph, of: "the prompt's predicates".to_owned(), source }
    }
}
