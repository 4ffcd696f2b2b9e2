//! Deletion: a sample, a run, a dataset or everything derived from one picture, each in one transaction.
//!
//! Faces of a picture go with the last sample or enrolled photo that stands on it, so that another run that shares a
//! photo keeps what it needs. Deleting by picture takes them whoever else stands on it.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::StoreError;
use super::record::until_uncontended;
use super::sql::{Connection, Connections, Reader, Sql};
use crate::content::ContentHash;

/// What was deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Samples.
    pub samples: u64,
    /// Their scores.
    pub scores: u64,
    /// Photos that were enrolled in a dataset.
    pub photos: u64,
    /// Prompts that were registered in a dataset.
    pub prompts: u64,
    /// Pictures whose faces were kept, counted once for each set of graphs that had found them.
    pub faces: u64,
    /// Every picture that the deleted rows stood on: what is in memory of them shall go too.
    pub pictures: Vec<ContentHash>,
}

pub(super) async fn sample<P: Connections>(pool: &P, id: Uuid) -> Result<Option<Deleted>, StoreError> {
    until_uncontended(id, || delete_sample(pool, id)).await
}

pub(super) async fn run<P: Connections>(pool: &P, id: Uuid) -> Result<Option<Deleted>, StoreError> {
    until_uncontended(id, || delete_run(pool, id)).await
}

pub(super) async fn dataset<P: Connections>(pool: &P, name: &str) -> Result<Option<Deleted>, StoreError> {
    until_uncontended(Uuid::now_v7(), || delete_dataset(pool, name)).await
}

pub(super) async fn picture<P: Connections>(
    pool: &P,
    image: ContentHash,
) -> Result<Option<Deleted>, StoreError> {
    until_uncontended(Uuid::now_v7(), || delete_picture(pool, image)).await
}

async fn delete_sample<P: Connections>(pool: &P, id: Uuid) -> Result<Option<Deleted>, StoreError> {
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;
    let mut sql = Sql::new("SELECT image, run FROM samples WHERE id = ");
    sql.bind(id).push(deletion_lock(connection));
    let rows = connection.fetch(sql).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let row = Reader::new(row, "samples", id);
    let (image, run) = (row.hash("image")?, row.optional_uuid("run")?);

    let mut sql = Sql::new("SELECT image FROM sample_photos WHERE sample = ");
    sql.bind(id);
    let pictures = hashes(connection, sql).await?.into_iter().chain([image]).collect();
    let mut sql = Sql::new("SELECT DISTINCT metric, pack, metric_version FROM scores WHERE sample = ");
    sql.bind(id).push(" ORDER BY metric, pack, metric_version");
    let mut counted = Vec::new();
    for row in &connection.fetch(sql).await? {
        let row = Reader::new(row, "scores", format!("of sample {id}"));
        counted.push((row.text("metric")?, row.text("pack")?, row.int::<u32>("metric_version")?));
    }
    execute(connection, "DELETE FROM sample_photos WHERE sample = ", id).await?;
    let scores = execute(connection, "DELETE FROM scores WHERE sample = ", id).await?;
    let samples = execute(connection, "DELETE FROM samples WHERE id = ", id).await?;
    if let Some(run) = run {
        for (metric, pack, version) in &counted {
            recompute(connection, run, metric, pack, *version).await?;
        }
    }
    let faces = delete_unused_faces(connection, &pictures).await?;
    transaction.commit().await?;
    let pictures = pictures.into_iter().collect();
    Ok(Some(Deleted { samples, scores, faces, pictures, ..Deleted::default() }))
}

async fn delete_run<P: Connections>(pool: &P, id: Uuid) -> Result<Option<Deleted>, StoreError> {
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;
    let mut sql = Sql::new("SELECT id FROM runs WHERE id = ");
    sql.bind(id).push(deletion_lock(connection));
    if connection.fetch(sql).await?.is_empty() {
        return Ok(None);
    }
    let mut sql = Sql::new("SELECT image FROM samples WHERE run = ");
    sql.bind(id).push(deletion_lock(connection));
    let mut pictures = hashes(connection, sql).await?;
    let mut sql =
        Sql::new("SELECT image FROM sample_photos WHERE sample IN (SELECT id FROM samples WHERE run = ");
    sql.bind(id).push(")");
    pictures.extend(hashes(connection, sql).await?);

    let of_samples = |text| {
        let mut sql = Sql::new(text);
        sql.bind(id).push(")");
        sql
    };
    let photos = of_samples("DELETE FROM sample_photos WHERE sample IN (SELECT id FROM samples WHERE run = ");
    let scores = of_samples("DELETE FROM scores WHERE sample IN (SELECT id FROM samples WHERE run = ");
    connection.execute(photos).await?;
    let scores = connection.execute(scores).await?;
    let samples = execute(connection, "DELETE FROM samples WHERE run = ", id).await?;
    execute(connection, "DELETE FROM summaries WHERE run = ", id).await?;
    execute(connection, "DELETE FROM runs WHERE id = ", id).await?;
    let faces = delete_unused_faces(connection, &pictures).await?;
    transaction.commit().await?;
    let pictures = pictures.into_iter().collect();
    Ok(Some(Deleted { samples, scores, faces, pictures, ..Deleted::default() }))
}

async fn delete_dataset<P: Connections>(pool: &P, name: &str) -> Result<Option<Deleted>, StoreError> {
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;
    let mut sql = Sql::new("SELECT id FROM datasets WHERE name = ");
    sql.bind(name).push(deletion_lock(connection));
    let rows = connection.fetch(sql).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let id = Reader::new(row, "datasets", name).uuid("id")?;
    let mut sql = Sql::new("SELECT image FROM photos WHERE dataset = ");
    sql.bind(id);
    let pictures = hashes(connection, sql).await?;
    let photos = execute(connection, "DELETE FROM photos WHERE dataset = ", id).await?;
    let prompts = execute(connection, "DELETE FROM prompts WHERE dataset = ", id).await?;
    execute(connection, "DELETE FROM datasets WHERE id = ", id).await?;
    let faces = delete_unused_faces(connection, &pictures).await?;
    transaction.commit().await?;
    let pictures = pictures.into_iter().collect();
    Ok(Some(Deleted { photos, prompts, faces, pictures, ..Deleted::default() }))
}

async fn delete_picture<P: Connections>(pool: &P, image: ContentHash) -> Result<Option<Deleted>, StoreError> {
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;
    // Before the photos are gone, since these name the datasets that change.
    let mut sql = Sql::new(
        "UPDATE datasets SET revision = revision + 1 WHERE id IN (SELECT dataset FROM photos WHERE image = ",
    );
    sql.bind(image.to_hex()).push(")");
    connection.execute(sql).await?;
    let photos = execute(connection, "DELETE FROM photos WHERE image = ", image.to_hex()).await?;
    let faces = execute(connection, "DELETE FROM faces WHERE image = ", image.to_hex()).await?;
    let mut sql = Sql::new("SELECT CASE WHEN EXISTS (SELECT 1 FROM samples WHERE image = ");
    sql.bind(image.to_hex()).push(") OR EXISTS (SELECT 1 FROM sample_photos WHERE image = ");
    sql.bind(image.to_hex()).push(") THEN CAST(1 AS bigint) ELSE CAST(0 AS bigint) END AS used");
    let rows = connection.fetch(sql).await?;
    let used = match rows.first() {
        Some(row) => Reader::new(row, "samples", image.to_hex()).int::<u8>("used")? == 1,
        None => false,
    };
    transaction.commit().await?;
    let known = used || photos + faces > 0;
    Ok(known.then(|| Deleted { photos, faces, pictures: vec![image], ..Deleted::default() }))
}

fn deletion_lock<C: Connection>(_: &C) -> &'static str {
    C::LOCK_FOR_DELETION
}

async fn execute<C: Connection>(
    connection: &mut C,
    text: &'static str,
    argument: impl Into<super::sql::Argument>,
) -> Result<u64, StoreError> {
    let mut sql = Sql::new(text);
    sql.bind(argument);
    Ok(connection.execute(sql).await?)
}

async fn hashes<C: Connection>(connection: &mut C, sql: Sql) -> Result<BTreeSet<ContentHash>, StoreError> {
    connection.fetch(sql).await?.iter().map(|row| Reader::new(row, "samples", "").hash("image")).collect()
}

/// Deletes the faces of those pictures that no sample and no enrolled photo stands on any more.
async fn delete_unused_faces<C: Connection>(
    connection: &mut C,
    pictures: &BTreeSet<ContentHash>,
) -> Result<u64, StoreError> {
    let mut gone = 0;
    for picture in pictures {
        let mut sql = Sql::new("DELETE FROM faces WHERE image = ");
        sql.bind(picture.to_hex());
        sql.push(
            " AND NOT EXISTS (SELECT 1 FROM samples WHERE samples.image = faces.image)
              AND NOT EXISTS (SELECT 1 FROM sample_photos WHERE sample_photos.image = faces.image)
              AND NOT EXISTS (SELECT 1 FROM photos WHERE photos.image = faces.image)",
        );
        gone += connection.execute(sql).await?;
    }
    Ok(gone)
}

/// Computes a summary anew from the scores that remain, so that nothing of a deleted one is left in its sums. The
/// summary's row is locked first: whoever adds a score meanwhile waits for it and adds to the result.
async fn recompute<C: Connection>(
    connection: &mut C,
    run: Uuid,
    metric: &str,
    pack: &str,
    version: u32,
) -> Result<(), StoreError> {
    let of = |sql: &mut Sql, of: &'static str| {
        sql.push(of).bind(run).push(" AND metric = ").bind(metric).push(" AND pack = ").bind(pack);
        sql.push(" AND metric_version = ").bind(version);
    };
    let mut sql = Sql::new("SELECT n FROM summaries");
    of(&mut sql, " WHERE run = ");
    sql.push(C::LOCK);
    connection.fetch(sql).await?;

    let mut sql = Sql::new("SELECT value FROM scores JOIN samples ON samples.id = scores.sample");
    of(&mut sql, " WHERE samples.run = ");
    let rows = connection.fetch(sql).await?;
    let values: Vec<Option<f64>> = rows
        .iter()
        .map(|row| Reader::new(row, "scores", metric).optional_real("value"))
        .collect::<Result<_, _>>()?;
    let numbers: Vec<f64> = values.iter().copied().flatten().collect();
    if values.is_empty() {
        let mut sql = Sql::new("DELETE FROM summaries");
        of(&mut sql, " WHERE run = ");
        connection.execute(sql).await?;
        return Ok(());
    }
    let pivot = numbers.first().copied().unwrap_or(0.0);
    let mut sql = Sql::new("UPDATE summaries SET n = ");
    sql.bind(numbers.len() as i64).push(", nulls = ").bind((values.len() - numbers.len()) as i64);
    sql.push(", pivot = ").bind(pivot);
    sql.push(", total = ").bind(numbers.iter().map(|number| number - pivot).sum::<f64>());
    sql.push(", squares = ").bind(numbers.iter().map(|number| (number - pivot).powi(2)).sum::<f64>());
    of(&mut sql, " WHERE run = ");
    connection.execute(sql).await?;
    Ok(())
}
