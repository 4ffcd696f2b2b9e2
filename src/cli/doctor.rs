//! `stellar-score doctor`: checks an installation.

use std::{fmt::Write as _, path::Path, process::ExitCode};

use clap::Args;

use super::output::{counted, print};
use crate::{
    config::{Config, ConfigError, Setting, SettingSource},
    doctor::{self, Report, Status},
};

const EXAMPLES: &str = "\
Examples:
  stellar-score doctor
  stellar-score --config my.toml doctor --json

Nothing is changed. Exit status: 0 if no check found an error, 1 otherwise.
Passwords are not shown.";

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
        print(&text(report))?;
    }
    Ok(if report.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the report as text.
fn text(report: &Report) -> String {
    let count = |status, noun| {
        let of_it = report.checks.iter().filter(|check| check.status == status).count();
        counted(of_it as u64, noun)
    };
    let mut text = format!(
        "stellar-score {}: {}, {}\n\n",
        report.version,
        count(Status::Error, "error"),
        count(Status::Warning, "warning")
    );
    for check in &report.checks {
        let status = match check.status {
            Status::Ok => "ok",
            Status::Warning => "WARNING",
            Status::Error => "ERROR",
        };
        let _ = writeln!(text, "{status:<8} {:<14} {}", check.name, check.found);
        if let Some(help) = &check.help {
            let _ = writeln!(text, "{:<8} {:<14} → {help}", "", "");
        }
    }
    let set: Vec<_> =
        report.settings.iter().filter(|of| of.source != SettingSource::Default).collect();
    if !set.is_empty() {
        text.push_str("\nSet by file or environment; all others are defaults:\n");
    }
    for Setting { key, value, source } in set {
        let _ = writeln!(text, "  {key} = {value}   ({source})");
    }
    text
}
