//! What a database is and holds, without changing it.

use crate::store::db::{
    Catalog, Reader, Single, Sql, StoreError, StoreOptions, on_connection, schema_of, sqlite_file,
    tables,
};
use std::path::PathBuf;

/// State of a database, read without migrating it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseState {
    /// Kind of database: `sqlite` or `postgres`.
    pub kind: &'static str,
    /// Name and version of the database program.
    pub version: String,
    /// Schema version; `None` for a database without tables of this program.
    pub schema: Option<i64>,
    /// Newest schema version of this program.
    pub newest: i64,
    /// Id of the database, which its spool knows.
    pub installation: Option<String>,
    /// Size of the database, in bytes.
    pub bytes: u64,
    /// Number of stored samples.
    pub samples: u64,
    /// Number of samples that are pending.
    pub pending: u64,
    /// Number of API keys, also revoked and expired ones.
    pub keys: u64,
}

impl DatabaseState {
    /// Reads the state of the database at `url`.
    ///
    /// # Errors
    /// The database does not exist or cannot be reached.
    pub async fn read(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let mut connection = Single::open(url, options, false).await?;
        let kind = connection.kind();
        on_connection!(&mut connection, connection => state(connection, kind).await)
    }

    /// Returns the file of a SQLite database at `url`.
    #[must_use]
    pub fn file(url: &str) -> Option<PathBuf> {
        url.starts_with("sqlite:").then(|| sqlite_file(url))?
    }
}

async fn state<C: Catalog>(
    connection: &mut C,
    kind: &'static str,
) -> Result<DatabaseState, StoreError> {
    let version = match connection.fetch(Sql::new(C::VERSION)).await?.first() {
        Some(row) => Reader::new(row, "catalog", "").text("version")?,
        None => String::new(),
    };
    let bytes = number(connection, C::BYTES, "bytes").await?;
    let schema = schema_of(connection).await?;
    let tables = if schema.is_some() { tables(connection).await? } else { Vec::new() };
    let has = |name: &str| tables.iter().any(|table| table.name == name);
    let installation = if has("installation") {
        let rows = connection.fetch(Sql::new("SELECT id FROM installation")).await?;
        rows.first().map(|row| Reader::new(row, "installation", "").text("id")).transpose()?
    } else {
        None
    };
    let samples = if has("samples") {
        number(connection, "SELECT COUNT(*) AS samples FROM samples", "samples").await?
    } else {
        0
    };
    let pending = if has("pending_samples") {
        let waiting = "SELECT COUNT(*) AS pending FROM pending_samples WHERE state = 'waiting'";
        number(connection, waiting, "pending").await?
    } else {
        0
    };
    let keys = if has("api_keys") {
        number(connection, "SELECT COUNT(*) AS keys FROM api_keys", "keys").await?
    } else {
        0
    };
    let newest = C::newest();
    Ok(DatabaseState { kind, version, schema, newest, installation, bytes, samples, pending, keys })
}

async fn number<C: Catalog>(
    connection: &mut C,
    sql: &'static str,
    column: &'static str,
) -> Result<u64, StoreError> {
    match connection.fetch(Sql::new(sql)).await?.first() {
        Some(row) => Reader::new(row, "catalog", "").int(column),
        None => Ok(0),
    }
}
