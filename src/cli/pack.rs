//! `stellar-score pack`: what is in a pack, and does it compute here what the original programs computed?

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::Subcommand;

use super::{print, score::read_picture, start_scoring};
use crate::{
    config::Config,
    engine::Pack,
    parity::{self, Certificate, Goldens},
    telemetry::Telemetry,
};

#[derive(Debug, Subcommand)]
pub(super) enum PackCommand {
    /// Check every hash and list the graphs with their sources
    Inspect {
        /// The pack's folder [default: the configured pack]
        pack: Option<PathBuf>,
    },
    /// Score the pack's golden samples on this machine and compare with the original programs' scores
    Verify {
        /// The pack's folder [default: the configured pack]
        pack: Option<PathBuf>,
        /// Print the certificate as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(config: Config, command: PackCommand) -> anyhow::Result<ExitCode> {
    match command {
        PackCommand::Inspect { pack } => inspect(&Pack::open(pack.unwrap_or(config.pack))?),
        PackCommand::Verify { pack, json } => {
            let pack = pack.unwrap_or_else(|| config.pack.clone());
            verify(config, pack, json).await
        }
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
            graph.role, graph.precision, graph.max_batch, graph.source.checkpoint, graph.source.revision
        );
        for (side, tensors) in [("in", &graph.inputs), ("out", &graph.outputs)] {
            for tensor in tensors {
                let _ = writeln!(text, "  {side:<4} {tensor}");
            }
        }
    }
    let goldens = if pack.goldens.is_some() { "present" } else { "none" };
    let _ = writeln!(text, "\ngoldens   {goldens}\nevery file has the hash that the manifest names");
    print(&text)
}

async fn verify(mut config: Config, pack: PathBuf, json: bool) -> anyhow::Result<ExitCode> {
    // Both passes shall really run the models.
    config.engine.cache_bytes = 0;
    // The originals score any picture, so the goldens have the smallest, which the service refuses by default.
    config.limits.picture_min_side = 1;
    let scoring = start_scoring(&config, &pack, &Telemetry::new()).await?;
    let goldens = Goldens::read(scoring.pack())?;
    let certificate = parity::certify(&scoring, &goldens, |path| read_picture(&config, path)).await?;
    scoring.engine().drain().await;
    let text =
        if json { serde_json::to_string_pretty(&certificate)? + "\n" } else { table(&certificate, &scoring) };
    print(&text)?;
    Ok(if certificate.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(certificate: &Certificate, scoring: &crate::scoring::Scoring) -> String {
    let pack = scoring.pack();
    let mut text = format!(
        "Parity of pack {} ({}, {} weights) on this machine\nreference: {}\n\n{:<16} {:>7} {:>11} {:>11} {:>11}\n",
        pack.name,
        pack.digest,
        pack.weights,
        certificate.reference,
        "metric",
        "scores",
        "max |Δ|",
        "allowed",
        "batch |Δ|"
    );
    for line in &certificate.metrics {
        let verdict = if line.passed { "ok" } else { "FAILED" };
        let _ = writeln!(
            text,
            "{:<16} {:>7} {:>11.2e} {:>11.2e} {:>11.2e}  {verdict}",
            line.metric, line.scores, line.largest_difference, line.tolerance, line.batch_difference
        );
    }
    for problem in &certificate.problems {
        let _ = writeln!(text, "problem: {problem}");
    }
    let verdict = if certificate.passed { "passed" } else { "FAILED" };
    let _ = writeln!(
        text,
        "\n{verdict}: {} golden samples, one by one and all at once (largest batch {})",
        certificate.samples, certificate.largest_batch
    );
    text
}
