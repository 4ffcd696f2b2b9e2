//! Inputs of a sample.

/// An input of a sample, from which a feature is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Input {
    /// The generated image.
    Image,
    /// The prompt.
    Prompt,
    /// The reference image with this index, from 0.
    Reference(usize),
    /// The auxiliary image with this index, from 0.
    Auxiliary(usize),
    /// The generated image together with the prompt.
    ImageWithPrompt,
    /// The generated image together with the objects to find in it.
    Objects,
}
