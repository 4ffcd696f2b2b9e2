//! The evidence that metrics return with a score.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Input;

/// The most similar pair of faces in the generated image and an image of the person.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaceMatch {
    /// The reference or auxiliary image.
    pub photo: Input,
    /// Index of the face in the generated image, from 0, the largest first.
    pub image_face: usize,
    /// Index of the face in `photo`, counted likewise.
    pub photo_face: usize,
    /// Cosine of their embeddings.
    pub cosine: f64,
}

/// Score of one label.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectScore {
    /// The label.
    pub label: String,
    /// In [0, 1]; 0 if every box fits another label better.
    pub score: f64,
    /// Left, top, right, bottom of its best box in pixels of the upright image; `None` if it has no
    /// box.
    pub corners: Option<[f64; 4]>,
    /// True if the text model truncated the words.
    pub truncated: bool,
}

/// Reason why an attribute does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeftOut {
    /// Every labelled photo with a face has the same label, so no probe can be fitted.
    Constant,
    /// No photo with a face has a label for it.
    Unlabelled,
    /// The sample's metadata has no label for it.
    NoTarget,
}

/// Prediction of one attribute for one sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AttributePrediction {
    /// CelebA name of the attribute.
    #[schema(example = "Young")]
    pub attribute: String,
    /// Label of the person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<bool>,
    /// Predicted label of the face in the image; the opposite of the target if there is no face.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prediction: Option<bool>,
    /// Log odds given by the probe, positive if the attribute is predicted; absent if there is no
    /// face.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<f64>,
    /// Reason why the attribute does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
}
