//! Scores samples: plans the features that the metrics need and computes each of them once.

mod attributes;
mod faces;
mod images;
mod objects;
mod plan;
mod relations;
mod sample;
mod service;
mod texts;

pub use attributes::{AttributesError, DatasetProbes, RunFaces};
pub use faces::{FaceEvidence, FaceMemory, FaceMemoryError};
pub use images::in_background;
pub use objects::ObjectEvidence;
pub use relations::{GroundingEvidence, RelationEvidence};
pub use sample::{EncodedImage, Metadata, Sample, attribute_labels, content};
pub(crate) use service::name;
pub use service::{
    FeatureUse, ImageFaces, MetricScore, Scorecard, Scoring, ScoringError, TextEvidence, graphs_of,
};
