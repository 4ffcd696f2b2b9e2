//! `stellar-score validate`: validates a pack's models on images with known ground truth.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::{output::print, score::read_image, start::start_scoring};
use crate::{
    config::Config,
    telemetry::Telemetry,
    verify::relations::{self, Ordering, Report, Settings},
};

#[derive(Debug, Subcommand)]
pub(super) enum ValidateCommand {
    /// Compare true relations of images with false ones that have another predicate or another
    /// object
    Relations(RelationsArgs),
}

const PAIRS: &str = r#"List of images, one JSON object per line, with paths relative to the list:
{"image": "a.jpg", "relations": [["person", "riding", "horse"], ["person", "near", "tree"]]}"#;

#[derive(Debug, Args)]
pub(super) struct RelationsArgs {
    /// List of images, one JSON object per line, with paths relative to the list
    #[arg(long, value_name = "FILE", long_help = PAIRS)]
    pairs: PathBuf,
    /// The pack's folder [default: the configured pack]
    #[arg(long, value_name = "DIR")]
    pack: Option<PathBuf>,
    /// Number of false relations of each kind to draw per true one
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    negatives: u16,
    /// Random seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: Config, command: ValidateCommand) -> anyhow::Result<ExitCode> {
    let ValidateCommand::Relations(args) = command;
    let images = relations::read_pairs(&args.pairs)?;
    let pack = args.pack.as_ref().unwrap_or(&config.pack);
    let scoring = start_scoring(&config, pack, &Telemetry::new()).await?;
    let settings = Settings { negatives: args.negatives.into(), seed: args.seed };
    let report =
        relations::compare(&scoring, &images, settings, |path| read_image(&config, path)).await?;
    scoring.engine().drain().await;
    print(&if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { table(&report) })
}

fn table(report: &Report) -> String {
    let mut text = format!(
        "Relations by {} ({}), pack {} ({})\n{} images, {} true relations, {} outside the scene \
            graph's vocabulary\n\n\
         {:<18} {:>9} {:>6} {:>5} {:>7}  95 % confidence interval over images\n",
        report.backend,
        report.checkpoint,
        report.pack.name,
        &report.pack.digest[..12.min(report.pack.digest.len())],
        report.images,
        report.relations,
        report.unmapped,
        "true above",
        "relations",
        "pairs",
        "ties",
        "share"
    );
    let rows =
        [("other predicate", &report.swapped_predicate), ("other object", &report.swapped_object)];
    for (name, Ordering { relations, pairs, ties, above, interval }) in rows {
        let share = above.map_or_else(|| "-".to_owned(), |share| format!("{share:.4}"));
        let interval =
            interval.map_or_else(|| "-".to_owned(), |[low, high]| format!("{low:.4} to {high:.4}"));
        let _ =
            writeln!(text, "{name:<18} {relations:>9} {pairs:>6} {ties:>5} {share:>7}  {interval}");
    }
    let _ = writeln!(text, "\n{}", report.note);
    text
}
