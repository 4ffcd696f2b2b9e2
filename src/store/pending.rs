//! Pending samples, and the spooled files that they need.
//!
//! Locks are taken in one order, so that transactions queue rather than deadlock: the run (shared),
//! its samples, the pending row, the run's counts, the summaries. Finishing or deleting a run first
//! locks it against all of these.

use std::collections::{BTreeSet, HashSet};

use time::OffsetDateTime;
use uuid::Uuid;

use super::db::{
    Connection, Connections, Reader, Row, Sql, StoreError, check_name, check_text, hashes_to_json,
    to_microseconds, with_retries,
};
use super::ensure::ensure_pack;
use super::runs::RunState;
use super::{PackId, RunName};
use crate::content::ContentHash;

/// Hashes per statement: SQLite accepts 32,766 arguments, and shorter statements are parsed faster.
const AT_ONCE: usize = 500;

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
    /// Hash of all inputs that the scores depend on.
    pub content: ContentHash,
    /// Prompt, if one was sent.
    pub prompt: Option<String>,
    /// Hash of the generated image's file.
    pub image: ContentHash,
    /// Hashes of the reference images' files, in order.
    pub references: Vec<ContentHash>,
    /// Hashes of the auxiliary images' files, in order.
    pub auxiliary: Vec<ContentHash>,
    /// Metadata as it was sent.
    pub metadata: serde_json::Value,
    /// Id of the spool folder that has the images.
    pub folder: String,
    /// Files that were sent with it, including the image, with their sizes in bytes.
    pub files: Vec<(ContentHash, u64)>,
    /// Pack that will score it.
    pub pack: PackId,
    /// Version of the service that accepts it.
    pub service_version: String,
    /// Maximum number of pending samples in the run.
    pub max_pending: u64,
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
    /// Hash of all inputs.
    pub content: ContentHash,
    /// Prompt, if one was sent.
    pub prompt: Option<String>,
    /// Hash of the generated image's file.
    pub image: ContentHash,
    /// Hashes of the reference images' files, in order.
    pub references: Vec<ContentHash>,
    /// Hashes of the auxiliary images' files, in order.
    pub auxiliary: Vec<ContentHash>,
    /// Metadata as it was sent.
    pub metadata: serde_json::Value,
    /// Number of failed attempts that count.
    pub attempts: u32,
    /// Earliest time of the next attempt.
    pub due: OffsetDateTime,
}

/// A sample of a run, in any state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// Name within the run.
    pub name: String,
    /// Status, with its id.
    pub at: SampleStatus,
    /// Hash of all inputs, as 64 hexadecimal digits.
    pub content: String,
    /// Reason code and detail of a failure.
    pub failure: Option<(String, String)>,
}

/// Filter for the samples of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmittedState {
    /// Pending samples.
    Pending,
    /// Failed samples.
    Failed,
    /// Scored samples.
    Scored,
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

/// Returns the status of the sample with this name and content, without locking anything.
///
/// The same name with other content is a [`StoreError::SampleConflict`], unless that sample failed.
pub(super) async fn submission<P: Connections>(
    pool: &P,
    run: Uuid,
    run_name: &RunName,
    name: &str,
    content: ContentHash,
) -> Result<Option<SampleStatus>, StoreError> {
    let mut connection = pool.reader().await?;
    decide(find(&mut *connection, run, name, false).await?, run_name, name, content)
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

/// Accepts a sample in one transaction. Returns `None` if no run has this id.
pub(super) async fn accept<P: Connections>(
    pool: &P,
    new: &NewPending,
) -> Result<Option<Accepted>, StoreError> {
    check_name("the sample's name", &new.name)?;
    check_text("the prompt", new.prompt.as_deref().unwrap_or_default())?;
    with_retries(new.id, || transaction(pool, new)).await
}

async fn transaction<P: Connections>(pool: &P, new: &NewPending) -> Result<Option<Accepted>, StoreError> {
    let created = to_microseconds(new.created);
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;
    let Some(run) = lock_run(connection, new.run).await? else { return Ok(None) };
    let found = find(connection, new.run, &new.name, true).await?;
    match decide(found, &run.name, &new.name, new.content)? {
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
    keep_files(connection, new).await?;
    let missing = unknown(connection, new.run, &new.folder, &photos(new)).await?;
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

fn photos(new: &NewPending) -> BTreeSet<ContentHash> {
    new.references.iter().chain(&new.auxiliary).copied().collect()
}

async fn insert<C: Connection>(
    connection: &mut C,
    new: &NewPending,
    created: OffsetDateTime,
) -> Result<(), StoreError> {
    let mut sql = Sql::new(
        "INSERT INTO pending_samples (id, run, name, content, prompt, image, reference_hashes, auxiliary_hashes,
                                      metadata, pack, folder, state, attempts, due, created)
         VALUES ",
    );
    sql.tuple([
        new.id.into(),
        new.run.into(),
        new.name.as_str().into(),
        new.content.to_hex().into(),
        new.prompt.clone().into(),
        new.image.to_hex().into(),
        hashes_to_json(&new.references).into(),
        hashes_to_json(&new.auxiliary).into(),
        new.metadata.to_string().into(),
        new.pack.digest.as_str().into(),
        new.folder.as_str().into(),
        "waiting".into(),
        0_i64.into(),
        created.into(),
        created.into(),
    ]);
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

async fn lock_run<C: Connection>(connection: &mut C, id: Uuid) -> Result<Option<LockedRun>, StoreError> {
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

/// Records the files that the run needs from now on.
async fn keep_files<C: Connection>(connection: &mut C, new: &NewPending) -> Result<(), StoreError> {
    let photos = photos(new);
    let mut sql = Sql::new("INSERT INTO kept_files (folder, run, image, photo, bytes) VALUES ");
    // Sorted and unique: rows are locked in order, and no statement meets a row twice.
    let files: std::collections::BTreeMap<_, _> = new.files.iter().copied().collect();
    sql.tuples(files.into_iter().map(|(image, bytes)| {
        [
            new.folder.as_str().into(),
            new.run.into(),
            image.to_hex().into(),
            i64::from(photos.contains(&image)).into(),
            (bytes as i64).into(),
        ]
    }));
    sql.push(
        " ON CONFLICT (folder, run, image) DO UPDATE SET photo = CASE WHEN excluded.photo > kept_files.photo
              THEN excluded.photo ELSE kept_files.photo END",
    );
    connection.execute(sql).await?;
    Ok(())
}

/// Returns those of the images that are not stored for the run as reference or auxiliary images.
pub(super) async fn unknown_photos<P: Connections>(
    pool: &P,
    run: Uuid,
    folder: &str,
    photos: &BTreeSet<ContentHash>,
) -> Result<Vec<ContentHash>, StoreError> {
    unknown(&mut *pool.reader().await?, run, folder, photos).await
}

async fn unknown<C: Connection>(
    connection: &mut C,
    run: Uuid,
    folder: &str,
    photos: &BTreeSet<ContentHash>,
) -> Result<Vec<ContentHash>, StoreError> {
    if photos.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::new("SELECT image FROM kept_files WHERE photo = 1 AND folder = ");
    sql.bind(folder).push(" AND run = ").bind(run).push(" AND image IN ");
    sql.tuple(photos.iter().map(|image| image.to_hex().into()));
    let rows = connection.fetch(sql).await?;
    let known = rows.iter().map(|row| Reader::new(row, "kept_files", run).hash("image"));
    let known: HashSet<_> = known.collect::<Result<_, _>>()?;
    Ok(photos.iter().copied().filter(|photo| !known.contains(photo)).collect())
}

/// No sample is postponed for longer than this.
const LONGEST_PAUSE: time::Duration = time::Duration::minutes(10);

/// Returns the oldest pending samples of this pack in this folder that are due.
pub(super) async fn next<P: Connections>(
    pool: &P,
    folder: &str,
    pack: &str,
    now: OffsetDateTime,
    limit: u32,
) -> Result<Vec<PendingRecord>, StoreError> {
    let mut sql = Sql::new(
        "SELECT pending_samples.id, pending_samples.run, methods.name AS method_name, runs.name AS run_name, metrics,
                pending_samples.name, content, prompt, image, reference_hashes, auxiliary_hashes, metadata, attempts, due
         FROM pending_samples JOIN runs ON runs.id = pending_samples.run JOIN methods ON methods.id = runs.method
         WHERE pending_samples.state = 'waiting' AND folder = ",
    );
    sql.bind(folder)
        .push(" AND pending_samples.pack = ")
        .bind(pack)
        .push(" AND (due <= ")
        .bind(to_microseconds(now));
    // No pause is that long: the clock was set back, and the sample is due.
    sql.push(" OR due > ").bind(to_microseconds(now + LONGEST_PAUSE)).push(")");
    sql.push(" ORDER BY pending_samples.id LIMIT ").bind(limit);
    pool.reader().await?.fetch(sql).await?.iter().map(pending_record).collect()
}

fn pending_record<R: Row>(row: &R) -> Result<PendingRecord, StoreError> {
    let id = Reader::new(row, "pending_samples", "").uuid("id")?;
    let row = Reader::new(row, "pending_samples", id);
    let list = |column: &'static str| {
        let digits: Vec<String> = row.json(column)?;
        let hash = |hex: &String| {
            ContentHash::from_hex(hex)
                .ok_or_else(|| row.corrupt(column, "contains a value that is not a hash"))
        };
        digits.iter().map(hash).collect::<Result<Vec<_>, _>>()
    };
    Ok(PendingRecord {
        id,
        run_id: row.uuid("run")?,
        run: RunName { method: row.text("method_name")?, run: row.text("run_name")? },
        metrics: row.optional_text("metrics")?.map(|_| row.json("metrics")).transpose()?,
        name: row.text("name")?,
        content: row.hash("content")?,
        prompt: row.optional_text("prompt")?,
        image: row.hash("image")?,
        references: list("reference_hashes")?,
        auxiliary: list("auxiliary_hashes")?,
        metadata: row.json("metadata")?,
        attempts: row.int("attempts")?,
        due: row.time("due")?,
    })
}

/// Returns the time at which the next pending sample of this pack in this folder is due, if any.
pub(super) async fn next_due<P: Connections>(
    pool: &P,
    folder: &str,
    pack: &str,
    after: OffsetDateTime,
) -> Result<Option<OffsetDateTime>, StoreError> {
    let mut sql = Sql::new("SELECT due FROM pending_samples WHERE state = 'waiting' AND folder = ");
    sql.bind(folder).push(" AND pack = ").bind(pack).push(" AND due > ").bind(to_microseconds(after));
    sql.push(" ORDER BY due LIMIT 1");
    let rows = pool.reader().await?.fetch(sql).await?;
    rows.first().map(|row| Reader::new(row, "pending_samples", "").time("due")).transpose()
}

/// Counts the blocked samples in this folder and their runs, by the pack that they need instead of
/// this one.
pub(super) async fn held<P: Connections>(
    pool: &P,
    folder: &str,
    pack: &str,
) -> Result<Vec<BlockedSamples>, StoreError> {
    let mut sql = Sql::new(
        "SELECT digest, packs.name, weights, COUNT(*) AS samples, COUNT(DISTINCT run) AS runs
         FROM pending_samples JOIN packs ON packs.digest = pending_samples.pack WHERE state = 'waiting' AND folder = ",
    );
    sql.bind(folder).push(" AND digest <> ").bind(pack);
    sql.push(" GROUP BY digest, packs.name, weights ORDER BY digest");
    let rows = pool.reader().await?.fetch(sql).await?;
    let held = rows.iter().map(|row| {
        let row = Reader::new(row, "pending_samples", folder);
        let (digest, name) = (row.text("digest")?, row.text("name")?);
        let weights = row.word("weights", super::Weights::parse)?;
        Ok(BlockedSamples {
            pack: PackId { name, digest, weights },
            samples: row.int("samples")?,
            runs: row.int("runs")?,
        })
    });
    held.collect()
}

/// Postpones a pending sample, and counts the attempt if there was one.
pub(super) async fn postpone<P: Connections>(
    pool: &P,
    id: Uuid,
    due: OffsetDateTime,
    attempted: bool,
) -> Result<(), StoreError> {
    let transaction = || async {
        let mut transaction = pool.begin().await?;
        let mut sql = Sql::new("UPDATE pending_samples SET due = ");
        sql.bind(to_microseconds(due)).push(", attempts = attempts + ").bind(i64::from(attempted));
        sql.push(" WHERE state = 'waiting' AND id = ").bind(id);
        transaction.execute(sql).await?;
        transaction.commit().await?;
        Ok(())
    };
    with_retries(id, transaction).await
}

/// Fails a pending sample with a reason. Returns its image, which it no longer needs; its reference
/// and auxiliary images may serve other samples.
pub(super) async fn fail<P: Connections>(
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
            let mut sql =
                Sql::new("SELECT run, image FROM pending_samples WHERE state = 'waiting' AND id = ");
            sql.bind(id).push(lock);
            sql
        };
        let rows = connection.fetch(find("")).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let row = Reader::new(row, "pending_samples", id);
        let (run, image) = (row.uuid("run")?, row.hash("image")?);
        let others = lock_image(connection, run, image, Owners::ThisOne).await?;
        let lock = connection.lock();
        if connection.fetch(find(lock)).await?.is_empty() {
            return Ok(None);
        }
        give_up(connection, id, (run, image), reason, &detail, others).await?;
        transaction.commit().await?;
        Ok(Some(image))
    };
    with_retries(id, transaction).await
}

/// Marks a pending sample as failed. The caller has locked its image with [`lock_image`], which
/// returned `others`.
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
    release_image(connection, run, image, others).await?;
    let mut sql = Sql::new("UPDATE runs SET waiting = waiting - 1, failed = failed + 1 WHERE id = ");
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
    let others = lock_image(connection, run, image, Owners::ThisOne).await?;
    let mut sql = Sql::new("DELETE FROM pending_samples WHERE state = 'waiting' AND id = ");
    sql.bind(id);
    if connection.execute(sql).await? == 0 {
        return Ok(false);
    }
    release_image(connection, run, image, others).await?;
    Ok(true)
}

/// Instances that may release a sample's file. This decides which other instances must be notified.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Owners {
    /// Only the sample's own instance, which deletes its file without a notification.
    ThisOne,
    /// Any instance.
    Any,
}

/// Locks the rows of a generated image of a run. Returns `true` if instances store it that must be
/// notified when it is released.
///
/// Accepting a sample locks these rows before it writes the sample. Removing a sample uses the same
/// order: it locks them first.
pub(super) async fn lock_image<C: Connection>(
    connection: &mut C,
    run: Uuid,
    image: ContentHash,
    owners: Owners,
) -> Result<bool, StoreError> {
    let mut sql = Sql::new("SELECT image FROM kept_files WHERE photo = 0 AND run = ");
    sql.bind(run).push(" AND image = ").bind(image.to_hex()).push(" ORDER BY folder").push(connection.lock());
    let folders = connection.fetch(sql).await?.len();
    // The sample's own instance owns one of the folders, and needs no notification.
    Ok(folders > usize::from(owners == Owners::ThisOne))
}

/// Releases a generated image if no pending sample of its run needs it. `others` is the result of
/// [`lock_image`]: if it is set, the instances that store the image are notified.
///
/// The rows were locked by an earlier statement, so these statements see every accepted sample with
/// an equal image.
pub(super) async fn release_image<C: Connection>(
    connection: &mut C,
    run: Uuid,
    image: ContentHash,
    others: bool,
) -> Result<(), StoreError> {
    let image = image.to_hex();
    if others {
        note_release(connection, run, &image).await?;
    }
    let mut sql = Sql::new("DELETE FROM kept_files WHERE photo = 0 AND run = ");
    sql.bind(run).push(" AND image = ").bind(image).push(UNNEEDED);
    connection.execute(sql).await?;
    Ok(())
}

/// Condition on spooled files: no pending sample of their run needs them.
const UNNEEDED: &str =
    " AND NOT EXISTS (SELECT 1 FROM pending_samples WHERE pending_samples.run = kept_files.run
     AND pending_samples.image = kept_files.image AND pending_samples.state = 'waiting')";

/// Notifies the instances that store an image that it is released.
async fn note_release<C: Connection>(connection: &mut C, run: Uuid, image: &str) -> Result<(), StoreError> {
    let mut sql = Sql::new(
        "INSERT INTO released_files (folder, image) SELECT folder, image FROM kept_files WHERE photo = 0 AND run = ",
    );
    sql.bind(run).push(" AND image = ").bind(image).push(UNNEEDED);
    sql.push(" ORDER BY folder, image ON CONFLICT DO NOTHING");
    connection.execute(sql).await?;
    Ok(())
}

/// Locks images by run as [`lock_image`] does, and those of the samples that are pending. Returns
/// the images that other instances store too, and the pending samples.
pub(super) async fn take_pending<C: Connection>(
    connection: &mut C,
    images: &BTreeSet<(Uuid, String)>,
    samples: &BTreeSet<Uuid>,
) -> Result<(Vec<(Uuid, String)>, HashSet<Uuid>), StoreError> {
    let mut sql = Sql::new("SELECT run, image FROM kept_files WHERE photo = 0 AND (run, image) IN (VALUES ");
    pairs(&mut sql, images).push(") ORDER BY run, image, folder").push(connection.lock());
    let mut others = Vec::new();
    let mut last = None;
    for row in &connection.fetch(sql).await? {
        let row = Reader::new(row, "kept_files", "");
        let found = (row.uuid("run")?, row.text("image")?);
        // One folder per instance: from the second one on, another instance must be notified.
        if last.as_ref() == Some(&found) && others.last() != Some(&found) {
            others.push(found.clone());
        }
        last = Some(found);
    }
    let mut sql = Sql::new("SELECT id FROM pending_samples WHERE state = 'waiting' AND id IN ");
    sql.tuple(samples.iter().map(|id| (*id).into())).push(" ORDER BY id").push(connection.lock());
    let rows = connection.fetch(sql).await?;
    let waiting = rows.iter().map(|row| Reader::new(row, "pending_samples", "").uuid("id"));
    Ok((others, waiting.collect::<Result<_, _>>()?))
}

/// Releases images as [`release_image`] does. `others` are those that other instances store too.
pub(super) async fn release_images<C: Connection>(
    connection: &mut C,
    images: &BTreeSet<(Uuid, String)>,
    others: &[(Uuid, String)],
) -> Result<(), StoreError> {
    for (run, image) in others.iter().filter(|other| images.contains(other)) {
        note_release(connection, *run, image).await?;
    }
    let mut sql = Sql::new("DELETE FROM kept_files WHERE photo = 0 AND (run, image) IN (VALUES ");
    pairs(&mut sql, images).push(")").push(UNNEEDED);
    connection.execute(sql).await?;
    Ok(())
}

fn pairs<'a>(sql: &'a mut Sql, images: &BTreeSet<(Uuid, String)>) -> &'a mut Sql {
    sql.tuples(images.iter().map(|(run, image)| [(*run).into(), image.as_str().into()]))
}

/// Returns those of these files that some run needs in this folder.
pub(super) async fn needed<P: Connections>(
    pool: &P,
    folder: &str,
    files: &[ContentHash],
) -> Result<HashSet<ContentHash>, StoreError> {
    let mut needed = HashSet::new();
    let mut connection = pool.reader().await?;
    for files in files.chunks(AT_ONCE) {
        let mut sql = Sql::new("SELECT DISTINCT image FROM kept_files WHERE folder = ");
        sql.bind(folder).push(" AND image IN ");
        sql.tuple(files.iter().map(|image| image.to_hex().into()));
        for row in &connection.fetch(sql).await? {
            needed.insert(Reader::new(row, "kept_files", "").hash("image")?);
        }
    }
    Ok(needed)
}

/// Returns one page of a run's samples by name, in any state; `None` if no run has this id.
pub(super) async fn submitted<P: Connections>(
    pool: &P,
    run: Uuid,
    state: Option<SubmittedState>,
    after: &str,
    limit: u32,
) -> Result<Option<Vec<Submitted>>, StoreError> {
    let mut connection = pool.reader().await?;
    let mut sql = Sql::new("SELECT id FROM runs WHERE id = ");
    sql.bind(run);
    if connection.fetch(sql).await?.is_empty() {
        return Ok(None);
    }
    // Pending rows first: a sample that is scored between the two reads is then seen twice rather
    // than not at all.
    let mut found = std::collections::BTreeMap::new();
    if state != Some(SubmittedState::Scored) {
        let mut sql =
            Sql::new("SELECT id, name, content, state, reason, detail FROM pending_samples WHERE run = ");
        sql.bind(run).push(" AND name > ").bind(after);
        match state {
            Some(SubmittedState::Pending) => drop(sql.push(" AND state = 'waiting'")),
            Some(SubmittedState::Failed) => drop(sql.push(" AND state = 'failed'")),
            Some(SubmittedState::Scored) | None => {}
        }
        sql.push(" ORDER BY name LIMIT ").bind(limit);
        for row in &connection.fetch(sql).await? {
            let row = Reader::new(row, "pending_samples", "");
            let (id, name) = (row.uuid("id")?, row.text("name")?);
            let reason = row.optional_text("reason")?;
            let at = if reason.is_some() { SampleStatus::Failed(id) } else { SampleStatus::Pending(id) };
            let detail = row.optional_text("detail")?.unwrap_or_default();
            let failure = reason.map(|reason| (reason, detail));
            let content = row.text("content")?;
            found.insert(name.clone(), Submitted { name, at, content, failure });
        }
    }
    if matches!(state, None | Some(SubmittedState::Scored)) {
        let mut sql = Sql::new("SELECT id, name, content FROM samples WHERE run = ");
        sql.bind(run).push(" AND name > ").bind(after).push(" ORDER BY name LIMIT ").bind(limit);
        for row in &connection.fetch(sql).await? {
            let row = Reader::new(row, "samples", "");
            let (id, name) = (row.uuid("id")?, row.text("name")?);
            let content = row.text("content")?;
            found.insert(
                name.clone(),
                Submitted { name, at: SampleStatus::Scored(id), content, failure: None },
            );
        }
    }
    Ok(Some(found.into_values().take(limit as usize).collect()))
}
