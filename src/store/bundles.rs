//! Submissions: bundles of scores, their verification, and the change log of the board.
//!
//! A received submission has no run. Its verification makes a finished run of its samples, all in
//! one transaction; its withdrawal, or the deletion of the run, takes it from the board again.

use std::collections::HashMap;

use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::board::{Change, SUBMISSIONS, find, log, mark_withdrawn, record};
use super::cards::adopt_card;
use super::db::{
    Connection, Connections, Reader, Row, Sql, StoreError, check_name, check_text, on_backend,
    read, read_first, to_microseconds, with_retries,
};
use super::deletion::{Deleted, delete_locked_run};
use super::imports::{check_import, import_rows};
use super::run_name::RunName;
use super::runs::{check_facts, declare, find_run, insert_run, lock_run_for_deletion};
use super::submission_record::{
    BoardChange, NewSubmission, NewVerification, SubmissionRecord, SubmissionState,
    SubmissionsQuery,
};

impl Store {
    /// Keeps a bundle, and returns its submission and `true`. The same bundle again changes
    /// nothing.
    pub async fn receive_submission(
        &self,
        new: &NewSubmission,
    ) -> Result<(SubmissionRecord, bool), StoreError> {
        check_name("the method's name", &new.name.method)?;
        check_name("the run's name", &new.name.run)?;
        check_text("the dataset", new.dataset.as_deref().unwrap_or_default())?;
        check_text("the split", new.split.as_deref().unwrap_or_default())?;
        check_name("the pack's name", &new.pack.name)?;
        on_backend!(self, pool => with_retries(|| receive(pool, new)).await)
    }

    /// Counts the submissions in this state.
    pub async fn count_submissions(&self, state: SubmissionState) -> Result<u64, StoreError> {
        let mut sql = Sql::new("SELECT COUNT(*) AS count FROM submissions WHERE state = ");
        sql.bind(state.as_str());
        let count = on_backend!(self, pool => {
            read_first(pool, sql, |row| Reader::new(row, "submissions", "").int("count")).await
        })?;
        Ok(count.unwrap_or_default())
    }

    /// Looks up a submission by its id.
    pub async fn submission(&self, id: Uuid) -> Result<Option<SubmissionRecord>, StoreError> {
        let mut sql = Sql::new(SUBMISSIONS);
        sql.push(" WHERE id = ").bind(id);
        on_backend!(self, pool => read_first(pool, sql, record).await)
    }

    /// Looks up a submission by the digest of its bundle.
    pub async fn submission_of_digest(
        &self,
        digest: &str,
    ) -> Result<Option<SubmissionRecord>, StoreError> {
        let mut sql = Sql::new(SUBMISSIONS);
        sql.push(" WHERE digest = ").bind(digest);
        on_backend!(self, pool => read_first(pool, sql, record).await)
    }

    /// Lists submissions, the newest first.
    pub async fn submissions(
        &self,
        query: &SubmissionsQuery,
    ) -> Result<Vec<SubmissionRecord>, StoreError> {
        let mut sql = Sql::new(SUBMISSIONS);
        sql.push(" WHERE id < ").bind(query.before.unwrap_or(Uuid::max()));
        if let Some(state) = query.state {
            sql.push(" AND state = ").bind(state.as_str());
        }
        if let Some(method) = &query.method {
            sql.push(" AND method = ").bind(method.as_str());
        }
        sql.push(" ORDER BY id DESC LIMIT ").bind(query.limit);
        on_backend!(self, pool => read(pool, sql, record).await)
    }

    /// Returns the facts of a submission as JSON.
    pub async fn submission_facts(&self, id: Uuid) -> Result<Option<String>, StoreError> {
        let mut sql = Sql::new("SELECT facts FROM submissions WHERE id = ");
        sql.bind(id);
        on_backend!(self, pool => {
            read_first(pool, sql, |row| Reader::new(row, "submissions", id).text("facts")).await
        })
    }

    /// Returns the file of a submission.
    pub async fn submission_bundle(&self, id: Uuid) -> Result<Option<Vec<u8>>, StoreError> {
        let mut sql = Sql::new("SELECT bundle FROM submissions WHERE id = ");
        sql.bind(id);
        let found = on_backend!(self, pool => {
            read_first(pool, sql, |row| {
                Reader::new(row, "submissions", id).optional_bytes("bundle")
            })
            .await
        })?;
        Ok(found.flatten())
    }

    /// Returns the submissions behind those of these runs that have one.
    pub async fn submissions_of_runs(
        &self,
        runs: &[Uuid],
    ) -> Result<HashMap<Uuid, SubmissionRecord>, StoreError> {
        if runs.is_empty() {
            return Ok(HashMap::new());
        }
        let mut sql = Sql::new(SUBMISSIONS);
        sql.push(" WHERE run_id IN ").tuple(runs.iter().map(|run| (*run).into()));
        let found = on_backend!(self, pool => read(pool, sql, record).await)?;
        Ok(found.into_iter().filter_map(|of| Some((of.run?, of))).collect())
    }

    /// Makes a run of a received submission, in the state `finishing`. Returns `None` if no
    /// submission has this id.
    ///
    /// # Errors
    /// [`StoreError::SubmissionState`] unless it is received, and [`StoreError::RunExists`].
    pub async fn verify_submission(
        &self,
        new: &NewVerification,
    ) -> Result<Option<SubmissionRecord>, StoreError> {
        check_text("the note", &new.verification.note)?;
        check_facts(&new.facts)?;
        check_import(&new.import)?;
        on_backend!(self, pool => {
            with_retries(|| verify(pool, new)).await
        })
    }

    /// Withdraws a submission, and deletes its run. Returns `None` if no submission has this id.
    ///
    /// # Errors
    /// [`StoreError::SubmissionState`] if it is withdrawn already.
    pub async fn withdraw_submission(
        &self,
        id: Uuid,
        note: &str,
        key: Option<Uuid>,
        now: OffsetDateTime,
    ) -> Result<Option<(SubmissionRecord, Deleted)>, StoreError> {
        check_text("the note", note)?;
        let now = to_microseconds(now);
        on_backend!(self, pool => {
            with_retries(|| withdraw(pool, id, note, key, now)).await
        })
    }

    /// Deletes a submission with its bundle and its run. Of the change log, digest, names and times
    /// stay. Returns `None` if no submission has this id.
    pub async fn delete_submission(
        &self,
        id: Uuid,
        now: OffsetDateTime,
    ) -> Result<Option<Deleted>, StoreError> {
        let now = to_microseconds(now);
        on_backend!(self, pool => with_retries(|| delete(pool, id, now)).await)
    }

    /// Returns entries of the change log that are older than the entry `before`, the newest first.
    pub async fn board_changes(
        &self,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<BoardChange>, StoreError> {
        let mut sql = Sql::new(
            "SELECT id, created, action, submission, method, run, digest, note, key_id
             FROM board_changes WHERE id < ",
        );
        sql.bind(before.unwrap_or(Uuid::max())).push(" ORDER BY id DESC LIMIT ").bind(limit);
        on_backend!(self, pool => read(pool, sql, change).await)
    }
}

fn change<R: Row>(row: &R) -> Result<BoardChange, StoreError> {
    let id = Reader::new(row, "board_changes", "").uuid("id")?;
    let row = Reader::new(row, "board_changes", id);
    Ok(BoardChange {
        id,
        created: row.time("created")?,
        action: row.word("action", SubmissionState::parse)?,
        submission: row.optional_uuid("submission")?,
        name: RunName { method: row.text("method")?, run: row.text("run")? },
        digest: row.text("digest")?,
        note: row.text("note")?,
        key: row.optional_uuid("key_id")?,
    })
}

async fn receive<P: Connections>(
    pool: &P,
    new: &NewSubmission,
) -> Result<(SubmissionRecord, bool), StoreError> {
    let now = to_microseconds(new.created);
    let mut transaction = pool.begin_large().await?;
    let connection = &mut *transaction;
    let mut sql = Sql::new(
        "INSERT INTO submissions (id, digest, method, run, dataset, split, pack, pack_name,
             weights, samples, state, created, changed, facts, bundle)
         VALUES ",
    );
    sql.tuple([
        new.id.into(),
        new.digest.as_str().into(),
        new.name.method.as_str().into(),
        new.name.run.as_str().into(),
        new.dataset.clone().into(),
        new.split.clone().into(),
        new.pack.digest.as_str().into(),
        new.pack.name.as_str().into(),
        new.pack.weights.as_str().into(),
        (new.samples as i64).into(),
        SubmissionState::Received.as_str().into(),
        now.into(),
        now.into(),
        new.facts.as_str().into(),
        new.bundle.clone().into(),
    ]);
    sql.push(" ON CONFLICT (digest) DO NOTHING");
    let is_new = connection.execute(sql).await? > 0;
    let mut sql = Sql::new(SUBMISSIONS);
    sql.push(" WHERE digest = ").bind(new.digest.as_str());
    let rows = connection.fetch(sql).await?;
    // Deleted between the two statements.
    let row = rows.first().ok_or(StoreError::Contended(sqlx::Error::RowNotFound))?;
    let stored = record(row)?;
    if is_new {
        let change = Change { action: SubmissionState::Received, note: "", key: new.key, now };
        log(connection, &stored, &change).await?;
        transaction.commit().await?;
    }
    Ok((stored, is_new))
}

async fn verify<P: Connections>(
    pool: &P,
    new: &NewVerification,
) -> Result<Option<SubmissionRecord>, StoreError> {
    let now = to_microseconds(new.verification.at);
    let mut transaction = pool.begin_large().await?;
    let connection = &mut *transaction;
    let lock = connection.lock();
    let Some(of) = find(connection, new.submission, lock).await? else { return Ok(None) };
    if of.state != SubmissionState::Received {
        return Err(of.state.refuses("verified"));
    }
    if let Some(id) = find_run(connection, &of.name).await? {
        return Err(StoreError::RunExists { run: of.name, id });
    }
    let run = new.import.run;
    // Otherwise another request created it at the same moment: the next attempt finds it.
    let contended = || StoreError::Contended(sqlx::Error::RowNotFound);
    if !insert_run(connection, run, &of.name, now).await? {
        return Err(contended());
    }
    declare(connection, run, &new.facts).await?;
    import_rows(connection, &new.import).await?.ok_or_else(contended)?;
    if let Some(card) = &new.card {
        connection.execute(adopt_card(&of.name.method, card, now)).await?;
    }
    // The background finishes it, also if this process ends before.
    let mut sql = Sql::new("UPDATE runs SET state = 'finishing' WHERE id = ");
    sql.bind(run);
    connection.execute(sql).await?;
    let verification =
        serde_json::to_string(&new.verification).expect("plain data always serialises");
    let mut sql = Sql::new("UPDATE submissions SET state = ");
    sql.bind(SubmissionState::Verified.as_str()).push(", run_id = ").bind(run);
    sql.push(", verification = ").bind(verification).push(", changed = ").bind(now);
    sql.push(" WHERE id = ").bind(of.id);
    connection.execute(sql).await?;
    let change = Change {
        action: SubmissionState::Verified,
        note: &new.verification.note,
        key: new.key,
        now,
    };
    log(connection, &of, &change).await?;
    let stored = find(connection, of.id, "").await?;
    transaction.commit().await?;
    Ok(stored)
}

async fn withdraw<P: Connections>(
    pool: &P,
    id: Uuid,
    note: &str,
    key: Option<Uuid>,
    now: OffsetDateTime,
) -> Result<Option<(SubmissionRecord, Deleted)>, StoreError> {
    let mut transaction = pool.begin_large().await?;
    let connection = &mut *transaction;
    // Not locked: the run is locked first, as in its own deletion.
    let Some(of) = find(connection, id, "").await? else { return Ok(None) };
    if of.state == SubmissionState::Withdrawn {
        return Err(of.state.refuses("withdrawn"));
    }
    let change = Change { action: SubmissionState::Withdrawn, note, key, now };
    let deleted = take_down(connection, &of, &change).await?;
    let stored = find(connection, id, "").await?;
    transaction.commit().await?;
    Ok(stored.map(|stored| (stored, deleted)))
}

/// Deletes the run of a submission and marks the submission as withdrawn, unless it is already.
async fn take_down<C: Connection>(
    connection: &mut C,
    of: &SubmissionRecord,
    change: &Change<'_>,
) -> Result<Deleted, StoreError> {
    let deleted = match of.run {
        Some(run) if lock_run_for_deletion(connection, run).await? => {
            delete_locked_run(connection, run).await?
        }
        _ => Deleted::default(),
    };
    if of.state != SubmissionState::Withdrawn {
        mark_withdrawn(connection, of, change).await?;
    }
    Ok(deleted)
}

async fn delete<P: Connections>(
    pool: &P,
    id: Uuid,
    now: OffsetDateTime,
) -> Result<Option<Deleted>, StoreError> {
    let mut transaction = pool.begin_large().await?;
    let connection = &mut *transaction;
    let Some(of) = find(connection, id, "").await? else { return Ok(None) };
    let change = Change { action: SubmissionState::Withdrawn, note: "", key: None, now };
    let deleted = take_down(connection, &of, &change).await?;
    let mut sql = Sql::new(
        "UPDATE board_changes SET submission = NULL, note = '', key_id = NULL WHERE submission = ",
    );
    sql.bind(id);
    connection.execute(sql).await?;
    let mut sql = Sql::new("DELETE FROM submissions WHERE id = ");
    sql.bind(id);
    connection.execute(sql).await?;
    transaction.commit().await?;
    Ok(Some(deleted))
}
