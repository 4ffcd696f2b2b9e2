//! Rows of a snapshot, written into an empty database in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use super::Cell;
use crate::store::db::{
    Argument, Catalog, Connection as _, Reader, Single, Sql, StoreError, StoreOptions, Table,
    on_connection, schema_of, tables,
};

/// Most arguments of a statement. SQLite accepts 32,766, and shorter statements are parsed faster.
const ARGUMENTS: usize = 4_000;

/// Most bytes of the values of a statement, roughly.
const BYTES: usize = 4 << 20;

/// Table whose row every started service writes. It is replaced, so it does not count as data.
const INSTALLATION: &str = "installation";

/// Reason why rows could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The database has rows.
    #[error(
        "the database is not empty: table {table} has rows; restore into an empty database \
            (store.url)"
    )]
    NotEmpty {
        /// A table with rows.
        table: String,
    },
    /// The backup is of a newer schema than this program knows.
    #[error(
        "the backup has schema {found}, but this program supports schemas up to {known}: use the \
            program that made it, or a newer one"
    )]
    Newer {
        /// Schema version of the backup.
        found: i64,
        /// Newest schema version that this program supports.
        known: i64,
    },
    /// The database has tables of a newer schema than the backup.
    #[error(
        "the database has empty tables of schema {found}, but the backup has schema {wanted}: \
            restore into a database without tables; they are migrated afterwards"
    )]
    TablesNewer {
        /// Schema version of the database.
        found: i64,
        /// Schema version of the backup.
        wanted: i64,
    },
    /// A table or value of the backup does not fit the schema.
    #[error("the backup does not fit its schema: {0}")]
    Misfit(String),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for RestoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A transaction that fills an empty database. Dropping it changes nothing.
pub struct Restoration {
    connection: Single,
    tables: BTreeMap<String, Table>,
    order: Vec<String>,
}

impl Restoration {
    /// Opens an empty database, creates the tables of `schema`, and begins the transaction.
    pub async fn begin(url: &str, schema: i64) -> Result<Self, RestoreError> {
        let mut connection = Single::open(url, &StoreOptions::default(), true).await?;
        let (tables, order) = on_connection!(&mut connection, connection => {
            prepare(connection, schema).await?
        });
        let tables = tables.into_iter().map(|table| (table.name.clone(), table)).collect();
        Ok(Self { connection, tables, order })
    }

    /// Returns the names of all tables, those that others refer to first.
    #[must_use]
    pub fn order(&self) -> &[String] {
        &self.order
    }

    /// Inserts rows. Returns their number.
    ///
    /// # Errors
    /// A column does not exist, a value does not fit its column, `next` fails, or the database
    /// fails.
    pub async fn insert<E: From<RestoreError>>(
        &mut self,
        table: &str,
        columns: &[String],
        mut next: impl FnMut() -> Result<Option<Vec<Cell>>, E>,
    ) -> Result<u64, E> {
        let misfit = |what: String| E::from(RestoreError::Misfit(what));
        let known = self.tables.get(table);
        let known = known.ok_or_else(|| misfit(format!("its schema has no table {table:?}")))?;
        let mut kinds = Vec::new();
        for column in columns {
            let kind = known.columns.iter().find(|(name, _)| name == column);
            let (_, kind) =
                kind.ok_or_else(|| misfit(format!("table {table} has no column {column:?}")))?;
            kinds.push(*kind);
        }
        let at_once = (ARGUMENTS / columns.len().max(1)).max(1);
        let (mut rows, mut bytes, mut count) = (Vec::new(), 0, 0);
        loop {
            let row = next()?;
            let end = row.is_none();
            if let Some(row) = row {
                count += 1;
                bytes += row.iter().map(Cell::bytes).sum::<usize>();
                if row.len() != kinds.len() {
                    let what = format!("row {count} of {table} has {} values", row.len());
                    return Err(misfit(what));
                }
                let mut arguments = Vec::with_capacity(row.len());
                for ((cell, kind), column) in row.into_iter().zip(&kinds).zip(columns) {
                    let argument = cell.argument(*kind);
                    arguments.push(argument.ok_or_else(|| {
                        misfit(format!("row {count} of {table}: column {column} is no {kind:?}"))
                    })?);
                }
                rows.push(arguments);
            }
            if !rows.is_empty() && (end || rows.len() == at_once || bytes >= BYTES) {
                let sql = insertion(table, columns, std::mem::take(&mut rows));
                bytes = 0;
                let inserted = on_connection!(&mut self.connection, connection => {
                    connection.execute(sql).await
                });
                inserted.map_err(|error| E::from(error.into()))?;
            }
            if end {
                return Ok(count);
            }
        }
    }

    /// Assigns all that belongs to these spools to one of them.
    pub async fn merge_spools(&mut self, from: &[String], to: &str) -> Result<(), RestoreError> {
        for spool in from.iter().filter(|spool| *spool != to) {
            let mut pending = Sql::new("UPDATE pending_samples SET folder = ");
            pending.bind(to).push(" WHERE folder = ").bind(spool.as_str());
            // Both spools may have the same image of the same run: one row of them stays.
            let both = " AND other.run = kept_files.run AND other.image = kept_files.image";
            let mut photos = Sql::new("UPDATE kept_files SET photo = 1 WHERE folder = ");
            photos.bind(to);
            photos.push(" AND EXISTS (SELECT 1 FROM kept_files AS other WHERE other.folder = ");
            photos.bind(spool.as_str()).push(both).push(" AND other.photo = 1)");
            let mut twice = Sql::new("DELETE FROM kept_files WHERE folder = ");
            twice.bind(spool.as_str());
            twice.push(" AND EXISTS (SELECT 1 FROM kept_files AS other WHERE other.folder = ");
            twice.bind(to).push(both).push(")");
            let mut kept = Sql::new("UPDATE kept_files SET folder = ");
            kept.bind(to).push(" WHERE folder = ").bind(spool.as_str());
            on_connection!(&mut self.connection, connection => {
                for sql in [pending, photos, twice, kept] {
                    connection.execute(sql).await?;
                }
            });
        }
        Ok(())
    }

    /// Commits. The caller opens the store next, which applies the remaining migrations.
    pub async fn commit(self) -> Result<(), RestoreError> {
        let mut connection = self.connection;
        on_connection!(&mut connection, connection => {
            connection.execute(Sql::new("COMMIT")).await?;
        });
        on_connection!(connection, connection => sqlx::Connection::close(connection).await)?;
        Ok(())
    }
}

fn insertion(table: &str, columns: &[String], rows: Vec<Vec<Argument>>) -> Sql {
    let mut sql = Sql::new("INSERT INTO ");
    // Names of the catalog, checked to be plain.
    sql.text.push_str(table);
    sql.text.push_str(" (\"");
    sql.text.push_str(&columns.join("\", \""));
    sql.text.push_str("\") VALUES ");
    for (at, row) in rows.into_iter().enumerate() {
        if at > 0 {
            sql.push(", ");
        }
        sql.tuple(row);
    }
    sql
}

async fn prepare<C: Catalog>(
    connection: &mut C,
    schema: i64,
) -> Result<(Vec<Table>, Vec<String>), RestoreError> {
    if schema > C::newest() {
        return Err(RestoreError::Newer { found: schema, known: C::newest() });
    }
    if let Some(found) = schema_of(connection).await? {
        let there = tables(connection).await?;
        refuse_rows(connection, &there).await?;
        if found > schema {
            return Err(RestoreError::TablesNewer { found, wanted: schema });
        }
    } else if let Some(table) = tables(connection).await?.first() {
        let reason = format!("it has a table {} of another program", table.name);
        return Err(StoreError::invalid("the database", reason).into());
    }
    connection.migrate(Some(schema)).await?;
    let tables = tables(connection).await?;
    let order = parents_first(connection, &tables).await?;
    connection.execute(Sql::new(C::RESTORATION)).await?;
    for table in &tables {
        if let Some(lock) = C::lock_table(&table.name) {
            connection.execute(Sql { text: lock, ..Sql::default() }).await?;
        }
    }
    // Again: a service may have started meanwhile.
    refuse_rows(connection, &tables).await?;
    if tables.iter().any(|table| table.name == INSTALLATION) {
        connection.execute(Sql::new("DELETE FROM installation")).await?;
    }
    Ok((tables, order))
}

async fn refuse_rows<C: Catalog>(connection: &mut C, tables: &[Table]) -> Result<(), RestoreError> {
    for table in tables.iter().filter(|table| table.name != INSTALLATION) {
        let mut sql = Sql::new("SELECT 1 AS one FROM ");
        sql.text.push_str(&table.name);
        sql.push(" LIMIT 1");
        if !connection.fetch(sql).await?.is_empty() {
            return Err(RestoreError::NotEmpty { table: table.name.clone() });
        }
    }
    Ok(())
}

/// Sorts tables so that each comes after those that it refers to.
async fn parents_first<C: Catalog>(
    connection: &mut C,
    tables: &[Table],
) -> Result<Vec<String>, RestoreError> {
    let mut parents: BTreeMap<String, BTreeSet<String>> =
        tables.iter().map(|table| (table.name.clone(), BTreeSet::new())).collect();
    for row in &connection.fetch(Sql::new(C::REFERENCES)).await? {
        let row = Reader::new(row, "catalog", "");
        let (child, parent) = (row.text("child")?, row.text("parent")?);
        if child != parent
            && let Some(of_child) = parents.get_mut(&child)
        {
            of_child.insert(parent);
        }
    }
    let mut order = Vec::new();
    while !parents.is_empty() {
        let ready: Vec<_> = parents
            .iter()
            .filter(|(_, of)| of.iter().all(|parent| !parents.contains_key(parent)))
            .map(|(table, _)| table.clone())
            .collect();
        if ready.is_empty() {
            let left: Vec<_> = parents.into_keys().collect();
            return Err(RestoreError::Misfit(format!("{left:?} refer to each other")));
        }
        for table in ready {
            parents.remove(&table);
            order.push(table);
        }
    }
    Ok(order)
}
