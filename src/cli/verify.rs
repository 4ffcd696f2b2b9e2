//! `stellar-score pack verify`: compares a pack's scores on this machine with reference scores.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{ArgGroup, Args};
use serde::Serialize;

use super::{
    output::{lines, print, verdict},
    progress::{self, note},
    score::read_image,
    start::start_scoring,
    submit::problems_first,
    verify_generator,
};
use crate::{
    clock,
    config::Config,
    engine::Pack,
    metrics::{self, Metric, REGISTRY},
    scoring::Scoring,
    telemetry::Telemetry,
    verify::{
        self, AllScored, Case, Certificate, DriftCertificate, Goldens, MeasuredPack, MetricDrift,
        NullDifference, Samples, Tolerances, ToolkitCertificate, ToolkitParity, find_toolkit,
        read_run, read_samples, read_score_files, score_all,
    },
    vision,
};

pub(super) const EXAMPLES: &str = "\
Without --against and --toolkit, the pack's golden samples are scored and compared with the scores \
of the original programs. A generator pack's golden images are generated and compared with those of \
diffusers.

--images takes a folder in one of these forms:
  images alone, each with its prompt, if any, in NAME.txt;
  a list samples.jsonl, one JSON object per line, with paths relative to the list:
    {\"image\": \"out/1.png\", \"prompt\": \"a person on a \
    horse\", \"reference\": \"photos/ada.jpg\"}
    (further keys: name, auxiliary, metadata; reference and auxiliary may be lists of paths);
  NAME.png with NAME.json, in the form that `submit` takes, and the dataset's folder as --dataset;
  a folder that contains both of these.

Examples:
  stellar-score pack verify packs/official
  stellar-score pack verify packs/int8 --against packs/official --images images/ --store
  stellar-score pack verify packs/official --toolkit stellar-metrics/tests/assets";

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("compared").args(["images", "toolkit"]))]
pub(super) struct VerifyArgs {
    /// The pack's folder [default: the configured pack]
    pack: Option<PathBuf>,
    /// Compare with the scores of this pack on the images of --images
    #[arg(long, value_name = "OTHER_PACK", requires = "images")]
    against: Option<PathBuf>,
    /// The folder of images that both packs score
    #[arg(long, value_name = "DIR", requires = "against")]
    images: Option<PathBuf>,
    /// Compare with CSV files written by the reference toolkit, in a folder with the generated
    /// images and their dataset
    #[arg(long, value_name = "DIR")]
    toolkit: Option<PathBuf>,
    /// The dataset of the images [default: the one found next to them]
    #[arg(long, value_name = "DIR", requires = "compared")]
    dataset: Option<PathBuf>,
    /// Metric codes, separated by commas [default: all]
    #[arg(long, value_name = "CODES", requires = "compared")]
    metrics: Option<String>,
    /// Override the tolerance of a metric, the largest difference allowed, such as
    /// clip_t=1e-4,dino=1e-4
    #[arg(long, value_name = "CODE=NUMBER", value_delimiter = ',', value_parser = tolerance,
        requires = "toolkit")]
    tolerance: Vec<(String, f64)>,
    /// Store the certificate as drift.json in the pack's folder, replacing an earlier one
    #[arg(long, requires = "against")]
    store: bool,
    /// Print the certificate as JSON instead of a table; with =FILE, write it to FILE and also
    /// print the table
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true,
        default_missing_value = "-")]
    json: Option<PathBuf>,
}

fn tolerance(text: &str) -> Result<(String, f64), String> {
    let parsed = text
        .split_once('=')
        .and_then(|(code, number)| Some((code.to_owned(), number.parse().ok()?)));
    parsed.ok_or_else(|| "expected CODE=NUMBER, such as clip_t=1e-4".to_owned())
}

pub(super) async fn run(config: Config, args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let pack = args.pack.clone().unwrap_or_else(|| config.pack.clone());
    if Pack::generates_in(&pack)? {
        anyhow::ensure!(
            args.against.is_none() && args.toolkit.is_none(),
            "{} generates images: it is compared with its golden images only, leave out --against \
                and --toolkit",
            pack.display()
        );
        return generator(&config, &args, &pack).await;
    }
    match (&args.against, &args.images, &args.toolkit) {
        (Some(other), Some(images), _) => against(&config, &args, [&pack, other], images).await,
        (_, _, Some(folder)) => toolkit(config, &args, &pack, folder).await,
        _ => goldens(config, &args, &pack).await,
    }
}

async fn goldens(mut config: Config, args: &VerifyArgs, pack: &Path) -> anyhow::Result<ExitCode> {
    // Both passes must run the models.
    config.engine.cache_bytes = 0;
    accept_any_size(&mut config);
    let scoring = start_scoring(&config, pack, &Telemetry::new()).await?;
    let goldens = Goldens::read(scoring.pack())?;
    let certificate = verify::certify(&scoring, &goldens, |path| read_image(&config, path)).await?;
    scoring.engine().drain().await;
    show(args, &certificate, || golden_table(&certificate, scoring.pack()))?;
    Ok(exit(certificate.passed))
}

/// Compares a generator pack with its golden images.
async fn generator(config: &Config, args: &VerifyArgs, pack: &Path) -> anyhow::Result<ExitCode> {
    let (certificate, pack) = verify_generator::certify(config, pack).await?;
    show(args, &certificate, || verify_generator::table(&certificate, &pack))?;
    Ok(exit(certificate.passed))
}

/// The original programs score images of any size, so the golden samples include tiny ones, which
/// the service refuses by default.
fn accept_any_size(config: &mut Config) {
    config.limits.image_min_side = 1;
}

async fn against(
    config: &Config,
    args: &VerifyArgs,
    folders: [&Path; 2],
    images: &Path,
) -> anyhow::Result<ExitCode> {
    let metrics = match &args.metrics {
        Some(codes) => metrics::parse_list(codes)?,
        None => REGISTRY.iter().collect(),
    };
    let samples = sound(images, read_samples(images, args.dataset.as_deref())?)?;
    anyhow::ensure!(
        Pack::digest_in(folders[0])? != Pack::digest_in(folders[1])?,
        "{} and {} are the same pack: set another one with --against",
        folders[0].display(),
        folders[1].display()
    );
    // Scored one after the other, so that only one pack is in memory.
    let (pack, of_pack) = score(config, folders[0], &samples.cases, &metrics).await?;
    let (other, of_other) = score(config, folders[1], &samples.cases, &metrics).await?;
    let certificate = DriftCertificate::of(
        [&pack, &other].map(MeasuredPack::of),
        &samples.cases,
        &metrics,
        [&of_pack, &of_other],
        clock::now(),
    );
    anyhow::ensure!(
        !certificate.metrics.is_empty(),
        "nothing to compare: {}",
        nothing(&certificate)
    );
    show(args, &certificate, || drift_table(&certificate))?;
    let complete = certificate.problems.is_empty();
    if args.store {
        anyhow::ensure!(
            complete,
            "the certificate is not stored: fix the samples with problems, or remove them from {}",
            images.display()
        );
        let path = certificate.store(&pack)?;
        note(&format!("stored in {}\n", path.display()));
    }
    Ok(exit(complete))
}

/// Explains why neither pack has a number.
fn nothing(certificate: &DriftCertificate) -> String {
    if certificate.samples == 0 {
        return format!("no samples can be scored: {}", certificate.problems.join("; "));
    }
    let reasons = certificate
        .without_numbers
        .iter()
        .map(|(metric, reason)| format!("{metric} is null ({reason})"));
    reasons.collect::<Vec<_>>().join(", ") + " for all samples"
}

async fn toolkit(
    mut config: Config,
    args: &VerifyArgs,
    pack: &Path,
    folder: &Path,
) -> anyhow::Result<ExitCode> {
    accept_any_size(&mut config);
    let tolerances = Tolerances::new(&args.tolerance)?;
    let found = find_toolkit(folder, args.dataset.as_deref())?;
    let (mut files, notes) = read_score_files(&found.tables)?;
    note(&lines(notes.iter().map(|text| format!("note: {text}"))));
    if let Some(codes) = &args.metrics {
        let wanted = metrics::parse_list(codes)?;
        files.retain_mut(|file| file.keep(&wanted));
    }
    anyhow::ensure!(
        !files.is_empty(),
        "{} has no CSV file of the toolkit with the requested metrics: files must have the \
            toolkit's names, such as \
         identity_preservation.csv",
        folder.display()
    );
    let samples = sound(&found.run, read_run(&found.run, &found.dataset)?)?;
    let metrics: Vec<_> = files.iter().flat_map(verify::ScoreFile::metrics).collect();
    let (pack, scored) = score(&config, pack, &samples.cases, &metrics).await?;
    let certificate = verify::compare(&pack, &samples.cases, &scored, &files, &tolerances);
    show(args, &certificate, || toolkit_table(&certificate))?;
    Ok(exit(certificate.passed))
}

/// Prints the problems of a folder, and fails if they prevent scoring.
fn sound(folder: &Path, samples: Samples) -> anyhow::Result<Samples> {
    note(&problems_first(&samples.problems));
    anyhow::ensure!(
        samples.is_sound(),
        "{} has problems: no samples were scored",
        folder.display()
    );
    Ok(samples)
}

/// Scores the samples with one pack and unloads it afterwards.
async fn score(
    config: &Config,
    pack: &Path,
    cases: &[Case],
    metrics: &[&'static Metric],
) -> anyhow::Result<(Pack, AllScored)> {
    let scoring = start_scoring(config, pack, &Telemetry::new()).await?;
    let bar = progress::bar("images scored");
    bar.set_length(cases.len() as u64);
    let read = |path: &Path| read_image(config, path);
    let scored =
        score_all(&scoring, cases, metrics, config.runs.concurrency, read, || bar.inc(1)).await;
    bar.finish_and_clear();
    let scored =
        scored.with_context(|| format!("pack {} failed to score all samples", scoring.pack().name));
    scoring.engine().drain().await;
    let pack = Pack::clone(scoring.pack());
    drop::<std::sync::Arc<Scoring>>(scoring);
    vision::give_back_free_memory();
    Ok((pack, scored?))
}

fn exit(passed: bool) -> ExitCode {
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints a certificate, and writes it to a file if requested.
fn show(
    args: &VerifyArgs,
    certificate: &impl Serialize,
    table: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    let json = || anyhow::Ok(serde_json::to_string_pretty(certificate)? + "\n");
    match &args.json {
        Some(path) if path == Path::new("-") => print(&json()?)?,
        Some(path) => {
            std::fs::write(path, json()?)
                .with_context(|| format!("cannot write {}", path.display()))?;
            print(&table())?
        }
        None => print(&table())?,
    };
    Ok(())
}

fn golden_table(certificate: &Certificate, pack: &Pack) -> String {
    let mut text = format!(
        "Parity of pack {} ({}, {} weights) on this machine\nreference: {}\n\n{:<16} {:>7} {:>11} \
            {:>11} {:>11}\n",
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
        let _ = writeln!(
            text,
            "{:<16} {:>7} {:>11.2e} {:>11.2e} {:>11.2e}  {}",
            line.metric,
            line.scores,
            line.largest_difference,
            line.tolerance,
            line.batch_difference,
            verdict(line.passed, "ok")
        );
    }
    for problem in &certificate.problems {
        let _ = writeln!(text, "problem: {problem}");
    }
    let _ = writeln!(
        text,
        "\n{}: {} golden samples, scored one by one and concurrently (largest batch {})",
        verdict(certificate.passed, "passed"),
        certificate.samples,
        certificate.largest_batch
    );
    text
}

fn drift_table(certificate: &DriftCertificate) -> String {
    let described = |pack: &MeasuredPack| {
        let precisions: Vec<_> = pack.precisions.iter().map(ToString::to_string).collect();
        format!(
            "{} ({}, {} weights, {})",
            pack.id.name,
            pack.id.digest,
            pack.id.weights,
            precisions.join(" and ")
        )
    };
    let mut text = format!(
        "Drift of pack {}\nagainst pack  {}\n{} samples, {}; differences are the first pack's \
            score minus the second's\n\n\
         {:<16} {:>7} {:>11} {:>11} {:>9} {:>11}  sample\n",
        described(&certificate.pack),
        described(&certificate.against),
        certificate.samples,
        certificate.machine,
        "metric",
        "n",
        "bias",
        "spread",
        "rank r",
        "worst"
    );
    for line in &certificate.metrics {
        let _ = writeln!(text, "{}", drift_line(line).trim_end());
    }
    for line in &certificate.metrics {
        for null in &line.nulls {
            let _ = writeln!(text, "{}: {}", line.metric, null_line(null));
        }
    }
    if !certificate.without_numbers.is_empty() {
        let all: Vec<_> = certificate
            .without_numbers
            .iter()
            .map(|(metric, reason)| format!("{metric} ({reason})"))
            .collect();
        let _ = writeln!(text, "null with both packs: {}", all.join(", "));
    }
    for problem in &certificate.problems {
        let _ = writeln!(text, "problem: {problem}");
    }
    text
}

fn drift_line(line: &MetricDrift) -> String {
    let number =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2e}"));
    let rank = line.spearman.map_or_else(|| "-".to_owned(), |rank| format!("{rank:.5}"));
    format!(
        "{:<16} {:>7} {:>11} {:>11} {rank:>9} {:>11}  {}",
        line.metric,
        line.n,
        number(line.bias),
        number(line.spread),
        number(line.worst.as_ref().map(|worst| worst.difference)),
        line.worst.as_ref().map_or("", |worst| worst.sample.as_str())
    )
}

fn null_line(null: &NullDifference) -> String {
    let state = |reason: &Option<String>| {
        reason.as_ref().map_or_else(|| "a number".to_owned(), |reason| format!("null ({reason})"))
    };
    let more = if null.n > null.samples.len() { ", …" } else { "" };
    format!(
        "{} with the first pack, {} with the second, of {} samples: {}{more}",
        state(&null.reason),
        state(&null.reason_against),
        null.n,
        null.samples.join(", ")
    )
}

fn toolkit_table(certificate: &ToolkitCertificate) -> String {
    let mut text = format!(
        "Parity of pack {} ({} weights) with the toolkit's files\n{} images, {}\n\n{:<16} {:>6} \
            {:>11} {:>11}          row\n",
        certificate.pack,
        certificate.pack.weights,
        certificate.samples,
        certificate.machine,
        "metric",
        "rows",
        "max |Δ|",
        "allowed"
    );
    for line in &certificate.metrics {
        let _ = writeln!(
            text,
            "{:<16} {:>6} {:>11.2e} {:>11.2e}  {:<6}  {}",
            line.metric,
            line.rows,
            line.largest_difference,
            line.tolerance,
            verdict(line.passed, "ok"),
            line.worst.first().map_or("", |row| row.row.as_str())
        );
    }
    for line in &certificate.metrics {
        text.push_str(&rows(line));
    }
    for problem in &certificate.problems {
        let _ = writeln!(text, "problem: {problem}");
    }
    for other in &certificate.notes {
        let _ = writeln!(text, "note: {other}");
    }
    let rows: usize = certificate.metrics.iter().map(|line| line.rows).sum();
    let _ = writeln!(
        text,
        "\n{}: {rows} scores of {} metrics",
        verdict(certificate.passed, "passed"),
        certificate.metrics.len()
    );
    text
}

/// Lists the rows that fail, and counts those left out by reason.
fn rows(line: &ToolkitParity) -> String {
    let mut text = String::new();
    for row in line.worst.iter().filter(|row| row.size() > line.tolerance) {
        let _ = writeln!(
            text,
            "{}: {}: {} here, {} in {}",
            line.metric, row.row, row.here, row.toolkit, line.file
        );
    }
    let listed = line.worst.len().min(line.failed_rows);
    if line.failed_rows > listed {
        let _ = writeln!(text, "{}: and {} more rows", line.metric, line.failed_rows - listed);
    }
    let reasons: BTreeSet<&str> = line.left_out.iter().map(|row| row.why).collect();
    for why in reasons {
        let n = line.left_out.iter().filter(|row| row.why == why).count();
        let _ = writeln!(text, "{}: {n} rows left out: {why}", line.metric);
    }
    text
}
