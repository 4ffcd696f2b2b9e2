//! Names of runs.

use std::fmt;

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
