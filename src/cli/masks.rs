//! `stellar-score dataset masks`: masks of photos that have none.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use futures_util::{StreamExt as _, stream};

use super::{
    generate::warn_about_weights,
    output::{counted, print},
    progress::{self, note},
    start::start_masks,
};
use crate::{
    config::Config,
    dataset::{Dataset, MissingMask, MissingMasks},
    generation::Generator,
    read,
    telemetry::Telemetry,
    write,
};

/// Photos in flight: while one is in the graph, others are decoded and written.
const CONCURRENCY: usize = 4;

/// Most failures that are described. Further ones are counted.
const MOST_DESCRIBED: usize = 20;

#[derive(Debug, Args)]
pub(super) struct MasksArgs {
    /// The generator pack, with a graph that finds the person of a photo
    #[arg(long, value_name = "DIR")]
    pack: PathBuf,
    /// Folders of datasets, or photos. Masks are written beside the photos: `NAME_bg.png` of
    /// NAME.jpg. Files that end so are no photos
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
}

pub(super) async fn run(config: &Config, args: &MasksArgs) -> anyhow::Result<ExitCode> {
    let mut missing = MissingMasks::default();
    for path in &args.paths {
        add(path, &mut missing)?;
    }
    let missing = missing.into_list();
    if missing.is_empty() {
        return print("every photo has a mask\n");
    }
    let generator = start_masks(config, &args.pack, Telemetry::new().engine).await?;
    let bar = progress::bar("photos");
    bar.set_length(missing.len() as u64);
    let (mut written, mut failures) = (0, Vec::new());
    let of_all = &generator;
    let masks = stream::iter(&missing).map(|job| async move { (job, mask(of_all, job).await) });
    let mut masks = masks.buffered(CONCURRENCY);
    while let Some((job, result)) = masks.next().await {
        match result {
            Ok(()) => written += 1,
            Err(error) => failures.push(format!("{}: {error:#}", job.photo.display())),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    warn_about_weights(&generator);
    generator.engine().drain().await;
    let printed = print(&format!("{} written\n", counted(written, "mask")))?;
    if failures.is_empty() {
        return Ok(printed);
    }
    for failure in failures.iter().take(MOST_DESCRIBED) {
        note(&format!("{failure}\n"));
    }
    anyhow::bail!(
        "{} failed: mend the causes and repeat the command, which tries only these again",
        counted(failures.len() as u64, "photo")
    )
}

/// Adds the photos without a mask: those of a dataset, or a photo itself.
fn add(path: &Path, missing: &mut MissingMasks) -> anyhow::Result<()> {
    if path.is_dir() {
        let (dataset, findings) = Dataset::open(path)?;
        anyhow::ensure!(
            findings.fatal() == 0,
            "{} has problems: `stellar-score dataset check` lists them",
            path.display()
        );
        return Ok(missing.add_dataset(&dataset)?);
    }
    anyhow::ensure!(path.is_file(), "there is no file or folder {}", path.display());
    Ok(missing.add_photo(path.to_owned())?)
}

async fn mask(generator: &Generator, job: &MissingMask) -> anyhow::Result<()> {
    let photo = read::bytes_in_background(&job.photo).await.context("cannot be read")?;
    let mask = generator.mask(Bytes::from(photo)).await?;
    anyhow::ensure!(
        mask.share() > 0.0,
        "nothing stands out in it: draw the mask {}",
        job.mask.display()
    );
    write::file(&job.mask, &mask.png()?)
        .with_context(|| format!("cannot write {}", job.mask.display()))
}
