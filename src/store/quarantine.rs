//! Released files of a bucket, which stay for a while: `runs/spool/shared.rs` says why.

use sqlx::{Postgres, Transaction};
use time::OffsetDateTime;

use super::Store;
use super::db::{
    Argument, Connection, Connections, ROWS_PER_STATEMENT, Reader, Sql, StoreError, on_backend,
    read, read_first, to_microseconds, with_retries, write,
};
use super::leadership::advisory;
use crate::clock;
use crate::content::ContentHash;

/// The right to delete files of a bucket, until it is dropped. Only one instance has it.
#[must_use]
#[derive(Debug)]
pub struct DeletionTurn {
    /// Holds the lock in PostgreSQL. `SQLite` has one process.
    _lock: Option<Transaction<'static, Postgres>>,
}

impl Store {
    /// Releases files now. Those that are released already keep their time.
    pub async fn note_released(
        &self,
        spool: &str,
        files: &[ContentHash],
    ) -> Result<(), StoreError> {
        on_backend!(self, pool => note_released(pool, spool, files).await)
    }

    /// Takes back the release of files that are about to be put again. Those that were released
    /// before `settled` stay, since they may be being deleted: then the result is `false`.
    pub async fn reclaim_files(
        &self,
        spool: &str,
        files: &[ContentHash],
        settled: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        on_backend!(self, pool => reclaim(pool, spool, files, settled).await)
    }

    /// Returns some files that were released before this time.
    pub async fn quarantined_files(
        &self,
        spool: &str,
        before: OffsetDateTime,
    ) -> Result<Vec<ContentHash>, StoreError> {
        let mut sql = Sql::new("SELECT image FROM released_files WHERE folder = ");
        sql.bind(spool).push(" AND released < ").bind(to_microseconds(before));
        sql.push(" ORDER BY image LIMIT ").bind(ROWS_PER_STATEMENT as i64);
        on_backend!(self, pool => {
            read(pool, sql, |row| Reader::new(row, "released_files", spool).hash("image")).await
        })
    }

    /// Returns the right to delete files of a bucket; `None` if another instance has it.
    pub async fn deletion_turn(&self, spool: &str) -> Result<Option<DeletionTurn>, StoreError> {
        match &self.backend {
            super::db::Backend::Sqlite(_) => Ok(Some(DeletionTurn { _lock: None })),
            super::db::Backend::Postgres(pool) => {
                let mut transaction = pool.begin().await?;
                let mine = advisory(&mut *transaction, "pg_try_advisory_xact_lock", spool).await?;
                Ok(mine.then_some(DeletionTurn { _lock: Some(transaction) }))
            }
        }
    }

    /// Returns the size of the files that rows name in this spool or bucket.
    pub async fn spooled_bytes(&self, spool: &str) -> Result<u64, StoreError> {
        let mut sql = Sql::new(
            "SELECT CAST(COALESCE(SUM(bytes), 0) AS bigint) AS spooled
             FROM (SELECT MAX(bytes) AS bytes FROM kept_files WHERE folder = ",
        );
        sql.bind(spool).push(" GROUP BY image) AS files");
        let spooled = on_backend!(self, pool => {
            read_first(pool, sql, |row| Reader::new(row, "kept_files", spool).int("spooled")).await
        })?;
        Ok(spooled.unwrap_or_default())
    }
}

async fn note_released<P: Connections>(
    pool: &P,
    spool: &str,
    files: &[ContentHash],
) -> Result<(), StoreError> {
    let released = clock::now();
    let mut files = files.to_vec();
    // Sorted, so that two transactions never wait for each other.
    files.sort_unstable();
    for some in files.chunks(ROWS_PER_STATEMENT) {
        let mut sql = Sql::new("INSERT INTO released_files (folder, image, released) VALUES ");
        sql.tuples(some.iter().map(|file| [spool.into(), file.into(), released.into()]));
        sql.push(" ON CONFLICT DO NOTHING");
        write(pool, sql).await?;
    }
    Ok(())
}

async fn reclaim<P: Connections>(
    pool: &P,
    spool: &str,
    files: &[ContentHash],
    settled: OffsetDateTime,
) -> Result<bool, StoreError> {
    if files.is_empty() {
        return Ok(true);
    }
    let condition = |mut sql: Sql| {
        sql.bind(spool).push(" AND image IN ");
        sql.tuple(files.iter().map(Argument::from));
        sql
    };
    let known = || condition(Sql::new("SELECT image FROM released_files WHERE folder = "));
    // Mostly there is none, and reading costs less than a transaction.
    if pool.reader().await?.fetch(known()).await?.is_empty() {
        return Ok(true);
    }
    let transaction = || async {
        let mut transaction = pool.begin().await?;
        let mut sql = condition(Sql::new("DELETE FROM released_files WHERE folder = "));
        sql.push(" AND released >= ").bind(to_microseconds(settled));
        transaction.execute(sql).await?;
        let left = transaction.fetch(known()).await?;
        transaction.commit().await?;
        Ok(left.is_empty())
    };
    with_retries(transaction).await
}
