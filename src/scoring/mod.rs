//! Scores samples: plans the features that the metrics need and computes each of them once.

mod attributes;
mod error;
mod evidence;
mod faces;
mod images;
mod objects;
mod plan;
mod probes;
mod relations;
mod sample;
mod scorecard;
mod service;
mod sources;
mod texts;
mod thumbnails;

pub use attributes::{AttributesError, RunFaces};
pub use error::ScoringError;
pub use evidence::{FeatureUse, TextEvidence};
pub use faces::{FaceEvidence, FaceStorage, FaceStorageError};
pub use images::{DecodeBudget, DecodePermit, in_background};
pub use objects::ObjectEvidence;
pub use probes::DatasetProbes;
pub use relations::{GroundingEvidence, RelationEvidence};
pub use sample::{EncodedImage, Metadata, Sample, attribute_labels, content};
pub use scorecard::{ImageFaces, MetricScore, Scorecard};
pub use service::{Evict, Scoring};
pub use texts::Texts;
pub use thumbnails::ThumbnailError;
