//! What can go wrong with a store, and what to do about it.

use sqlx::migrate::MigrateError;
use sqlx::sqlite::SqliteError;
use uuid::Uuid;

use super::RunName;
use crate::content::ContentHash;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database URL is not one that can be opened.
    #[error(
        "the database URL {url} cannot be used: {reason}; give sqlite:PATH, sqlite::memory: or postgres://USER:PASSWORD@HOST:PORT/DATABASE"
    )]
    Url {
        /// The URL without its password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The database cannot be reached, or did not answer in time: worth trying again later.
    #[error(
        "the database is not available: {0}; check that it runs, accepts connections and has space left, then try again"
    )]
    Unavailable(#[source] sqlx::Error),
    /// Others hold the rows or the file locked, and still did after several tries: worth trying again later.
    #[error("the database is too busy: {0}; try again")]
    Contended(#[source] sqlx::Error),
    /// The tables are not what this program expects.
    #[error("{0}")]
    Migration(#[from] MigrationError),
    /// The name already stands for another sample of this run.
    #[error(
        "run {run} already has a sample named {name:?} ({existing}) with other content; give this one another name, or record it in another run"
    )]
    SampleConflict {
        /// The run.
        run: RunName,
        /// The name given twice.
        name: String,
        /// The sample that has the name.
        existing: Uuid,
    },
    /// The run was described otherwise before.
    #[error("run {run} was made with another value of {fact}; send the same facts, or make another run")]
    RunConflict {
        /// The run.
        run: RunName,
        /// In what the descriptions differ.
        fact: &'static str,
    },
    /// The run takes no more samples.
    #[error("run {run} is finished, or about to be: it takes no more samples; make another run")]
    RunFinished {
        /// The run.
        run: RunName,
    },
    /// The run's samples are scored with another pack than the loaded one.
    #[error(
        "run {run} is scored with the pack {pack}, which is not the loaded one; load that pack, or make another run: scores of different packs cannot be compared"
    )]
    PackConflict {
        /// The run.
        run: RunName,
        /// The digest of its pack.
        pack: String,
    },
    /// As many samples of the run wait as may.
    #[error(
        "{waiting} samples of run {run} wait to be scored, and no more may; send further ones when some are scored"
    )]
    RunFull {
        /// The run.
        run: RunName,
        /// How many wait.
        waiting: u64,
    },
    /// Photos that were named by hash are not kept for the run.
    #[error("these photos are not kept for the run, send their files: {}", list(.images))]
    ImageUnknown {
        /// Their hashes.
        images: Vec<ContentHash>,
    },
    /// The name already stands for another photo of this identity.
    #[error(
        "dataset {dataset:?} already has a photo {name:?} of identity {identity:?} with other content or attributes; give this one another name, or delete that one first"
    )]
    PhotoConflict {
        /// The dataset.
        dataset: String,
        /// Whose photo.
        identity: String,
        /// The name given twice.
        name: String,
    },
    /// What was to be stored cannot be: an empty name, a number that is not finite, and the like.
    #[error("{field} cannot be stored: {reason}")]
    Invalid {
        /// Which part of the request.
        field: String,
        /// What is wrong with it, and what to give instead.
        reason: String,
    },
    /// The cursor is not one that this query gave.
    #[error("the cursor does not belong to this query; start again from the first page")]
    Cursor,
    /// A row holds what this program never writes.
    #[error(
        "table {table}, row {row}: column {column} {reason}; the database was changed by another program: restore it from a backup or remove the row"
    )]
    Corrupt {
        /// The table, or what was read from several.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row's key.
        row: String,
        /// What was found.
        reason: String,
    },
    /// The database refused a statement: its message says why.
    #[error("the database refused a statement: {0}")]
    Database(#[source] sqlx::Error),
}

/// Why the tables could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// A newer program has already changed the tables.
    #[error(
        "the database has schema {found}, this program knows schemas up to {known}: run the newer program, or give this one another database"
    )]
    Newer {
        /// The schema of the database.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// A migration was edited after it was applied.
    #[error(
        "migration {0} of the database is not the one in this program: give it another database, or the program that made this one"
    )]
    Changed(i64),
    /// A row refers to one that is not there.
    #[error(
        "rows of the database refer to others that are missing: it was changed by another program; restore it from a backup"
    )]
    References,
    /// A statement of a migration failed.
    #[error(
        "the tables could not be brought up to date: {0}; check that the database's role may create tables"
    )]
    Failed(#[source] MigrateError),
}

impl MigrationError {
    /// Explains what the migrator said, given the newest schema of this program.
    pub(super) fn explain(error: MigrateError, known: i64) -> StoreError {
        Self::from_migrator(error, known).map_or_else(StoreError::from, StoreError::from)
    }

    fn from_migrator(error: MigrateError, known: i64) -> Result<Self, sqlx::Error> {
        match error {
            MigrateError::VersionMissing(found) if found > known => Ok(Self::Newer { found, known }),
            MigrateError::VersionMissing(version) | MigrateError::VersionMismatch(version) => {
                Ok(Self::Changed(version))
            }
            MigrateError::Execute(error) => Err(error),
            other => Ok(Self::Failed(other)),
        }
    }
}

impl StoreError {
    pub(super) fn url(url: &str, reason: impl Into<String>) -> Self {
        Self::Url { url: without_password(url), reason: reason.into() }
    }

    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }
}

fn list(images: &[ContentHash]) -> String {
    images.iter().map(ContentHash::to_hex).collect::<Vec<_>>().join(", ")
}

/// SQLite's `SQLITE_BUSY` and `SQLITE_LOCKED`, the low byte of its extended codes.
const SQLITE_CONTENDED: [u32; 2] = [5, 6];

/// SQLite's `SQLITE_IOERR`, `SQLITE_FULL` and `SQLITE_CANTOPEN`: the disk's trouble, not the statement's.
const SQLITE_UNAVAILABLE: [u32; 3] = [10, 13, 14];

/// PostgreSQL's `serialization_failure`, `deadlock_detected` and `lock_not_available`; and `foreign_key_violation`: all
/// statements look before they refer to a row, so another client has deleted it, or added to it, in between.
const POSTGRES_CONTENDED: [&str; 4] = ["40001", "40P01", "55P03", "23503"];

/// PostgreSQL's connection exceptions, insufficient resources, operator intervention (shutdown, timeout) and
/// system errors, by the class of their code.
const POSTGRES_UNAVAILABLE: [&str; 4] = ["08", "53", "57", "58"];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error::{Database, Io, PoolClosed, PoolTimedOut, Tls, WorkerCrashed};
        match &error {
            Io(_) | Tls(_) | PoolTimedOut | PoolClosed | WorkerCrashed => Self::Unavailable(error),
            Database(database) => {
                let code = database.code().unwrap_or_default();
                if database.try_downcast_ref::<SqliteError>().is_some() {
                    let primary = code.parse::<u32>().map_or(0, |code| code & 0xff);
                    if SQLITE_CONTENDED.contains(&primary) {
                        return Self::Contended(error);
                    }
                    if SQLITE_UNAVAILABLE.contains(&primary) {
                        return Self::Unavailable(error);
                    }
                } else if POSTGRES_CONTENDED.contains(&code.as_ref()) {
                    return Self::Contended(error);
                } else if POSTGRES_UNAVAILABLE.iter().any(|class| code.starts_with(class)) {
                    return Self::Unavailable(error);
                }
                Self::Database(error)
            }
            _ => Self::Database(error),
        }
    }
}

/// A database URL fit for logs: without its password and without its parameters, which may hold one too.
#[must_use]
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.split('?').next().unwrap_or_default().to_owned();
    };
    let until = |text: &str, ends: &[char]| text.split(ends).next().unwrap_or_default().to_owned();
    // The last @ ends the password, which may itself hold anything.
    match rest.rsplit_once('@') {
        Some((user, host)) => {
            format!("{scheme}://{}:***@{}", until(user, &[':', '/', '?']), until(host, &['?']))
        }
        None => format!("{scheme}://{}", until(rest, &['?'])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_do_not_reach_messages() {
        for (url, shown) in [
            ("postgres://ada:secret@db:5432/scores", "postgres://ada:***@db:5432/scores"),
            ("postgres://ada:sec@re/t?:x@db/scores?sslmode=require", "postgres://ada:***@db/scores"),
            ("postgres://db/scores?user=ada&password=secret", "postgres://db/scores"),
            ("postgres://db/scores?password=sec@ret", "postgres://db:***@ret"),
            ("postgres:///?password=secret", "postgres:///"),
            ("sqlite:/var/lib/stellar.db?mode=rwc", "sqlite:/var/lib/stellar.db"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(without_password(url), shown, "{url}");
        }
    }
}
