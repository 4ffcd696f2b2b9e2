//! Folders of generated images in the toolkit's layout: `NAME.png` and `NAME.json` for each photo
//! and prompt of a dataset.
//!
//! ```text
//! plan      dataset, kind, photos → jobs with their names
//! inputs    the files of a job: photo and mask, or learned words
//! settings  what all images of a folder have in common
//! kept      images that are there: all of them must be of this dataset, with its photos
//! state     the file with settings and photos: another command may go on with the same ones only
//! describe  the JSON file beside an image
//! write     jobs that are left, several at once; files appear complete or not at all
//! ```

mod describe;
mod error;
mod inputs;
mod kept;
mod plan;
mod settings;
mod state;
#[cfg(test)]
mod tests;
mod write;

pub use error::{FolderError, ImageError};
pub use plan::{Job, People, Photos, PlanError, Selection, Split, plan};
pub use settings::FolderSettings;
pub use state::{FolderState, STATE};
pub use write::{Progress, Written, check, write};
