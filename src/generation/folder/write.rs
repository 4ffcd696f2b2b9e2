//! Generates the images that a folder does not have yet.

use std::path::PathBuf;

use futures_util::{StreamExt as _, stream};

use super::describe::describe;
use super::error::{FolderError, ImageError};
use super::inputs;
use super::kept::{files, is_there};
use super::plan::Job;
use super::settings::FolderSettings;
use super::state::FolderState;
use crate::blocking::blocking;
use crate::generation::{Generator, Person, Request};

/// Most failures that are described. Further ones are counted.
const MOST_DESCRIBED: usize = 20;

/// Failures in a row after which nothing further is tried, unless they are those of single photos.
const MOST_IN_A_ROW: usize = 20;

/// Result of writing a folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written {
    /// Images that were generated.
    pub generated: usize,
    /// Images that were there.
    pub kept: usize,
    /// Generated images with a flag, see [`ImageFlag`](crate::generation::ImageFlag).
    pub flagged: usize,
    /// Images that could not be generated.
    pub failed: usize,
    /// The first failures: name of the image and cause.
    pub failures: Vec<String>,
    /// Why the images that are left were not tried, if they were not.
    pub stopped: Option<String>,
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
    /// An image could not be generated.
    Failed,
}

/// Checks the requests of all jobs without computing anything, and without their photos.
///
/// # Errors
/// The first job whose request is not valid.
pub fn check(
    generator: &Generator,
    settings: &FolderSettings,
    jobs: &[Job],
) -> Result<(), FolderError> {
    for job in jobs {
        generator.check(&request(settings, job, inputs::empty_person(job))).map_err(|source| {
            FolderError::Image { name: job.name.clone(), source: source.into() }
        })?;
    }
    Ok(())
}

/// Generates the images of `jobs` that the folder does not have, `concurrency` at a time, so that
/// their steps share batches.
///
/// An image counts as done once both of its files are there. The JSON file is written last. An
/// image that fails is left out and the others go on. If none succeeds any more, or the folder
/// cannot be written, the rest is not tried.
pub async fn write(
    generator: &Generator,
    state: &FolderState,
    jobs: &[Job],
    concurrency: usize,
    progress: impl Fn(Progress),
) -> Written {
    let left: Vec<&Job> = jobs.iter().filter(|job| !is_there(&state.folder, job)).collect();
    let mut written = Written { kept: jobs.len() - left.len(), ..Written::default() };
    progress(Progress::Kept(written.kept));
    let progress = &progress;
    let images = stream::iter(left)
        .map(|job| async move { (job, image(generator, state, job, progress).await) });
    let mut images = images.buffer_unordered(concurrency.max(1));
    let mut in_a_row = 0;
    while let Some((job, result)) = images.next().await {
        match result {
            Ok(flagged) => {
                written.generated += 1;
                written.flagged += usize::from(flagged);
                in_a_row = 0;
                progress(Progress::Image);
            }
            Err(error) => {
                written.failed += 1;
                if written.failures.len() < MOST_DESCRIBED {
                    written.failures.push(format!("image {}: {error}", job.name));
                }
                in_a_row += usize::from(!error.is_of_the_job());
                progress(Progress::Failed);
                if matches!(error, ImageError::Write { .. }) {
                    written.stopped = Some("the folder cannot be written".to_owned());
                } else if in_a_row == MOST_IN_A_ROW {
                    written.stopped = Some(format!("{MOST_IN_A_ROW} images in a row failed"));
                }
                if written.stopped.is_some() {
                    break;
                }
            }
        }
    }
    written
}

fn request(settings: &FolderSettings, job: &Job, person: Person) -> Request {
    Request {
        prompt: job.prompt.clone(),
        negative_prompt: settings.negative_prompt.clone(),
        person: Some(person),
        settings: settings.of(job),
    }
}

/// Generates one image and writes its files. Returns whether it has a flag.
async fn image(
    generator: &Generator,
    state: &FolderState,
    job: &Job,
    progress: &impl Fn(Progress),
) -> Result<bool, ImageError> {
    let of = job.clone();
    let inputs = blocking(move || inputs::read(&of)).await;
    let inputs = inputs.map_err(|(path, source)| ImageError::Read { path, source })?;
    // The files were read when the folder was opened, which may be days ago.
    if state.photos.get(&job.image_path) != Some(&inputs.digest()) {
        return Err(ImageError::Replaced(job.words.as_ref().unwrap_or(&job.photo).clone()));
    }
    let request = request(&state.settings, job, inputs.person(generator)?);
    let settings = request.settings;
    let picture = generator.generate(&request, |_| progress(Progress::Step)).await?;
    let about = describe(generator, state, job, &settings, &picture.flags);
    let flagged = !picture.flags.is_empty();
    let provenance = generator.provenance(settings);
    let [png_path, json_path] = files(&state.folder, job);
    blocking(move || {
        let png = picture.png(&provenance)?;
        let write = |path: PathBuf, bytes: &[u8]| {
            crate::write::file(&path, bytes).map_err(|source| ImageError::Write { path, source })
        };
        write(png_path, &png)?;
        write(json_path, about.as_bytes())
    })
    .await?;
    Ok(flagged)
}
