//! Generates the images that a folder does not have yet.

use std::path::{Path, PathBuf};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;

use super::describe::describe;
use super::error::FolderError;
use super::file::write_file;
use super::plan::Job;
use super::state::FolderState;
use crate::blocking::blocking;
use crate::content::ContentHash;
use crate::generation::{Generator, Request, Settings, Subject};

/// Result of writing a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Images that were generated.
    pub generated: usize,
    /// Images that were there.
    pub kept: usize,
    /// Generated images with a flag, see [`Flag`](crate::generation::Flag).
    pub flagged: usize,
}

/// Progress of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// This many images are there already.
    Kept(usize),
    /// A denoising step of an image is completed.
    Step,
    /// An image is written.
    Image,
}

/// Generates the images of `jobs` that the folder does not have, `concurrency` at a time, so that
/// their steps share batches.
///
/// An image counts as done once both of its files are there. The JSON file is written last.
///
/// # Errors
/// The first image that fails, or a file that belongs to another prompt. Images that are written
/// stay, so that the command can go on.
pub async fn write(
    generator: &Generator,
    state: &FolderState,
    jobs: &[Job],
    concurrency: usize,
    progress: impl Fn(Progress),
) -> Result<Written, FolderError> {
    let mut left = Vec::with_capacity(jobs.len());
    for job in jobs {
        if !is_done(state, job)? {
            left.push(job);
        }
    }
    let kept = jobs.len() - left.len();
    progress(Progress::Kept(kept));
    let progress = &progress;
    let images = stream::iter(left).map(|job| async move {
        let flagged = image(generator, state, job, progress).await?;
        progress(Progress::Image);
        Ok::<_, FolderError>(Written { generated: 1, kept: 0, flagged: flagged.into() })
    });
    let mut images = images.buffer_unordered(concurrency.max(1));
    let mut written = Written { kept, ..Written::default() };
    while let Some(one) = images.try_next().await? {
        written.generated += one.generated;
        written.flagged += one.flagged;
    }
    Ok(written)
}

/// Returns the settings of a job: those of the folder, and the seed by its name if requested.
fn settings(state: &FolderState, job: &Job) -> Settings {
    let mut settings = state.settings.settings;
    if state.settings.seed_by_name {
        let parts = [b"seed".as_slice(), &settings.seed.to_le_bytes(), job.name.as_bytes()];
        let hash = ContentHash::of_parts(parts);
        let [a, b, c, d, ..] = *hash.as_bytes();
        // The noise depends on 32 bits of a seed.
        settings.seed = u32::from_le_bytes([a, b, c, d]).into();
    }
    settings
}

fn files(state: &FolderState, job: &Job) -> [PathBuf; 2] {
    [".png", ".json"].map(|ending| state.folder.join(format!("{}{ending}", job.name)))
}

/// Returns whether an image is there with its description.
fn is_done(state: &FolderState, job: &Job) -> Result<bool, FolderError> {
    let [png, json] = files(state, job);
    if !png.is_file() || !json.is_file() {
        return Ok(false);
    }
    let text = crate::read::text(&json)
        .map_err(|source| FolderError::Io { path: json.clone(), source })?;
    let about: Value = serde_json::from_str(&text).unwrap_or_default();
    let is_it = about["prompt"] == job.prompt.as_str()
        && about["image_path"] == job.image_path.as_str()
        && about["model_seed"] == settings(state, job).seed;
    if is_it { Ok(true) } else { Err(FolderError::Changed(json)) }
}

/// Generates one image and writes its files. Returns whether it has a flag.
async fn image(
    generator: &Generator,
    state: &FolderState,
    job: &Job,
    progress: &impl Fn(Progress),
) -> Result<bool, FolderError> {
    let settings = settings(state, job);
    let request = Request {
        prompt: job.prompt.clone(),
        negative_prompt: state.settings.negative_prompt.clone(),
        subject: Some(subject(job).await?),
        settings,
    };
    let failed = |source| FolderError::Image { name: job.name.clone(), source: Box::new(source) };
    let picture =
        generator.generate(&request, |_| progress(Progress::Step)).await.map_err(failed)?;
    let about = describe(generator, state, job, &settings, &picture.flags);
    let flagged = !picture.flags.is_empty();
    let provenance = generator.provenance(settings);
    let [png_path, json_path] = files(state, job);
    let encoded = blocking(move || {
        let png = picture.png(&provenance)?;
        let write = |path: PathBuf, bytes: &[u8]| {
            write_file(&path, bytes).map_err(|source| FolderError::Io { path, source })
        };
        Ok(write(png_path, &png).and_then(|()| write(json_path, about.as_bytes())))
    });
    encoded.await.map_err(failed)??;
    Ok(flagged)
}

/// Reads the photo of a job and its mask.
async fn subject(job: &Job) -> Result<Subject, FolderError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        async move {
            let bytes = crate::read::bytes_in_background(&path).await;
            bytes.map(bytes::Bytes::from).map_err(|source| FolderError::Io { path, source })
        }
    };
    let mask = match &job.mask {
        Some(mask) => Some(read(mask).await?),
        None => None,
    };
    Ok(Subject { photo: read(&job.photo).await?, mask })
}
