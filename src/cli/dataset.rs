//! `stellar-score dataset`: preparing, checking and registering datasets.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};

use super::{
    masks,
    output::print,
    progress,
    register::{self, name_of},
};
use crate::{
    analysis::{PromptCounter, PromptText, largest_kinds, published_figures},
    config::Config,
    dataset::{self, Dataset, Findings, SampleSize, Sources, TrainingSources},
    engine::Pack,
    figures::statistics::table,
    scoring::Texts,
};

#[derive(Debug, Subcommand)]
pub(super) enum DatasetCommand {
    /// Build the Stellar dataset from a CelebA-Dialog download and the Stellar prompts
    Prepare(PrepareArgs),
    /// Check a dataset's folder and list all problems
    Check(CheckArgs),
    /// Count words, tokens, parts of speech and objects of a dataset's prompts
    Statistics(StatisticsArgs),
    /// Make the masks of photos that have none, with a generator pack
    Masks(masks::MasksArgs),
    /// Register a dataset's prompts and photos with a server
    Register(register::RegisterArgs),
    /// Synthesize a small download with prompts and generated images, to try out every command
    #[command(alias = "sample")]
    Synthesize(SynthesizeArgs),
}

#[derive(Debug, Args)]
pub(super) struct PrepareArgs {
    /// The CelebA-Dialog (HQ) download: image.zip and the folders of masks, identities and labels
    #[arg(long, value_name = "DIR")]
    download: PathBuf,
    #[arg(
        long,
        value_name = "DIR",
        help = "The folder with celebahq_ids.txt, stellar_t.json, stellar_h.json and objects.txt"
    )]
    prompts: PathBuf,
    /// Output folder; existing files are kept and not written again
    #[arg(long, value_name = "DIR", required_unless_present = "training")]
    out: Option<PathBuf>,
    #[arg(
        long,
        value_name = "DIR",
        help = "Output folder for training data of generators: the photos and masks of everyone \
                who is not in the evaluation"
    )]
    training: Option<PathBuf>,
    /// Delete the files of the download that were used, after the dataset is complete
    #[arg(long, requires = "out")]
    delete_download: bool,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The dataset's folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Do not decode the images
    #[arg(long)]
    quick: bool,
}

#[derive(Debug, Args)]
pub(super) struct SynthesizeArgs {
    /// Output folder for download/, prompts/ and generations/
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Number of identities, 1 to 200
    #[arg(long, default_value_t = 20)]
    identities: usize,
    /// Number of prompts per identity, 2 to 128: half are of the template kind, half are free
    #[arg(long, default_value_t = 100)]
    prompts: usize,
    /// Quality of the method whose images these are, 0 to 1: how many of them show the right person
    /// and scene, and how cleanly
    #[arg(long, default_value_t = dataset::SAMPLE_QUALITY)]
    quality: f64,
}

#[derive(Debug, Args)]
pub(super) struct StatisticsArgs {
    /// The dataset's folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The dataset's name, for published figures [default: the folder's name]
    #[arg(long, value_name = "NAME")]
    dataset_name: Option<String>,
    /// The format of the table
    #[arg(long, value_enum, default_value_t = TableFormat::Markdown)]
    format: TableFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TableFormat {
    Markdown,
    Csv,
    Latex,
    Json,
}

pub(super) async fn run(config: &Config, command: DatasetCommand) -> anyhow::Result<ExitCode> {
    match command {
        DatasetCommand::Prepare(args) => prepare(config, args),
        DatasetCommand::Check(args) => check(config, &args),
        DatasetCommand::Statistics(args) => statistics(config, &args),
        DatasetCommand::Masks(args) => masks::run(config, &args).await,
        DatasetCommand::Register(args) => register::run(args).await,
        DatasetCommand::Synthesize(args) => sample(&args),
    }
}

fn prepare(config: &Config, args: PrepareArgs) -> anyhow::Result<ExitCode> {
    let limits = config.limits.decode();
    let mut text = String::new();
    if let Some(out) = &args.training {
        let sources = TrainingSources {
            download: args.download.clone(),
            prompts: args.prompts.clone(),
            out: out.clone(),
        };
        let done = photos(|progress| dataset::prepare_training(&sources, &limits, progress))
            .context("the training data are not complete: repeat the command to resume")?;
        if done.without_mask > 0 {
            let _ = writeln!(text, "note: {} photos without a mask left out", done.without_mask);
        }
        let _ = writeln!(
            text,
            "{}: {} photos of {} identities; {} identities of the evaluation left out; {} files \
                written, the others already existed; digest {}",
            out.display(),
            done.photos,
            done.identities,
            done.excluded,
            done.written,
            done.digest
        );
    }
    let Some(out) = args.out else { return print(&text) };
    let sources = Sources { download: args.download, prompts: args.prompts, out };
    let done = photos(|progress| dataset::prepare(&sources, &limits, progress))
        .context("the dataset is not complete: repeat the command to resume")?;
    for note in &done.notes {
        let _ = writeln!(text, "note: {note}");
    }
    let _ = writeln!(
        text,
        "{}: {} test and {} validation identities, {} photos; {} files written, the others already \
            existed",
        sources.out.display(),
        done.test,
        done.val,
        done.photos,
        done.written
    );
    if args.delete_download {
        for file in &done.used {
            std::fs::remove_file(file)
                .with_context(|| format!("cannot delete {}", file.display()))?;
        }
        let _ = writeln!(text, "deleted {} files of the download", done.used.len());
    }
    print(&text)
}

/// Runs `work` with a progress bar of photos.
fn photos<T>(work: impl FnOnce(&mut dyn FnMut(usize, usize)) -> T) -> T {
    let bar = progress::bar("photos");
    let done = work(&mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    done
}

fn check(config: &Config, args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let (dataset, mut findings) = Dataset::open(&args.folder)?;
    if !args.quick {
        let bar = progress::bar("images");
        let masks = dataset.identities.iter().flat_map(|identity| &identity.photos);
        bar.set_length(
            (dataset.photos() + masks.filter(|photo| photo.mask.is_some()).count()) as u64,
        );
        dataset::decode_images(&dataset, &config.limits.decode(), &mut findings, || bar.inc(1));
        bar.finish_and_clear();
    }
    print(&report(&args.folder, &dataset, &findings))?;
    Ok(if findings.fatal() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(folder: &Path, dataset: &Dataset, findings: &Findings) -> String {
    let mut text = String::new();
    for problem in &findings.list {
        let _ = writeln!(text, "{problem}");
    }
    let kinds = dataset.kinds();
    let kinds = kinds.iter().map(|(kind, count)| match *kind {
        "" => format!("{count} without a kind"),
        kind => format!("{count} {kind}"),
    });
    let kinds = kinds.collect::<Vec<_>>().join(", ");
    let _ = writeln!(
        text,
        "{}: {} identities, {} photos, {} prompts{}",
        folder.display(),
        dataset.identities.len(),
        dataset.photos(),
        dataset.prompts.len(),
        if kinds.is_empty() { String::new() } else { format!(" ({kinds})") }
    );
    let fatal = findings.fatal();
    let end = match fatal {
        0 => "no problems\n".to_owned(),
        1 => "1 problem\n".to_owned(),
        _ => format!("{fatal} problems\n"),
    };
    text + &end
}

fn statistics(config: &Config, args: &StatisticsArgs) -> anyhow::Result<ExitCode> {
    let (dataset, findings) = Dataset::open(&args.folder)?;
    anyhow::ensure!(
        findings.fatal() == 0,
        "{} has problems: `stellar-score dataset check` lists them",
        args.folder.display()
    );
    let pack = Pack::open(&config.pack)?;
    let texts = Texts::load(&pack)?;
    let kinds = largest_kinds(dataset.prompts.iter().filter_map(|prompt| prompt.kind.as_deref()));
    let mut counter = PromptCounter::new(kinds, |prompt| texts.prompt_tokens(prompt));
    for prompt in &dataset.prompts {
        counter.add(&PromptText {
            identity: &prompt.identity,
            text: &prompt.text,
            kind: prompt.kind.as_deref(),
            detectables: &prompt.detectables,
        });
    }
    let found = counter.finish();
    let name = name_of(&args.folder, args.dataset_name.as_ref())?;
    let published = published_figures(&name, &found);
    let table = table(&found);
    print(&match args.format {
        TableFormat::Csv => table.csv(),
        TableFormat::Latex => table.latex(),
        TableFormat::Json => {
            let all = serde_json::json!({
                "dataset": name, "statistics": found, "published": published
            });
            serde_json::to_string_pretty(&all)? + "\n"
        }
        TableFormat::Markdown => {
            let mut text = table.markdown();
            for figure in &published {
                let found = figure.found.map_or_else(|| "no prompt".to_owned(), |n| n.to_string());
                let differs = figure.found != Some(figure.published);
                let _ = writeln!(
                    text,
                    "{} {}: {found} different, published {}{}",
                    figure.kind,
                    figure.quantity.word(),
                    figure.published,
                    if differs { " (differs)" } else { "" }
                );
            }
            text
        }
    })
}

fn sample(args: &SynthesizeArgs) -> anyhow::Result<ExitCode> {
    let size = SampleSize { identities: args.identities, prompts: args.prompts };
    let made = dataset::make_sample_of(&args.out, size, args.quality)
        .with_context(|| format!("cannot synthesize a sample in {}", args.out.display()))?;
    print(&format!(
        "download     {}\nprompts      {}\ngenerations  {}\n",
        made.download.display(),
        made.prompts.display(),
        made.generations.display()
    ))
}
