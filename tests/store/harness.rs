//! A fresh database for each test, and samples for it.

use std::future::Future;
use std::io::Write as _;

use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _, SqliteConnection,
};
use stellar_score::analysis::{
    Grouping, LeaderboardPage, LeaderboardQuery, LeaderboardRow, leaderboard,
};
use stellar_score::content::ContentHash;
use stellar_score::store::{
    Extras, MetricSummary, NewSample, NewScore, PackId, RunName, SampleInputs, ScoreValue, Store,
    StoreError, StoreOptions, Weights,
};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// A database used by one test only.
#[derive(Clone)]
pub(crate) struct Database {
    pub(crate) kind: Kind,
    pub(crate) url: String,
}

/// Runs a case on a fresh database and deletes the database afterwards, even if the case fails.
pub(crate) fn run<F: Future<Output = ()> + Send + 'static>(
    kind: Kind,
    case: &str,
    test: impl FnOnce(Database) -> F + Send + 'static,
) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    match kind {
        Kind::Sqlite => {
            let folder = tempfile::tempdir().unwrap();
            let url = format!("sqlite:{}", folder.path().join("stellar.db").display());
            runtime.block_on(test(Database { kind, url }));
        }
        Kind::Postgres => {
            let Ok(server) = std::env::var("TEST_DATABASE_URL") else {
                // Written directly, since the test harness captures `eprintln!`.
                let notice = format!("SKIPPED postgres::{case}: TEST_DATABASE_URL is not set\n");
                std::io::stderr().write_all(notice.as_bytes()).unwrap();
                return;
            };
            runtime.block_on(in_schema(&server, kind, test));
        }
    }
}

async fn in_schema<F: Future<Output = ()> + Send + 'static>(
    server: &str,
    kind: Kind,
    test: impl FnOnce(Database) -> F,
) {
    let schema = format!("test_{}", Uuid::now_v7().simple());
    let mut admin =
        PgConnection::connect(server).await.expect("TEST_DATABASE_URL names a reachable server");
    admin.execute(AssertSqlSafe(format!("CREATE SCHEMA {schema}"))).await.unwrap();
    let separator = if server.contains('?') { '&' } else { '?' };
    let url = format!("{server}{separator}options=-c%20search_path%3D{schema}");

    let outcome = tokio::spawn(test(Database { kind, url })).await;
    drop_schema(&mut admin, &schema).await;
    if let Err(failure) = outcome {
        std::panic::resume_unwind(failure.into_panic());
    }
}

/// Drops a schema that tasks of the finished test may still read. They acquire locks in another
/// order than this statement, so the server may abort it to resolve a deadlock; it is then retried.
async fn drop_schema(admin: &mut PgConnection, schema: &str) {
    for _ in 0..20 {
        match admin.execute(AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"))).await {
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("40P01") => {}
            outcome => {
                outcome.unwrap();
                return;
            }
        }
    }
    panic!("failed to drop the schema {schema}: its test left tasks that keep reading it");
}

impl Database {
    pub(crate) async fn open(&self) -> Store {
        self.try_open().await.unwrap()
    }

    pub(crate) async fn try_open(&self) -> Result<Store, StoreError> {
        Store::open(&self.url, &StoreOptions::default()).await
    }

    /// Replaces the database by an empty one.
    pub(crate) async fn recreate(&self) {
        match self.kind {
            Kind::Sqlite => {
                let file = self.url.strip_prefix("sqlite:").unwrap();
                for end in ["", "-wal", "-shm"] {
                    let _ = std::fs::remove_file(format!("{file}{end}"));
                }
            }
            Kind::Postgres => {
                let (_, schema) = self.url.rsplit_once("%3D").unwrap();
                let mut connection = PgConnection::connect(&self.url).await.unwrap();
                drop_schema(&mut connection, schema).await;
                let sql = AssertSqlSafe(format!("CREATE SCHEMA {schema}"));
                connection.execute(sql).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    /// Changes the database behind the store's back.
    pub(crate) async fn execute(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        match self.kind {
            Kind::Sqlite => {
                let mut connection = SqliteConnection::connect(&self.url).await.unwrap();
                connection.execute(sql).await.unwrap();
                connection.close().await.unwrap();
            }
            Kind::Postgres => {
                let mut connection = PgConnection::connect(&self.url).await.unwrap();
                connection.execute(sql).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    /// Opens a connection of its own; `None` on SQLite.
    pub(crate) async fn postgres(&self) -> Option<PgConnection> {
        match self.kind {
            Kind::Sqlite => None,
            Kind::Postgres => Some(PgConnection::connect(&self.url).await.unwrap()),
        }
    }

    /// Applies the migrations of a folder to a fresh database.
    pub(crate) async fn migrate(&self, folder: &std::path::Path) {
        let migrator = sqlx::migrate::Migrator::new(folder).await.unwrap();
        match self.kind {
            Kind::Sqlite => {
                let options: sqlx::sqlite::SqliteConnectOptions = self.url.parse().unwrap();
                let mut connection =
                    SqliteConnection::connect_with(&options.create_if_missing(true)).await.unwrap();
                migrator.run_direct(None, &mut connection, false).await.unwrap();
                connection.close().await.unwrap();
            }
            Kind::Postgres => {
                let mut connection = PgConnection::connect(&self.url).await.unwrap();
                migrator.run_direct(None, &mut connection, false).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    /// The first column of the query's rows as text.
    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        let sql = AssertSqlSafe(sql.to_owned());
        match self.kind {
            Kind::Sqlite => {
                let mut connection = SqliteConnection::connect(&self.url).await.unwrap();
                connection.fetch_all(sql).await.unwrap().iter().map(|row| row.get(0)).collect()
            }
            Kind::Postgres => {
                let mut connection = PgConnection::connect(&self.url).await.unwrap();
                connection.fetch_all(sql).await.unwrap().iter().map(|row| row.get(0)).collect()
            }
        }
    }

    pub(crate) async fn count(&self, table: &str) -> usize {
        self.texts(&format!("SELECT CAST(COUNT(*) AS text) FROM {table}")).await[0].parse().unwrap()
    }
}

/// 2026-03-20 12:00:00 UTC plus this many milliseconds.
pub(crate) fn at(milliseconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_774_008_000).unwrap()
        + Duration::milliseconds(milliseconds)
}

pub(crate) fn official() -> PackId {
    PackId { digest: "a".repeat(64), name: "official".into(), weights: Weights::Official }
}

pub(crate) fn demo() -> PackId {
    PackId { digest: "d".repeat(64), name: "demo".into(), weights: Weights::Demo }
}

/// A sample of the run `method/run` with this name; its content is determined by the name.
pub(crate) fn sample(method: &str, name: &str) -> NewSample {
    NewSample {
        id: Uuid::now_v7(),
        created: at(0),
        run: Some(RunName::new(method, Some("run".into()))),
        name: Some(name.into()),
        width: 1024,
        height: 768,
        pack: official(),
        service_version: "0.1.0".into(),
        scores: vec![],
        extras: Extras::default(),
        inputs: SampleInputs {
            content: ContentHash::of(name.as_bytes()),
            prompt: Some("a person skiing".into()),
            image: ContentHash::of(b"image"),
            references: vec![ContentHash::of(b"reference")],
            auxiliary: vec![],
            metadata: serde_json::json!({}),
        },
    }
}

pub(crate) fn number(metric: &str, value: f64) -> NewScore {
    versioned(metric, 1, value)
}

pub(crate) fn versioned(metric: &str, metric_version: u32, value: f64) -> NewScore {
    NewScore {
        metric: metric.into(),
        metric_version,
        value: ScoreValue::Number(value),
        flags: vec![],
    }
}

pub(crate) fn null(metric: &str, reason: &str) -> NewScore {
    NewScore {
        metric: metric.into(),
        metric_version: 1,
        value: ScoreValue::Null { reason: reason.into() },
        flags: vec![],
    }
}

/// [`sample`] with these scores.
pub(crate) fn scored(method: &str, name: &str, scores: Vec<NewScore>) -> NewSample {
    NewSample { scores, ..sample(method, name) }
}

/// The whole leaderboard by run, from which small tests read their summaries.
pub(crate) async fn by_run(store: &Store) -> LeaderboardPage {
    let query = LeaderboardQuery { by: Grouping::Run, limit: 1000, ..LeaderboardQuery::default() };
    leaderboard(store, &query).await.unwrap()
}

/// The only summary of the store.
pub(crate) async fn only_summary(store: &Store) -> MetricSummary {
    let page = by_run(store).await;
    assert_eq!(page.rows.len(), 1, "{page:?}");
    assert_eq!(page.rows[0].metrics.len(), 1, "{page:?}");
    page.rows[0].metrics[0].summary.clone()
}

/// The counts, means and deviations of a row.
pub(crate) fn summaries(row: &LeaderboardRow) -> Vec<MetricSummary> {
    row.metrics.iter().map(|metric| metric.summary.clone()).collect()
}

/// A summary of the metric `m`, version 1.
pub(crate) fn summary(n: u64, nulls: u64, mean: Option<f64>, std: Option<f64>) -> MetricSummary {
    MetricSummary { metric: "m".into(), version: 1, n, nulls, mean, std }
}
