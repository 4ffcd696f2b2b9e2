//! PostgreSQL: a pool of connections to a server.

use std::str::FromStr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use futures_util::TryStreamExt as _;
use sqlx::migrate::Migrator;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{
    PgArguments, PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow, Postgres,
};
use sqlx::{Arguments, AssertSqlSafe, ConnectOptions, Connection as _, Row as _, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use super::error::{MigrationError, StoreError};
use super::migrations;
use super::options::StoreOptions;
use super::sql::{Argument, Connection, Connections, Row, Sql, plain_columns, run_statements};
use crate::store::telemetry::{PoolState, StoreTelemetry};

/// Concurrent recording transactions: enough to overlap the statements of one with another's flush
/// of the log.
pub(crate) const WRITERS: usize = 4;

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(migrations::postgres);

/// Connections to one database.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pool: PgPool,
    telemetry: StoreTelemetry,
    /// Additional pools of the same database, closed with this one.
    others: Arc<Mutex<Vec<PgPool>>>,
}

impl Pool {
    pub(crate) async fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let connect = PgConnectOptions::from_str(url)
            .map_err(|error| StoreError::url(url, error.to_string()))?
            .application_name(env!("CARGO_PKG_NAME"))
            // A slow statement would be logged with its whole text: tens of kilobytes of `$n` for a
            // batch of rows.
            .disable_statement_logging();
        migrate(url, &connect, options).await?;

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
        Ok(Self { pool, telemetry, others: Arc::default() })
    }

    /// Returns the same database over separate connections, which are opened on demand.
    pub(crate) fn with_own_connections(&self, connections: u32) -> Self {
        let options = self.pool.options().clone().max_connections(connections.max(1));
        let pool = options.connect_lazy_with((*self.pool.connect_options()).clone());
        self.others.lock().unwrap_or_else(PoisonError::into_inner).push(pool.clone());
        let telemetry = self.telemetry.clone();
        Self { pool, telemetry, others: Arc::clone(&self.others) }
    }

    pub(crate) fn states(&self) -> Vec<PoolState> {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        vec![PoolState::of("main", [&self.pool]), PoolState::of("analyses", &*others)]
    }

    pub(crate) async fn close(&self) {
        let others =
            std::mem::take(&mut *self.others.lock().unwrap_or_else(PoisonError::into_inner));
        for pool in others {
            pool.close().await;
        }
        self.pool.close().await;
    }
}

/// Applies migrations on a separate connection. The migrator's lock ends with that connection, so
/// nothing stays locked if a migration fails, and migrations may take longer than a request.
async fn migrate(
    url: &str,
    connect: &PgConnectOptions,
    options: &StoreOptions,
) -> Result<(), StoreError> {
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
    let mut connection = tokio::time::timeout(options.timeout, connect.connect())
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
        })?;
    MIGRATIONS
        .run_direct(None, &mut connection, false)
        .await
        .map_err(|error| MigrationError::explain(error, known))?;
    connection.close().await?;
    Ok(())
}

impl Connections for Pool {
    type Db = Postgres;

    async fn begin(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        // In a separate task, which is never cancelled: sqlx 0.9.0 loses track of a BEGIN whose
        // future is dropped (`PgTransactionManager::begin`), and the next user of the connection
        // would write into the open transaction.
        let pool = self.pool.clone();
        let _wait = self.telemetry.wait("write");
        tokio::spawn(async move { pool.begin().await })
            .await
            .unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }

    async fn reader(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let _wait = self.telemetry.wait("read");
        self.pool.acquire().await
    }
}

impl Connection for PgConnection {
    type Row = PgRow;

    /// Rows that refer to the locked one may still be inserted.
    fn lock(&self) -> &'static str {
        " FOR NO KEY UPDATE"
    }

    fn lock_for_deletion(&self) -> &'static str {
        " FOR UPDATE"
    }

    fn lock_shared_runs(&self) -> &'static str {
        " FOR KEY SHARE OF runs"
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
