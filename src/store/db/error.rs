//! Errors of the store, each with what to do about it.

use sqlx::migrate::MigrateError;
use sqlx::sqlite::SqliteError;
use uuid::Uuid;

use crate::content::ContentHash;
use crate::store::run_name::RunName;

/// Reason why a store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database URL cannot be used.
    #[error(
        "the database URL {url} cannot be used: {reason}; use sqlite:PATH, sqlite::memory: or \
         postgres://USER:PASSWORD@HOST:PORT/DATABASE"
    )]
    Url {
        /// The URL, without its password.
        url: String,
        /// Cause, without the password.
        reason: String,
    },
    /// The database cannot be reached, or timed out; the caller should retry later.
    #[error(
        "the database is unavailable: {0}; check that it runs, accepts connections and has free \
         space, then retry"
    )]
    Unavailable(#[source] sqlx::Error),
    /// Other transactions hold the rows or the file locked, even after several retries; the caller
    /// should retry later.
    #[error("the database is too busy: {0}; retry later")]
    Contended(#[source] sqlx::Error),
    /// The tables do not match this program.
    #[error("{0}")]
    Migration(#[from] MigrationError),
    /// The name is taken by another sample of this run.
    #[error(
        "run {run} already has a sample named {name:?} ({existing}) with other content; use \
         another name, or record this sample in another run"
    )]
    SampleConflict {
        /// Run that has the sample.
        run: RunName,
        /// Name of both samples.
        name: String,
        /// Id of the sample that has the name.
        existing: Uuid,
    },
    /// Faces that the run needs when it is finished are not stored, or not any more.
    #[error("the faces in {images} images of the sample are not stored; store them, then retry")]
    FacesNotStored {
        /// Number of images.
        images: usize,
    },
    /// The run exists with other facts.
    #[error(
        "run {run} was created with another value of {fact}; send the same facts, or create \
         another run"
    )]
    RunConflict {
        /// Run with other facts.
        run: RunName,
        /// Name of the first fact that differs.
        fact: &'static str,
    },
    /// A run of this name exists.
    #[error(
        "run {run} exists already ({id}): delete it (DELETE /v1/runs/{id}), or let the authors \
         submit under another name"
    )]
    RunExists {
        /// The run.
        run: RunName,
        /// Its id.
        id: Uuid,
    },
    /// The submission is in a state from which it cannot come into another one.
    #[error("the submission is {state} and cannot be {wanted}: {advice}")]
    SubmissionState {
        /// Its state.
        state: &'static str,
        /// The state that was wanted.
        wanted: &'static str,
        /// What can be done.
        advice: &'static str,
    },
    /// The run takes no more samples.
    #[error("run {run} is finished or finishing and takes no more samples; create another run")]
    RunFinished {
        /// Run that is closed.
        run: RunName,
    },
    /// The run is scored with a pack other than the loaded one.
    #[error(
        "run {run} is scored with the pack {pack}, which is not the loaded one; load that pack, \
         or create another run: scores of different packs cannot be compared"
    )]
    PackConflict {
        /// Run with another pack.
        run: RunName,
        /// Digest of its pack.
        pack: String,
    },
    /// The run has reached the maximum number of pending samples.
    #[error(
        "{waiting} samples of run {run} are pending, which is the maximum; send more once some \
         are scored"
    )]
    RunFull {
        /// Run at its limit.
        run: RunName,
        /// Number of pending samples.
        waiting: u64,
    },
    /// Images that were referenced by hash are not stored for the run.
    #[error("these images are not stored for the run, send their files: {}", list(.images))]
    ImageUnknown {
        /// Hashes of the missing images.
        images: Vec<ContentHash>,
    },
    /// The name is taken by another photo of this identity.
    #[error(
        "dataset {dataset:?} already has a photo {name:?} of identity {identity:?} with other \
         content or attributes; use another name, or delete that photo first"
    )]
    PhotoConflict {
        /// Dataset that has the photo.
        dataset: String,
        /// Identity that the photo shows.
        identity: String,
        /// Name of both photos.
        name: String,
    },
    /// A value cannot be stored, such as an empty name or a number that is not finite.
    #[error("{field} cannot be stored: {reason}")]
    Invalid {
        /// Part of the request that is invalid.
        field: String,
        /// Cause, and what to send instead.
        reason: String,
    },
    /// The cursor was not issued for this query.
    #[error("the cursor does not belong to this query; start again from the first page")]
    Cursor,
    /// A row contains a value that this program never writes.
    #[error(
        "table {table}, row {row}: column {column} {reason}; the database was changed by another \
         program: restore it from a backup or remove the row"
    )]
    Corrupt {
        /// Table, or the name of a result of several tables.
        table: &'static str,
        /// Column with the value.
        column: &'static str,
        /// Key of the row.
        row: String,
        /// Description of the value.
        reason: String,
    },
    /// The database rejected a statement; its message states the cause.
    #[error("the database rejected a statement: {0}")]
    Database(#[source] sqlx::Error),
}

/// Reason why migrations could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// A newer version of the program has migrated the tables.
    #[error(
        "the database has schema {found}, but this program supports schemas up to {known}: run \
         the newer program, or use another database"
    )]
    Newer {
        /// Schema version of the database.
        found: i64,
        /// Newest schema version that this program supports.
        known: i64,
    },
    /// A migration was edited after it was applied.
    #[error(
        "migration {0} of the database differs from the one in this program: use another \
         database, or the program that created this one"
    )]
    Changed(i64),
    /// A row refers to a missing row.
    #[error(
        "rows of the database refer to missing rows: the database was changed by another program; \
         restore it from a backup"
    )]
    References,
    /// A statement of a migration failed.
    #[error(
        "failed to apply migrations: {0}; check that the role of the database may create tables"
    )]
    Failed(#[source] MigrateError),
}

impl MigrationError {
    /// Converts an error of the migrator, given the newest schema version of this program.
    pub(crate) fn explain(error: MigrateError, known: i64) -> StoreError {
        Self::from_migrator(error, known).map_or_else(StoreError::from, StoreError::from)
    }

    fn from_migrator(error: MigrateError, known: i64) -> Result<Self, sqlx::Error> {
        match error {
            MigrateError::VersionMissing(found) if found > known => {
                Ok(Self::Newer { found, known })
            }
            MigrateError::VersionMissing(version) | MigrateError::VersionMismatch(version) => {
                Ok(Self::Changed(version))
            }
            MigrateError::Execute(error) => Err(error),
            other => Ok(Self::Failed(other)),
        }
    }
}

impl StoreError {
    pub(crate) fn url(url: &str, reason: impl Into<String>) -> Self {
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

/// SQLite's `SQLITE_IOERR`, `SQLITE_FULL` and `SQLITE_CANTOPEN`: faults of the disk, not of the
/// statement.
const SQLITE_UNAVAILABLE: [u32; 3] = [10, 13, 14];

/// PostgreSQL's `serialization_failure`, `deadlock_detected` and `lock_not_available`; also
/// `foreign_key_violation`: every statement checks a row before it refers to it, so another client
/// has deleted the row, or added a reference to it, in between.
const POSTGRES_CONTENDED: [&str; 4] = ["40001", "40P01", "55P03", "23503"];

/// PostgreSQL's connection exceptions, insufficient resources, operator intervention (shutdown,
/// timeout) and system errors, by the class of their code.
const POSTGRES_UNAVAILABLE: [&str; 4] = ["08", "53", "57", "58"];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error::{Database, Io, PoolClosed, PoolTimedOut, Protocol, Tls, WorkerCrashed};
        match &error {
            Io(_) | Tls(_) | PoolTimedOut | PoolClosed | WorkerCrashed => Self::Unavailable(error),
            // A server that starts, stops or is full answers the question for TLS with an error.
            Protocol(problem) if problem.contains("SSLRequest") => Self::Unavailable(error),
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

/// Returns a database URL that is safe to log: without its password, and without its parameters,
/// which may contain one too.
#[must_use]
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.split('?').next().unwrap_or_default().to_owned();
    };
    let until = |text: &str, ends: &[char]| text.split(ends).next().unwrap_or_default().to_owned();
    // The last @ ends the password, which may itself contain any character.
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
            (
                "postgres://ada:sec@re/t?:x@db/scores?sslmode=require",
                "postgres://ada:***@db/scores",
            ),
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
