//! Checks of an installation before or beside a running service: what is configured, what is
//! found, and what is wrong. Nothing is changed.

mod machine;
mod report;
mod storage;

use std::path::Path;

pub use report::{Check, Report, Status};

use crate::{
    VERSION,
    config::{Config, ConfigError},
};

/// Checks everything that a start of the service needs.
///
/// # Errors
/// The configuration cannot be read.
pub async fn examine(config: &Config, file: Option<&Path>) -> Result<Report, ConfigError> {
    let mut checks = vec![configuration(config)];
    let machine = config.clone();
    let of_machine = tokio::task::spawn_blocking(move || machine::checks(&machine));
    checks.extend(of_machine.await.unwrap_or_else(|_| {
        vec![Check::error("runtime", "loading ONNX Runtime or the pack panicked", None)]
    }));
    let (address, serves) = machine::address(config).await;
    checks.extend(storage::checks(config, serves).await);
    checks.push(address);
    checks.push(machine::open_files(config));
    Ok(Report::new(VERSION, Config::settings(file)?, checks))
}

/// Returns the report for a configuration that cannot be read.
#[must_use]
pub fn unreadable(error: &ConfigError) -> Report {
    let check = Check::error("configuration", error.to_string(), None);
    Report::new(VERSION, Vec::new(), vec![check])
}

/// Reports slips that the service only warns about.
fn configuration(config: &Config) -> Check {
    let mut slips = Vec::new();
    for unknown in Config::unknown_variables() {
        if let Some(nearest) = unknown.nearest {
            slips.push(format!("{} is ignored: did you mean {nearest}?", unknown.name));
        }
    }
    for renamed in &config.renamed {
        slips.push(format!("{} is the old name of {}", renamed.old, renamed.new));
    }
    if slips.is_empty() {
        Check::ok("configuration", "all keys are known and valid")
    } else {
        Check::warning("configuration", slips.join("; "), None)
    }
}
