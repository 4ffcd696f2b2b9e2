//! The state of submissions, and the log of its changes.

use time::OffsetDateTime;
use uuid::Uuid;

use super::db::{Connection, Reader, Row, Sql, StoreError};
use super::packs::read_pack;
use super::run_name::RunName;
use super::submission_record::{SubmissionRecord, SubmissionState};
use crate::clock;

/// Note of a change that the deletion of a run made.
const RUN_DELETED: &str = "the run was deleted";

/// The query of submissions, without their facts and files.
pub(super) const SUBMISSIONS: &str =
    "SELECT id, digest, method, run, dataset, split, pack, pack_name, weights, samples, state,
         run_id, verification, created, changed
     FROM submissions";

/// Reads a row of [`SUBMISSIONS`].
pub(super) fn record<R: Row>(row: &R) -> Result<SubmissionRecord, StoreError> {
    let id = Reader::new(row, "submissions", "").uuid("id")?;
    let row = Reader::new(row, "submissions", id);
    let verification = row.optional_text("verification")?;
    Ok(SubmissionRecord {
        id,
        digest: row.text("digest")?,
        name: RunName { method: row.text("method")?, run: row.text("run")? },
        dataset: row.optional_text("dataset")?,
        split: row.optional_text("split")?,
        pack: read_pack(&row, "pack", "pack_name")?,
        samples: row.int("samples")?,
        state: row.word("state", SubmissionState::parse)?,
        run: row.optional_uuid("run_id")?,
        verification: verification.map(|_| row.json("verification")).transpose()?,
        created: row.time("created")?,
        changed: row.time("changed")?,
    })
}

/// Reads a submission; `lock` ends the query.
pub(super) async fn find<C: Connection>(
    connection: &mut C,
    id: Uuid,
    lock: &'static str,
) -> Result<Option<SubmissionRecord>, StoreError> {
    let mut sql = Sql::new(SUBMISSIONS);
    sql.push(" WHERE id = ").bind(id).push(lock);
    connection.fetch(sql).await?.first().map(record).transpose()
}

/// Who changed a submission, and when.
pub(super) struct Change<'a> {
    pub(super) action: SubmissionState,
    pub(super) note: &'a str,
    pub(super) key: Option<Uuid>,
    pub(super) now: OffsetDateTime,
}

/// Adds an entry to the change log.
pub(super) async fn log<C: Connection>(
    connection: &mut C,
    of: &SubmissionRecord,
    change: &Change<'_>,
) -> Result<(), StoreError> {
    let mut sql = Sql::new(
        "INSERT INTO board_changes (id, created, action, submission, method, run, digest, note,
             key_id)
         VALUES ",
    );
    sql.tuple([
        Uuid::now_v7().into(),
        change.now.into(),
        change.action.as_str().into(),
        of.id.into(),
        of.name.method.as_str().into(),
        of.name.run.as_str().into(),
        of.digest.as_str().into(),
        change.note.into(),
        change.key.into(),
    ]);
    connection.execute(sql).await?;
    Ok(())
}

/// Marks a submission as withdrawn, and adds the change to the log.
pub(super) async fn mark_withdrawn<C: Connection>(
    connection: &mut C,
    of: &SubmissionRecord,
    change: &Change<'_>,
) -> Result<(), StoreError> {
    let mut sql = Sql::new("UPDATE submissions SET state = ");
    sql.bind(change.action.as_str()).push(", run_id = NULL, changed = ").bind(change.now);
    sql.push(" WHERE id = ").bind(of.id).push(" AND state = ").bind(of.state.as_str());
    if connection.execute(sql).await? == 0 {
        // Another request changed it meanwhile.
        return Err(StoreError::Contended(sqlx::Error::RowNotFound));
    }
    log(connection, of, change).await
}

/// Withdraws the submission behind a run that is about to be deleted.
pub(super) async fn run_deleted<C: Connection>(
    connection: &mut C,
    run: Uuid,
) -> Result<(), StoreError> {
    let mut sql = Sql::new(SUBMISSIONS);
    sql.push(" WHERE run_id = ").bind(run);
    let rows = connection.fetch(sql).await?;
    let now = clock::now();
    for of in rows.iter().map(record).collect::<Result<Vec<_>, _>>()? {
        let action = SubmissionState::Withdrawn;
        mark_withdrawn(connection, &of, &Change { action, note: RUN_DELETED, key: None, now })
            .await?;
    }
    Ok(())
}
