//! The result of scoring a sample.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{FaceEvidence, FeatureUse, ObjectEvidence, RelationEvidence, TextEvidence};
use crate::content::ContentHash;
use crate::metrics::{Metric, MetricResult, Role};

/// Result of scoring a sample.
#[derive(Debug, Clone)]
pub struct Scorecard {
    /// Every requested metric, in the order of the request.
    pub scores: Vec<MetricScore>,
    /// Every feature that the scores are based on, and its origin.
    pub features: Vec<FeatureUse>,
    /// Every graph that these features come from.
    pub graphs: Vec<Role>,
    /// Token counts of the prompt for each text graph.
    pub texts: Vec<TextEvidence>,
    /// The faces in each image that was searched for them.
    pub faces: Vec<ImageFaces>,
    /// Hashes of these images' files.
    pub searched: Vec<ContentHash>,
    /// The objects that were searched for in the image, and those that were skipped.
    pub objects: Vec<ObjectEvidence>,
    /// The relations of the prompt, including those that could not be scored.
    pub relations: Vec<RelationEvidence>,
}

/// The faces in one image of a sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ImageFaces {
    /// The image: `image`, `reference[0]`, `auxiliary[0]` and so on.
    #[schema(example = "image")]
    pub of: String,
    /// Width and height of the upright image in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<[u32; 2]>,
    /// The largest first.
    pub faces: Vec<FaceEvidence>,
}

/// Result of one metric.
#[derive(Debug, Clone)]
pub struct MetricScore {
    /// The metric.
    pub metric: &'static Metric,
    /// A score, or the reason why it is null.
    pub outcome: MetricResult,
}
