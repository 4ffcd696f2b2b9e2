//! Backups: one archive of the database and the files of its pending samples, taken while the
//! service runs, and restored into an empty database of either kind.
//!
//! ```text
//! manifest.json         written last: version, schema, counts, BLAKE3 of each table
//! tables/NAME.jsonl     a row a line, as an array in the order of the manifest's columns
//! spool/HASH            a file of the spool; its name is its BLAKE3
//! ```
//!
//! The archive is a ZIP file. Rows are in a form that both databases have, so SQLite moves to
//! PostgreSQL and back. Further folders may be added beside `spool`: readers ignore what the
//! manifest does not name.

mod create;
mod error;
mod manifest;
mod restore;

pub use create::create;
pub use error::BackupError;
pub use manifest::{Manifest, SpoolPart, TablePart};
pub use restore::{Archive, Restored};
