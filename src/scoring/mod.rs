//! From a sample to its scores: which features do the metrics need, and each of them once.

mod attributes;
mod faces;
mod objects;
mod pictures;
mod plan;
mod relations;
mod sample;
mod service;
mod texts;

pub use attributes::{AttributesError, DatasetProbes, RunFaces};
pub use faces::{FaceEvidence, FaceMemory, FaceMemoryError};
pub use objects::ObjectEvidence;
pub use pictures::in_background;
pub use relations::{GroundingEvidence, RelationEvidence};
pub use sample::{Metadata, Picture, Sample, attribute_labels, content};
pub(crate) use service::name;
pub use service::{
    FeatureUse, MetricScore, PictureFaces, Scorecard, Scoring, ScoringError, TextEvidence, graphs_of,
};
