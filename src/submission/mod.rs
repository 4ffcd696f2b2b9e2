//! From a folder of generated images to a finished run on a server.
//!
//! ```text
//! read_folder   images and their JSON, paired by name; photos and prompts from the dataset
//! Upload        what the server has not yet, several at once, photos once
//! follow        until everything is scored, then until the run is finished
//! ```
//!
//! Every step begins by asking the server what is there, so after any interruption the same command goes on.

mod folder;
mod follow;
mod upload;

pub(crate) use folder::is_image;
pub use folder::{Folder, Item, read_folder};
pub use follow::{finish, wait_until_scored};
pub use upload::{Failure, Upload, Uploaded};
