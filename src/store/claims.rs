//! Claims on pending samples, where several instances can score each of them.
//!
//! A claim moves the time at which a sample is due: until then, other instances leave it alone. It
//! only spares work. If a claim ends too early, two instances score the sample, and the second one
//! finds no pending row to record.

use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::db::{
    Connection, Connections, Sql, StoreError, on_backend, to_microseconds, with_retries, write,
};
use super::pending::{LONGEST_PAUSE, PendingRecord, due, pending_record};

/// A claim ends a minute before its time would be taken for that of a clock that was set back.
const LONGEST: time::Duration = time::Duration::minutes(9);
const _: () = assert!(LONGEST.whole_minutes() < LONGEST_PAUSE.whole_minutes());

impl Store {
    /// Claims the oldest pending samples of this pack and folder that are due, for this time or
    /// nine minutes, and returns them.
    pub async fn claim(
        &self,
        folder: &str,
        pack: &str,
        now: OffsetDateTime,
        time: time::Duration,
        limit: u32,
    ) -> Result<Vec<PendingRecord>, StoreError> {
        let until = to_microseconds(now + time.min(LONGEST));
        let select = || due(folder, pack, now, limit);
        on_backend!(self, pool => claim(pool, select, until).await)
    }

    /// Ends the claims on these samples, if they are pending.
    pub async fn end_claims(&self, samples: &[Uuid]) -> Result<(), StoreError> {
        if samples.is_empty() {
            return Ok(());
        }
        on_backend!(self, pool => {
            let now = to_microseconds(OffsetDateTime::now_utc());
            with_retries(Uuid::now_v7(), || write(pool, move_due(samples, now))).await.map(drop)
        })
    }
}

async fn claim<P: Connections>(
    pool: &P,
    select: impl Fn() -> Sql,
    until: OffsetDateTime,
) -> Result<Vec<PendingRecord>, StoreError> {
    let transaction = || async {
        let mut transaction = pool.begin().await?;
        let mut sql = select();
        sql.push(transaction.lock_free_samples());
        let rows = transaction.fetch(sql).await?;
        let claimed: Vec<_> = rows.iter().map(pending_record).collect::<Result<_, _>>()?;
        if !claimed.is_empty() {
            let ids: Vec<_> = claimed.iter().map(|sample| sample.id).collect();
            transaction.execute(move_due(&ids, until)).await?;
            transaction.commit().await?;
        }
        Ok(claimed)
    };
    with_retries(Uuid::now_v7(), transaction).await
}

fn move_due(samples: &[Uuid], to: OffsetDateTime) -> Sql {
    let mut sql = Sql::new("UPDATE pending_samples SET due = ");
    sql.bind(to).push(" WHERE state = 'waiting' AND id IN ");
    sql.tuple(samples.iter().map(|id| (*id).into()));
    sql
}
