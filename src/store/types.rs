//! Types that reads and writes share.

use std::fmt;

pub use crate::pack_id::{PackId, Weights};

/// A run, named by its method and by its own name, which is unique within the method.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunName {
    /// Name of the method, which is the generator under test.
    pub method: String,
    /// Name of the run, which is one set of samples of the method.
    pub run: String,
}

impl RunName {
    /// Name of the run of samples that only name a method.
    pub const DEFAULT: &'static str = "default";

    /// Names `run` of `method`, or its [default](Self::DEFAULT) run.
    pub fn new(method: impl Into<String>, run: Option<String>) -> Self {
        Self { method: method.into(), run: run.unwrap_or_else(|| Self::DEFAULT.to_owned()) }
    }
}

impl fmt::Display for RunName {
    /// `method/run`, for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.method, self.run)
    }
}

/// Value of a metric for a sample: a number, or the reason why there is none.
#[derive(Clone, Debug, PartialEq)]
pub enum ScoreValue {
    /// A finite number.
    Number(f64),
    /// Null, with the reason's code (`no_face_in_reference`, `no_detectables`, …); never counted as
    /// 0.
    Null {
        /// Code of the reason.
        reason: String,
    },
}

impl ScoreValue {
    /// Returns the number, if there is one.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(value) => Some(*value),
            Self::Null { .. } => None,
        }
    }
}
