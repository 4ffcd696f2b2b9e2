//! Evaluation metrics: pure functions from features to scores, and the registry that describes
//! them.
//!
//! A metric is one row of [`REGISTRY`] and one function. The row names the features that the
//! function reads ([`Need`]), so that the scoring service requests each feature once. The function
//! depends on neither models, images nor HTTP.

mod attributes;
mod clip;
mod consistency;
mod copies;
mod evidence;
mod family;
mod features;
mod guide;
mod identity;
mod input;
mod lookup;
mod objects;
mod preference;
mod probes;
mod registry;
mod relations;
mod resemblance;
mod score;
mod sought;
mod vector;

pub use attributes::{AttributeSummary, RunAttributes, RunRow, evaluate, largest, share_right};
pub use consistency::{
    Disagreement, NoConsistency, PersonPhotos, PhotoFaces, PhotoPlace, photo_consistency,
};
pub use evidence::{AttributePrediction, FaceMatch, LeftOut, ObjectScore};
pub use family::Family;
pub use features::{FeatureSet, FeatureSource, Role, Subject};
pub use guide::{Guide, Topic};
pub use input::Input;
pub use lookup::{ListError, by_family, find, in_reading_order, parse_codes, parse_list};
pub use objects::choose;
pub use probes::{ATTRIBUTES, AttributeInputs, LabelledFace, Probes};
pub use registry::{Direction, Metric, Need, REGISTRY};
pub use relations::{Factors, Grounding, Pair, RelationScore, found as found_relations, reduce};
pub use score::{Explanation, Flag, MetricResult, NullReason, Score};
pub use sought::{
    Label, Mapping, Objects, Phrase, Relations, SkipReason, Skipped, Sought, Unmapped,
};
pub(crate) use vector::cosine;
