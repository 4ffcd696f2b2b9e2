//! Errors of writing a folder of images.

use std::path::PathBuf;

use crate::generation::GenerationError;

/// Why a folder cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file cannot be read or written.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// Another command writes the folder.
    #[error("another command is writing {}: wait until it ends, or use another folder", .0.display())]
    Busy(PathBuf),
    /// The folder has files, but not of this command.
    #[error(
        "{} has files that this command did not write: use an empty folder, or one that it began",
        .0.display()
    )]
    Foreign(PathBuf),
    /// The folder has images of other settings.
    #[error(
        "{} has images of other settings ({differences}): use the same settings, or another folder",
        folder.display()
    )]
    Other {
        /// The folder.
        folder: PathBuf,
        /// Settings that differ.
        differences: String,
    },
    /// The file with the settings is damaged.
    #[error(
        "{} is not valid: {problem}; use another folder, or remove this one",
        path.display()
    )]
    State {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// An image is of no prompt and photo of the dataset.
    #[error(
        "{} is no image of this dataset: the folder was begun with another dataset, or the dataset \
            has changed since; use another folder",
        .0.display()
    )]
    OtherDataset(PathBuf),
    /// An image is of another prompt or photo.
    #[error(
        "{} is of another prompt, photo or seed: the dataset has changed since the folder was \
            begun; use another folder",
        .0.display()
    )]
    Changed(PathBuf),
    /// Images are of another photo, mask or words with the same name.
    #[error(
        "the folder has images of another photo, mask or words than {}: they have changed since \
            the folder was begun; use another folder",
        .0.display()
    )]
    OtherPhoto(PathBuf),
    /// A request of the folder is not valid.
    #[error("image {name}: {source}")]
    Image {
        /// Name of the image.
        name: String,
        /// The cause.
        source: ImageError,
    },
}

/// Why one image of a folder cannot be generated.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The photo, its mask or its words cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The photo, its mask or its words were replaced while the command ran.
    #[error(
        "{} or a file that belongs to it has changed since the command began: repeat the command",
        .0.display()
    )]
    Replaced(PathBuf),
    /// The image cannot be generated.
    #[error(transparent)]
    Generation(Box<GenerationError>),
    /// A file of the image cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
}

impl From<GenerationError> for ImageError {
    fn from(error: GenerationError) -> Self {
        Self::Generation(Box::new(error))
    }
}

impl ImageError {
    /// Returns whether the photo, its mask or the prompt is at fault, so that images of others may
    /// succeed. Words that do not fit are those of another base model, as a rule all of them.
    pub(super) fn is_of_the_job(&self) -> bool {
        match self {
            Self::Read { .. } | Self::Replaced(_) => true,
            Self::Generation(error) => matches!(
                **error,
                GenerationError::Photo(_)
                    | GenerationError::Mask(_)
                    | GenerationError::Request { .. }
            ),
            Self::Write { .. } => false,
        }
    }
}
