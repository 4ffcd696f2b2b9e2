//! `stellar-score score`: scores one image without a server.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use serde_json::json;

use super::{output::print, start::start_scoring};
use crate::{
    VERSION, api,
    config::Config,
    content::ContentHash,
    engine::Pack,
    metrics::{self, Direction, REGISTRY},
    pack_id::Weights,
    scoring::{EncodedImage, Metadata, Sample, Scorecard},
    service::Evidence,
    telemetry::Telemetry,
    vision,
};

#[derive(Debug, Args)]
pub(super) struct ScoreArgs {
    /// The generated image: PNG, JPEG, WebP or PPM
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// The prompt that the image was generated from
    #[arg(long)]
    prompt: Option<String>,
    /// Reference image: an image of the person that the generator was given; repeat for several
    #[arg(long, value_name = "FILE")]
    reference: Vec<PathBuf>,
    /// Auxiliary image: a further image of the same person; repeat for several
    #[arg(long, value_name = "FILE")]
    auxiliary: Vec<PathBuf>,
    /// JSON file with the sample's metadata: attributes, detectables, relations, categories
    #[arg(long, value_name = "FILE")]
    metadata: Option<PathBuf>,
    /// Metric codes, separated by commas [default: all]
    #[arg(long)]
    metrics: Option<String>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: Config, args: ScoreArgs) -> anyhow::Result<ExitCode> {
    let metrics = match &args.metrics {
        Some(codes) => metrics::parse_list(codes)?,
        None => REGISTRY.iter().collect(),
    };
    let sample = read_sample(&config, &args)?;
    let scoring = start_scoring(&config, &config.pack, &Telemetry::new()).await?;
    let card = scoring.score(&sample, &metrics).await?;
    scoring.engine().drain().await;
    let text = if args.json { json(&card, scoring.pack())? } else { table(&card, scoring.pack()) };
    print(&text)
}

fn read_sample(config: &Config, args: &ScoreArgs) -> anyhow::Result<Sample> {
    let several = |paths: &[PathBuf]| {
        paths.iter().map(|path| read_image(config, path)).collect::<anyhow::Result<Vec<_>>>()
    };
    let metadata = match &args.metadata {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_str(&text)
                .with_context(|| format!("{} is not valid metadata", path.display()))?
        }
        None => Metadata::default(),
    };
    Ok(Sample {
        image: read_image(config, &args.image)?,
        prompt: args.prompt.clone(),
        references: several(&args.reference)?,
        auxiliary: several(&args.auxiliary)?,
        metadata,
        dataset: None,
    })
}

/// Reads an image file and checks its header.
pub(super) fn read_image(config: &Config, path: &Path) -> anyhow::Result<EncodedImage> {
    let bytes =
        crate::read::bytes(path).with_context(|| format!("cannot read {}", path.display()))?;
    let header = vision::read_header(&bytes, &config.limits.decode())
        .with_context(|| path.display().to_string())?;
    let least = config.limits.image_min_side;
    anyhow::ensure!(
        header.width >= least && header.height >= least,
        "{}: {}×{} pixels are too small, the minimum is {least}×{least}",
        path.display(),
        header.width,
        header.height
    );
    Ok(EncodedImage { hash: ContentHash::of(&bytes), bytes: Bytes::from(bytes), header })
}

fn json(card: &Scorecard, pack: &Pack) -> anyhow::Result<String> {
    let scores: BTreeMap<_, _> =
        card.scores.iter().map(|score| (score.metric.code, api::score_entry(score))).collect();
    let answer = json!({
        "scores": scores,
        "weights": pack.weights,
        "evidence": Evidence::of(card, pack),
        "provenance": { "service_version": VERSION, "pack": pack.id() },
    });
    Ok(serde_json::to_string_pretty(&answer)? + "\n")
}

fn table(card: &Scorecard, pack: &Pack) -> String {
    let mut text = format!("{:<16} {:>10}  {:<8} {}\n", "metric", "score", "better", "note");
    for score in &card.scores {
        let better = match score.metric.direction {
            Direction::HigherIsBetter => "higher",
            Direction::LowerIsBetter => "lower",
            Direction::Support => "-",
        };
        let (value, note) = match &score.outcome {
            Ok(value) => {
                let flags: Vec<_> = value.flags.iter().map(|flag| flag.code()).collect();
                (format!("{:.5}", value.value), flags.join(", "))
            }
            Err(reason) => ("-".to_owned(), format!("{}: {}", reason.code(), reason.help())),
        };
        let line = format!("{:<16} {value:>10}  {better:<8} {note}", score.metric.code);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let _ = write!(text, "\npack {} ({})", pack.name, &pack.digest.to_string()[..12]);
    text.push_str(match pack.weights {
        Weights::Official | Weights::Imported => "\n",
        Weights::Demo => ": demo weights, the numbers mean nothing\n",
    });
    text
}
