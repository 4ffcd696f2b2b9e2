//! The two databases: SQL that both understand, connections, transactions and errors.
//!
//! - `sql.rs`: statements, arguments, and rows with precise errors
//! - `values.rs`: values as both databases store them
//! - `sqlite.rs`, `postgres.rs`: connections, transactions, types
//! - `options.rs`, `migrations.rs`, `retries.rs`, `error.rs`

mod argument;
mod catalog;
mod error;
mod migrations;
mod options;
mod postgres;
mod retries;
mod sql;
mod sqlite;
mod values;

use std::time::Duration;

use sqlx::{Database, PgConnection, SqliteConnection};

use crate::store::telemetry::PoolState;

pub(crate) use crate::clock::to_microseconds;
pub(crate) use argument::{Argument, Column, ColumnType};
pub(crate) use catalog::{Catalog, Table, schema_of, tables};
pub use error::{MigrationError, StoreError, without_password};
pub use options::StoreOptions;
pub(crate) use retries::with_retries;
pub(crate) use sql::{Connection, Connections, Reader, Row, Sql};
pub(crate) use sqlite::file as sqlite_file;
pub use values::MAX_NAME_BYTES;
pub(crate) use values::{
    check_name, check_text, hashes_to_json, json_strings, new_id, parse_time, storable, time_text,
};

/// Pool of a store's database.
#[derive(Clone, Debug)]
pub(crate) enum Backend {
    Postgres(postgres::Pool),
    Sqlite(sqlite::Pool),
}

/// Runs `$body` with `$pool` bound to the pool of the store's database: the two differ only in
/// type, so each query is written once. The time is observed under the name of the module.
macro_rules! on_backend {
    ($store:expr, $pool:ident => $body:expr) => {{
        let _timer = $store.telemetry.operation(module_path!());
        match &$store.backend {
            $crate::store::db::Backend::Postgres($pool) => $body,
            $crate::store::db::Backend::Sqlite($pool) => $body,
        }
    }};
}

pub(crate) use on_backend;

impl Backend {
    /// Returns the state of all pools.
    pub(crate) fn pools(&self) -> Vec<PoolState> {
        match self {
            Self::Postgres(pool) => pool.states(),
            Self::Sqlite(pool) => pool.states(),
        }
    }

    /// Opens the database at `url`. Returns its pool and the number of concurrent recording
    /// transactions.
    pub(crate) async fn open(
        url: &str,
        options: &StoreOptions,
    ) -> Result<(Self, usize), StoreError> {
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => {
                Ok((Self::Postgres(postgres::Pool::open(url, options).await?), postgres::WRITERS))
            }
            Some("sqlite") => {
                Ok((Self::Sqlite(sqlite::Pool::open(url, options).await?), sqlite::WRITERS))
            }
            _ => Err(StoreError::url(url, "its scheme is neither sqlite nor postgres")),
        }
    }

    /// Returns the same database over separate connections for reading.
    pub(crate) fn with_own_connections(&self, connections: u32) -> Self {
        match self {
            Self::Postgres(pool) => Self::Postgres(pool.with_own_connections(connections)),
            Self::Sqlite(pool) => Self::Sqlite(pool.with_own_readers(connections)),
        }
    }
}

/// One connection of its own, for work on whole databases.
pub(crate) enum Single {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

/// Runs `$body` with `$connection` bound to the connection.
macro_rules! on_connection {
    ($single:expr, $connection:ident => $body:expr) => {
        match $single {
            $crate::store::db::Single::Postgres($connection) => $body,
            $crate::store::db::Single::Sqlite($connection) => $body,
        }
    };
}

pub(crate) use on_connection;

impl Single {
    /// Connects without migrating. A missing SQLite file is created if `create` is set.
    pub(crate) async fn open(
        url: &str,
        options: &StoreOptions,
        create: bool,
    ) -> Result<Self, StoreError> {
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => {
                Ok(Self::Postgres(postgres::connect(url, options).await?))
            }
            Some("sqlite") => Ok(Self::Sqlite(sqlite::connect(url, options, create).await?)),
            _ => Err(StoreError::url(url, "its scheme is neither sqlite nor postgres")),
        }
    }

    /// Returns the kind of database: `sqlite` or `postgres`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::Sqlite(_) => "sqlite",
        }
    }
}

/// Rows per statement. SQLite accepts 32,766 arguments, and a row has at most eighteen.
pub(crate) const ROWS_PER_STATEMENT: usize = 1_000;

/// Rows per statement of the tables with a row or more per score. A row has at most six arguments,
/// since values that all rows share are bound once.
pub(crate) const SCORES_PER_STATEMENT: usize = 5_000;

/// Longer than any healthy database takes, shorter than the timeout of readiness probes.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) async fn ping<P: Connections>(pool: &P) -> Result<(), StoreError> {
    let ping = async {
        let mut connection = pool.reader().await?;
        connection.fetch(Sql::new("SELECT 1 AS one")).await?;
        Ok::<_, sqlx::Error>(())
    };
    match tokio::time::timeout(PING_TIMEOUT, ping).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)),
    }
}

/// A row of the database of these connections.
pub(crate) type RowOf<P> = <<<P as Connections>::Db as Database>::Connection as Connection>::Row;

/// Runs a query outside any transaction, and converts its rows.
pub(crate) async fn read<P: Connections, T>(
    pool: &P,
    sql: Sql,
    convert: impl Fn(&RowOf<P>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    pool.reader().await?.fetch(sql).await?.iter().map(convert).collect()
}

/// Runs a query outside any transaction, and converts its first row.
pub(crate) async fn read_first<P: Connections, T>(
    pool: &P,
    sql: Sql,
    convert: impl Fn(&RowOf<P>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    pool.reader().await?.fetch(sql).await?.first().map(convert).transpose()
}

/// Runs one statement in a transaction, with retries, and returns the number of rows that it wrote.
pub(crate) async fn write<P: Connections>(pool: &P, sql: Sql) -> Result<u64, StoreError> {
    let transaction = || async {
        let mut transaction = pool.begin().await?;
        let rows = transaction.execute(sql.clone()).await?;
        transaction.commit().await?;
        Ok(rows)
    };
    with_retries(transaction).await
}
