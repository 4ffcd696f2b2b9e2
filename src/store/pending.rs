//! Samples that were accepted and wait to be scored, and which files are kept for them.
//!
//! Locks are taken in one order, so that transactions queue rather than deadlock: the run (shared), its samples, the pending
//! row, the run's counts, the summaries. Whoever finishes or deletes a run locks it against all of these first.

use std::collections::{BTreeSet, HashSet};

use time::OffsetDateTime;
use uuid::Uuid;

use super::ensure::ensure_pack;
use super::runs::RunState;
use super::sql::{Connection, Connections, Reader, Row, Sql, with_retries};
use super::words::{check_name, check_text, hashes_to_json, to_microseconds};
use super::{PackId, RunName, StoreError};
use crate::content::ContentHash;

/// Hashes asked for in one statement: SQLite takes 32,766 arguments, and shorter texts are parsed sooner.
const AT_ONCE: usize = 500;

/// A sample to accept: its files are on the disk already.
#[derive(Clone, Debug)]
pub struct NewPending {
    /// Its id, a fresh `UUIDv7`: also the id of the sample that it becomes.
    pub id: Uuid,
    /// Now.
    pub created: OffsetDateTime,
    /// Its run.
    pub run: Uuid,
    /// Its name within the run.
    pub name: String,
    /// The hash of all inputs that scores depend on.
    pub content: ContentHash,
    /// The prompt.
    pub prompt: Option<String>,
    /// The hash of the generated image's bytes.
    pub image: ContentHash,
    /// The hashes of the reference photos' bytes, in order.
    pub references: Vec<ContentHash>,
    /// The hashes of the auxiliary photos' bytes, in order.
    pub auxiliary: Vec<ContentHash>,
    /// What else was said about the sample.
    pub metadata: serde_json::Value,
    /// The folder of kept files that has the images.
    pub folder: String,
    /// The files that came with it, the image among them, and their bytes.
    pub files: Vec<(ContentHash, u64)>,
    /// The pack that will score it.
    pub pack: PackId,
    /// The version of the service that accepts it.
    pub service_version: String,
    /// Samples that may wait in the run.
    pub max_pending: u64,
}

/// What became of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleStatus {
    /// It waits under this id.
    Pending(Uuid),
    /// It failed; the same or another may be sent under its name.
    Failed(Uuid),
    /// It was recorded as this sample.
    Scored(Uuid),
}

/// What accepting did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The sample is new, or takes the place of one that failed.
    New(Uuid),
    /// The same was there.
    Repeated(SampleStatus),
}

/// Samples that nobody scores before another pack is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedSamples {
    /// What they wait for.
    pub pack: PackId,
    /// How many.
    pub samples: u64,
    /// Of how many runs.
    pub runs: u64,
}

/// A sample that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingRecord {
    /// Its id.
    pub id: Uuid,
    /// Its run's id.
    pub run_id: Uuid,
    /// Its run.
    pub run: RunName,
    /// Codes of the metrics of its run; none for all.
    pub metrics: Option<Vec<String>>,
    /// Its name within the run.
    pub name: String,
    /// The hash of all inputs.
    pub content: ContentHash,
    /// The prompt.
    pub prompt: Option<String>,
    /// The hash of the generated image.
    pub image: ContentHash,
    /// The hashes of the reference photos.
    pub references: Vec<ContentHash>,
    /// The hashes of the auxiliary photos.
    pub auxiliary: Vec<ContentHash>,
    /// What else was said.
    pub metadata: serde_json::Value,
    /// How often scoring it was tried.
    pub attempts: u32,
    /// Not before then.
    pub due: OffsetDateTime,
}

/// A sample of a run, wherever it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// Its name within the run.
    pub name: String,
    /// Where it stands.
    pub at: SampleStatus,
    /// The hash of all inputs, 64 hexadecimal digits.
    pub content: String,
    /// Why it failed: a code and words.
    pub failure: Option<(String, String)>,
}

/// Which samples of a run to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmittedState {
    /// Those that wait.
    Pending,
    /// Those that failed.
    Failed,
    /// Those that are scored.
    Scored,
}

/// What is found under a name of a run, and under which content.
async fn find<C: Connection>(
    connection: &mut C,
    run: Uuid,
    name: &str,
    locked: bool,
) -> Result<Option<(SampleStatus, ContentHash)>, StoreError> {
    // Those that wait first: one that is scored meanwhile is then found among the scored.
    let mut sql = Sql::new("SELECT id, content, state FROM pending_samples WHERE run = ");
    sql.bind(run).push(" AND name = ").bind(name).push(if locked { C::LOCK } else { "" });
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

/// What became of the submission of this name and content, without taking anything.
///
/// A name that stands for other content is a [`StoreError::SampleConflict`], unless that failed.
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

/// Accepts a sample in one transaction, or says `None` where no run has this id.
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
        // Another service with another pack accepted the run's first sample at the same moment.
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
        // Somebody else sent the same name at the same moment: looked at again.
        return Err(StoreError::Contended(sqlx::Error::RowNotFound));
    }
    Ok(())
}

/// What accepting needs to know of a run, which is kept from being finished or deleted meanwhile.
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
    sql.bind(id).push(C::LOCK_SHARED_RUNS);
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

/// Notes which files the run needs from now on.
async fn keep_files<C: Connection>(connection: &mut C, new: &NewPending) -> Result<(), StoreError> {
    let photos = photos(new);
    let mut sql = Sql::new("INSERT INTO kept_files (folder, run, image, photo, bytes) VALUES ");
    // In order and each once: rows are then locked in order, and no statement meets a row twice.
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

/// Those of the photos that are not kept for the run.
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

/// No sample is put off for longer than this.
const LONGEST_PAUSE: time::Duration = time::Duration::minutes(10);

/// The oldest samples that wait for this pack in this folder and are due.
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
    // No pause is that long: the clock was set back.
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
            ContentHash::from_hex(hex).ok_or_else(|| row.corrupt(column, "holds what is no hash"))
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

/// When the next sample that waits for this pack in this folder is due, if there is one.
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

/// The samples in this folder that wait for another pack than this one, and of how many runs, pack by pack.
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

/// Puts a sample off until a later time, and counts the attempt where it was one.
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

/// Gives a waiting sample up for a reason. Its image, whose hash is the answer, need not be kept for it any longer; its
/// photos may serve others.
pub(super) async fn fail<P: Connections>(
    pool: &P,
    id: Uuid,
    reason: &str,
    detail: &str,
) -> Result<Option<ContentHash>, StoreError> {
    // What PostgreSQL's text cannot hold a message can do without.
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
        let lock = lock(connection);
        if connection.fetch(find(lock)).await?.is_empty() {
            return Ok(None);
        }
        give_up(connection, id, (run, image), reason, &detail, others).await?;
        transaction.commit().await?;
        Ok(Some(image))
    };
    with_retries(id, transaction).await
}

/// Marks a waiting sample as failed. Its image, in its run, is locked by [`lock_image`], which said `others`.
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

fn lock<C: Connection>(_: &C) -> &'static str {
    C::LOCK
}

/// Takes a sample out of those that wait, or says that it does not wait any more.
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

/// Which instances have to be told that a sample's file need not be kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Owners {
    /// The sample's own instance asks, and takes its file away by itself.
    ThisOne,
    /// Any instance may ask.
    Any,
}

/// Locks the rows of a generated image of a run, and says whether instances keep it that have to be told when it is released.
///
/// Accepting a sample locks these rows before it writes the sample. Taking a sample away locks them in the same order: first.
pub(super) async fn lock_image<C: Connection>(
    connection: &mut C,
    run: Uuid,
    image: ContentHash,
    owners: Owners,
) -> Result<bool, StoreError> {
    let mut sql = Sql::new("SELECT image FROM kept_files WHERE photo = 0 AND run = ");
    sql.bind(run).push(" AND image = ").bind(image.to_hex()).push(" ORDER BY folder").push(lock(connection));
    let folders = connection.fetch(sql).await?.len();
    // The sample's own instance has one of the folders, and needs no note.
    Ok(folders > usize::from(owners == Owners::ThisOne))
}

/// Releases a generated image that no waiting sample of its run needs. `others` is the answer of [`lock_image`]: instances that
/// do not ask themselves get a note.
///
/// The rows were locked by an earlier statement, so these statements see every sample that was accepted with an equal image.
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

/// Of kept files those that no waiting sample of their run needs.
const UNNEEDED: &str =
    " AND NOT EXISTS (SELECT 1 FROM pending_samples WHERE pending_samples.run = kept_files.run
     AND pending_samples.image = kept_files.image AND pending_samples.state = 'waiting')";

/// Tells the instances that keep an image that it is released.
async fn note_release<C: Connection>(connection: &mut C, run: Uuid, image: &str) -> Result<(), StoreError> {
    let mut sql = Sql::new(
        "INSERT INTO released_files (folder, image) SELECT folder, image FROM kept_files WHERE photo = 0 AND run = ",
    );
    sql.bind(run).push(" AND image = ").bind(image).push(UNNEEDED);
    sql.push(" ORDER BY folder, image ON CONFLICT DO NOTHING");
    connection.execute(sql).await?;
    Ok(())
}

/// Locks images by run as [`lock_image`] does, and those of the samples that wait. Says which images other instances keep too,
/// and which samples wait.
pub(super) async fn take_pending<C: Connection>(
    connection: &mut C,
    images: &BTreeSet<(Uuid, String)>,
    samples: &BTreeSet<Uuid>,
) -> Result<(Vec<(Uuid, String)>, HashSet<Uuid>), StoreError> {
    let mut sql = Sql::new("SELECT run, image FROM kept_files WHERE photo = 0 AND (run, image) IN (VALUES ");
    pairs(&mut sql, images).push(") ORDER BY run, image, folder").push(C::LOCK);
    let mut others = Vec::new();
    let mut last = None;
    for row in &connection.fetch(sql).await? {
        let row = Reader::new(row, "kept_files", "");
        let found = (row.uuid("run")?, row.text("image")?);
        // As many folders as instances: from the second on there is one that has to be told.
        if last.as_ref() == Some(&found) && others.last() != Some(&found) {
            others.push(found.clone());
        }
        last = Some(found);
    }
    let mut sql = Sql::new("SELECT id FROM pending_samples WHERE state = 'waiting' AND id IN ");
    sql.tuple(samples.iter().map(|id| (*id).into())).push(" ORDER BY id").push(C::LOCK);
    let rows = connection.fetch(sql).await?;
    let waiting = rows.iter().map(|row| Reader::new(row, "pending_samples", "").uuid("id"));
    Ok((others, waiting.collect::<Result<_, _>>()?))
}

/// Releases images as [`release_image`] does. `others` are those that other instances keep too.
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

/// Those of these files that some run needs in this folder.
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

/// One page of a run's samples by name, wherever they stand; `None` where no run has this id.
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
    // Those that wait first: one that is scored between the two reads is then seen twice rather than not at all.
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
