//! Result of a metric: a score, or the reason why it is null.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AttributePrediction, FaceMatch, ObjectScore};

/// A computed score with its flags and explanation.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The value, always finite.
    pub value: f64,
    /// Facts that a reader must know in addition to the number.
    pub flags: Vec<Flag>,
    /// What the value is based on, shown as evidence and not stored.
    pub explanation: Explanation,
}

impl From<f64> for Score {
    fn from(value: f64) -> Self {
        Self { value, flags: Vec::new(), explanation: Explanation::Nothing }
    }
}

impl Score {
    /// Returns the prediction of each attribute; empty for a score of another kind.
    #[must_use]
    pub fn predictions(&self) -> &[AttributePrediction] {
        if let Explanation::Predictions(found) = &self.explanation { found } else { &[] }
    }
}

/// What a value is based on, where that is not obvious.
#[derive(Debug, Clone, PartialEq)]
pub enum Explanation {
    /// The value speaks for itself.
    Nothing,
    /// A further number, with its name.
    Detail(&'static str, f64),
    /// For face metrics: the pair of faces that counts for each image of the person.
    Matches(Vec<FaceMatch>),
    /// For object metrics: the score of each object.
    Objects(Vec<ObjectScore>),
    /// For attribute preservation: the prediction of each attribute.
    Predictions(Vec<AttributePrediction>),
}

/// Reason why a score is null. It is never expressed as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NullReason {
    /// The metric needs a prompt, and the sample has none.
    NoPrompt,
    /// The metric needs a reference image, and the sample has none.
    NoReference,
    /// The metric compares faces, and no face was found in the images of the person.
    NoFaceInReference,
    /// The metric compares faces, and no face was found in the generated image.
    NoFaceInImage,
    /// The metric needs another image of the person in addition to the reference image, and not a
    /// copy of it.
    NoOtherPhoto,
    /// The metric compares faces, and no face was found in the other images of the person.
    NoFaceInOtherPhoto,
    /// The metric searches for objects, and the sample names none, or only roles of the person.
    NoDetectables,
    /// The metric scores relations, and the prompt has none (of this kind), or there is neither a
    /// prompt nor an annotation.
    NoRelations,
    /// The prompt has relations, but none of them can be mapped to the scene graph.
    NoMappedRelations,
    /// The metric is fitted on labelled photos, and the sample names no dataset that has them.
    NeedsDataset,
    /// There is no attribute for which the sample has a label and the dataset has photos of both
    /// kinds.
    NoAttributes,
    /// The loaded pack lacks a graph that the metric needs.
    Unavailable,
}

impl NullReason {
    /// Returns true if the metric was attempted. A metric that was not attempted leaves no row in
    /// the store.
    #[must_use]
    pub fn was_measured(self) -> bool {
        !matches!(self, Self::Unavailable | Self::NeedsDataset)
    }

    /// Code in the API and in the store.
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

    /// Returns one sentence on how to get a number.
    #[must_use]
    pub fn help(self) -> &'static str {
        match self {
            Self::NoPrompt => "send the prompt of the image in the field `prompt`",
            Self::NoReference => "send at least one image of the person in the field `reference`",
            Self::NoFaceInReference => {
                "no face was found in the images of the person: send a `reference` image that shows \
                 the person's face at least 20 pixels wide"
            }
            Self::NoFaceInImage => {
                "no face was found in the generated image, so there is nothing to compare"
            }
            Self::NoOtherPhoto => {
                "send another image of the person, not a copy of the reference image, in the field \
                 `auxiliary`"
            }
            Self::NoFaceInOtherPhoto => {
                "no face was found in the auxiliary images: send an `auxiliary` image that shows \
                 the person's face at least 20 pixels wide"
            }
            Self::NoDetectables => {
                "name the objects of the prompt in `metadata`, as in \
                 {\"detectables\": [\"skateboard\"]}; empty labels are skipped, and so are roles of \
                 the person such as `astronaut`"
            }
            Self::NoRelations => {
                "send a prompt that says what the person does or where, as in \
                 `a person riding a horse`, or name the relations in `metadata`, as in \
                 {\"relations\": [[\"person\", \"riding\", \"horse\"]]}"
            }
            Self::NoMappedRelations => {
                "the pack's scene graph has no predicate for any relation of the prompt (`evidence` \
                 lists them): name the relations in `metadata` with other predicates, as in \
                 {\"relations\": [[\"person\", \"holding\", \"flute\"]]}"
            }
            Self::NeedsDataset => {
                "enrol labelled photos with POST /v1/datasets/{dataset}/photos, and name the \
                 dataset in `metadata` as `dataset`; for a whole run, \
                 GET /v1/runs/{run}/attributes needs no dataset"
            }
            Self::NoAttributes => {
                "send the person's `attributes` in `metadata`, and enrol photos with a face: some \
                 that show an attribute, and some that do not"
            }
            Self::Unavailable => {
                "load a pack that has the metric's graphs; GET /v1/metrics lists them"
            }
        }
    }
}

/// A fact that a reader must know in addition to the number of a score.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Flag {
    /// The prompt or a label has more tokens than the text model reads; the rest was cut off.
    Truncated,
    /// No face was found in the generated image, so its face scores are 0: the method failed.
    NoFaceInImage,
    /// Reference or auxiliary images without a face were left out; the others count.
    FacelessPhotos,
    /// The pack has no OWL-ViT: objects of relations count only if the scene graph has a class for
    /// them.
    Ungrounded,
    /// A relation was scored with a predicate that only approximates its own.
    ApproximatePredicate,
}

impl Flag {
    /// Code in the API and in the store.
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

/// Result of a metric for one sample.
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
