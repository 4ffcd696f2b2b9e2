//! `stellar-score bench`: benchmarks of this machine.

use std::{
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::{output::print, server::KeyArgs};
use crate::{
    bench::{
        self, GraphTiming, GraphsOptions, LoadOptions, LoadResult, LoadSample, efficiency, load,
        placement, time_graphs,
    },
    blocking::blocking,
    client::Client,
    config::Config,
    dataset::{self, Dataset, SampleSize, Sources},
    engine::Pack,
    upload::{Item, read_folder},
};

#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Run each graph of a pack alone in a bare loop, to measure the device's peak throughput
    Graphs(GraphsArgs),
    /// Send samples to a running service and report its throughput and latency
    Service(ServiceArgs),
    /// Report the service's throughput as a share of a bare loop's over the same sessions
    Efficiency(EfficiencyArgs),
}

/// Samples to send and the load pattern.
#[derive(Debug, Args)]
struct LoadArgs {
    /// A run's folder, in the form that `submit` takes [default: synthetic images of 1024 x 1024
    /// pixels]
    #[arg(long, value_name = "DIR", requires = "dataset", alias = "run")]
    images: Option<PathBuf>,
    /// The dataset's folder
    #[arg(long, value_name = "DIR", requires = "images")]
    dataset: Option<PathBuf>,
    /// Number of clients; each sends its next sample after the response to its last
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Duration in seconds
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    /// Metric codes, separated by commas [default: all]
    #[arg(long, value_name = "CODES")]
    metrics: Option<String>,
    /// Number of consecutive samples that share their photos
    #[arg(long, default_value_t = 10)]
    prompts_a_photo: u64,
    /// Send the same samples repeatedly, so that all features are cached
    #[arg(long)]
    repeat: bool,
}

/// Output file and earlier result to compare with.
#[derive(Debug, Args)]
struct ResultArgs {
    /// Write the result to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Show changes since an earlier result, a file written by --json
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct EfficiencyArgs {
    /// The pack's folder [default: the configured pack]
    #[arg(long, value_name = "DIR")]
    pack: Option<PathBuf>,
    /// Number of rounds of service and loop; the median is reported, and each round takes twice
    /// --seconds
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    result: ResultArgs,
}

#[derive(Debug, Args)]
pub(super) struct ServiceArgs {
    /// The server's address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    server: String,
    #[command(flatten)]
    key: KeyArgs,
    /// Send at a fixed rate instead, in samples per second, without waiting for responses
    #[arg(long)]
    rate: Option<f64>,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    result: ResultArgs,
}

#[derive(Debug, Args)]
pub(super) struct GraphsArgs {
    /// The pack's folder [default: the configured pack]
    #[arg(long, value_name = "DIR")]
    pack: Option<PathBuf>,
    /// Batch sizes to run
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16")]
    batches: Vec<usize>,
    /// Number of runs of each batch size; the median is reported
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// Time limit for each batch size in seconds; the median is then of the runs completed so far
    #[arg(long, default_value_t = 10.0)]
    limit: f64,
    /// Only run graphs whose role begins with one of these prefixes
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Also report the execution provider of each node; this loads every graph once more
    #[arg(long)]
    placement: bool,
    #[command(flatten)]
    result: ResultArgs,
}

pub(super) async fn run(config: Config, command: BenchCommand) -> anyhow::Result<ExitCode> {
    match command {
        BenchCommand::Graphs(args) => blocking(move || graphs(&config, &args)).await,
        BenchCommand::Service(args) => service(&config, &args).await,
        BenchCommand::Efficiency(args) => of_the_loop(&config, &args).await,
    }
}

impl LoadArgs {
    fn options(&self, rate: Option<f64>) -> anyhow::Result<LoadOptions> {
        let in_reach = |number: f64| number.is_finite() && number > 0.0 && number <= 86_400.0;
        anyhow::ensure!(in_reach(self.seconds), "--seconds must be above 0 and at most 86400");
        anyhow::ensure!(rate.is_none_or(in_reach), "--rate must be above 0 and at most 86400");
        anyhow::ensure!((1..=4_096).contains(&self.clients), "--clients must be 1 to 4096");
        Ok(LoadOptions {
            clients: self.clients,
            rate,
            duration: Duration::from_secs_f64(self.seconds),
            metrics: self.metrics.clone(),
            prompts_a_photo: self.prompts_a_photo,
            repeat: self.repeat,
            seed: Uuid::now_v7().as_u64_pair().0,
        })
    }

    /// Samples of the folder given, or synthetic ones.
    fn samples(&self, config: &Config) -> anyhow::Result<Vec<LoadSample>> {
        if let (Some(images), Some(dataset)) = (&self.images, &self.dataset) {
            return read_samples(images, dataset);
        }
        let folder = bench::Folder::make()?;
        let at = |name: &str| folder.0.join(name);
        let made = dataset::make_sample(&at("sample"), SampleSize { identities: 10, prompts: 10 })?;
        let sources =
            Sources { download: made.download, prompts: made.prompts, out: at("stellar") };
        dataset::prepare(&sources, &config.limits.decode(), |_, _| {})?;
        read_samples(&made.generations, &sources.out)
    }
}

fn read_samples(images: &Path, dataset: &Path) -> anyhow::Result<Vec<LoadSample>> {
    let (dataset, _) = Dataset::open(dataset)?;
    let folder = read_folder(images, &dataset)
        .with_context(|| format!("cannot read {}", images.display()))?;
    let read = |item: &Item| {
        LoadSample::read(item).with_context(|| format!("cannot read the files of {}", item.name))
    };
    folder.items.iter().map(read).collect()
}

impl ResultArgs {
    fn save(&self, result: &impl Serialize) -> anyhow::Result<()> {
        let Some(file) = &self.json else { return Ok(()) };
        std::fs::write(file, serde_json::to_string_pretty(result)? + "\n")
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// Reads the earlier result, if one is given. It is read before anything is measured.
    fn before(&self) -> anyhow::Result<Option<serde_json::Value>> {
        let Some(file) = &self.compare else { return Ok(None) };
        let text =
            std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let before = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not a result written by --json", file.display()))?;
        Ok(Some(before))
    }
}

/// Formats the numbers of both results; empty without an earlier one.
fn changes(before: Option<&serde_json::Value>, now: &impl Serialize) -> anyhow::Result<String> {
    let Some(before) = before else { return Ok(String::new()) };
    let mut text = format!("\n{:<56} {:>12} {:>12} {:>8}\n", "", "before", "now", "ratio");
    for change in bench::compare(before, &serde_json::to_value(now)?) {
        let ratio = change.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
        let _ = writeln!(
            text,
            "{:<56} {:>12.4} {:>12.4} {ratio:>8}",
            change.of, change.before, change.now
        );
    }
    Ok(text)
}

async fn service(config: &Config, args: &ServiceArgs) -> anyhow::Result<ExitCode> {
    let (options, before) = (args.load.options(args.rate)?, args.result.before()?);
    let samples = args.load.samples(config)?;
    let client = args.key.add_to(Client::new(&args.server, Duration::ZERO)?)?;
    let found = load(&client, samples, &options).await?;
    args.result.save(&found)?;
    print(&(table(&found) + &changes(before.as_ref(), &found)?))?;
    Ok(if found.scored > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn of_the_loop(config: &Config, args: &EfficiencyArgs) -> anyhow::Result<ExitCode> {
    anyhow::ensure!((1..=1_000).contains(&args.rounds), "--rounds must be 1 to 1000");
    let (options, before) = (args.load.options(None)?, args.result.before()?);
    let pack = Pack::open(args.pack.as_ref().unwrap_or(&config.pack))?;
    let samples = args.load.samples(config)?;
    let found = efficiency(&pack, config, samples, &options, args.rounds, |round| {
        let line = format!(
            "{} samples in {:.1} s, the loop {:.1} s: {:.1} %\n",
            round.served.scored,
            round.served.seconds,
            round.bare_seconds,
            100.0 * round.efficiency
        );
        let _ = std::io::stdout().write_all(line.as_bytes());
    })
    .await?;
    args.result.save(&found)?;
    let last = found.rounds.last().map_or_else(String::new, |round| table(&round.served));
    print(&format!(
        "\nthe service has {:.1} % of a bare loop's throughput ({}, {} concurrent batches, {} \
            threads each, {} clients)\n\nlast round\n{last}{}",
        100.0 * found.efficiency,
        found.provider.name(),
        found.concurrent_batches,
        found.threads,
        found.clients,
        changes(before.as_ref(), &found)?
    ))
}

fn table(found: &LoadResult) -> String {
    let mut text = format!(
        "{} samples in {:.1} s: {:.2}/s; p50 {:.0} ms, p95 {:.0} ms, p99 {:.0} ms, max {:.0} ms\n",
        found.scored,
        found.seconds,
        found.samples_a_second,
        found.p50_ms,
        found.p95_ms,
        found.p99_ms,
        found.most_ms
    );
    if found.broken > 0 || !found.refused.is_empty() {
        let refused = found.refused.iter().map(|(status, count)| format!("{status}: {count}"));
        let _ = writeln!(
            text,
            "without a response {}; refused {}",
            found.broken,
            refused.collect::<Vec<_>>().join(", ")
        );
    }
    let _ = writeln!(
        text,
        "{:.3} s in graphs per sample{}; receiving {:.1} ms, scoring {:.1} ms, recording {:.1} ms",
        found.graph_seconds_a_sample,
        found
            .processor_seconds_a_sample
            .map_or_else(String::new, |seconds| format!(", {seconds:.3} s of CPU time")),
        found.stages.read_ms,
        found.stages.score_ms,
        found.stages.store_ms
    );
    let _ = writeln!(
        text,
        "\n{:<32} {:>8} {:>8} {:>7} {:>9} {:>9} {:>9} {:>6}",
        "graph", "items", "batches", "batch", "prepare", "queue", "seconds", "share"
    );
    for (graph, of) in &found.graphs {
        let _ = writeln!(
            text,
            "{graph:<32} {:>8.0} {:>8.0} {:>7.2} {:>6.0} ms {:>6.0} ms {:>9.2} {:>5.1}%",
            of.items,
            of.batches,
            of.batch,
            of.prepare_ms,
            of.queue_ms,
            of.run_seconds,
            100.0 * of.share
        );
    }
    if let Some(bytes) = found.resident_bytes {
        let mib = |bytes: f64| bytes / 1_048_576.0;
        let peak = found
            .peak_bytes
            .map_or_else(String::new, |peak| format!(", peak {:.0} MiB", mib(peak)));
        let _ = writeln!(text, "\nresident memory {:.0} MiB{peak}", mib(bytes));
    }
    text
}

fn graphs(config: &Config, args: &GraphsArgs) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        args.batches.iter().all(|batch| (1..=4_096).contains(batch)),
        "--batches must be 1 to 4096"
    );
    anyhow::ensure!(args.runs > 0, "--runs must be at least 1");
    anyhow::ensure!(args.limit.is_finite() && args.limit > 0.0, "--limit must be above 0 seconds");
    let pack = Pack::open(args.pack.as_ref().unwrap_or(&config.pack))?;
    let options = GraphsOptions {
        batches: args.batches.clone(),
        runs: args.runs,
        limit: Duration::from_secs_f64(args.limit.min(3_600.0)),
        only: args.only.clone(),
    };
    let before = args.result.before()?;
    let result = |graphs: &[GraphTiming], placed: &serde_json::Value| json!({"pack": pack.name, "digest": pack.digest.to_string(), "graphs": graphs, "placement": placed});
    let save = |graphs: &[GraphTiming], placed: &serde_json::Value| {
        args.result.save(&result(graphs, placed))
    };
    let mut written = Ok(());
    let mut so_far: Vec<GraphTiming> = Vec::new();
    let timed = time_graphs(&pack, &config.engine, &options, |timing| {
        let _ = std::io::stdout().write_all(line(timing).as_bytes());
        so_far.push(timing.clone());
        written = save(&so_far, &serde_json::Value::Null);
    })?;
    written?;
    if args.placement {
        let folder = bench::Folder::make()?;
        let placed = placement(&pack, &config.engine, &folder.0)?;
        save(&timed, &json!(placed))?;
        let mut text = String::new();
        for of in &placed {
            let providers = of
                .providers
                .iter()
                .map(|(provider, (nodes, ms))| format!("{provider} {nodes} nodes, {ms:.2} ms"));
            let _ = writeln!(text, "{:<28} {}", of.graph, providers.collect::<Vec<_>>().join("; "));
        }
        print(&text)?;
    }
    print(&changes(before.as_ref(), &result(&timed, &serde_json::Value::Null))?)?;
    let failed = timed.iter().any(|of| of.problem.is_some());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn line(timing: &GraphTiming) -> String {
    let provider = timing.provider.map_or("-", |provider| provider.name());
    let mib = timing
        .resident_bytes
        .map_or_else(|| "-".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
    let mut text = format!(
        "{:<28} {} {provider:<8} loaded in {:.1} s, {mib}\n",
        timing.graph, timing.precision, timing.load_seconds
    );
    for of in &timing.batches {
        let _ = writeln!(
            text,
            "  batch {:>3}  {:>10.2} ms  {:>10.1} items/s{}",
            of.batch,
            of.milliseconds,
            of.items_a_second,
            of.tflops.map_or_else(String::new, |tflops| format!("  {tflops:>8.3} TFLOP/s"))
        );
    }
    if let Some(problem) = &timing.problem {
        let _ = writeln!(text, "  {problem}");
    }
    text
}
