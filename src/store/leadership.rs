//! Work that one instance at a time does, among those that share a database: the leader of a duty.
//!
//! In `PostgreSQL`, a duty is an advisory lock of a session of its own, which ends with the
//! session. `SQLite` has one process.

use std::{collections::BTreeSet, time::Duration};

use sqlx::{Connection as _, PgConnection};

use super::Store;
use super::db::{Backend, Connection, Connections as _, Reader, Sql, StoreError};

/// The server ends the session of an instance that says nothing for this long: it is stopped, or
/// the network between them is cut.
const SILENCE: Duration = Duration::from_secs(15);

/// Time limit of one statement.
const PATIENCE: Duration = Duration::from_secs(5);

/// The duties that an instance leads.
#[derive(Default)]
pub struct Leadership {
    session: Option<PgConnection>,
    held: BTreeSet<String>,
}

impl Leadership {
    /// Takes those of the duties `names` that no instance has, and renews those that this instance
    /// has. Gives up the duties that are not in `names`. Must be called every few seconds. Returns
    /// the duties that this instance now has.
    ///
    /// # Errors
    /// The store is unavailable. Then this instance leads nothing.
    pub async fn take(
        &mut self,
        store: &Store,
        names: &[String],
    ) -> Result<&BTreeSet<String>, StoreError> {
        let Backend::Postgres(pool) = &store.backend else {
            self.held = names.iter().cloned().collect();
            return Ok(&self.held);
        };
        if self.session.is_none() {
            self.held.clear();
            let mut session = pool.reader().await?.detach();
            for (setting, seconds) in [
                ("idle_session_timeout", format!("{}s", SILENCE.as_secs())),
                // The server notices that the machine of a session is gone.
                ("tcp_keepalives_idle", "5".to_owned()),
                ("tcp_keepalives_interval", "5".to_owned()),
                ("tcp_keepalives_count", "2".to_owned()),
            ] {
                let mut sql = Sql::new("SELECT set_config(");
                sql.bind(setting).push(", ").bind(seconds.as_str()).push(", false)");
                session.fetch(sql).await?;
            }
            self.session = Some(session);
        }
        let taken = tokio::time::timeout(PATIENCE, self.lock(names)).await;
        match taken.unwrap_or(Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut))) {
            Ok(()) => Ok(&self.held),
            Err(error) => {
                // Dropping the session ends it, and with it all locks.
                self.session = None;
                self.held.clear();
                Err(error)
            }
        }
    }

    async fn lock(&mut self, names: &[String]) -> Result<(), StoreError> {
        let Some(session) = &mut self.session else { return Ok(()) };
        session.fetch(Sql::new("SELECT 1 AS one")).await?;
        let left: Vec<_> = self.held.iter().filter(|held| !names.contains(held)).cloned().collect();
        for name in left {
            advisory(session, "pg_advisory_unlock", &name).await?;
            self.held.remove(&name);
        }
        for name in names {
            if self.held.contains(name) {
                continue;
            }
            if advisory(session, "pg_try_advisory_lock", name).await? {
                self.held.insert(name.clone());
            }
        }
        Ok(())
    }

    /// Leaves all duties to other instances.
    pub async fn end(&mut self) {
        self.held.clear();
        if let Some(session) = self.session.take() {
            let _ = tokio::time::timeout(PATIENCE, session.close()).await;
        }
    }
}

/// Calls a function of PostgreSQL for the advisory lock of this name, and returns whether it
/// succeeded.
pub(super) async fn advisory<C: Connection>(
    connection: &mut C,
    function: &'static str,
    name: &str,
) -> Result<bool, StoreError> {
    let mut sql = Sql::new("SELECT CAST(CAST(");
    sql.push(function).push("(hashtextextended(").bind(name);
    sql.push(", 0)) AS int) AS bigint) AS done");
    let rows = connection.fetch(sql).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    Ok(Reader::new(row, "pg_locks", name).int::<i64>("done")? == 1)
}
