//! `stellar-score bench`: what this machine gives.

use std::{fmt::Write as _, io::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;
use uuid::Uuid;

use super::print;
use crate::{
    bench::{GraphTiming, GraphsOptions, LoadOptions, LoadResult, LoadSample, load, placement, time_graphs},
    blocking::blocking,
    client::Client,
    config::Config,
    dataset::Dataset,
    engine::Pack,
    submission::read_folder,
};

#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Run each graph of a pack by itself in a bare loop: what the device gives at most
    Graphs(GraphsArgs),
    /// Send samples to a running service and say how many it scores and how long answers take
    Service(ServiceArgs),
}

#[derive(Debug, Args)]
pub(super) struct ServiceArgs {
    /// The server's address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    server: String,
    /// A run's folder, as `submit` takes it
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// The dataset's folder
    #[arg(long, value_name = "DIR")]
    dataset: PathBuf,
    /// Clients that each send a sample when they have the answer to the last
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Samples a second instead, whether or not there are answers
    #[arg(long)]
    rate: Option<f64>,
    /// For how many seconds
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    /// Codes of metrics, separated by commas [default: all]
    #[arg(long, value_name = "CODES")]
    metrics: Option<String>,
    /// Samples that share their photos; the next ones have new photos
    #[arg(long, default_value_t = 10)]
    prompts_a_photo: u64,
    /// Send the same samples again and again, so that all features are known
    #[arg(long)]
    repeat: bool,
    /// Write the result into this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct GraphsArgs {
    /// The pack's folder [default: the configured pack]
    #[arg(long, value_name = "DIR")]
    pack: Option<PathBuf>,
    /// Batches to run
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16")]
    batches: Vec<usize>,
    /// Runs of each batch, of which the median counts
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// Seconds after which a batch is given up with the runs that there are
    #[arg(long, default_value_t = 10.0)]
    limit: f64,
    /// Only graphs whose role begins so
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Say what runs each node, too: loads every graph once more
    #[arg(long)]
    placement: bool,
    /// Write everything into this file as JSON, after each graph
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) async fn run(config: Config, command: BenchCommand) -> anyhow::Result<ExitCode> {
    match command {
        BenchCommand::Graphs(args) => blocking(move || graphs(&config, &args)).await,
        BenchCommand::Service(args) => service(&args).await,
    }
}

async fn service(args: &ServiceArgs) -> anyhow::Result<ExitCode> {
    let in_reach = |number: f64| number.is_finite() && number > 0.0 && number <= 86_400.0;
    anyhow::ensure!(in_reach(args.seconds), "--seconds: send a number above 0 and up to 86400");
    anyhow::ensure!(args.rate.is_none_or(in_reach), "--rate: send a number above 0 and up to 86400");
    anyhow::ensure!((1..=4_096).contains(&args.clients), "--clients: send 1 to 4096");
    let (dataset, _) = Dataset::open(&args.dataset)?;
    let folder =
        read_folder(&args.run, &dataset).with_context(|| format!("cannot read {}", args.run.display()))?;
    let samples = folder
        .items
        .iter()
        .map(|item| LoadSample::read(item).with_context(|| format!("cannot read the files of {}", item.name)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let options = LoadOptions {
        clients: args.clients,
        rate: args.rate,
        duration: Duration::from_secs_f64(args.seconds),
        metrics: args.metrics.clone(),
        prompts_a_photo: args.prompts_a_photo,
        repeat: args.repeat,
        seed: Uuid::now_v7().as_u64_pair().0,
    };
    let client = Client::new(&args.server, Duration::ZERO)?;
    let found = load(&client, samples, &options).await?;
    if let Some(file) = &args.json {
        std::fs::write(file, serde_json::to_string_pretty(&found)? + "\n")
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    print(&table(&found))?;
    Ok(if found.scored > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(found: &LoadResult) -> String {
    let mut text = format!(
        "{} samples in {:.1} s: {:.2}/s; p50 {:.0} ms, p95 {:.0} ms, p99 {:.0} ms, most {:.0} ms\n",
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
            "without an answer {}; refused {}",
            found.broken,
            refused.collect::<Vec<_>>().join(", ")
        );
    }
    let _ = writeln!(
        text,
        "\n{:<32} {:>8} {:>8} {:>7} {:>9} {:>6}",
        "graph", "items", "batches", "batch", "seconds", "share"
    );
    for (graph, of) in &found.graphs {
        let _ = writeln!(
            text,
            "{graph:<32} {:>8.0} {:>8.0} {:>7.2} {:>9.2} {:>5.1}%",
            of.items,
            of.batches,
            of.batch,
            of.run_seconds,
            100.0 * of.share
        );
    }
    if let Some(bytes) = found.resident_bytes {
        let _ = writeln!(text, "\nthe service holds {:.0} MiB", bytes / 1_048_576.0);
    }
    text
}

fn graphs(config: &Config, args: &GraphsArgs) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        args.batches.iter().all(|batch| (1..=4_096).contains(batch)),
        "--batches: send numbers of 1 to 4096"
    );
    anyhow::ensure!(args.runs > 0, "--runs: send at least 1");
    anyhow::ensure!(args.limit.is_finite() && args.limit > 0.0, "--limit: send seconds above 0");
    let pack = Pack::open(args.pack.as_ref().unwrap_or(&config.pack))?;
    let options = GraphsOptions {
        batches: args.batches.clone(),
        runs: args.runs,
        limit: Duration::from_secs_f64(args.limit.min(3_600.0)),
        only: args.only.clone(),
    };
    let save = |graphs: &[GraphTiming], placed: &serde_json::Value| -> anyhow::Result<()> {
        let Some(file) = &args.json else { return Ok(()) };
        let all = json!({"pack": pack.name, "digest": pack.digest.to_string(), "graphs": graphs, "placement": placed});
        std::fs::write(file, serde_json::to_string_pretty(&all)? + "\n")
            .with_context(|| format!("cannot write {}", file.display()))
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
        let folder = std::env::temp_dir().join(format!("stellar-score-{}", Uuid::now_v7().simple()));
        std::fs::create_dir(&folder)?;
        let placed = placement(&pack, &config.engine, &folder);
        drop(std::fs::remove_dir_all(&folder));
        let placed = placed?;
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
    let failed = timed.iter().any(|of| of.problem.is_some());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn line(timing: &GraphTiming) -> String {
    let provider = timing.provider.map_or("-", |provider| provider.name());
    let mib = timing.resident_bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
    let mut text = format!(
        "{:<28} {} {provider:<8} loaded in {:.1} s, {mib}\n",
        timing.graph, timing.precision, timing.load_seconds
    );
    for of in &timing.batches {
        let _ = writeln!(
            text,
            "  batch {:>3}  {:>10.2} ms  {:>10.1} items/s",
            of.batch, of.milliseconds, of.items_a_second
        );
    }
    if let Some(problem) = &timing.problem {
        let _ = writeln!(text, "  {problem}");
    }
    text
}
