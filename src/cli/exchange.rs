//! `import`, `export` and `report`: scores in the reference toolkit's files, and reports.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::{
    output::{lines, print},
    progress,
    server::{ServerArgs, find_run},
    submit::PolicyArg,
};
use crate::{
    client::{Client, NewRun, RunFlags},
    toolkit,
    upload::finish,
};

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// CSV files of the toolkit, or folders from which all CSV files are imported
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The method whose images were scored
    #[arg(long)]
    method: String,
    /// The run's name within its method
    #[arg(long, value_name = "NAME", default_value = "default", alias = "name")]
    run: String,
    /// The dataset's name
    #[arg(long, value_name = "NAME")]
    dataset_name: Option<String>,
    /// The split of the dataset
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// The program that computed the scores; only scores of the same source are compared
    #[arg(long, value_name = "NAME", default_value = "stellar-metrics")]
    source: String,
    /// Leave the run open for later imports
    #[arg(long)]
    keep_open: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn import(args: ImportArgs) -> anyhow::Result<ExitCode> {
    let client = args.server.client()?;
    // All files are read before the first is sent, so that a broken one is found early.
    let files = csv_files(&args.files)?;
    let new = NewRun {
        method: args.method,
        run: args.run,
        dataset: args.dataset_name,
        split: args.split,
        flags: RunFlags::default(),
        settings: serde_json::Map::new(),
        metrics: None,
    };
    let run = client.create_run(&new).await.context("cannot create the run")?;
    let bar = progress::bar("files");
    bar.set_length(files.len() as u64);
    let mut text = String::new();
    for (path, csv, rows) in files {
        let context = || format!("cannot import {}", path.display());
        client.import(run.run_id, &args.source, csv).await.with_context(context)?;
        let _ = writeln!(text, "{}: {rows} samples", path.display());
        bar.inc(1);
    }
    bar.finish_and_clear();
    let run = if args.keep_open { run } else { finish(&client, run.run_id).await? };
    let _ = writeln!(text, "run {run}");
    print(&text)
}

/// Returns the files with their text and number of rows.
fn csv_files(named: &[PathBuf]) -> anyhow::Result<Vec<(PathBuf, String, usize)>> {
    let mut paths = Vec::new();
    for path in named {
        let context = || format!("cannot read {}", path.display());
        if path.is_dir() {
            let mut inside = Vec::new();
            for entry in std::fs::read_dir(path).with_context(context)? {
                let path = entry.with_context(context)?.path();
                if path.extension().is_some_and(|extension| extension == "csv") {
                    inside.push(path);
                }
            }
            anyhow::ensure!(!inside.is_empty(), "{} contains no CSV files", path.display());
            inside.sort();
            paths.extend(inside);
        } else {
            paths.push(path.clone());
        }
    }
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_name().and_then(|name| name.to_str());
        let table =
            toolkit::parse(&text, name, usize::MAX).with_context(|| path.display().to_string())?;
        Ok((path, text, table.names.len()))
    };
    paths.into_iter().map(read).collect()
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// METHOD/RUN, METHOD if it has one run, or the run's id
    #[arg(value_name = "RUN")]
    run: String,
    /// Output folder; files of the same names are replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn export(args: ExportArgs) -> anyhow::Result<ExitCode> {
    let client = args.server.client()?;
    let run = find_run(&client, &args.run).await?;
    let written = write_files(&client, run.run_id, &args.out).await?;
    print(&lines(written.iter().map(|path| path.display())))
}

/// Writes a run's scores as the toolkit's files.
pub(super) async fn write_files(
    client: &Client,
    run: uuid::Uuid,
    out: &Path,
) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let mut written = Vec::new();
    for name in client.toolkit_files(run).await.context("cannot list the run's files")? {
        // The server sends the name: only its last component may decide where a file is written.
        let path = out.join(Path::new(&name).file_name().unwrap_or_default());
        let text =
            client.toolkit_file(run, &name).await.with_context(|| format!("cannot read {name}"))?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        written.push(path);
    }
    Ok(written)
}

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// METHOD/RUN, METHOD if it has one run, or the run's id
    #[arg(value_name = "RUN")]
    run: String,
    /// Penalty policy for images that do not follow their prompt
    #[arg(long, value_enum, default_value_t = PolicyArg::Stellar)]
    policy: PolicyArg,
    /// The report's format
    #[arg(long, value_enum, default_value_t = FormatArg::Markdown)]
    format: FormatArg,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatArg {
    Json,
    Csv,
    Markdown,
    Latex,
}

impl FormatArg {
    fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Markdown => "markdown",
            Self::Latex => "latex",
        }
    }
}

pub(super) async fn report(args: ReportArgs) -> anyhow::Result<ExitCode> {
    let client = args.server.client()?;
    let run = find_run(&client, &args.run).await?;
    print(&client.report(run.run_id, args.policy.name(), args.format.name()).await?)
}
