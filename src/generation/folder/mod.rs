//! Folders of generated images in the toolkit's layout: `NAME.png` and `NAME.json` for each photo
//! and prompt of a dataset.
//!
//! ```text
//! plan      dataset, kind, photos → jobs with their names
//! state     the settings of the folder: another command may go on with the same ones only
//! describe  the JSON file beside an image
//! write     jobs that are left, several at once; files appear complete or not at all
//! ```

mod describe;
mod error;
mod file;
mod plan;
mod state;
#[cfg(test)]
mod tests;
mod write;

pub use error::FolderError;
pub use file::write_file;
pub use plan::{Job, Photos, PlanError, Selection, Split, plan};
pub use state::{FolderSettings, FolderState, STATE};
pub use write::{Progress, Written, write};
