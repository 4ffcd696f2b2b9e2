//! Uploads a folder of generated images as a run on a server.
//!
//! ```text
//! read_folder   images and their JSON, paired by name; photos and prompts from the dataset
//! Upload        sends what the server does not have yet, several at once, each photo once
//! follow        waits until all samples are scored, then until the run is finished
//! ```
//!
//! Every step begins by listing what the server already has, so repeating a command resumes after
//! any interruption.

mod contents;
mod folder;
mod follow;
mod send;

pub use contents::contents;
pub(crate) use folder::is_image;
pub use folder::{Folder, Item, read_folder};
pub use follow::{finish, wait_until_scored};
pub use send::{Failure, Upload, Uploaded};
