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
    /// An image is of another prompt or photo.
    #[error(
        "{} is of another prompt, photo or seed: the dataset has changed since the folder was \
            begun; use another folder",
        .0.display()
    )]
    Changed(PathBuf),
    /// An image could not be generated.
    #[error("image {name}: {source}")]
    Image {
        /// Name of the image.
        name: String,
        /// The cause.
        source: Box<GenerationError>,
    },
}
