//! The report of all checks.

use serde::Serialize;

use crate::config::Setting;

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nothing is wrong.
    Ok,
    /// The service starts, but not as one probably wants.
    Warning,
    /// The service does not start, or refuses work.
    Error,
}

/// A check with what it found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// The result.
    pub status: Status,
    /// What was found, or what is wrong.
    pub found: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Check {
    /// Nothing is wrong.
    pub fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, found: found.into(), help: None }
    }

    /// Something should be looked at.
    pub fn warning(name: &'static str, found: impl Into<String>, help: Option<&str>) -> Self {
        let help = help.map(str::to_owned);
        Self { name, status: Status::Warning, found: found.into(), help }
    }

    /// Something must be mended.
    pub fn error(name: &'static str, found: impl Into<String>, help: Option<&str>) -> Self {
        let help = help.map(str::to_owned);
        Self { name, status: Status::Error, found: found.into(), help }
    }
}

/// All checks and settings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether no check found an error.
    pub healthy: bool,
    /// Version of the program.
    pub version: &'static str,
    /// The checks, in the order of a start.
    pub checks: Vec<Check>,
    /// Every key with its value and source.
    pub settings: Vec<Setting>,
}

impl Report {
    pub(super) fn new(version: &'static str, settings: Vec<Setting>, checks: Vec<Check>) -> Self {
        let healthy = checks.iter().all(|check| check.status != Status::Error);
        Self { healthy, version, checks, settings }
    }
}
