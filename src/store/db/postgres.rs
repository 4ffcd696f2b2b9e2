//! PostgreSQL: a pool of connections to a server.

use std::str::FromStr;
use std::sync::{Arc, LazyLock, Mutex};

use futures_util::TryStreamExt as _;
use sqlx::migrate::Migrator;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{
    PgArguments, PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow, Postgres,
};
use sqlx::{Arguments, AssertSqlSafe, ConnectOptions, Connection as _, Row as _, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use super::argument::{Argument, Column, ColumnType};
use super::catalog::Catalog;
use super::error::{MigrationError, StoreError};
use super::migrations::{self, newest};
use super::options::StoreOptions;
use super::sql::{Connection, Connections, Row, Sql, plain_columns, run_statements};
use crate::store::telemetry::{PoolState, StoreTelemetry};
use crate::sync::lock;

/// Concurrent recording transactions: enough to overlap the statements of one with another's flush
/// of the log.
pub(crate) const WRITERS: usize = 4;

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(migrations::postgres);

/// Connections to one database.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    connections: PgPool,
    telemetry: StoreTelemetry,
    /// Additional pools of the same database, closed with this one.
    others: Arc<Mutex<Vec<PgPool>>>,
}

impl Pool {
    pub(crate) async fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let connect = connect_options(url)?;
        // On a separate connection: the migrator's lock ends with it, so nothing stays locked if a
        // migration fails, and migrations may take longer than a request.
        let mut migrating = connect_to(url, &connect, options).await?;
        migrating.migrate(None).await?;
        migrating.close().await?;

        let timeout = i64::try_from(options.timeout.as_millis()).unwrap_or(i64::MAX);
        let pool = PgPoolOptions::new()
            .max_connections(options.connections.max(1))
            .acquire_timeout(options.timeout)
            // A stuck server fails the request rather than holding it and its connection forever.
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    let mut sql = Sql::new("SELECT set_config('statement_timeout', CAST(");
                    sql.bind(timeout.min(i32::MAX.into())).push(" AS text), false)");
                    connection.fetch(sql).await.map(drop)
                })
            })
            .connect_lazy_with(connect);
        let telemetry = options.telemetry.clone();
        Ok(Self { connections: pool, telemetry, others: Arc::default() })
    }

    /// Returns the same database over separate connections, which are opened on demand.
    pub(crate) fn with_own_connections(&self, connections: u32) -> Self {
        let options = self.connections.options().clone().max_connections(connections.max(1));
        let pool = options.connect_lazy_with((*self.connections.connect_options()).clone());
        lock(&self.others).push(pool.clone());
        let telemetry = self.telemetry.clone();
        Self { connections: pool, telemetry, others: Arc::clone(&self.others) }
    }

    pub(crate) fn states(&self) -> Vec<PoolState> {
        let others = lock(&self.others);
        vec![PoolState::of("main", [&self.connections]), PoolState::of("analyses", &*others)]
    }

    pub(crate) async fn close(&self) {
        let others = std::mem::take(&mut *lock(&self.others));
        for pool in others {
            pool.close().await;
        }
        self.connections.close().await;
    }
}

fn connect_options(url: &str) -> Result<PgConnectOptions, StoreError> {
    let parsed =
        PgConnectOptions::from_str(url).map_err(|error| StoreError::url(url, error.to_string()))?;
    Ok(parsed
        .application_name(env!("CARGO_PKG_NAME"))
        // A slow statement would be logged with its whole text: tens of kilobytes of `$n` for a
        // batch of rows.
        .disable_statement_logging())
}

/// Opens one connection without migrating and without a timeout of statements.
pub(crate) async fn connect(url: &str, options: &StoreOptions) -> Result<PgConnection, StoreError> {
    connect_to(url, &connect_options(url)?, options).await
}

async fn connect_to(
    url: &str,
    connect: &PgConnectOptions,
    options: &StoreOptions,
) -> Result<PgConnection, StoreError> {
    tokio::time::timeout(options.timeout, connect.connect())
        .await
        .map_err(|_| StoreError::Unavailable(sqlx::Error::PoolTimedOut))?
        .map_err(|error| match &error {
            // Wrong password, unknown role or unknown database: a retry would not help.
            sqlx::Error::Database(refusal)
                if refusal.code().is_some_and(|c| c.starts_with("28") || c.starts_with("3D")) =>
            {
                StoreError::url(url, refusal.message())
            }
            _ => error.into(),
        })
}

impl Catalog for PgConnection {
    const MIGRATED: &'static str =
        "SELECT 'yes' AS name WHERE to_regclass('_sqlx_migrations') IS NOT NULL";

    const COLUMNS: &'static str =
        "SELECT CAST(tables.relname AS text) AS in_table, CAST(columns.attname AS text) AS name,
                format_type(columns.atttypid, NULL) AS type
         FROM pg_class AS tables JOIN pg_attribute AS columns ON columns.attrelid = tables.oid
         WHERE tables.relkind = 'r' AND tables.relnamespace =
               (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
           AND left(CAST(tables.relname AS text), 6) <> '_sqlx_'
           AND columns.attnum > 0 AND NOT columns.attisdropped
         ORDER BY 1, columns.attnum";

    const REFERENCES: &'static str =
        "SELECT CAST(child.relname AS text) AS child, CAST(parent.relname AS text) AS parent
         FROM pg_constraint AS keys JOIN pg_class AS child ON child.oid = keys.conrelid
              JOIN pg_class AS parent ON parent.oid = keys.confrelid
         WHERE keys.contype = 'f' AND child.relnamespace =
               (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
         ORDER BY 1";

    const VERSION: &'static str =
        "SELECT 'PostgreSQL ' || current_setting('server_version') AS version";

    const BYTES: &'static str = "SELECT pg_database_size(current_database()) AS bytes";

    /// The statements of the transaction see one state of the database, and block nobody.
    const SNAPSHOT: &'static str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

    const RESTORATION: &'static str = "BEGIN";

    fn lock_table(table: &str) -> Option<String> {
        Some(format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"))
    }

    fn column_type(name: &str) -> Option<ColumnType> {
        match name {
            "text" => Some(ColumnType::Text),
            "bigint" => Some(ColumnType::Int),
            "double precision" => Some(ColumnType::Real),
            "uuid" => Some(ColumnType::Uuid),
            "timestamp with time zone" => Some(ColumnType::Time),
            "bytea" => Some(ColumnType::Bytes),
            _ => None,
        }
    }

    fn newest() -> i64 {
        newest(&MIGRATIONS)
    }

    async fn migrate(&mut self, target: Option<i64>) -> Result<(), StoreError> {
        let explain = |error| MigrationError::explain(error, Self::newest());
        MIGRATIONS.run_direct(target, self, false).await.map_err(explain)
    }
}

impl Connections for Pool {
    type Db = Postgres;

    async fn begin(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        // In a separate task, which is never cancelled: sqlx 0.9.0 loses track of a BEGIN whose
        // future is dropped (`PgTransactionManager::begin`), and the next user of the connection
        // would write into the open transaction.
        let pool = self.connections.clone();
        let _wait = self.telemetry.wait("write");
        tokio::spawn(async move { pool.begin().await })
            .await
            .unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }

    async fn reader(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let _wait = self.telemetry.wait("read");
        self.connections.acquire().await
    }
}

impl Connection for PgConnection {
    type Row = PgRow;

    /// Rows that refer to the locked one may still be inserted.
    fn lock(&self) -> &'static str {
        " FOR NO KEY UPDATE"
    }

    fn lock_samples(&self) -> &'static str {
        " FOR NO KEY UPDATE OF pending_samples"
    }

    fn lock_for_deletion(&self) -> &'static str {
        " FOR UPDATE"
    }

    fn lock_shared_runs(&self) -> &'static str {
        " FOR KEY SHARE OF runs"
    }

    fn lock_shared_rows(&self) -> &'static str {
        " FOR KEY SHARE"
    }

    fn lock_shared_deletions(&self) -> &'static str {
        " FOR SHARE"
    }

    /// An array for each column: the server spends most of a large `VALUES` on its many arguments.
    fn push_rows(&self, sql: &mut Sql, columns: Vec<Column>) {
        const NAMES: [&str; 6] = ["column1", "column2", "column3", "column4", "column5", "column6"];
        let names = &NAMES[..columns.len()];
        sql.push(" FROM unnest(");
        for (at, column) in columns.into_iter().enumerate() {
            let array = match column {
                Column::Text(_) => "::text[]",
                Column::Int(_) => "::bigint[]",
                Column::Real(_) => "::double precision[]",
                Column::Uuid(_) => "::uuid[]",
            };
            sql.push(if at > 0 { ", " } else { "" }).bind(Argument::Array(column)).push(array);
        }
        sql.push(") AS given (");
        for (at, name) in names.iter().enumerate() {
            sql.push(if at > 0 { ", " } else { "" }).push(name);
        }
        sql.push(") WHERE true");
    }

    fn exclude_recordings(&self) -> Option<&'static str> {
        // It conflicts with FOR SHARE, but not with plain reads, such as those of a backup.
        Some("LOCK TABLE deleted_images IN EXCLUSIVE MODE")
    }

    fn relax(&self) -> Option<&'static str> {
        Some("SET LOCAL synchronous_commit = off")
    }

    fn explain(&self) -> (&'static str, &'static str) {
        ("EXPLAIN (ANALYZE, COSTS OFF) ", "QUERY PLAN")
    }

    run_statements!(PgRow);
}

fn prepare(sql: Sql) -> Result<(AssertSqlSafe<String>, PgArguments), sqlx::Error> {
    let mut arguments = PgArguments::default();
    for argument in sql.arguments {
        match argument {
            Argument::Text(text) => arguments.add(text),
            Argument::Int(int) => arguments.add(int),
            Argument::Real(real) => arguments.add(real),
            Argument::Bytes(bytes) => arguments.add(bytes),
            Argument::Uuid(uuid) => arguments.add(uuid),
            Argument::Time(time) => arguments.add(time),
            Argument::Array(Column::Text(texts)) => arguments.add(texts),
            Argument::Array(Column::Int(ints)) => arguments.add(ints),
            Argument::Array(Column::Real(reals)) => arguments.add(reals),
            Argument::Array(Column::Uuid(uuids)) => arguments.add(uuids),
            Argument::Null(ColumnType::Text) => arguments.add(None::<String>),
            Argument::Null(ColumnType::Int) => arguments.add(None::<i64>),
            Argument::Null(ColumnType::Real) => arguments.add(None::<f64>),
            Argument::Null(ColumnType::Uuid) => arguments.add(None::<Uuid>),
            Argument::Null(ColumnType::Time) => arguments.add(None::<OffsetDateTime>),
            Argument::Null(ColumnType::Bytes) => arguments.add(None::<Vec<u8>>),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    // `Sql` contains only text of this program: see its documentation.
    Ok((AssertSqlSafe(sql.text), arguments))
}

impl Row for PgRow {
    plain_columns!();

    fn uuid(&self, column: &str) -> Result<Option<Uuid>, sqlx::Error> {
        self.try_get(column)
    }

    fn time(&self, column: &str) -> Result<Option<OffsetDateTime>, sqlx::Error> {
        self.try_get(column)
    }
}
