//! Inputs of a sample.

use std::fmt;

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

/// The name in responses.
impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image => f.write_str("image"),
            Self::Prompt => f.write_str("prompt"),
            Self::ImageWithPrompt => f.write_str("image with prompt"),
            Self::Objects => f.write_str("image with objects"),
            Self::Reference(index) => write!(f, "reference[{index}]"),
            Self::Auxiliary(index) => write!(f, "auxiliary[{index}]"),
        }
    }
}
