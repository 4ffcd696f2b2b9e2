//! Samples sent for scoring later: accepting them, and their status.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Store;
use super::db::{
    Argument, Connection, Connections, Reader, Sql, StoreError, check_name, check_text, on_backend,
    to_microseconds, with_retries,
};
use super::packs::ensure_pack;
use super::run_name::RunName;
use super::runs::RunState;
use super::sample::SampleInputs;
use super::spools::{keep_files, unknown};
use crate::content::ContentHash;
use crate::pack_id::PackId;

/// A sample to accept, whose files are already spooled.
#[derive(Clone, Debug)]
pub struct NewPending {
    /// Id, a fresh `UUIDv7`; it is also the id of the sample once scored.
    pub id: Uuid,
    /// Time of acceptance.
    pub created: OffsetDateTime,
    /// Id of the run.
    pub run: Uuid,
    /// Name within the run.
    pub name: String,
    /// What the scores depend on.
    pub inputs: SampleInputs,
    /// Id of the spool that has the images.
    pub spool: String,
    /// Files that were sent with it, including the image, with their sizes in bytes.
    pub files: Vec<(ContentHash, u64)>,
    /// Pack that will score it.
    pub pack: PackId,
    /// Version of the service that accepts it.
    pub service_version: String,
    /// Maximum number of pending samples in the run.
    pub max_pending: u64,
    /// Id of the key that sent it, if keys are in use.
    pub key: Option<Uuid>,
}

/// Status of an accepted sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleStatus {
    /// Pending under this id.
    Pending(Uuid),
    /// Failed; the same or other content may be sent under its name.
    Failed(Uuid),
    /// Scored, and stored as this sample.
    Scored(Uuid),
}

/// Outcome of accepting a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The sample is new, or replaces one that failed.
    New(Uuid),
    /// The same sample was accepted before.
    Repeated(SampleStatus),
}

/// A sample of a run, in any state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedSample {
    /// Name within the run.
    pub name: String,
    /// Status, with its id.
    pub at: SampleStatus,
    /// Hash of all inputs, as 64 hexadecimal digits.
    pub content: String,
    /// Reason code and detail of a failure.
    pub failure: Option<(String, String)>,
}

/// State of an accepted sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SampleState {
    /// Accepted and not scored yet.
    Pending,
    /// Scored.
    Scored,
    /// Cannot be scored. Another sample may be sent under the same name.
    Failed,
}

impl Store {
    /// Accepts a sample for scoring later, in one transaction. Returns `None` if no run has this
    /// id.
    ///
    /// A sample is identified by its run and name: repeating it changes nothing; other content is a
    /// [`StoreError::SampleConflict`] unless the first one failed.
    pub async fn accept(&self, sample: &NewPending) -> Result<Option<Accepted>, StoreError> {
        on_backend!(self, pool => accept(pool, sample).await)
    }

    /// Returns the status of the sample with this name and content, without locking anything;
    /// `None` if there is none, or if one with other content failed.
    pub async fn sample_status(
        &self,
        run: Uuid,
        run_name: &RunName,
        name: &str,
        content: ContentHash,
    ) -> Result<Option<SampleStatus>, StoreError> {
        let found =
            on_backend!(self, pool => find(&mut *pool.reader().await?, run, name, false).await)?;
        decide(found, run_name, name, content)
    }

    /// Returns one page of a run's samples by name, in any state; `None` if no run has this id.
    pub async fn accepted_samples(
        &self,
        run: Uuid,
        state: Option<SampleState>,
        after: &str,
        limit: u32,
    ) -> Result<Option<Vec<AcceptedSample>>, StoreError> {
        on_backend!(self, pool => accepted_samples(pool, run, state, after, limit).await)
    }
}

/// Finds the sample of this name in a run, and returns its status and content hash.
async fn find<C: Connection>(
    connection: &mut C,
    run: Uuid,
    name: &str,
    locked: bool,
) -> Result<Option<(SampleStatus, ContentHash)>, StoreError> {
    // Pending rows first: a sample that is scored in the meantime is then found among the scored.
    let mut sql = Sql::new("SELECT id, content, state FROM pending_samples WHERE run = ");
    sql.bind(run).push(" AND name = ").bind(name).push(if locked { connection.lock() } else { "" });
    if let Some(row) = connection.fetch(sql).await?.first() {
        let row = Reader::new(row, "pending_samples", name);
        let id = row.uuid("id")?;
        let at = row.word("state", |state| match state {
            "waiting" => Some(SampleStatus::Pending(id)),
            "failed" => Some(SampleStatus::Failed(id)),
            _ => None,
        })?;
        return Ok(Some((at, row.hash("content")?)));
    }
    let mut sql = Sql::new("SELECT id, content FROM samples WHERE run = ");
    sql.bind(run).push(" AND name = ").bind(name);
    let rows = connection.fetch(sql).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let row = Reader::new(row, "samples", name);
    Ok(Some((SampleStatus::Scored(row.uuid("id")?), row.hash("content")?)))
}

fn decide(
    found: Option<(SampleStatus, ContentHash)>,
    run: &RunName,
    name: &str,
    content: ContentHash,
) -> Result<Option<SampleStatus>, StoreError> {
    match found {
        Some((at, have)) if have == content => Ok(Some(at)),
        None | Some((SampleStatus::Failed(_), _)) => Ok(None),
        Some((SampleStatus::Pending(existing) | SampleStatus::Scored(existing), _)) => {
            Err(StoreError::SampleConflict { run: run.clone(), name: name.to_owned(), existing })
        }
    }
}

async fn accept<P: Connections>(
    pool: &P,
    new: &NewPending,
) -> Result<Option<Accepted>, StoreError> {
    check_name("the sample's name", &new.name)?;
    check_text("the prompt", new.inputs.prompt.as_deref().unwrap_or_default())?;
    with_retries(|| transaction(pool, new)).await
}

async fn transaction<P: Connections>(
    pool: &P,
    new: &NewPending,
) -> Result<Option<Accepted>, StoreError> {
    let created = to_microseconds(new.created);
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;
    let Some(run) = lock_run(connection, new.run).await? else { return Ok(None) };
    let found = find(connection, new.run, &new.name, true).await?;
    match decide(found, &run.name, &new.name, new.inputs.content)? {
        Some(SampleStatus::Failed(_)) | None => {}
        Some(at) => return Ok(Some(Accepted::Repeated(at))),
    }
    if run.state != RunState::Open {
        return Err(StoreError::RunFinished { run: run.name });
    }
    if run.pack.as_ref().is_some_and(|pack| *pack != new.pack.digest) {
        return Err(StoreError::PackConflict { run: run.name, pack: run.pack.unwrap_or_default() });
    }
    if run.waiting >= new.max_pending {
        return Err(StoreError::RunFull { run: run.name, waiting: run.waiting });
    }
    ensure_pack(connection, &new.pack, created).await?;
    let photos = new.inputs.photos().copied().collect();
    keep_files(connection, &new.spool, new.run, &new.files, &photos, new.key).await?;
    // A deletion of a photo waits, and then sees the sample.
    let lock = connection.lock_shared_rows();
    let missing = unknown(connection, (new.run, &new.spool), &photos, lock).await?;
    if !missing.is_empty() {
        return Err(StoreError::ImageUnknown { images: missing });
    }
    let replaced = match found {
        Some((SampleStatus::Failed(id), _)) => {
            let mut sql = Sql::new("DELETE FROM pending_samples WHERE id = ");
            sql.bind(id);
            connection.execute(sql).await?
        }
        _ => 0,
    };
    insert(connection, new, created).await?;
    let mut sql = Sql::new("UPDATE runs SET waiting = waiting + 1, failed = failed - ");
    sql.bind(replaced as i64);
    sql.push(", pack = COALESCE(pack, ").bind(new.pack.digest.as_str());
    sql.push("), service_version = COALESCE(service_version, ").bind(new.service_version.as_str());
    sql.push(") WHERE id = ").bind(new.run);
    sql.push(" AND (pack IS NULL OR pack = ").bind(new.pack.digest.as_str()).push(")");
    if connection.execute(sql).await? == 0 {
        // Another instance with another pack accepted the run's first sample at the same moment.
        return Err(StoreError::PackConflict { run: run.name, pack: run.pack.unwrap_or_default() });
    }
    transaction.commit().await?;
    Ok(Some(Accepted::New(new.id)))
}

async fn insert<C: Connection>(
    connection: &mut C,
    new: &NewPending,
    created: OffsetDateTime,
) -> Result<(), StoreError> {
    let mut sql = Sql::new(
        "INSERT INTO pending_samples (id, run, name, pack, folder, state, attempts, due, created, ",
    );
    sql.push(SampleInputs::COLUMNS).push(") VALUES ");
    let own: [Argument; 9] = [
        new.id.into(),
        new.run.into(),
        new.name.as_str().into(),
        new.pack.digest.as_str().into(),
        new.spool.as_str().into(),
        "waiting".into(),
        0_i64.into(),
        created.into(),
        created.into(),
    ];
    sql.tuple(own.into_iter().chain(new.inputs.arguments()));
    sql.push(" ON CONFLICT (run, name) DO NOTHING");
    if connection.execute(sql).await? == 0 {
        // A concurrent request inserted the same name: retry, which checks again.
        return Err(StoreError::Contended(sqlx::Error::RowNotFound));
    }
    Ok(())
}

/// The columns of a run that accepting needs. Its row is locked against finishing and deletion.
struct LockedRun {
    name: RunName,
    state: RunState,
    pack: Option<String>,
    waiting: u64,
}

async fn lock_run<C: Connection>(
    connection: &mut C,
    id: Uuid,
) -> Result<Option<LockedRun>, StoreError> {
    let mut sql = Sql::new(
        "SELECT methods.name AS method_name, runs.name, state, pack, waiting
         FROM runs JOIN methods ON methods.id = runs.method WHERE runs.id = ",
    );
    sql.bind(id).push(connection.lock_shared_runs());
    let rows = connection.fetch(sql).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let row = Reader::new(row, "runs", id);
    Ok(Some(LockedRun {
        name: RunName { method: row.text("method_name")?, run: row.text("name")? },
        state: row.word("state", RunState::parse)?,
        pack: row.optional_text("pack")?,
        waiting: row.int("waiting")?,
    }))
}

async fn accepted_samples<P: Connections>(
    pool: &P,
    run: Uuid,
    state: Option<SampleState>,
    after: &str,
    limit: u32,
) -> Result<Option<Vec<AcceptedSample>>, StoreError> {
    let mut connection = pool.reader().await?;
    let mut sql = Sql::new("SELECT id FROM runs WHERE id = ");
    sql.bind(run);
    if connection.fetch(sql).await?.is_empty() {
        return Ok(None);
    }
    // Pending rows first: a sample that is scored between the two reads is then seen twice rather
    // than not at all.
    let mut found = BTreeMap::new();
    if state != Some(SampleState::Scored) {
        let mut sql = Sql::new(
            "SELECT id, name, content, state, reason, detail FROM pending_samples WHERE run = ",
        );
        sql.bind(run).push(" AND name > ").bind(after);
        match state {
            Some(SampleState::Pending) => drop(sql.push(" AND state = 'waiting'")),
            Some(SampleState::Failed) => drop(sql.push(" AND state = 'failed'")),
            Some(SampleState::Scored) | None => {}
        }
        sql.push(" ORDER BY name LIMIT ").bind(limit);
        for row in &connection.fetch(sql).await? {
            let row = Reader::new(row, "pending_samples", "");
            let (id, name) = (row.uuid("id")?, row.text("name")?);
            let reason = row.optional_text("reason")?;
            let at =
                if reason.is_some() { SampleStatus::Failed(id) } else { SampleStatus::Pending(id) };
            let detail = row.optional_text("detail")?.unwrap_or_default();
            let failure = reason.map(|reason| (reason, detail));
            let content = row.text("content")?;
            found.insert(name.clone(), AcceptedSample { name, at, content, failure });
        }
    }
    if matches!(state, None | Some(SampleState::Scored)) {
        let mut sql = Sql::new("SELECT id, name, content FROM samples WHERE run = ");
        sql.bind(run).push(" AND name > ").bind(after).push(" ORDER BY name LIMIT ").bind(limit);
        for row in &connection.fetch(sql).await? {
            let row = Reader::new(row, "samples", "");
            let (id, name) = (row.uuid("id")?, row.text("name")?);
            let content = row.text("content")?;
            found.insert(
                name.clone(),
                AcceptedSample { name, at: SampleStatus::Scored(id), content, failure: None },
            );
        }
    }
    Ok(Some(found.into_values().take(limit as usize).collect()))
}
