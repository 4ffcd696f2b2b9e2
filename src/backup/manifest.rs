//! The manifest of a backup.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

/// Name of the manifest within the archive.
pub(super) const NAME: &str = "manifest.json";

/// Version of the layout of archives.
pub(super) const FORMAT: u32 = 1;

/// What a backup contains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the layout.
    pub format: u32,
    /// Version of the program that made it.
    pub version: String,
    /// Time at which it was begun, as ISO 8601.
    pub created: String,
    /// Kind of database that it was made of: `sqlite` or `postgres`.
    pub database: String,
    /// Schema version of the rows.
    pub schema: i64,
    /// Id of the database, if a service ever used it.
    pub installation: Option<String>,
    /// The tables, all of them.
    pub tables: Vec<TablePart>,
    /// The files of pending samples.
    pub spool: SpoolPart,
}

/// The rows of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablePart {
    /// Name of the table.
    pub name: String,
    /// Names of its columns, in the order of the values of a row.
    pub columns: Vec<String>,
    /// Number of rows.
    pub rows: u64,
    /// BLAKE3 of the uncompressed part, as 64 hexadecimal digits.
    pub blake3: String,
}

impl TablePart {
    pub(super) fn path(table: &str) -> String {
        format!("tables/{table}.jsonl")
    }
}

/// Files of the spool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolPart {
    /// Ids of the spool folders whose files are in the archive.
    pub folders: Vec<String>,
    /// Number of files.
    pub files: u64,
    /// Size of the files, in bytes.
    pub bytes: u64,
    /// Files that rows need and that were missing or damaged in these folders: hashes.
    pub missing: Vec<String>,
    /// Spool folders of other instances, whose files are not in the archive, each with the number
    /// of files that rows need.
    pub elsewhere: Vec<(String, u64)>,
}

impl SpoolPart {
    pub(super) const PREFIX: &'static str = "spool/";

    pub(super) fn path(file: impl Display) -> String {
        format!("{}{file}", Self::PREFIX)
    }
}
