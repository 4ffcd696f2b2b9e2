//! What a database says of its own tables: for work on whole databases of any schema version.

use std::future::Future;

use super::argument::ColumnType;
use super::error::StoreError;
use super::sql::{Connection, Reader, Sql};

/// A connection that can describe its database.
pub(crate) trait Catalog: Connection {
    /// Query with a row if migrations were ever applied.
    const MIGRATED: &'static str;
    /// Query of all columns: `in_table`, `name`, `type`, in order.
    const COLUMNS: &'static str;
    /// Query of the tables that refer to others: `child`, `parent`.
    const REFERENCES: &'static str;
    /// Query of the database's name and version: `version`.
    const VERSION: &'static str;
    /// Query of the size of the database: `bytes`.
    const BYTES: &'static str;
    /// Statement that begins a transaction that reads one state of the database.
    const SNAPSHOT: &'static str;
    /// Statement that begins a transaction that fills the database.
    const RESTORATION: &'static str;

    /// Returns the type of a column, if the tables of this program use it.
    fn column_type(name: &str) -> Option<ColumnType>;

    /// Returns the statement that keeps others from writing to a table, if one is needed.
    fn lock_table(table: &str) -> Option<String>;

    /// Returns the newest schema version of this program.
    fn newest() -> i64;

    /// Applies migrations up to this version, or all.
    fn migrate(
        &mut self,
        target: Option<i64>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// A table with its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) columns: Vec<(String, ColumnType)>,
}

/// Returns the schema version; `None` for a database without tables of this program.
pub(crate) async fn schema_of<C: Catalog>(connection: &mut C) -> Result<Option<i64>, StoreError> {
    if connection.fetch(Sql::new(C::MIGRATED)).await?.is_empty() {
        return Ok(None);
    }
    let sql = Sql::new("SELECT MAX(version) AS version FROM _sqlx_migrations WHERE success");
    let rows = connection.fetch(sql).await?;
    match rows.first() {
        Some(row) => Reader::new(row, "_sqlx_migrations", "").optional_int("version"),
        None => Ok(None),
    }
}

/// Returns all tables but those of the migrator, sorted by name.
pub(crate) async fn tables<C: Catalog>(connection: &mut C) -> Result<Vec<Table>, StoreError> {
    let mut tables: Vec<Table> = Vec::new();
    for row in &connection.fetch(Sql::new(C::COLUMNS)).await? {
        let row = Reader::new(row, "catalog", "");
        let (table, name, kind) = (row.text("in_table")?, row.text("name")?, row.text("type")?);
        for identifier in [&table, &name] {
            // Identifiers become part of statements.
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if !identifier.chars().all(plain) {
                return Err(foreign(&format!("the name {identifier:?}")));
            }
        }
        let Some(kind) = C::column_type(&kind) else {
            return Err(foreign(&format!("the type {kind} of {table}.{name}")));
        };
        match tables.last_mut() {
            Some(last) if last.name == table => last.columns.push((name, kind)),
            _ => tables.push(Table { name: table, columns: vec![(name, kind)] }),
        }
    }
    Ok(tables)
}

fn foreign(what: &str) -> StoreError {
    StoreError::invalid(
        "the database",
        format!("it has {what}, which this program does not use: keep other tables elsewhere"),
    )
}
