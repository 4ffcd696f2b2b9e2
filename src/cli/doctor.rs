//! `stellar-score doctor`: checks an installation.

use std::{path::Path, process::ExitCode};

use clap::Args;

use super::output::print;
use crate::{
    config::{Config, ConfigError},
    doctor::{self, Report},
};

const EXAMPLES: &str = "\
Examples:
  stellar-score doctor
  stellar-score --config my.toml doctor --json

Nothing is changed. Exit status: 0 if no check found an error, 1 otherwise. Passwords are not \
shown.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DoctorArgs {
    /// Print the report as JSON, with every key of the configuration
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(
    config: &Config,
    file: Option<&Path>,
    args: DoctorArgs,
) -> anyhow::Result<ExitCode> {
    let report = doctor::examine(config, file).await?;
    finish(&report, &args)
}

/// Prints the report for a configuration that cannot be read.
pub(super) fn unreadable(error: &ConfigError, args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    finish(&doctor::unreadable(error), args)
}

fn finish(report: &Report, args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    if args.json {
        print(&(serde_json::to_string_pretty(report)? + "\n"))?;
    } else {
        print(&report.to_string())?;
    }
    Ok(if report.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
