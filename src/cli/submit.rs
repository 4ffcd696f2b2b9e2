//! `stellar-score submit`: sends a folder of generated images to a server and prints the report.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::{
    output::{first_lines, print},
    progress::{self, note},
    register::name_of,
    server::ServerArgs,
};
use crate::{
    analysis::Policy,
    client::{Client, NewRun, Run, RunFlags},
    dataset::{Dataset, Problem},
    upload::{Failure, Folder, Upload, finish, read_folder, wait_until_scored},
};

/// Samples in flight, by default.
const CONCURRENCY: usize = 8;

/// Images to evaluate, their dataset and the options of the run.
#[derive(Debug, Args)]
pub(super) struct EvaluationArgs {
    /// The method's name: the generator under test
    #[arg(long)]
    method: String,
    /// The run's name within its method [default: default]
    #[arg(long, value_name = "NAME")]
    pub(super) run: Option<String>,
    /// Deprecated name of `--run`
    #[arg(long, value_name = "NAME", hide = true)]
    name: Option<String>,
    /// The folder of generated images: NAME.png and NAME.json for each, in the toolkit's layout
    #[arg(long, value_name = "DIR")]
    pub(super) images: Option<PathBuf>,
    /// The folder of the dataset whose photos the generator was given
    #[arg(long, value_name = "DIR")]
    pub(super) dataset: PathBuf,
    /// The dataset's name [default: the folder's name]
    #[arg(long, value_name = "NAME")]
    dataset_name: Option<String>,
    /// The split of the dataset, such as test or val
    #[arg(long, value_name = "NAME")]
    pub(super) split: Option<String>,
    /// Metric codes, separated by commas [default: all]
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    metrics: Option<Vec<String>>,
    /// JSON file with the generator's settings, stored with the run
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Declare that the generator was trained on other parts of this dataset in turn
    /// (cross-validation)
    #[arg(long)]
    cross_validated_training: bool,
    /// Declare that the generator was trained on the same photos that it is evaluated on
    #[arg(long)]
    trained_on_evaluation_photos: bool,
    /// Number of samples in flight
    #[arg(long, value_name = "N", default_value_t = CONCURRENCY, alias = "at-once")]
    concurrency: usize,
    /// Penalty policy for images that do not follow their prompt
    #[arg(long, value_enum, default_value_t = PolicyArg::Stellar)]
    pub(super) policy: PolicyArg,
}

/// The folder of images and the name of their run.
struct Source<'a> {
    run: &'a str,
    images: &'a Path,
}

impl EvaluationArgs {
    /// Returns the evaluation of a folder with the defaults of the command.
    pub(super) fn of_folder(
        method: String,
        images: PathBuf,
        dataset: PathBuf,
        dataset_name: String,
        split: Option<String>,
    ) -> Self {
        Self {
            method,
            run: None,
            name: None,
            images: Some(images),
            dataset,
            dataset_name: Some(dataset_name),
            split,
            metrics: None,
            settings: None,
            cross_validated_training: false,
            trained_on_evaluation_photos: false,
            concurrency: CONCURRENCY,
            policy: PolicyArg::Stellar,
        }
    }

    /// Returns the folder and the run's name. Also accepts the flags of 0.1, where `--run` was the
    /// folder and `--name` the run's name.
    fn source(&self) -> anyhow::Result<Source<'_>> {
        match (&self.images, &self.run) {
            (Some(images), run) => {
                anyhow::ensure!(
                    self.name.is_none() || run.is_none(),
                    "--name is the old name of --run: remove it"
                );
                Ok(Source {
                    run: run.as_deref().or(self.name.as_deref()).unwrap_or("default"),
                    images,
                })
            }
            (None, Some(folder)) if Path::new(folder).is_dir() => {
                tracing::warn!(
                    "--run DIR is now --images DIR, and --name is now --run: the old flags work \
                        until 0.3"
                );
                Ok(Source {
                    run: self.name.as_deref().unwrap_or("default"),
                    images: Path::new(folder),
                })
            }
            (None, _) => anyhow::bail!("--images DIR is missing: the folder of generated images"),
        }
    }
}

/// A penalty policy; see `docs/ANALYSIS.md`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum PolicyArg {
    /// ips and sis become 0, attributes count as wrong
    Stellar,
    /// Exactly as in the reference toolkit's analysis
    Toolkit,
    /// Scores as measured
    None,
}

impl PolicyArg {
    pub(super) fn policy(self) -> Policy {
        match self {
            Self::Stellar => Policy::Stellar,
            Self::Toolkit => Policy::Toolkit,
            Self::None => Policy::None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        self.policy().as_str()
    }
}

#[derive(Debug, Args)]
pub(super) struct SubmitArgs {
    #[command(flatten)]
    evaluation: EvaluationArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(args: SubmitArgs) -> anyhow::Result<ExitCode> {
    let client = args.server.client()?;
    let run = evaluate(&client, &args.evaluation).await?;
    print(&client.report(run.run_id, args.evaluation.policy.name(), "markdown").await?)
}

/// Sends a folder, waits for its scores and finishes the run. Resumes where an earlier attempt
/// stopped.
pub(super) async fn evaluate(client: &Client, args: &EvaluationArgs) -> anyhow::Result<Run> {
    let (dataset, _) = Dataset::open(&args.dataset)?;
    let Source { run: name, images } = args.source()?;
    let folder = read_folder(images, &dataset)
        .with_context(|| format!("cannot read {}", images.display()))?;
    report_folder(args, images, &folder);
    anyhow::ensure!(folder.is_sound(), "{} has problems: nothing was sent", images.display());
    let run = client.create_run(&new_run(args, name)?).await.context("cannot create the run")?;

    let upload = Upload::begin(client, run.run_id)
        .await
        .context("cannot list the run's samples on the server")?;
    let bar = progress::bar("images sent");
    bar.set_length(folder.items.len() as u64);
    let sent = upload
        .send(&folder.items, args.concurrency, |failures| {
            bar.inc(1);
            if failures > 0 {
                bar.set_message(format!("{failures} refused"));
            }
        })
        .await;
    bar.finish_and_clear();
    let sent = sent.with_context(|| format!("upload to run {run} failed"))?;
    fail_if_any(&sent.failures, "were refused by the server")?;

    let bar = progress::bar("images scored");
    let mut noted = None;
    let failures = wait_until_scored(client, run.run_id, |now| {
        bar.set_length(now.counts.accepted);
        bar.set_position(now.counts.accepted - now.counts.pending);
        // Each reason is printed once.
        if let Some(held) = now.held.as_ref().filter(|held| noted.as_ref() != Some(&held.detail)) {
            note(&format!("note: {}\n", held.detail));
            noted = Some(held.detail.clone());
        }
    })
    .await;
    bar.finish_and_clear();
    fail_if_any(&failures.context("cannot read the server's progress")?, "cannot be scored")?;
    let run = finish(client, run.run_id).await.context("cannot finish the run")?;
    note(&format!(
        "run {run}: {} images, {} sent now, {} already there\n",
        run.counts.accepted, sent.sent, sent.present
    ));
    Ok(run)
}

fn new_run(args: &EvaluationArgs, name: &str) -> anyhow::Result<NewRun> {
    let settings = match &args.settings {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_str(&text)
                .with_context(|| format!("{} is not a JSON object", path.display()))?
        }
        None => serde_json::Map::new(),
    };
    Ok(NewRun {
        method: args.method.clone(),
        run: name.to_owned(),
        dataset: Some(name_of(&args.dataset, args.dataset_name.as_ref())?),
        split: args.split.clone(),
        flags: RunFlags {
            cross_validated_training: args.cross_validated_training,
            trained_on_evaluation_photos: args.trained_on_evaluation_photos,
        },
        settings,
        metrics: args.metrics.clone(),
    })
}

fn report_folder(args: &EvaluationArgs, images: &Path, folder: &Folder) {
    let mut text = problems_first(&folder.problems);
    if folder.missing > 0 {
        let (dataset, run) = (args.dataset.display(), images.display());
        let _ =
            writeln!(text, "note: {} prompts of {dataset} have no image in {run}", folder.missing);
    }
    note(&text);
}

/// Lists problems to fix first, then notes.
pub(super) fn problems_first(problems: &[Problem]) -> String {
    let mut sorted: Vec<_> = problems.iter().collect();
    sorted.sort_by_key(|problem| !problem.fatal);
    first_lines(&sorted)
}

fn fail_if_any(failures: &[Failure], what: &str) -> anyhow::Result<()> {
    if failures.is_empty() {
        return Ok(());
    }
    note(&first_lines(failures));
    anyhow::bail!(
        "{} images {what}: the run stays open; fix them and repeat the command, which sends only \
            what is missing",
        failures.len()
    )
}
