//! SQLite: one file, one writer, many readers.
//!
//! SQLite lets one connection write at a time. A second one fails with "database is locked",
//! possibly at a point where it can no longer wait. So all transactions of this process go through
//! a single connection and queue for it in memory, in order; each takes the write lock when it
//! begins, where it can still wait for another process. Readers see the last commit and never block
//! a writer (write-ahead log).

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use futures_util::{TryStreamExt as _, future::BoxFuture};
use sqlx::ConnectOptions as _;
use sqlx::error::DatabaseError;
use sqlx::migrate::Migrator;
use sqlx::pool::{PoolConnection, PoolConnectionMetadata};
use sqlx::sqlite::{
    Sqlite, SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Arguments, AssertSqlSafe, Connection as _, Row as _, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use super::argument::{Argument, ColumnType};
use super::catalog::Catalog;
use super::error::{MigrationError, StoreError};
use super::migrations::{self, newest};
use super::options::StoreOptions;
use super::sql::{Connection, Connections, Reader, Row, Sql, plain_columns, run_statements};
use super::values::{parse_time, time_text};
use crate::store::telemetry::{PoolState, StoreTelemetry};
use crate::sync::lock;

/// Concurrent recording transactions.
pub(crate) const WRITERS: usize = 1;

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(migrations::sqlite);

/// The writer's page cache: 4 MiB. SQLite numbers pages anew when it splits one, by way of a page
/// number beyond the end of the file (`balance_nonroot`), and then searches its whole cache for
/// such pages at the commit (`pcache1TruncateUnsafe`). With 64 MiB that was 45 % of the writer's
/// time while recording.
const CACHE: &str = "-4096";

/// The writer's page cache in large transactions: 64 MiB. An import of 100,000 samples would
/// otherwise write its pages again and again.
const LARGE_CACHE: &str = "-65536";

/// Takes the write lock before any read, so that a transaction never has to roll back halfway.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// Writer and readers of one database.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    writer: SqlitePool,
    readers: SqlitePool,
    telemetry: StoreTelemetry,
    in_memory: bool,
    /// Longest wait of the writer for another process.
    patience: Duration,
    /// Additional readers of the same database, closed with it.
    others: Arc<Mutex<Vec<SqlitePool>>>,
    /// Whether the writer's page cache was enlarged for a large transaction.
    large: Arc<AtomicBool>,
}

impl Pool {
    pub(crate) async fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let unusable = |reason: String| StoreError::url(url, reason);
        let connect = connect_options(url, options)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A commit is durable before the response, so that a power failure takes nothing back:
            // clients do not send an accepted sample again. `Normal` would be faster and lose the
            // last commits.
            .synchronous(SqliteSynchronous::Full)
            // Rows come from another thread: waking this one for every fifty of them costs more
            // than reading them.
            .row_buffer_size(1_000);
        let in_memory = url.contains(":memory:") || url.contains("mode=memory");
        if !in_memory {
            make_folder(connect.get_filename()).map_err(unusable)?;
        }

        // Connections are never closed for idleness or age: opening one costs more than any
        // statement, and an in-memory one is the database. SQLite itself rolls back a transaction
        // that finds the disk full. sqlx still considers its connection to be in that transaction,
        // and can neither end it nor begin another, so the connection is replaced. An in-memory
        // database would be lost with it.
        let pool = || {
            let plain = SqlitePoolOptions::new();
            let pool =
                if in_memory { plain } else { plain.before_acquire(is_between_transactions) };
            pool.acquire_timeout(options.timeout)
                .idle_timeout(None::<Duration>)
                .max_lifetime(None::<Duration>)
                .test_before_acquire(false)
        };
        // Deleted data is overwritten: otherwise faces would stay in free pages.
        let writing = connect.clone().pragma("cache_size", CACHE).pragma("secure_delete", "ON");
        let writer =
            open_writer(&writing, options.timeout, &pool).await.map_err(|error| match error {
                sqlx::Error::Database(error) => {
                    unusable(format!("the file cannot be opened ({error})"))
                }
                error => StoreError::from(error),
            })?;
        let readers = if in_memory {
            writer.clone()
        } else {
            let connect = connect.pragma("query_only", "on");
            pool().max_connections(options.connections.max(1)).connect_lazy_with(connect)
        };
        let pool = Self {
            writer,
            readers,
            telemetry: options.telemetry.clone(),
            in_memory,
            patience: options.timeout,
            others: Arc::default(),
            large: Arc::default(),
        };
        pool.migrate().await?;
        Ok(pool)
    }

    /// Applies migrations.
    async fn migrate(&self) -> Result<(), StoreError> {
        self.writer.acquire().await?.migrate(None).await
    }

    /// Checkpoints the write-ahead log into the database and truncates it. Returns `false` if a
    /// reader prevented it.
    pub(crate) async fn truncate_log(&self) -> Result<bool, StoreError> {
        let mut connection = self.writer.acquire().await?;
        // Do not wait for readers: no transaction could write meanwhile.
        connection.execute(patience(Duration::ZERO)).await?;
        let emptied = connection.fetch(Sql::new("PRAGMA wal_checkpoint(TRUNCATE)")).await;
        connection.execute(patience(self.patience)).await?;
        let rows = emptied?;
        let busy = rows
            .first()
            .map(|row| Reader::new(row, "wal_checkpoint", "").int::<i64>("busy"))
            .transpose()?;
        Ok(busy == Some(0))
    }

    /// Returns the same database over separate readers, which are opened on demand.
    pub(crate) fn with_own_readers(&self, connections: u32) -> Self {
        // An in-memory database is its only connection.
        if self.in_memory {
            return self.clone();
        }
        let options = self.readers.options().clone().max_connections(connections.max(1));
        let readers = options.connect_lazy_with((*self.readers.connect_options()).clone());
        lock(&self.others).push(readers.clone());
        Self { readers, ..self.clone() }
    }

    async fn transaction(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        let _wait = self.telemetry.wait("write");
        self.writer.begin_with(BEGIN).await
    }

    pub(crate) fn states(&self) -> Vec<PoolState> {
        let others = lock(&self.others);
        vec![
            PoolState::of("writer", [&self.writer]),
            PoolState::of("main", [&self.readers]),
            PoolState::of("analyses", &*others),
        ]
    }

    pub(crate) async fn close(&self) {
        let others = std::mem::take(&mut *lock(&self.others));
        for readers in others {
            readers.close().await;
        }
        self.readers.close().await;
        self.writer.close().await;
    }
}

fn connect_options(url: &str, options: &StoreOptions) -> Result<SqliteConnectOptions, StoreError> {
    let parsed = SqliteConnectOptions::from_str(url)
        .map_err(|error| StoreError::url(url, error.to_string()))?;
    Ok(parsed
        .foreign_keys(true)
        .busy_timeout(options.timeout)
        // A slow statement would be logged with its whole text: tens of kilobytes of `$n` for a
        // batch of rows.
        .disable_statement_logging())
}

/// Returns the file of a database; `None` for one in memory.
pub(crate) fn file(url: &str) -> Option<PathBuf> {
    let in_memory = url.contains(":memory:") || url.contains("mode=memory");
    let options = SqliteConnectOptions::from_str(url).ok().filter(|_| !in_memory)?;
    Some(options.get_filename().to_owned())
}

/// Opens one connection without migrating. Reading a database in use needs no more.
pub(crate) async fn connect(
    url: &str,
    options: &StoreOptions,
    create: bool,
) -> Result<SqliteConnection, StoreError> {
    let unusable = |reason: String| StoreError::url(url, reason);
    let Some(file) = file(url) else {
        return Err(unusable("a database in memory is gone when its program ends".to_owned()));
    };
    let mut connect = connect_options(url, options)?.create_if_missing(create);
    if create {
        make_folder(&file).map_err(unusable)?;
        connect = connect.journal_mode(SqliteJournalMode::Wal);
    } else if !file.exists() {
        return Err(unusable(format!("there is no file {}", file.display())));
    }
    connect.connect().await.map_err(|error| match error {
        sqlx::Error::Database(error) => unusable(format!("the file cannot be opened ({error})")),
        error => error.into(),
    })
}

impl Catalog for SqliteConnection {
    const MIGRATED: &'static str =
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name = '_sqlx_migrations'";

    const COLUMNS: &'static str =
        "SELECT tables.name AS in_table, columns.name AS name, columns.type AS type
         FROM sqlite_schema AS tables JOIN pragma_table_info(tables.name) AS columns
         WHERE tables.type = 'table' AND substr(tables.name, 1, 6) NOT IN ('_sqlx_', 'sqlite')
         ORDER BY tables.name, columns.cid";

    const REFERENCES: &'static str = "SELECT tables.name AS child, keys.\"table\" AS parent
         FROM sqlite_schema AS tables JOIN pragma_foreign_key_list(tables.name) AS keys
         WHERE tables.type = 'table' ORDER BY tables.name";

    const VERSION: &'static str = "SELECT 'SQLite ' || sqlite_version() AS version";

    const BYTES: &'static str =
        "SELECT page_count * page_size AS bytes FROM pragma_page_count, pragma_page_size";

    const SNAPSHOT: &'static str = "BEGIN";

    const RESTORATION: &'static str = BEGIN;

    fn lock_table(_: &str) -> Option<String> {
        None
    }

    fn column_type(name: &str) -> Option<ColumnType> {
        match name {
            "TEXT" => Some(ColumnType::Text),
            "INTEGER" => Some(ColumnType::Int),
            "REAL" => Some(ColumnType::Real),
            "BLOB" => Some(ColumnType::Bytes),
            _ => None,
        }
    }

    fn newest() -> i64 {
        newest(&MIGRATIONS)
    }

    /// Applies migrations in one transaction, so that one of several openers applies them and the
    /// others find it done.
    ///
    /// Foreign keys are off meanwhile, which SQLite allows only outside transactions: a table that
    /// others refer to is changed by recreating it. All references are checked before the commit.
    async fn migrate(&mut self, target: Option<i64>) -> Result<(), StoreError> {
        Connection::execute(self, Sql::new("PRAGMA foreign_keys = OFF")).await?;
        let migrated = async {
            let mut transaction = self.begin_with(BEGIN).await?;
            MIGRATIONS
                .run_direct(target, &mut *transaction, false)
                .await
                .map_err(|error| MigrationError::explain(error, Self::newest()))?;
            if !transaction.fetch(Sql::new("PRAGMA foreign_key_check")).await?.is_empty() {
                return Err(MigrationError::References.into());
            }
            transaction.commit().await?;
            Ok(())
        };
        let migrated = migrated.await;
        Connection::execute(self, Sql::new("PRAGMA foreign_keys = ON")).await?;
        migrated
    }
}

/// Opens the writing connection, and waits for other openers for up to `patience`.
///
/// Switching to a write-ahead log needs exclusive access to the file for a moment, and SQLite then
/// reports "database is locked" at once, whatever the busy timeout: if two openers waited for each
/// other, waiting would not help either.
async fn open_writer(
    connect: &SqliteConnectOptions,
    patience: Duration,
    pool: impl Fn() -> SqlitePoolOptions,
) -> Result<SqlitePool, sqlx::Error> {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(2);
    loop {
        match pool().max_connections(1).connect_with(connect.clone()).await {
            Err(error) if is_busy(&error) && Instant::now() + pause < deadline => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            opened => return opened,
        }
    }
}

fn is_between_transactions(
    connection: &mut SqliteConnection,
    _: PoolConnectionMetadata,
) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
    Box::pin(async move { Ok(!connection.is_in_transaction()) })
}

/// Returns a statement that sets how long the connection waits for locks.
fn patience(time: Duration) -> Sql {
    let mut sql = Sql::new("PRAGMA busy_timeout = ");
    sql.text.push_str(&time.as_millis().to_string());
    sql
}

/// Returns `true` if another connection holds a lock (`SQLITE_BUSY` with any of its extensions).
fn is_busy(error: &sqlx::Error) -> bool {
    const BUSY: i32 = 5;
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.and_then(|code| code.parse::<i32>().ok()).is_some_and(|code| code & 0xff == BUSY)
}

fn make_folder(file: &Path) -> Result<(), String> {
    if file.as_os_str().is_empty() {
        return Err("it names no file".to_owned());
    }
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            std::fs::create_dir_all(folder).map_err(|error| {
                format!("the folder {} cannot be created ({error})", folder.display())
            })
        }
        _ => Ok(()),
    }
}

/// Sets the writer's page cache, which SQLite allows within a transaction.
async fn resize_cache(connection: &mut SqliteConnection, size: &str) -> Result<(), sqlx::Error> {
    let statement = format!("PRAGMA cache_size = {size}");
    sqlx::query(AssertSqlSafe(statement)).execute(connection).await.map(drop)
}

impl Connections for Pool {
    type Db = Sqlite;

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        let mut transaction = self.transaction().await?;
        if self.large.swap(false, Ordering::Relaxed) {
            resize_cache(&mut transaction, CACHE).await?;
        }
        Ok(transaction)
    }

    async fn begin_large(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        let mut transaction = self.transaction().await?;
        self.large.store(true, Ordering::Relaxed);
        resize_cache(&mut transaction, LARGE_CACHE).await?;
        Ok(transaction)
    }

    async fn reader(&self) -> Result<PoolConnection<Sqlite>, sqlx::Error> {
        let _wait = self.telemetry.wait("read");
        self.readers.acquire().await
    }
}

impl Connection for SqliteConnection {
    type Row = SqliteRow;

    /// Empty, because the transaction already holds the only write lock.
    fn lock(&self) -> &'static str {
        ""
    }

    fn lock_samples(&self) -> &'static str {
        ""
    }

    fn lock_for_deletion(&self) -> &'static str {
        ""
    }

    fn lock_shared_runs(&self) -> &'static str {
        ""
    }

    fn lock_shared_rows(&self) -> &'static str {
        ""
    }

    fn lock_shared_deletions(&self) -> &'static str {
        ""
    }

    fn exclude_recordings(&self) -> Option<&'static str> {
        None
    }

    fn relax(&self) -> Option<&'static str> {
        None
    }

    fn explain(&self) -> (&'static str, &'static str) {
        ("EXPLAIN QUERY PLAN ", "detail")
    }

    run_statements!(SqliteRow);
}

fn prepare(sql: Sql) -> Result<(AssertSqlSafe<String>, SqliteArguments), sqlx::Error> {
    let mut arguments = SqliteArguments::default();
    for argument in sql.arguments {
        match argument {
            Argument::Text(text) => arguments.add(text),
            Argument::Int(int) => arguments.add(int),
            Argument::Real(real) => arguments.add(real),
            Argument::Bytes(bytes) => arguments.add(bytes),
            Argument::Uuid(uuid) => arguments.add(uuid.map(|uuid| uuid.to_string())),
            Argument::Time(time) => {
                let text = time.map(time_text).transpose();
                arguments.add(text.map_err(|e| sqlx::Error::Encode(e.into()))?)
            }
            Argument::Array(_) => unreachable!("`push_rows` gives SQLite single values"),
            // Null has no type here.
            Argument::Null(_) => arguments.add(None::<String>),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    // `Sql` contains only text of this program: see its documentation.
    Ok((AssertSqlSafe(anonymous(&sql.text)), arguments))
}

/// Returns the statement with `?` for each `$1`, `$2`, …, which occur in this order.
///
/// SQLite treats `$1` as a name, and both its parser and sqlx look up each one among all: for
/// thousands of arguments that takes a hundred times as long as the statement.
fn anonymous(text: &str) -> String {
    let mut parts = text.split('$');
    let mut anonymous = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        anonymous.push('?');
        anonymous.push_str(part.trim_start_matches(|char: char| char.is_ascii_digit()));
    }
    anonymous
}

impl Row for SqliteRow {
    plain_columns!();

    fn uuid(&self, column: &str) -> Result<Option<Uuid>, sqlx::Error> {
        let parse = |text: String| {
            Uuid::parse_str(&text).map_err(|error| sqlx::Error::Decode(error.into()))
        };
        self.text(column)?.map(parse).transpose()
    }

    fn time(&self, column: &str) -> Result<Option<OffsetDateTime>, sqlx::Error> {
        let parse =
            |text: String| parse_time(&text).map_err(|error| sqlx::Error::Decode(error.into()));
        self.text(column)?.map(parse).transpose()
    }
}
