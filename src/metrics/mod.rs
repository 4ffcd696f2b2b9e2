//! Evaluation metrics: pure functions from features to scores, and the registry that describes
//! them.
//!
//! A metric is one row of [`REGISTRY`] and one function. The row names the features that the
//! function reads ([`Need`]), so that the scoring service requests each feature once. The function
//! depends on neither models, images nor HTTP.

mod attributes;
mod clip;
mod copies;
mod features;
mod identity;
mod objects;
mod preference;
mod registry;
mod relations;
mod resemblance;
mod score;
mod vector;

pub use attributes::{
    ATTRIBUTES, AttributeInputs, AttributePrediction, AttributeSummary, LabelledFace, LeftOut, Probes,
    RunAttributes, RunRow, evaluate, largest, share_right,
};
pub use features::{FeatureSet, Input, Subject};
pub use identity::FACES;
pub use objects::{Label, OBJECTS, ObjectScore, Objects, Phrase, SkipReason, Skipped, choose};
pub use registry::{Direction, ListError, Metric, Need, REGISTRY, find, parse_list};
pub use relations::{
    Factors, Grounding, Mapping, Pair, RELATIONS, RelationScore, Relations, Sought, Unmapped,
    found as found_relations, reduce,
};
pub use score::{FaceMatch, Flag, MetricResult, NullReason, Score};
pub(crate) use vector::cosine;
