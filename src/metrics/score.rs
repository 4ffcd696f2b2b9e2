//! What a metric answers: a number, or the reason why there is none.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AttributePrediction, Input, ObjectScore};

/// A computed score with what a reader must know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The value, always finite.
    pub value: f64,
    /// What happened on the way that the number alone does not tell.
    pub flags: Vec<Flag>,
    /// Further numbers that explain the value, shown as evidence and not stored.
    pub details: Vec<(&'static str, f64)>,
    /// For scores of faces: the pair of faces that counts for each photo, shown as evidence and not stored.
    pub matches: Vec<FaceMatch>,
    /// For scores of objects: how well each was found, shown as evidence and not stored.
    pub objects: Vec<ObjectScore>,
    /// For attribute preservation: what is said of each attribute, shown as evidence and not stored.
    pub predictions: Vec<AttributePrediction>,
}

/// The pair of faces that are most alike in the generated image and a photo.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaceMatch {
    /// The photo.
    pub photo: Input,
    /// Which of the image's faces, from 0, the largest first.
    pub image_face: usize,
    /// Which of the photo's faces.
    pub photo_face: usize,
    /// Cosine of their embeddings.
    pub cosine: f64,
}

impl From<f64> for Score {
    fn from(value: f64) -> Self {
        Self {
            value,
            flags: Vec::new(),
            details: Vec::new(),
            matches: Vec::new(),
            objects: Vec::new(),
            predictions: Vec::new(),
        }
    }
}

/// Why a score cannot be computed; never expressed as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NullReason {
    /// The metric compares the image with a prompt and none was given.
    NoPrompt,
    /// The metric compares the image with reference photos and none was given.
    NoReference,
    /// The metric compares faces and no photo of the subject has one.
    NoFaceInReference,
    /// The metric compares faces and the generated image has none.
    NoFaceInImage,
    /// The metric needs another photo of the subject beside the reference, one that is not the same.
    NoOtherPhoto,
    /// The metric compares faces and no other photo of the subject has one.
    NoFaceInOtherPhoto,
    /// The metric looks for objects and none is named, or only roles of the person.
    NoDetectables,
    /// The metric looks for relations and the prompt has none (of this kind), or there is neither prompt nor annotation.
    NoRelations,
    /// The prompt has relations, but the scene graph has no words for any of them.
    NoMappedRelations,
    /// The metric learns from labelled photos, and the sample names no dataset that has them.
    NeedsDataset,
    /// Of no attribute does the sample say whether the subject has it and the dataset have photos of both kinds.
    NoAttributes,
    /// The loaded model pack lacks a graph that the metric needs.
    Unavailable,
}

impl NullReason {
    /// Whether something was looked for and not found: what was not even tried leaves no row in the store.
    #[must_use]
    pub fn was_measured(self) -> bool {
        !matches!(self, Self::Unavailable | Self::NeedsDataset)
    }

    /// The code used in the API and in the store.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NoPrompt => "no_prompt",
            Self::NoReference => "no_reference",
            Self::NoFaceInReference => "no_face_in_reference",
            Self::NoFaceInImage => "no_face_in_image",
            Self::NoOtherPhoto => "no_other_photo",
            Self::NoFaceInOtherPhoto => "no_face_in_other_photo",
            Self::NoDetectables => "no_detectables",
            Self::NoRelations => "no_relations",
            Self::NoMappedRelations => "no_mapped_relations",
            Self::NeedsDataset => "needs_dataset",
            Self::NoAttributes => "no_attributes",
            Self::Unavailable => "unavailable",
        }
    }

    /// One sentence on what to send, or load, to get a number.
    #[must_use]
    pub fn help(self) -> &'static str {
        match self {
            Self::NoPrompt => "send the prompt of the image in the field `prompt`",
            Self::NoReference => "send at least one photo of the subject in the field `reference`",
            Self::NoFaceInReference => {
                "no face is found in the photos sent: send a `reference` that shows the subject's face, at least \
                 20 pixels wide"
            }
            Self::NoFaceInImage => "no face is found in the generated image, so there is nothing to compare",
            Self::NoOtherPhoto => {
                "send another photo of the subject, not the reference again, in the field `auxiliary`"
            }
            Self::NoFaceInOtherPhoto => {
                "no face is found in the other photos: send an `auxiliary` photo that shows the subject's face, at least 20 \
                 pixels wide"
            }
            Self::NoDetectables => {
                "name the objects of the prompt in `metadata`, as in {\"detectables\": [\"skateboard\"]}; roles of the \
                 person such as `astronaut` and blanks are not looked for"
            }
            Self::NoRelations => {
                "send a prompt that says what the person does, or where, as in `a person riding a horse`, or annotate it in \
                 `metadata`, as in {\"relations\": [[\"person\", \"riding\", \"horse\"]]}"
            }
            Self::NoMappedRelations => {
                "the pack's scene graph has no predicate for the relations of the prompt; the evidence lists them: annotate \
                 them in `metadata` in other words, as in {\"relations\": [[\"person\", \"holding\", \"flute\"]]}"
            }
            Self::NeedsDataset => {
                "enrol labelled photos with POST /v1/datasets/{dataset}/photos and name the dataset in the metadata as \
                 `dataset`; of a whole run, GET /v1/runs/{run}/attributes needs none"
            }
            Self::NoAttributes => {
                "send the subject's `attributes` in the metadata, and enrol photos with a face in which an attribute is \
                 present and others in which it is not"
            }
            Self::Unavailable => "load a model pack that has the metric's graphs; GET /v1/metrics names them",
        }
    }
}

/// A remark on a score that was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Flag {
    /// The prompt, or a label to look for, has more tokens than the text model reads; the rest was cut.
    Truncated,
    /// No face is found in the generated image, so the score of its faces is 0: the method failed.
    NoFaceInImage,
    /// Photos without a face were left out; others counted.
    FacelessPhotos,
    /// The pack has no OWL-ViT: objects of relations count only where the scene graph has a class for them.
    Ungrounded,
    /// A relation was looked for by a predicate that only comes near its own.
    ApproximatePredicate,
}

impl Flag {
    /// The code used in the API and in the store.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::NoFaceInImage => "no_face_in_image",
            Self::FacelessPhotos => "faceless_photos",
            Self::Ungrounded => "ungrounded",
            Self::ApproximatePredicate => "approximate_predicate",
        }
    }
}

/// The answer of a metric for one sample.
pub type MetricResult = Result<Score, NullReason>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_serialised_names() {
        for reason in [
            NullReason::NoPrompt,
            NullReason::NoReference,
            NullReason::NoFaceInReference,
            NullReason::NoFaceInImage,
            NullReason::NoOtherPhoto,
            NullReason::NoFaceInOtherPhoto,
            NullReason::NoDetectables,
            NullReason::NoRelations,
            NullReason::NoMappedRelations,
            NullReason::NeedsDataset,
            NullReason::NoAttributes,
            NullReason::Unavailable,
        ] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.code());
        }
        for flag in [
            Flag::Truncated,
            Flag::NoFaceInImage,
            Flag::FacelessPhotos,
            Flag::Ungrounded,
            Flag::ApproximatePredicate,
        ] {
            assert_eq!(serde_json::to_value(flag).unwrap(), flag.code());
        }
    }
}
