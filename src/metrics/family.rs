//! Families of metrics: what a metric compares with what.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a metric compares with what; the order is that of grouped correlations.
///
/// Metrics of one family read the same inputs, so that they tend to agree whatever the images are.
/// Agreement of different families says more.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// The person in the image with the person in their photos: faces.
    Personalised,
    /// Facial attributes of the person in the image with those of the person.
    Attribute,
    /// Objects in the image with those that the prompt names.
    Object,
    /// Relations in the image with those that the prompt names.
    Relation,
    /// The image as a whole with the text of the prompt.
    TextToImage,
    /// The image as a whole with the reference image.
    ImageToImage,
    /// The image alone.
    Image,
    /// Helps to read other metrics and ranks nothing.
    Support,
}

impl Family {
    /// All families, in order.
    pub const ALL: [Self; 8] = [
        Self::Personalised,
        Self::Attribute,
        Self::Object,
        Self::Relation,
        Self::TextToImage,
        Self::ImageToImage,
        Self::Image,
        Self::Support,
    ];

    /// Returns the name for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Personalised => "Personalised",
            Self::Attribute => "Attributes",
            Self::Object => "Objects",
            Self::Relation => "Relations",
            Self::TextToImage => "Text to image",
            Self::ImageToImage => "Image to image",
            Self::Image => "Image alone",
            Self::Support => "Support",
        }
    }

    /// Says what the family's metrics compare.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Personalised => "the person in the image with the person in their photos",
            Self::Attribute => "facial attributes in the image with those of the person",
            Self::Object => "objects in the image with those that the prompt names",
            Self::Relation => "relations in the image with those that the prompt names",
            Self::TextToImage => "the image as a whole with the text of the prompt",
            Self::ImageToImage => "the image as a whole with the reference image",
            Self::Image => "the image with nothing: it is judged alone",
            Self::Support => "helps to read other metrics and ranks nothing",
        }
    }
}
