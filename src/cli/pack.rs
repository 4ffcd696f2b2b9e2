//! `stellar-score pack`: inspects packs and verifies their scores on this machine.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::Subcommand;

use super::{
    output::print,
    verify::{self, VerifyArgs},
};
use crate::{
    config::Config,
    engine::Pack,
    verify::{DRIFT_FILE, DriftCertificate},
};

#[derive(Debug, Subcommand)]
pub(super) enum PackCommand {
    /// Check all hashes and list the graphs with their sources
    Inspect {
        /// The pack's folder [default: the configured pack]
        pack: Option<PathBuf>,
    },
    /// Score images on this machine and compare with the scores of the original programs, the
    /// toolkit or another pack
    #[command(after_help = verify::EXAMPLES)]
    Verify(Box<VerifyArgs>),
}

pub(super) async fn run(config: Config, command: PackCommand) -> anyhow::Result<ExitCode> {
    match command {
        PackCommand::Inspect { pack } => inspect(&Pack::open(pack.unwrap_or(config.pack))?),
        PackCommand::Verify(args) => verify::run(config, *args).await,
    }
}

fn inspect(pack: &Pack) -> anyhow::Result<ExitCode> {
    let mut text = format!(
        "pack      {}\nweights   {}\nexporter  {}\ndigest    {}\n\n",
        pack.name, pack.weights, pack.exporter, pack.digest
    );
    for graph in &pack.graphs {
        let _ = writeln!(
            text,
            "{:<22} {}  batch {:<4} {} @ {}",
            graph.role,
            graph.precision,
            graph.max_batch,
            graph.source.checkpoint,
            graph.source.revision
        );
        for (side, tensors) in [("in", &graph.inputs), ("out", &graph.outputs)] {
            for tensor in tensors {
                let _ = writeln!(text, "  {side:<4} {tensor}");
            }
        }
    }
    if let Some(generator) = &pack.generator {
        let _ = writeln!(
            text,
            "\ngenerator {}: {} words for `{}`, {} pixels by default, at most {}, multiples of {}\n\
                training  {}",
            generator.system,
            generator.words,
            generator.placeholder,
            generator.default_side,
            generator.largest_side,
            generator.side_multiple,
            if generator.training.is_some() { "training.json" } else { "not said" }
        );
    }
    let goldens = if pack.goldens.is_some() { "present" } else { "none" };
    let drift = match DriftCertificate::stored(pack) {
        Ok(None) => "not measured".to_owned(),
        Ok(Some(drift)) => format!(
            "{DRIFT_FILE}: {} samples against {} on {}",
            drift.samples,
            drift.against.id,
            drift.measured_at.date()
        ),
        // The pack itself is intact.
        Err(problem) => format!("{problem:#}"),
    };
    let _ = writeln!(
        text,
        "\ngoldens   {goldens}\ndrift     {drift}\nall files match the hashes in the manifest"
    );
    print(&text)
}
