//! One state of a database, read while others write.

use std::collections::{BTreeMap, BTreeSet};

use super::Cell;
use crate::content::ContentHash;
use crate::store::db::{
    Catalog, Connection as _, Reader, Single, Sql, StoreError, StoreOptions, Table, on_connection,
    schema_of, tables,
};

/// A table of a snapshot with the names of its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableShape {
    /// Name of the table.
    pub name: String,
    /// Names of its columns, in order.
    pub columns: Vec<String>,
}

/// All rows of a database at one moment. Nothing is migrated, and no writer is blocked.
///
/// On SQLite this is a read transaction on the write-ahead log, on PostgreSQL one with repeatable
/// reads.
pub struct Snapshot {
    connection: Single,
    schema: i64,
    tables: Vec<Table>,
}

impl Snapshot {
    /// Opens the database at `url` and fixes the state to read.
    ///
    /// # Errors
    /// The database does not exist, cannot be reached, or has no tables of this program.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let mut connection = Single::open(url, &StoreOptions::default(), false).await?;
        let (schema, tables) = on_connection!(&mut connection, connection => {
            begin(connection).await?
        });
        let Some(schema) = schema else {
            return Err(StoreError::url(url, "the database has no tables of this program"));
        };
        Ok(Self { connection, schema, tables })
    }

    /// Returns the kind of database: `sqlite` or `postgres`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.connection.kind()
    }

    /// Returns the schema version.
    #[must_use]
    pub fn schema(&self) -> i64 {
        self.schema
    }

    /// Returns all tables.
    #[must_use]
    pub fn tables(&self) -> Vec<TableShape> {
        let shape = |table: &Table| TableShape {
            name: table.name.clone(),
            columns: table.columns.iter().map(|(name, _)| name.clone()).collect(),
        };
        self.tables.iter().map(shape).collect()
    }

    /// Passes every row of a table to `take`.
    pub async fn rows(
        &mut self,
        table: &str,
        mut take: impl FnMut(&[Cell]) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        let Some(table) = self.tables.iter().find(|each| each.name == table) else {
            return Err(StoreError::invalid("the table", format!("there is no {table:?}")));
        };
        let mut sql = Sql::new("SELECT ");
        for (at, (column, _)) in table.columns.iter().enumerate() {
            // Names of the catalog, checked to be plain.
            sql.text.push_str(if at == 0 { "\"" } else { ", \"" });
            sql.text.push_str(column);
            sql.text.push('"');
        }
        sql.text.push_str(" FROM ");
        sql.text.push_str(&table.name);
        let mut cells = Vec::with_capacity(table.columns.len());
        on_connection!(&mut self.connection, connection => {
            connection.each(sql, |row| {
                cells.clear();
                for (column, kind) in &table.columns {
                    let cell = Cell::read(row, column, *kind);
                    cells.push(cell.map_err(|error| unreadable(&table.name, column, &error))?);
                }
                take(&cells)
            }).await
        })
    }

    /// Returns the id of the database, if it has one yet.
    pub async fn installation(&mut self) -> Result<Option<String>, StoreError> {
        let rows = self.texts("installation", "SELECT id AS text FROM installation").await?;
        Ok(rows.into_iter().next())
    }

    /// Returns the files that rows need, by the id of the spool folder.
    pub async fn files(&mut self) -> Result<BTreeMap<String, BTreeSet<ContentHash>>, StoreError> {
        let sql = "SELECT DISTINCT folder || ' ' || image AS text FROM kept_files";
        let mut files: BTreeMap<String, BTreeSet<ContentHash>> = BTreeMap::new();
        for text in self.texts("kept_files", sql).await? {
            let parsed = text
                .rsplit_once(' ')
                .and_then(|(folder, image)| Some((folder, ContentHash::from_hex(image)?)));
            let (folder, image) =
                parsed.ok_or_else(|| StoreError::invalid("kept_files", format!("has {text:?}")))?;
            files.entry(folder.to_owned()).or_default().insert(image);
        }
        Ok(files)
    }

    async fn texts(&mut self, table: &str, sql: &'static str) -> Result<Vec<String>, StoreError> {
        // Databases of older schemas do not have every table.
        if !self.tables.iter().any(|each| each.name == table) {
            return Ok(Vec::new());
        }
        on_connection!(&mut self.connection, connection => {
            let rows = connection.fetch(Sql::new(sql)).await?;
            rows.iter().map(|row| Reader::new(row, "snapshot", "").text("text")).collect()
        })
    }
}

/// Fixes the state to read: the first query does so on both databases.
async fn begin<C: Catalog>(connection: &mut C) -> Result<(Option<i64>, Vec<Table>), StoreError> {
    connection.execute(Sql::new(C::SNAPSHOT)).await?;
    let schema = schema_of(connection).await?;
    let tables = if schema.is_some() { tables(connection).await? } else { Vec::new() };
    Ok((schema, tables))
}

fn unreadable(table: &str, column: &str, error: &sqlx::Error) -> StoreError {
    StoreError::invalid(format!("{table}.{column}"), format!("it cannot be read ({error})"))
}
