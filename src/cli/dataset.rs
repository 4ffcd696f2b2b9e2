//! `stellar-score dataset`: preparing, checking and registering datasets.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::{output::print, progress, register};
use crate::{
    config::Config,
    dataset::{self, Dataset, Findings, SampleSize, Sources},
};

#[derive(Debug, Subcommand)]
pub(super) enum DatasetCommand {
    /// Build the Stellar dataset from a CelebA-Dialog download and the Stellar prompts
    Prepare(PrepareArgs),
    /// Check a dataset's folder and list all problems
    Check(CheckArgs),
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
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Delete the files of the download that were used, after the dataset is complete
    #[arg(long)]
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
}

pub(super) async fn run(config: &Config, command: DatasetCommand) -> anyhow::Result<ExitCode> {
    match command {
        DatasetCommand::Prepare(args) => prepare(config, args),
        DatasetCommand::Check(args) => check(config, &args),
        DatasetCommand::Register(args) => register::run(args).await,
        DatasetCommand::Synthesize(args) => sample(&args),
    }
}

fn prepare(config: &Config, args: PrepareArgs) -> anyhow::Result<ExitCode> {
    let PrepareArgs { download, prompts, out, delete_download } = args;
    let sources = Sources { download, prompts, out };
    let bar = progress::bar("photos");
    let done = dataset::prepare(&sources, &config.limits.decode(), |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let done = done.context("the dataset is not complete: repeat the command to resume")?;
    let mut text = String::new();
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
    if delete_download {
        for file in &done.used {
            std::fs::remove_file(file)
                .with_context(|| format!("cannot delete {}", file.display()))?;
        }
        let _ = writeln!(text, "deleted {} files of the download", done.used.len());
    }
    print(&text)
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

fn sample(args: &SynthesizeArgs) -> anyhow::Result<ExitCode> {
    let size = SampleSize { identities: args.identities, prompts: args.prompts };
    let made = dataset::make_sample(&args.out, size)
        .with_context(|| format!("cannot synthesize a sample in {}", args.out.display()))?;
    print(&format!(
        "download     {}\nprompts      {}\ngenerations  {}\n",
        made.download.display(),
        made.prompts.display(),
        made.generations.display()
    ))
}
