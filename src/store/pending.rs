//! Pending samples: those that are due, attempts, failures.
//!
//! Locks are taken in one order, so that transactions queue rather than deadlock: the run (shared),
//! its samples, its files, the pending row, faces, thumbnails, the run's counts, the summaries.
//! Finishing or deleting a run first locks it against all of these.

use std::collections::{BTreeSet, HashSet};

use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::db::{
    Connection, Connections, Reader, Row, Sql, StoreError, on_backend, read, read_first,
    to_microseconds, with_retries, write,
};
use super::packs::read_pack;
use super::run_name::RunName;
use super::sample::SampleInputs;
use super::spools::{self, Owners};
use crate::content::ContentHash;
use crate::pack_id::PackId;

/// No sample is postponed for longer than this.
const LONGEST_PAUSE: time::Duration = time::Duration::minutes(10);

/// Pending samples that need a pack that is not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedSamples {
    /// Pack that they need.
    pub pack: PackId,
    /// Number of samples.
    pub samples: u64,
    /// Number of runs that have such samples.
    pub runs: u64,
}

/// A pending sample.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingRecord {
    /// Id of the sample.
    pub id: Uuid,
    /// Id of the run.
    pub run_id: Uuid,
    /// Method and name of the run.
    pub run: RunName,
    /// Codes of the run's metrics; `None` for all.
    pub metrics: Option<Vec<String>>,
    /// Name within the run.
    pub name: String,
    /// What the scores depend on.
    pub inputs: SampleInputs,
    /// Number of failed attempts that count.
    pub attempts: u32,
    /// Earliest time of the next attempt.
    pub due: OffsetDateTime,
    /// Number of workers that died during an attempt.
    pub deaths: u32,
    /// Whether the last attempt has not ended: its worker has died, or still works on it.
    pub unended: bool,
}

impl Store {
    /// Returns the oldest pending samples of this pack and spool that are due.
    pub async fn due_samples(
        &self,
        spool: &str,
        pack: &str,
        now: OffsetDateTime,
        limit: u32,
    ) -> Result<Vec<PendingRecord>, StoreError> {
        let sql = due(spool, pack, now, limit);
        on_backend!(self, pool => read(pool, sql, pending_record).await)
    }

    /// Counts the blocked samples of this spool and their runs, by the pack that they need instead
    /// of this one.
    pub async fn blocked_samples(
        &self,
        spool: &str,
        pack: &str,
    ) -> Result<Vec<BlockedSamples>, StoreError> {
        let mut sql = Sql::new(
            "SELECT digest, packs.name, weights, COUNT(*) AS samples, COUNT(DISTINCT run) AS runs
             FROM pending_samples JOIN packs ON packs.digest = pending_samples.pack
             WHERE state = 'waiting' AND folder = ",
        );
        sql.bind(spool).push(" AND digest <> ").bind(pack);
        sql.push(" GROUP BY digest, packs.name, weights ORDER BY digest");
        on_backend!(self, pool => read(pool, sql, |row| blocked(row, spool)).await)
    }

    /// Counts the pending samples of all spools but this one.
    pub async fn pending_elsewhere(&self, spool: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let mut sql = Sql::new(
            "SELECT folder, COUNT(*) AS samples FROM pending_samples
             WHERE state = 'waiting' AND folder <> ",
        );
        sql.bind(spool).push(" GROUP BY folder ORDER BY folder");
        on_backend!(self, pool => {
            read(pool, sql, |row| {
                let row = Reader::new(row, "pending_samples", spool);
                Ok((row.text("folder")?, row.int("samples")?))
            })
            .await
        })
    }

    /// Returns when the oldest pending sample of this spool and pack was accepted.
    pub async fn oldest_pending(
        &self,
        spool: &str,
        pack: &str,
    ) -> Result<Option<OffsetDateTime>, StoreError> {
        let mut sql =
            Sql::new("SELECT created FROM pending_samples WHERE state = 'waiting' AND folder = ");
        sql.bind(spool).push(" AND pack = ").bind(pack);
        // Ids grow with time, and the index has them in this order.
        sql.push(" ORDER BY id LIMIT 1");
        on_backend!(self, pool => {
            read_first(pool, sql, |row| {
                Reader::new(row, "pending_samples", spool).time("created")
            })
            .await
        })
    }

    /// Returns the time at which the next pending sample that is not due yet becomes due.
    pub async fn next_due(
        &self,
        spool: &str,
        pack: &str,
        after: OffsetDateTime,
    ) -> Result<Option<OffsetDateTime>, StoreError> {
        let mut sql =
            Sql::new("SELECT due FROM pending_samples WHERE state = 'waiting' AND folder = ");
        sql.bind(spool)
            .push(" AND pack = ")
            .bind(pack)
            .push(" AND due > ")
            .bind(to_microseconds(after));
        sql.push(" ORDER BY due LIMIT 1");
        on_backend!(self, pool => {
            read_first(pool, sql, |row| Reader::new(row, "pending_samples", "").time("due")).await
        })
    }

    /// Postpones a pending sample, and counts the attempt if there was one.
    pub async fn postpone(
        &self,
        id: Uuid,
        due: OffsetDateTime,
        attempted: bool,
    ) -> Result<(), StoreError> {
        let mut sql = Sql::new("UPDATE pending_samples SET due = ");
        sql.bind(to_microseconds(due)).push(", begun = 0, attempts = attempts + ");
        sql.bind(i64::from(attempted));
        sql.push(" WHERE state = 'waiting' AND id = ").bind(id);
        on_backend!(self, pool => write(pool, sql).await).map(drop)
    }

    /// Fails a pending sample with a reason code and a detail, and returns its image, which it no
    /// longer needs; its reference and auxiliary images may serve other samples. `None` if it is
    /// not pending.
    pub async fn fail_pending(
        &self,
        id: Uuid,
        reason: &str,
        detail: &str,
    ) -> Result<Option<ContentHash>, StoreError> {
        on_backend!(self, pool => fail(pool, id, reason, detail).await)
    }
}

/// Selects pending samples, as [`pending_record`] reads them.
pub(super) fn pending_rows() -> Sql {
    Sql::new(
        "SELECT pending_samples.id, pending_samples.run, methods.name AS method_name,
             runs.name AS run_name, metrics, pending_samples.name, content, prompt, image,
             reference_hashes, auxiliary_hashes, metadata, attempts, due, deaths + begun AS deaths,
             begun
         FROM pending_samples JOIN runs ON runs.id = pending_samples.run
         JOIN methods ON methods.id = runs.method
         WHERE pending_samples.state = 'waiting'",
    )
}

/// Selects the oldest pending samples of this pack and spool that are due.
fn due(spool: &str, pack: &str, now: OffsetDateTime, limit: u32) -> Sql {
    let mut sql = pending_rows();
    sql.push(" AND folder = ").bind(spool).push(" AND pending_samples.pack = ").bind(pack);
    sql.push(" AND (due <= ").bind(to_microseconds(now));
    // No pause is that long: the clock was set back, and the sample is due.
    sql.push(" OR due > ").bind(to_microseconds(now + LONGEST_PAUSE)).push(")");
    sql.push(" ORDER BY pending_samples.id LIMIT ").bind(limit);
    sql
}

pub(super) fn pending_record<R: Row>(row: &R) -> Result<PendingRecord, StoreError> {
    let id = Reader::new(row, "pending_samples", "").uuid("id")?;
    let row = Reader::new(row, "pending_samples", id);
    Ok(PendingRecord {
        id,
        run_id: row.uuid("run")?,
        run: RunName { method: row.text("method_name")?, run: row.text("run_name")? },
        metrics: row.optional_text("metrics")?.map(|_| row.json("metrics")).transpose()?,
        name: row.text("name")?,
        inputs: SampleInputs::read(&row)?,
        attempts: row.int("attempts")?,
        due: row.time("due")?,
        deaths: row.int("deaths")?,
        unended: row.int::<u32>("begun")? > 0,
    })
}

fn blocked<R: Row>(row: &R, spool: &str) -> Result<BlockedSamples, StoreError> {
    let row = Reader::new(row, "pending_samples", spool);
    Ok(BlockedSamples {
        pack: read_pack(&row, "digest", "name")?,
        samples: row.int("samples")?,
        runs: row.int("runs")?,
    })
}

async fn fail<P: Connections>(
    pool: &P,
    id: Uuid,
    reason: &str,
    detail: &str,
) -> Result<Option<ContentHash>, StoreError> {
    // PostgreSQL's text cannot hold U+0000, and a message can do without it.
    let detail = detail.replace('\0', "");
    let transaction = || async {
        let mut transaction = pool.begin().await?;
        let connection = &mut *transaction;
        let find = |lock: &'static str| {
            let mut sql = Sql::new(
                "SELECT run, image FROM pending_samples WHERE state = 'waiting' AND id = ",
            );
            sql.bind(id).push(lock);
            sql
        };
        let rows = connection.fetch(find("")).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let row = Reader::new(row, "pending_samples", id);
        let (run, image) = (row.uuid("run")?, row.hash("image")?);
        let others = spools::lock_image(connection, run, image, Owners::ThisOne).await?;
        let locked = find(connection.lock());
        if connection.fetch(locked).await?.is_empty() {
            return Ok(None);
        }
        give_up(connection, id, (run, image), reason, &detail, others).await?;
        transaction.commit().await?;
        Ok(Some(image))
    };
    with_retries(transaction).await
}

/// Marks a pending sample as failed. The caller has locked its image with [`spools::lock_image`],
/// which returned `others`.
pub(super) async fn give_up<C: Connection>(
    connection: &mut C,
    id: Uuid,
    (run, image): (Uuid, ContentHash),
    reason: &str,
    detail: &str,
    others: bool,
) -> Result<(), StoreError> {
    let mut sql = Sql::new("UPDATE pending_samples SET state = 'failed', reason = ");
    sql.bind(reason).push(", detail = ").bind(detail).push(" WHERE id = ").bind(id);
    connection.execute(sql).await?;
    spools::release_image(connection, run, image, others).await?;
    let mut sql =
        Sql::new("UPDATE runs SET waiting = waiting - 1, failed = failed + 1 WHERE id = ");
    sql.bind(run);
    connection.execute(sql).await?;
    Ok(())
}

/// Removes a sample from the pending ones. Returns `false` if it is no longer pending.
pub(super) async fn take<C: Connection>(
    connection: &mut C,
    id: Uuid,
    run: Uuid,
    image: ContentHash,
) -> Result<bool, StoreError> {
    let others = spools::lock_image(connection, run, image, Owners::ThisOne).await?;
    let mut sql = Sql::new("DELETE FROM pending_samples WHERE state = 'waiting' AND id = ");
    sql.bind(id);
    if connection.execute(sql).await? == 0 {
        return Ok(false);
    }
    spools::release_image(connection, run, image, others).await?;
    Ok(true)
}

/// Locks these samples, and returns those that are pending.
pub(super) async fn lock_pending<C: Connection>(
    connection: &mut C,
    samples: &BTreeSet<Uuid>,
) -> Result<HashSet<Uuid>, StoreError> {
    let mut sql = Sql::new("SELECT id FROM pending_samples WHERE state = 'waiting' AND id IN ");
    sql.tuple(samples.iter().map(|id| (*id).into())).push(" ORDER BY id").push(connection.lock());
    let rows = connection.fetch(sql).await?;
    let waiting = rows.iter().map(|row| Reader::new(row, "pending_samples", "").uuid("id"));
    waiting.collect()
}
