//! Abstraction over both databases: statements with their arguments, rows, connections and
//! transactions.
//!
//! Both number their arguments `$1`, `$2`, …; only a few types differ, and the backends convert
//! those.

use std::future::Future;

use sqlx::pool::PoolConnection;
use sqlx::{Database, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use super::argument::{Argument, Column};
use super::error::StoreError;
use crate::content::ContentHash;

/// A statement under construction: text of this program with `$n` for each bound argument, never a
/// value.
#[derive(Clone, Default)]
pub(crate) struct Sql {
    pub(crate) text: String,
    pub(crate) arguments: Vec<Argument>,
}

impl Sql {
    pub(crate) fn new(text: &'static str) -> Self {
        Self { text: text.to_owned(), arguments: Vec::new() }
    }

    /// Appends text of this program.
    pub(crate) fn push(&mut self, text: &'static str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Appends the next argument.
    pub(crate) fn bind(&mut self, argument: impl Into<Argument>) -> &mut Self {
        self.arguments.push(argument.into());
        self.text.push('$');
        self.text.push_str(&self.arguments.len().to_string());
        self
    }

    /// Appends the arguments in parentheses: one row of `VALUES`, or the list of an `IN`.
    pub(crate) fn tuple(&mut self, arguments: impl IntoIterator<Item = Argument>) -> &mut Self {
        self.push("(");
        for (position, argument) in arguments.into_iter().enumerate() {
            if position > 0 {
                self.push(", ");
            }
            self.bind(argument);
        }
        self.push(")")
    }

    /// Appends several rows of `VALUES`.
    pub(crate) fn tuples(
        &mut self,
        rows: impl Iterator<Item = impl IntoIterator<Item = Argument>>,
    ) -> &mut Self {
        for (position, row) in rows.enumerate() {
            if position > 0 {
                self.push(", ");
            }
            self.tuple(row);
        }
        self
    }
}

/// A row as the database returned it.
pub(crate) trait Row: Send {
    fn text(&self, column: &str) -> Result<Option<String>, sqlx::Error>;
    fn int(&self, column: &str) -> Result<Option<i64>, sqlx::Error>;
    fn real(&self, column: &str) -> Result<Option<f64>, sqlx::Error>;
    fn real_at(&self, place: usize) -> Result<Option<f64>, sqlx::Error>;
    fn uuid(&self, column: &str) -> Result<Option<Uuid>, sqlx::Error>;
    fn time(&self, column: &str) -> Result<Option<OffsetDateTime>, sqlx::Error>;
    fn bytes(&self, column: &str) -> Result<Option<Vec<u8>>, sqlx::Error>;
}

/// A connection, in a transaction or not.
pub(crate) trait Connection: Send {
    type Row: Row;

    /// Returns the clause that locks the selected rows against changes until the transaction ends.
    fn lock(&self) -> &'static str;

    /// Returns the clause that locks the selected rows of the table `pending_samples`.
    fn lock_samples(&self) -> &'static str;

    /// Returns the clause that also prevents the addition of rows that refer to the selected ones.
    fn lock_for_deletion(&self) -> &'static str;

    /// Returns the clause that locks the selected rows of the table `runs` against finishing and
    /// deletion until the transaction ends. Several transactions can hold this lock.
    fn lock_shared_runs(&self) -> &'static str;

    /// Returns the clause that locks the selected rows of one table against deletion until the
    /// transaction ends. Several transactions can hold this lock.
    fn lock_shared_rows(&self) -> &'static str;

    /// Returns the clause with which a recording selects from the table `deleted_images`: it holds
    /// off [`exclude_recordings`](Self::exclude_recordings) until the transaction ends.
    fn lock_shared_deletions(&self) -> &'static str;

    /// Returns the statement that waits for these recordings, and holds off further ones until the
    /// transaction ends. `None` if the database has only one writer.
    fn exclude_recordings(&self) -> Option<&'static str>;

    /// Returns the statement by which the transaction does not wait until it is on the disk: a
    /// crash of the server may undo it. `None` if the database has no such transactions.
    fn relax(&self) -> Option<&'static str>;

    /// Returns the prefix that makes a query return its plan, and the column that contains it.
    fn explain(&self) -> (&'static str, &'static str);

    /// Appends ` FROM` the rows of these columns, which are called `column1`, `column2`, …
    ///
    /// The condition is for SQLite, which would parse an `ON` after it as that of a join.
    fn push_rows(&self, sql: &mut Sql, mut columns: Vec<Column>) {
        let rows = columns.first().map_or(0, Column::len);
        sql.push(" FROM (VALUES ");
        sql.tuples(
            (0..rows)
                .map(|row| columns.iter_mut().map(|column| column.take(row)).collect::<Vec<_>>()),
        );
        sql.push(") AS given WHERE true");
    }

    /// Runs a statement and returns the number of rows that it wrote.
    fn execute(&mut self, sql: Sql) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Runs a query and returns all its rows.
    fn fetch(
        &mut self,
        sql: Sql,
    ) -> impl Future<Output = Result<Vec<Self::Row>, sqlx::Error>> + Send;

    /// Runs a query and passes its rows to `take` one by one, so that they need not be in memory
    /// together.
    fn each(
        &mut self,
        sql: Sql,
        take: impl FnMut(&Self::Row) -> Result<(), StoreError> + Send,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Connections to one database.
pub(crate) trait Connections: Sync {
    type Db: Database<Connection: Connection>;

    /// Begins a transaction that may write.
    fn begin(
        &self,
    ) -> impl Future<Output = Result<Transaction<'static, Self::Db>, sqlx::Error>> + Send;

    /// Begins a transaction that may write tens of thousands of rows.
    fn begin_large(
        &self,
    ) -> impl Future<Output = Result<Transaction<'static, Self::Db>, sqlx::Error>> + Send {
        self.begin()
    }

    /// Acquires a connection for reading.
    fn reader(&self) -> impl Future<Output = Result<PoolConnection<Self::Db>, sqlx::Error>> + Send;
}

/// Reads a row's columns, and reports the column whose value this program never writes.
pub(crate) struct Reader<'a, R> {
    row: &'a R,
    table: &'static str,
    key: String,
}

impl<'a, R: Row> Reader<'a, R> {
    /// Reads a row of `table`; errors identify it by `key`.
    pub(crate) fn new(row: &'a R, table: &'static str, key: impl Into<String>) -> Self {
        Self { row, table, key: key.into() }
    }

    pub(crate) fn text(&self, column: &'static str) -> Result<String, StoreError> {
        self.required(column, self.row.text(column))
    }

    pub(crate) fn optional_text(&self, column: &'static str) -> Result<Option<String>, StoreError> {
        self.readable(column, self.row.text(column))
    }

    pub(crate) fn real(&self, column: &'static str) -> Result<f64, StoreError> {
        self.required(column, self.row.real(column))
    }

    pub(crate) fn optional_real(&self, column: &'static str) -> Result<Option<f64>, StoreError> {
        self.readable(column, self.row.real(column))
    }

    /// Reads the column at a position, counted from 0, of a query with too many columns to name
    /// them. Errors call it `column`.
    pub(crate) fn optional_real_at(
        &self,
        place: usize,
        column: &'static str,
    ) -> Result<Option<f64>, StoreError> {
        self.readable(column, self.row.real_at(place))
    }

    pub(crate) fn uuid(&self, column: &'static str) -> Result<Uuid, StoreError> {
        self.required(column, self.row.uuid(column))
    }

    pub(crate) fn optional_uuid(&self, column: &'static str) -> Result<Option<Uuid>, StoreError> {
        self.readable(column, self.row.uuid(column))
    }

    pub(crate) fn time(&self, column: &'static str) -> Result<OffsetDateTime, StoreError> {
        self.required(column, self.row.time(column))
    }

    pub(crate) fn optional_time(
        &self,
        column: &'static str,
    ) -> Result<Option<OffsetDateTime>, StoreError> {
        self.readable(column, self.row.time(column))
    }

    /// Reads a text column that contains the hash of an image.
    pub(crate) fn hash(&self, column: &'static str) -> Result<ContentHash, StoreError> {
        ContentHash::from_hex(&self.text(column)?)
            .ok_or_else(|| self.corrupt(column, "is not a hash"))
    }

    pub(crate) fn optional_bytes(
        &self,
        column: &'static str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.readable(column, self.row.bytes(column))
    }

    /// Reads an integer in the range of `T`.
    pub(crate) fn int<T: TryFrom<i64>>(&self, column: &'static str) -> Result<T, StoreError> {
        let value = self.required(column, self.row.int(column))?;
        T::try_from(value)
            .map_err(|_| self.corrupt(column, format!("is {value}, which is out of range")))
    }

    /// Reads an integer in the range of `T`, or null.
    pub(crate) fn optional_int<T: TryFrom<i64>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, StoreError> {
        let value = self.readable(column, self.row.int(column))?;
        let convert = |value| {
            T::try_from(value)
                .map_err(|_| self.corrupt(column, format!("is {value}, which is out of range")))
        };
        value.map(convert).transpose()
    }

    /// Reads a text column that contains JSON.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(
        &self,
        column: &'static str,
    ) -> Result<T, StoreError> {
        serde_json::from_str(&self.text(column)?)
            .map_err(|error| self.corrupt(column, format!("is not the expected JSON ({error})")))
    }

    /// Reads a text column that contains one of a few words.
    pub(crate) fn word<T>(
        &self,
        column: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, StoreError> {
        let word = self.text(column)?;
        parse(&word).ok_or_else(|| {
            self.corrupt(column, format!("is {word:?}, which this program does not know"))
        })
    }

    pub(crate) fn corrupt(&self, column: &'static str, reason: impl Into<String>) -> StoreError {
        StoreError::Corrupt {
            table: self.table,
            column,
            row: self.key.clone(),
            reason: reason.into(),
        }
    }

    fn readable<T>(
        &self,
        column: &'static str,
        value: Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        value.map_err(|error| self.corrupt(column, format!("cannot be read ({error})")))
    }

    fn required<T>(
        &self,
        column: &'static str,
        value: Result<Option<T>, sqlx::Error>,
    ) -> Result<T, StoreError> {
        self.readable(column, value)?.ok_or_else(|| self.corrupt(column, "is null"))
    }
}

/// Statements that both databases run alike; the `prepare` of the file converts their arguments.
macro_rules! run_statements {
    ($row:ty) => {
        async fn execute(&mut self, sql: Sql) -> Result<u64, sqlx::Error> {
            let (text, arguments) = prepare(sql)?;
            Ok(sqlx::query_with(text, arguments).execute(self).await?.rows_affected())
        }

        async fn fetch(&mut self, sql: Sql) -> Result<Vec<$row>, sqlx::Error> {
            let (text, arguments) = prepare(sql)?;
            sqlx::query_with(text, arguments).fetch_all(self).await
        }

        async fn each(
            &mut self,
            sql: Sql,
            mut take: impl FnMut(&$row) -> Result<(), StoreError> + Send,
        ) -> Result<(), StoreError> {
            let (text, arguments) = prepare(sql)?;
            let mut rows = sqlx::query_with(text, arguments).fetch(self);
            while let Some(row) = rows.try_next().await? {
                take(&row)?;
            }
            Ok(())
        }
    };
}

/// Columns of types that both drivers read.
macro_rules! plain_columns {
    () => {
        fn text(&self, column: &str) -> Result<Option<String>, sqlx::Error> {
            self.try_get(column)
        }

        fn int(&self, column: &str) -> Result<Option<i64>, sqlx::Error> {
            self.try_get(column)
        }

        fn real(&self, column: &str) -> Result<Option<f64>, sqlx::Error> {
            self.try_get(column)
        }

        fn real_at(&self, place: usize) -> Result<Option<f64>, sqlx::Error> {
            self.try_get(place)
        }

        fn bytes(&self, column: &str) -> Result<Option<Vec<u8>>, sqlx::Error> {
            self.try_get(column)
        }
    };
}

pub(super) use {plain_columns, run_statements};
