//! Deletion of a sample, a run, a dataset or everything derived from one image, each in one
//! transaction.
//!
//! Pending samples are deleted like scored ones, and their spooled files are released: the instance
//! that owns the folder deletes them afterwards, or at its next start.
//!
//! Faces and the thumbnail of an image are deleted with the last sample, pending sample or enrolled
//! photo that refers to it, so that another run with the same image keeps what it needs. Deletion
//! by image deletes them whatever else refers to it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::db::{
    Argument, Backend, Connection, Connections, Reader, Sql, StoreError, on_backend, with_retries,
};
use super::runs::lock_run_for_deletion;
use super::spools::{self, Released};
use super::summaries::running::{self, SummaryKey};
use super::summaries::slices;
use super::unused_images::{delete_unused_images, hashes, note_deleted, unused};
use super::{Store, board, pending, preferences};
use crate::content::ContentHash;

/// Counts of what was deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deleted {
    /// Number of samples.
    pub samples: u64,
    /// Number of their scores.
    pub scores: u64,
    /// Number of photos enrolled in a dataset.
    pub photos: u64,
    /// Number of prompts registered in a dataset.
    pub prompts: u64,
    /// Number of images with stored faces, counted once per set of graphs that found them.
    pub faces: u64,
    /// All images that the deleted rows referred to: cached data about them must be evicted too.
    #[serde(skip)]
    pub images: Vec<ContentHash>,
}

impl Store {
    /// Deletes a sample with its scores. Returns `None` if no sample has this id. The summaries of
    /// its run are recomputed from the remaining samples; faces are deleted with the last reference
    /// to their image.
    pub async fn delete_sample(&self, id: Uuid) -> Result<Option<Deleted>, StoreError> {
        on_backend!(self, pool => {
            let deleted = with_retries(|| delete_sample(pool, id)).await?;
            if deleted.is_some() {
                return Ok(deleted);
            }
            // A pending sample may have been recorded between the two looks.
            with_retries(|| delete_sample(pool, id)).await
        })
    }

    /// Deletes a run with everything in it. Returns `None` if no run has this id.
    pub async fn delete_run(&self, id: Uuid) -> Result<Option<Deleted>, StoreError> {
        on_backend!(self, pool => with_retries(|| delete_run(pool, id)).await)
    }

    /// Deletes a dataset with its photos. Returns `None` if none has this name.
    pub async fn delete_dataset(&self, name: &str) -> Result<Option<Deleted>, StoreError> {
        on_backend!(self, pool => with_retries(|| delete_dataset(pool, name)).await)
    }

    /// Deletes everything derived from an image and its enrolments, even if other rows refer to it;
    /// samples and scores stay. Returns `None` if the image is unknown.
    pub async fn delete_image(&self, image: ContentHash) -> Result<Option<Deleted>, StoreError> {
        on_backend!(self, pool => with_retries(|| delete_image(pool, image)).await)
    }

    /// Purges deleted rows from SQLite's write-ahead log, where they would stay until overwritten.
    /// Returns `false` if a reader that began earlier prevents it. The log of PostgreSQL is left to
    /// its administrator.
    pub async fn scrub(&self) -> Result<bool, StoreError> {
        match &self.backend {
            Backend::Sqlite(pool) => pool.truncate_log().await,
            Backend::Postgres(_) => Ok(true),
        }
    }
}

async fn delete_sample<P: Connections>(pool: &P, id: Uuid) -> Result<Option<Deleted>, StoreError> {
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;
    // The run first, in the same order as recording a sample.
    let mut sql =
        Sql::new("SELECT runs.id FROM runs WHERE id IN (SELECT run FROM samples WHERE id = ");
    sql.bind(id).push(")").push(connection.lock_shared_runs());
    connection.fetch(sql).await?;
    let mut sql = Sql::new("SELECT image, run, name FROM samples WHERE id = ");
    sql.bind(id).push(connection.lock_for_deletion());
    let rows = connection.fetch(sql).await?;
    let Some(row) = rows.first() else { return delete_pending(transaction, id).await };
    let row = Reader::new(row, "samples", id);
    let image = row.optional_text("image")?.map(|_| row.hash("image")).transpose()?;
    let run = row.optional_uuid("run")?;
    let name = row.text("name")?;

    let mut sql = Sql::new("SELECT image FROM sample_photos WHERE sample = ");
    sql.bind(id);
    let images = hashes(connection, sql).await?.into_iter().chain(image).collect();
    let mut sql =
        Sql::new("SELECT DISTINCT metric, pack, metric_version FROM scores WHERE sample = ");
    sql.bind(id).push(" ORDER BY metric, pack, metric_version");
    let mut counted = Vec::new();
    for row in &connection.fetch(sql).await? {
        let row = Reader::new(row, "scores", format!("of sample {id}"));
        counted.push((row.text("metric")?, row.text("pack")?, row.int::<u32>("metric_version")?));
    }
    execute(connection, "DELETE FROM sample_photos WHERE sample = ", id).await?;
    execute(connection, "DELETE FROM attribute_outcomes WHERE sample = ", id).await?;
    execute(connection, "DELETE FROM evidence WHERE sample = ", id).await?;
    let scores = execute(connection, "DELETE FROM scores WHERE sample = ", id).await?;
    let samples = execute(connection, "DELETE FROM samples WHERE id = ", id).await?;
    // Before the run, in the same order as recording a sample.
    let faces = delete_unused_images(connection, &images).await?;
    if let Some(run) = run {
        execute(
            connection,
            "UPDATE runs SET revision = revision + 1, scored = scored - 1 WHERE id = ",
            run,
        )
        .await?;
        // They are recomputed from the remaining samples in the background.
        slices::forget(connection, run, None).await?;
        preferences::forget(connection, run, Some(&name)).await?;
        for (metric, pack, version) in &counted {
            running::recompute(connection, SummaryKey { run, metric, pack, version: *version })
                .await?;
        }
    }
    transaction.commit().await?;
    let images = images.into_iter().collect();
    Ok(Some(Deleted { samples, scores, faces, images, ..Deleted::default() }))
}

/// Deletes a pending or failed sample. Its reference and auxiliary images stay for the other
/// samples of its run.
async fn delete_pending<D: sqlx::Database<Connection: Connection>>(
    mut transaction: sqlx::Transaction<'static, D>,
    id: Uuid,
) -> Result<Option<Deleted>, StoreError> {
    let connection = &mut *transaction;
    let find = |lock: &'static str| {
        let mut sql = Sql::new(
            "SELECT run, image, reason, reference_hashes, auxiliary_hashes
             FROM pending_samples
             WHERE id = ",
        );
        sql.bind(id).push(lock);
        sql
    };
    let rows = connection.fetch(find("")).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let row = Reader::new(row, "pending_samples", id);
    let (run, image) = (row.uuid("run")?, row.hash("image")?);
    // The files first, then the sample, in the same order as recording it.
    let others = spools::lock_image(connection, run, image, spools::Owners::Any).await?;
    let locked = find(connection.lock_for_deletion());
    let rows = connection.fetch(locked).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let row = Reader::new(row, "pending_samples", id);
    let mut images = BTreeSet::from([image]);
    for column in ["reference_hashes", "auxiliary_hashes"] {
        let digits: Vec<String> = row.json(column)?;
        images.extend(digits.iter().filter_map(|hex| ContentHash::from_hex(hex)));
    }
    let failed = row.optional_text("reason")?.is_some();
    let samples = execute(connection, "DELETE FROM pending_samples WHERE id = ", id).await?;
    spools::release_image(connection, run, image, others).await?;
    let faces = delete_unused_images(connection, &images).await?;
    let count = if failed {
        "UPDATE runs SET failed = failed - 1 WHERE id = "
    } else {
        "UPDATE runs SET waiting = waiting - 1 WHERE id = "
    };
    execute(connection, count, run).await?;
    transaction.commit().await?;
    Ok(Some(Deleted { samples, faces, images: images.into_iter().collect(), ..Deleted::default() }))
}

async fn delete_run<P: Connections>(pool: &P, id: Uuid) -> Result<Option<Deleted>, StoreError> {
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;
    if !lock_run_for_deletion(connection, id).await? {
        return Ok(None);
    }
    board::run_deleted(connection, id).await?;
    let deleted = delete_locked_run(connection, id).await?;
    transaction.commit().await?;
    Ok(Some(deleted))
}

/// Deletes the rows of a run that [`lock_run_for_deletion`] has locked.
pub(super) async fn delete_locked_run<C: Connection>(
    connection: &mut C,
    id: Uuid,
) -> Result<Deleted, StoreError> {
    let mut sql = Sql::new("SELECT image FROM samples WHERE run = ");
    sql.bind(id).push(" AND image IS NOT NULL").push(connection.lock_for_deletion());
    let mut images = hashes(connection, sql).await?;
    let mut sql = Sql::new(
        "SELECT image FROM sample_photos WHERE sample IN (SELECT id FROM samples WHERE run = ",
    );
    sql.bind(id).push(")");
    images.extend(hashes(connection, sql).await?);
    for text in [
        "SELECT image FROM pending_samples WHERE run = ",
        "SELECT image FROM kept_files WHERE run = ",
    ] {
        let mut sql = Sql::new(text);
        sql.bind(id);
        images.extend(hashes(connection, sql).await?);
    }

    for text in [
        "DELETE FROM sample_photos WHERE sample IN (SELECT id FROM samples WHERE run = ",
        "DELETE FROM attribute_outcomes WHERE sample IN (SELECT id FROM samples WHERE run = ",
        "DELETE FROM evidence WHERE sample IN (SELECT id FROM samples WHERE run = ",
    ] {
        let mut sql = Sql::new(text);
        sql.bind(id).push(")");
        connection.execute(sql).await?;
    }
    let mut sql =
        Sql::new("DELETE FROM scores WHERE sample IN (SELECT id FROM samples WHERE run = ");
    sql.bind(id).push(")");
    let scores = connection.execute(sql).await?;
    let samples = execute(connection, "DELETE FROM samples WHERE run = ", id).await?
        + execute(connection, "DELETE FROM pending_samples WHERE run = ", id).await?;
    spools::release(connection, Released::OfRun(id)).await?;
    execute(connection, "DELETE FROM summaries WHERE run = ", id).await?;
    slices::forget(connection, id, None).await?;
    preferences::forget(connection, id, None).await?;
    execute(connection, "DELETE FROM runs WHERE id = ", id).await?;
    let faces = delete_unused_images(connection, &images).await?;
    let images = images.into_iter().collect();
    Ok(Deleted { samples, scores, faces, images, ..Deleted::default() })
}

async fn delete_dataset<P: Connections>(
    pool: &P,
    name: &str,
) -> Result<Option<Deleted>, StoreError> {
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;
    let mut sql = Sql::new("SELECT id FROM datasets WHERE name = ");
    sql.bind(name).push(connection.lock_for_deletion());
    let rows = connection.fetch(sql).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let id = Reader::new(row, "datasets", name).uuid("id")?;
    let mut sql = Sql::new("SELECT image FROM photos WHERE dataset = ");
    sql.bind(id);
    let images = hashes(connection, sql).await?;
    let photos = execute(connection, "DELETE FROM photos WHERE dataset = ", id).await?;
    let prompts = execute(connection, "DELETE FROM prompts WHERE dataset = ", id).await?;
    execute(connection, "DELETE FROM datasets WHERE id = ", id).await?;
    let faces = delete_unused_images(connection, &images).await?;
    transaction.commit().await?;
    let images = images.into_iter().collect();
    Ok(Some(Deleted { photos, prompts, faces, images, ..Deleted::default() }))
}

async fn delete_image<P: Connections>(
    pool: &P,
    image: ContentHash,
) -> Result<Option<Deleted>, StoreError> {
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;
    // Before the photos are deleted, because they name the datasets that change.
    let mut sql = Sql::new(
        "UPDATE datasets SET revision = revision + 1
         WHERE id IN (SELECT dataset FROM photos WHERE image = ",
    );
    sql.bind(image).push(")");
    connection.execute(sql).await?;
    let photos = execute(connection, "DELETE FROM photos WHERE image = ", image).await?;
    // A sample that is being accepted with a photo of its run is seen below, or does not find it.
    let mut sql = Sql::new("SELECT image FROM kept_files WHERE image = ");
    sql.bind(image).push(" ORDER BY run, folder").push(connection.lock_for_deletion());
    connection.fetch(sql).await?;
    let waiting = fail_pending_of(connection, image).await?;
    let kept = spools::release(connection, Released::Image(image)).await?;
    // Recordings that did not see this deletion end first, so that what they wrote is deleted too.
    if let Some(exclude) = connection.exclude_recordings() {
        connection.execute(Sql::new(exclude)).await?;
    }
    let faces = execute(connection, "DELETE FROM faces WHERE image = ", image).await?;
    let thumbnails = execute(connection, "DELETE FROM thumbnails WHERE image = ", image).await?;
    // Predictions for the face in it, and evidence, which has the face.
    for text in [
        "DELETE FROM evidence WHERE sample IN (SELECT id FROM samples WHERE image = ",
        "DELETE FROM evidence WHERE sample IN (SELECT sample FROM sample_photos WHERE image = ",
        "DELETE FROM attribute_outcomes WHERE sample IN (SELECT id FROM samples WHERE image = ",
        "DELETE FROM attribute_outcomes
         WHERE sample IN (SELECT sample FROM sample_photos WHERE image = ",
    ] {
        let mut sql = Sql::new(text);
        sql.bind(image).push(")");
        connection.execute(sql).await?;
    }
    // Cached reports with these predictions are now stale.
    let mut sql = Sql::new(
        "UPDATE runs SET revision = revision + 1
         WHERE id IN (SELECT run FROM samples WHERE run IS NOT NULL AND (image = ",
    );
    sql.bind(image).push(" OR id IN (SELECT sample FROM sample_photos WHERE image = ");
    sql.bind(image).push(")))");
    connection.execute(sql).await?;
    let used = unused(connection, &[image]).await?.is_empty();
    note_deleted(connection, &[image]).await?;
    transaction.commit().await?;
    let known = used || photos + faces + kept + thumbnails > 0 || !waiting.is_empty();
    let mut images = waiting;
    images.insert(image);
    let images = images.into_iter().collect();
    Ok(known.then(|| Deleted { photos, faces, images, ..Deleted::default() }))
}

/// Fails the pending samples that need a deleted image. Returns their generated images, which are
/// no longer needed.
async fn fail_pending_of<C: Connection>(
    connection: &mut C,
    image: ContentHash,
) -> Result<BTreeSet<ContentHash>, StoreError> {
    let hex = image.to_hex();
    let pattern = format!("%{hex}%");
    let mut sql = Sql::new(
        "SELECT id, run, image FROM pending_samples WHERE state = 'waiting' AND (image = ",
    );
    sql.bind(hex.as_str()).push(" OR reference_hashes LIKE ").bind(pattern.as_str());
    sql.push(" OR auxiliary_hashes LIKE ").bind(pattern.as_str()).push(")");
    let mut samples = BTreeMap::new();
    for row in &connection.fetch(sql).await? {
        let row = Reader::new(row, "pending_samples", "");
        samples.insert(row.uuid("id")?, (row.uuid("run")?, row.hash("image")?));
    }
    let mut images = BTreeSet::new();
    if samples.is_empty() {
        return Ok(images);
    }
    // All files first, then all samples, in the same order as recording them.
    let files = samples.values().map(|(run, own)| (*run, own.to_hex())).collect();
    spools::lock_images(connection, &files).await?;
    let waiting = pending::lock_pending(connection, &samples.keys().copied().collect()).await?;
    let detail = format!("the image {hex} was deleted on request");
    for (id, of) in samples.into_iter().filter(|(id, _)| waiting.contains(id)) {
        pending::give_up(connection, id, of, "image_deleted", &detail, true).await?;
        images.insert(of.1);
    }
    Ok(images)
}

async fn execute<C: Connection>(
    connection: &mut C,
    text: &'static str,
    argument: impl Into<Argument>,
) -> Result<u64, StoreError> {
    let mut sql = Sql::new(text);
    sql.bind(argument);
    Ok(connection.execute(sql).await?)
}
