//! `stellar-score submission`: makes and verifies bundles of scores (`docs/SUBMISSIONS.md`).

mod on_server;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use uuid::Uuid;

use super::{
    output::{counted, first_lines, print},
    progress::{self, note},
    score::read_image,
    server::{ServerArgs, find_run},
    start::start_scoring,
    submit::problems_first,
};
use crate::{
    card::{CollectedSettings, GeneratorSettings},
    client::{Client, RunState, StoredSample, VerificationReport},
    config::Config,
    content::ContentHash,
    dataset::Dataset,
    engine::Pack,
    metrics::{self, Metric},
    pack_id::PackId,
    read,
    submission::{
        Bounds, Bundle, BundleFacts, BundleSample, BundleScore, Declarations, WHOLE_RUN, cases,
        compare, dataset, folder, part, shown, totals, within,
    },
    telemetry::Telemetry,
    upload::is_image,
    verify::{Case, Goldens, Tolerances, read_samples, score_all},
};

/// Samples that are requested at the same time.
const CONCURRENT_READS: usize = 8;

pub(super) const EXAMPLES: &str = "\
Examples:
  stellar-score submission pack --run mine/default --images generations/ --out mine.zip
  stellar-score submission verify mine.zip
  stellar-score submission verify mine.zip --images generations/ --dataset data/stellar
  stellar-score submission verify mine.zip --images generations/ --dataset data/stellar --share 1
  stellar-score submission verify --submission ID --server URL --images generations/";

#[derive(Debug, Subcommand)]
pub(super) enum SubmissionCommand {
    /// Write a run's scores, hashes, settings and declarations as a bundle
    Pack(PackArgs),
    /// Check a bundle: its hashes, its tables, and with images a random part of its scores
    #[command(after_help = EXAMPLES)]
    Verify(VerifyArgs),
    /// Send a bundle to the server that keeps a leaderboard
    Send(on_server::SendArgs),
    /// Withdraw a submission: its run leaves the leaderboard
    Withdraw(on_server::WithdrawArgs),
}

#[derive(Debug, Args)]
pub(super) struct PackArgs {
    /// METHOD/RUN, METHOD if it has one run, or the run's id
    #[arg(long, value_name = "RUN")]
    run: String,
    /// The folder of the run's generated images: NAME.png for each sample
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Output file
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The bundle
    #[arg(required_unless_present = "submission", conflicts_with = "submission")]
    bundle: Option<PathBuf>,
    /// Id of a submission: its bundle is fetched from the server, and its verification is reported
    /// there if nothing differs
    #[arg(long, value_name = "ID", requires = "images")]
    submission: Option<Uuid>,
    /// Note of the verification, for the change log of the board
    #[arg(long, value_name = "TEXT", default_value = "", requires = "submission")]
    note: String,
    /// The folder of the generated images, to check every file and to score a part again
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// The dataset's folder, to check that all prompts are covered, and for the photos of --images
    #[arg(long, value_name = "DIR")]
    dataset: Option<PathBuf>,
    /// The folder of the pack that the bundle names [default: the configured pack]
    #[arg(long, value_name = "DIR", requires = "images")]
    pack: Option<PathBuf>,
    /// Share of the samples that are scored again, above 0 and at most 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, value_parser = share)]
    share: f64,
    /// Seed of the choice of samples [default: random, and printed]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[command(flatten)]
    server: ServerArgs,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "expected a number above 0 and at most 1, such as 0.05".to_owned())
}

pub(super) async fn run(config: Config, command: SubmissionCommand) -> anyhow::Result<ExitCode> {
    match command {
        SubmissionCommand::Pack(args) => pack(args).await,
        SubmissionCommand::Verify(args) => verify(config, args).await,
        SubmissionCommand::Send(args) => on_server::send(args).await,
        SubmissionCommand::Withdraw(args) => on_server::withdraw(args).await,
    }
}

async fn pack(args: PackArgs) -> anyhow::Result<ExitCode> {
    let client = args.server.client()?;
    let run = find_run(&client, &args.run).await?;
    anyhow::ensure!(
        run.state == RunState::Finished && run.counts.failed == 0,
        "the run {run} is not finished, or samples of it failed: finish it first, so that its \
         scores are complete"
    );
    let details = client.run_details(run.run_id).await.context("cannot read the run")?;
    let pack = details.pack.with_context(|| {
        format!("the run {run} has no pack: only scores that a service computed can be submitted")
    })?;
    let card = client.card(&run.method).await.context("cannot read the method's card")?;
    let stored = stored_samples(&client, run.run_id).await?;
    let (samples, versions) = bundle_samples(stored, &pack, &args.images)?;
    let settings = samples.iter().map(|sample| &sample.metadata.settings);
    let facts = BundleFacts {
        method: run.method.clone(),
        run: run.run.clone(),
        dataset: details.dataset,
        split: details.split,
        pack,
        program: crate::VERSION.to_owned(),
        service_versions: versions.services,
        metric_versions: versions.metrics,
        declarations: Declarations { card, flags: details.flags, settings: details.settings },
        image_settings: CollectedSettings::of(settings),
        samples: samples.len() as u64,
        metrics: totals(&samples),
    };
    let (bytes, digest) = Bundle::write(&facts, &samples)?;
    // What the verifier would refuse is never written.
    let differences = within(&Bundle::read(&bytes, Bounds::COMMAND)?);
    anyhow::ensure!(differences.is_empty(), "{}", differences.join("; "));
    std::fs::write(&args.out, &bytes)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    print(&format!(
        "{}: {} of {run}\ndigest {digest}\n",
        args.out.display(),
        counted(samples.len() as u64, "sample")
    ))
}

async fn stored_samples(client: &Client, run: uuid::Uuid) -> anyhow::Result<Vec<StoredSample>> {
    let listed = client.scored(run).await.context("cannot list the run's samples")?;
    anyhow::ensure!(!listed.is_empty(), "the run has no samples");
    let bar = progress::bar("samples read");
    bar.set_length(listed.len() as u64);
    let read = |id| async move { client.sample(id).await };
    let stored: Result<Vec<_>, _> = stream::iter(listed.into_iter().map(|entry| entry.id))
        .map(read)
        .buffered(CONCURRENT_READS)
        .inspect(|_| bar.inc(1))
        .try_collect()
        .await;
    bar.finish_and_clear();
    let mut stored = stored.context("cannot read a sample")?;
    stored.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(stored)
}

/// Versions behind the scores.
#[derive(Default)]
struct Versions {
    services: BTreeSet<String>,
    metrics: BTreeMap<String, u32>,
}

fn bundle_samples(
    stored: Vec<StoredSample>,
    pack: &PackId,
    images: &Path,
) -> anyhow::Result<(Vec<BundleSample>, Versions)> {
    let files = image_files(images)?;
    let mut versions = Versions::default();
    let mut samples = Vec::new();
    for of in stored {
        let image = of.image.with_context(|| format!("sample {} has no image", of.name))?.hash;
        let file = files.get(&of.name).with_context(|| {
            format!("{} has no image of the sample {}", images.display(), of.name)
        })?;
        let bytes = read::bytes(file).with_context(|| format!("cannot read {}", file.display()))?;
        anyhow::ensure!(
            ContentHash::of(&bytes).to_hex() == image,
            "{} is not the image that was scored: its hash differs",
            file.display()
        );
        let mut metadata = of.metadata;
        // Samples that another client sent may lack them.
        if metadata.settings.is_empty() {
            metadata.settings = settings_beside(file);
        }
        let mut scores = BTreeMap::new();
        for score in of.scores.into_iter().filter(|score| score.pack == *pack) {
            let version = score.metric_version;
            let known = *versions.metrics.entry(score.metric.clone()).or_insert(version);
            anyhow::ensure!(
                known == version,
                "{} was computed with two versions: score the run again",
                score.metric
            );
            versions.services.insert(score.service_version);
            scores.insert(score.metric, BundleScore { value: score.value, reason: score.reason });
        }
        samples.push(BundleSample {
            name: of.name,
            content: of.content,
            image,
            prompt: of.prompt.map(|text| ContentHash::of(text.as_bytes()).to_hex()),
            references: of.references,
            auxiliary: of.auxiliary,
            metadata,
            scores,
        });
    }
    Ok((samples, versions))
}

/// Returns the image files of a folder by their names without ending.
fn image_files(folder: &Path) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let context = || format!("cannot read {}", folder.display());
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).with_context(context)? {
        let path = entry.with_context(context)?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if is_image(&path) && files.insert(stem.clone(), path).is_some() {
            anyhow::bail!("{} has two images of the name {stem}", folder.display());
        }
    }
    Ok(files)
}

/// Returns the settings in the JSON file beside an image.
fn settings_beside(image: &Path) -> GeneratorSettings {
    let text = read::text(&image.with_extension("json")).ok();
    let keys: Option<serde_json::Map<String, serde_json::Value>> =
        text.and_then(|text| serde_json::from_str(&text).ok());
    keys.map(|keys| GeneratorSettings::of_json(&keys)).unwrap_or_default()
}

async fn verify(config: Config, args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let client = args.submission.map(|_| args.server.client()).transpose()?;
    let (named, bytes) = match (&args.bundle, &client, args.submission) {
        (Some(path), ..) => (path.display().to_string(), on_server::read_file(path)?),
        (None, Some(client), Some(id)) => {
            let bytes = client.bundle(id).await.context("cannot read the bundle")?;
            (format!("the bundle of {id}"), bytes.into())
        }
        _ => anyhow::bail!("name a bundle, or a submission with --submission"),
    };
    let bundle =
        Bundle::read(&bytes, Bounds::COMMAND).with_context(|| format!("{named} is refused"))?;
    let facts = &bundle.facts;
    let mut text = format!(
        "{}/{}: {}, pack {}\ndigest {}\n",
        shown(&facts.method),
        shown(&facts.run),
        counted(bundle.samples.len() as u64, "sample"),
        facts.pack,
        bundle.digest
    );
    let mut differences = within(&bundle);
    if let Some(path) = &args.dataset {
        let (opened, _) = Dataset::open(path)?;
        differences.extend(dataset(&bundle, &opened));
    }
    let mut again = None;
    if let Some(images) = &args.images {
        let found = read_samples(images, args.dataset.as_deref())?;
        note(&problems_first(&found.problems));
        anyhow::ensure!(found.is_sound(), "{} has problems", images.display());
        let hash = |path: &Path| read::bytes(path).map(|bytes| ContentHash::of(&bytes));
        differences.extend(folder(&bundle, &found.cases, hash));
        // Scores of other images than those of the bundle would prove nothing.
        if differences.is_empty() {
            let scored = score_again(config, &args, &bundle, &found.cases).await?;
            differences.extend(scored.differences.iter().cloned());
            again = Some(scored);
        }
    }
    match (&again, &args.images) {
        (Some(scored), _) => text.push_str(&scored.words),
        (None, Some(_)) => text.push_str("nothing was scored again, because of the differences\n"),
        (None, None) => text.push_str("nothing was scored again: --images is not set\n"),
    }
    if differences.is_empty() {
        text.push_str("verified: no differences\n");
        if let (Some(client), Some(id), Some(scored)) = (&client, args.submission, &again) {
            let report = VerificationReport {
                share: args.share,
                seed: scored.seed,
                samples: scored.samples,
                note: args.note.clone(),
            };
            let reported = on_server::report(client, id, &report).await?;
            let _ = writeln!(text, "reported: submission {id} is {}", reported.state);
        }
        return print(&text);
    }
    text.push_str(&first_lines(&differences));
    let _ = writeln!(text, "REFUSED: {}", counted(differences.len() as u64, "difference"));
    print(&text)?;
    Ok(ExitCode::FAILURE)
}

/// Samples that were scored again.
struct Again {
    differences: Vec<String>,
    /// What was done.
    words: String,
    seed: u64,
    samples: u64,
}

/// Scores a part of the samples again.
async fn score_again(
    config: Config,
    args: &VerifyArgs,
    bundle: &Bundle,
    found: &[Case],
) -> anyhow::Result<Again> {
    let dir = args.pack.as_ref().unwrap_or(&config.pack);
    let digest = Pack::digest_in(dir)?.to_string();
    anyhow::ensure!(
        digest == bundle.facts.pack.digest,
        "the bundle was scored with the pack {}, and {} has the digest {digest}: name the pack's \
         folder with --pack",
        bundle.facts.pack,
        dir.display()
    );
    let seed = args.seed.map_or_else(getrandom::u64, Ok).context("no random numbers")?;
    let chosen: Vec<&BundleSample> =
        part(&bundle.samples, args.share, seed).into_iter().map(|at| &bundle.samples[at]).collect();
    let (metrics, left_out) = comparable(bundle)?;
    let scoring = start_scoring(&config, dir, &Telemetry::new()).await?;
    let goldens = Goldens::read(scoring.pack()).ok();
    let bar = progress::bar("images scored");
    bar.set_length(chosen.len() as u64);
    let read = |path: &Path| read_image(&config, path);
    let at_once = config.runs.concurrency;
    let cases = cases(&chosen, found);
    let scored = score_all(&scoring, &cases, &metrics, at_once, read, || bar.inc(1)).await;
    bar.finish_and_clear();
    scoring.engine().drain().await;
    let tolerance = |code: &str| {
        let known = goldens.as_ref().and_then(|goldens| goldens.tolerance.get(code).copied());
        known.unwrap_or_else(|| Tolerances::default().of(code, true))
    };
    let mut differences = Vec::new();
    // The digest does not cover what a bundle calls the pack.
    if scoring.pack().id() != bundle.facts.pack {
        differences.push(format!(
            "the pack is named {} here, with {} weights",
            scoring.pack().id().name,
            scoring.pack().id().weights
        ));
    }
    for (sample, scored) in chosen.iter().zip(scored?) {
        match scored {
            Ok(scored) => differences.extend(compare(sample, &scored.outcomes, tolerance)),
            Err(error) => differences.push(format!("sample {}: {error}", sample.name)),
        }
    }
    let mut words = format!(
        "{} of {} scored again in {} (seed {seed})\n",
        chosen.len(),
        counted(bundle.samples.len() as u64, "sample"),
        counted(metrics.len() as u64, "metric")
    );
    if !left_out.is_empty() {
        let _ = writeln!(words, "not scored again: {}", left_out.join(", "));
    }
    Ok(Again { differences, words, seed, samples: chosen.len() as u64 })
}

/// Returns the metrics of a bundle that single samples can reproduce, and those that they cannot.
fn comparable(bundle: &Bundle) -> anyhow::Result<(Vec<&'static Metric>, Vec<&str>)> {
    let (mut metrics, mut left_out) = (Vec::new(), Vec::new());
    for (code, version) in &bundle.facts.metric_versions {
        match metrics::find(code) {
            Some(metric) if code != WHOLE_RUN => {
                anyhow::ensure!(
                    metric.version == *version,
                    "{code} has the version {version} in the bundle and {} in this program: \
                     verify it with a program of version {}",
                    metric.version,
                    bundle.facts.program
                );
                metrics.push(metric);
            }
            _ => left_out.push(&**code),
        }
    }
    Ok((metrics, left_out))
}
