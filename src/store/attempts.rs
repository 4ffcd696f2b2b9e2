//! Attempts of workers, which share the pending samples of a bucket.
//!
//! A message broker says who scores a sample. The row only counts: `begun` is set when an attempt
//! begins, and reset when it ends. If the next attempt finds it set, the worker before has died,
//! and `deaths` grows. If the broker gives a sample to two workers, the second result finds no
//! pending row.

use uuid::Uuid;

use super::Store;
use super::db::{
    Connection, Connections, Reader, Sql, StoreError, on_backend, read, read_first, with_retries,
    write,
};
use super::pending::{PendingRecord, pending_record, pending_rows};

/// A pending sample that must be announced to the workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingId {
    /// Id of the sample.
    pub id: Uuid,
    /// Id of its run.
    pub run: Uuid,
    /// Digest of the pack that it needs.
    pub pack: String,
}

impl Store {
    /// Returns those of these samples that are pending. For those with at most this many deaths, an
    /// attempt begins.
    pub async fn begin_attempts(
        &self,
        samples: &[Uuid],
        most_deaths: u32,
    ) -> Result<Vec<PendingRecord>, StoreError> {
        if samples.is_empty() {
            return Ok(Vec::new());
        }
        on_backend!(self, pool => {
            with_retries(|| begin(pool, samples, most_deaths)).await
        })
    }

    /// Ends attempts without an outcome: their worker lives, so they count for nothing.
    pub async fn end_attempts(&self, samples: &[Uuid]) -> Result<(), StoreError> {
        if samples.is_empty() {
            return Ok(());
        }
        let mut sql = Sql::new("UPDATE pending_samples SET begun = 0 WHERE id IN ");
        sql.tuple(samples.iter().map(|id| (*id).into()));
        on_backend!(self, pool => write(pool, sql).await).map(drop)
    }

    /// Counts the pending samples of a spool.
    pub async fn pending_count(&self, spool: &str) -> Result<u64, StoreError> {
        let mut sql = Sql::new(
            "SELECT COUNT(*) AS samples FROM pending_samples WHERE state = 'waiting' AND folder = ",
        );
        sql.bind(spool);
        let count = on_backend!(self, pool => {
            read_first(pool, sql, |row| {
                Reader::new(row, "pending_samples", spool).int("samples")
            })
            .await
        })?;
        Ok(count.unwrap_or_default())
    }

    /// Returns a page of the pending samples of a spool, in the order of their ids.
    pub async fn pending_ids(
        &self,
        spool: &str,
        after: Uuid,
        limit: u32,
    ) -> Result<Vec<PendingId>, StoreError> {
        let mut sql = Sql::new(
            "SELECT id, run, pack FROM pending_samples WHERE state = 'waiting' AND folder = ",
        );
        sql.bind(spool).push(" AND id > ").bind(after).push(" ORDER BY id LIMIT ").bind(limit);
        on_backend!(self, pool => {
            read(pool, sql, |row| {
                let row = Reader::new(row, "pending_samples", spool);
                Ok(PendingId {
                    id: row.uuid("id")?,
                    run: row.uuid("run")?,
                    pack: row.text("pack")?,
                })
            })
            .await
        })
    }
}

async fn begin<P: Connections>(
    pool: &P,
    samples: &[Uuid],
    most_deaths: u32,
) -> Result<Vec<PendingRecord>, StoreError> {
    let mut transaction = pool.begin().await?;
    if let Some(relax) = transaction.relax() {
        // If it is lost in a crash, a death is not counted.
        transaction.execute(Sql::new(relax)).await?;
    }
    let mut sql = pending_rows();
    sql.push(" AND pending_samples.id IN ").tuple(samples.iter().map(|id| (*id).into()));
    // In one order, so that two workers never wait for each other.
    sql.push(" ORDER BY pending_samples.id").push(transaction.lock_samples());
    let rows = transaction.fetch(sql).await?;
    let found: Vec<_> = rows.iter().map(pending_record).collect::<Result<_, _>>()?;
    let begun = found.iter().filter(|sample| sample.deaths <= most_deaths);
    let begun: Vec<_> = begun.map(|sample| sample.id.into()).collect();
    if !begun.is_empty() {
        let mut sql =
            Sql::new("UPDATE pending_samples SET deaths = deaths + begun, begun = 1 WHERE id IN ");
        sql.tuple(begun);
        transaction.execute(sql).await?;
        transaction.commit().await?;
    }
    Ok(found)
}
