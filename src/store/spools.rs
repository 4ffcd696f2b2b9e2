//! Spools as the database knows them: the id of the database, the files that runs need, and the
//! files that were released.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use uuid::Uuid;

use super::Store;
use super::db::{
    Argument, Connection, Connections, ROWS_PER_STATEMENT, Reader, Sql, StoreError, on_backend,
    read, read_first, write,
};
use crate::clock;
use crate::content::ContentHash;

impl Store {
    /// Returns the id of the database, which is generated on first use. Every copy and backup of it
    /// shares this id, and no other database has it.
    pub async fn installation(&self) -> Result<String, StoreError> {
        on_backend!(self, pool => installation(pool).await)
    }

    /// Returns some released files of this spool, whichever instance released them.
    pub async fn released_files(&self, spool: &str) -> Result<Vec<ContentHash>, StoreError> {
        let mut sql = Sql::new("SELECT image FROM released_files WHERE folder = ");
        sql.bind(spool).push(" ORDER BY image LIMIT ").bind(ROWS_PER_STATEMENT as i64);
        on_backend!(self, pool => {
            read(pool, sql, |row| Reader::new(row, "released_files", spool).hash("image")).await
        })
    }

    /// Removes these [`released_files`](Self::released_files): they have been deleted, or are
    /// needed again.
    pub async fn forget_released(
        &self,
        spool: &str,
        files: &[ContentHash],
    ) -> Result<(), StoreError> {
        if files.is_empty() {
            return Ok(());
        }
        let mut sql = Sql::new("DELETE FROM released_files WHERE folder = ");
        sql.bind(spool).push(" AND image IN ");
        sql.tuple(files.iter().map(Argument::from));
        on_backend!(self, pool => write(pool, sql).await).map(drop)
    }

    /// Returns the images among `photos` that this spool does not store for the run.
    pub async fn unknown_photos(
        &self,
        run: Uuid,
        spool: &str,
        photos: &BTreeSet<ContentHash>,
    ) -> Result<Vec<ContentHash>, StoreError> {
        on_backend!(self, pool => {
            unknown(&mut *pool.reader().await?, (run, spool), photos, "").await
        })
    }

    /// Returns the total size in bytes of the files that a key sent and a run still needs, in all
    /// spools.
    pub async fn stored_bytes(&self, key: Uuid) -> Result<u64, StoreError> {
        let mut sql =
            Sql::new("SELECT CAST(COALESCE(SUM(bytes), 0) AS bigint) AS stored FROM kept_files");
        sql.push(" WHERE key_id = ").bind(key);
        let stored = on_backend!(self, pool => {
            read_first(pool, sql, |row| Reader::new(row, "kept_files", key).int("stored")).await
        })?;
        Ok(stored.unwrap_or_default())
    }

    /// Returns the files among `files` that some run needs in this spool.
    pub async fn needed_files(
        &self,
        spool: &str,
        files: &[ContentHash],
    ) -> Result<HashSet<ContentHash>, StoreError> {
        on_backend!(self, pool => needed(pool, spool, files).await)
    }
}

async fn installation<P: Connections>(pool: &P) -> Result<String, StoreError> {
    let known = async || {
        let sql = Sql::new("SELECT id FROM installation");
        read_first(pool, sql, |row| Reader::new(row, "installation", "").text("id")).await
    };
    if let Some(id) = known().await? {
        return Ok(id);
    }
    let mut sql = Sql::new("INSERT INTO installation (one, id, created) VALUES ");
    let (id, now) = (Uuid::now_v7().to_string(), clock::now());
    sql.tuple([1_i64.into(), id.into(), now.into()]);
    // Another instance may start at the same moment: the first id inserted wins.
    sql.push(" ON CONFLICT (one) DO NOTHING");
    write(pool, sql).await?;
    known().await?.ok_or(StoreError::Contended(sqlx::Error::RowNotFound))
}

/// Files that are released together.
#[derive(Clone, Copy)]
pub(super) enum Released {
    /// All files of a run.
    OfRun(Uuid),
    /// One image, of all runs.
    Image(ContentHash),
}

/// Releases files and notifies the owners of their spools. Returns the number of deleted rows.
pub(super) async fn release<C: Connection>(
    connection: &mut C,
    files: Released,
) -> Result<u64, StoreError> {
    let condition = |mut sql: Sql| {
        match files {
            Released::OfRun(run) => sql.push("WHERE run = ").bind(run),
            Released::Image(image) => sql.push("WHERE image = ").bind(image),
        };
        sql
    };
    let mut sql = condition(releasing("SELECT DISTINCT"));
    // Sorted, so that two transactions never wait for each other.
    sql.push(" ORDER BY folder, image ON CONFLICT DO NOTHING");
    connection.execute(sql).await?;
    Ok(connection.execute(condition(Sql::new("DELETE FROM kept_files "))).await?)
}

/// Records the files that the run needs from now on. If two keys send the same file, it counts for
/// the first.
pub(super) async fn keep_files<C: Connection>(
    connection: &mut C,
    spool: &str,
    run: Uuid,
    files: &[(ContentHash, u64)],
    photos: &BTreeSet<ContentHash>,
    key: Option<Uuid>,
) -> Result<(), StoreError> {
    let mut sql =
        Sql::new("INSERT INTO kept_files (folder, run, image, photo, bytes, key_id) VALUES ");
    // Sorted and unique: rows are locked in order, and no statement touches a row twice.
    let files: BTreeMap<_, _> = files.iter().copied().collect();
    sql.tuples(files.into_iter().map(|(image, bytes)| {
        [
            spool.into(),
            run.into(),
            image.into(),
            i64::from(photos.contains(&image)).into(),
            (bytes as i64).into(),
            key.into(),
        ]
    }));
    sql.push(
        " ON CONFLICT (folder, run, image) DO UPDATE SET
             photo = CASE WHEN excluded.photo > kept_files.photo
                          THEN excluded.photo ELSE kept_files.photo END",
    );
    connection.execute(sql).await?;
    Ok(())
}

/// Returns the images among `photos` that are not stored for the run as reference or auxiliary
/// images. `lock` is the locking clause for those that are.
pub(super) async fn unknown<C: Connection>(
    connection: &mut C,
    (run, spool): (Uuid, &str),
    photos: &BTreeSet<ContentHash>,
    lock: &'static str,
) -> Result<Vec<ContentHash>, StoreError> {
    if photos.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::new("SELECT image FROM kept_files WHERE photo = 1 AND folder = ");
    sql.bind(spool).push(" AND run = ").bind(run).push(" AND image IN ");
    sql.tuple(photos.iter().map(Argument::from)).push(lock);
    let rows = connection.fetch(sql).await?;
    let known = rows.iter().map(|row| Reader::new(row, "kept_files", run).hash("image"));
    let known: HashSet<_> = known.collect::<Result<_, _>>()?;
    Ok(photos.iter().copied().filter(|photo| !known.contains(photo)).collect())
}

async fn needed<P: Connections>(
    pool: &P,
    spool: &str,
    files: &[ContentHash],
) -> Result<HashSet<ContentHash>, StoreError> {
    let mut needed = HashSet::new();
    let mut connection = pool.reader().await?;
    for files in files.chunks(ROWS_PER_STATEMENT) {
        let mut sql = Sql::new("SELECT DISTINCT image FROM kept_files WHERE folder = ");
        sql.bind(spool).push(" AND image IN ");
        sql.tuple(files.iter().map(Argument::from));
        for row in &connection.fetch(sql).await? {
            needed.insert(Reader::new(row, "kept_files", "").hash("image")?);
        }
    }
    Ok(needed)
}

/// Instances that may release a sample's file, which decides who must be notified.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Owners {
    /// Only the sample's own instance, which deletes its file without a notification.
    ThisOne,
    /// Any instance.
    Any,
}

/// Locks the rows of a generated image of a run. Returns `true` if other instances store the image
/// and must be notified when it is released.
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
    sql.bind(run)
        .push(" AND image = ")
        .bind(image)
        .push(" ORDER BY folder")
        .push(connection.lock());
    let spools = connection.fetch(sql).await?.len();
    // The sample's own instance owns one of the folders, and needs no notification. A bucket is one
    // spool.
    Ok(spools > usize::from(owners == Owners::ThisOne))
}

/// Releases a generated image if no pending sample of its run needs it. `others` is the result of
/// [`lock_image`]: if it is set, the instances that store the image are notified.
///
/// The rows must have been locked by an earlier statement: these then see every accepted sample
/// with an equal image.
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

/// Begins the statement that releases selected rows of `kept_files` now.
fn releasing(select: &'static str) -> Sql {
    let mut sql = Sql::new("INSERT INTO released_files (folder, image, released) ");
    sql.push(select).push(" folder, image, ");
    sql.bind(clock::now()).push(" FROM kept_files ");
    sql
}

/// Condition on spooled files: no pending sample of their run needs them.
const UNNEEDED: &str =
    " AND NOT EXISTS (SELECT 1 FROM pending_samples WHERE pending_samples.run = kept_files.run
     AND pending_samples.image = kept_files.image AND pending_samples.state = 'waiting')";

/// Notifies the instances that store an image that it is released.
async fn note_release<C: Connection>(
    connection: &mut C,
    run: Uuid,
    image: &str,
) -> Result<(), StoreError> {
    let mut sql = releasing("SELECT");
    sql.push("WHERE photo = 0 AND run = ")
        .bind(run)
        .push(" AND image = ")
        .bind(image)
        .push(UNNEEDED);
    sql.push(" ORDER BY folder, image ON CONFLICT DO NOTHING");
    connection.execute(sql).await?;
    Ok(())
}

/// Locks images by run as [`lock_image`] does, and returns those that other instances store too.
pub(super) async fn lock_images<C: Connection>(
    connection: &mut C,
    images: &BTreeSet<(Uuid, String)>,
) -> Result<Vec<(Uuid, String)>, StoreError> {
    let mut sql =
        Sql::new("SELECT run, image FROM kept_files WHERE photo = 0 AND (run, image) IN (VALUES ");
    pairs(&mut sql, images).push(") ORDER BY run, image, folder").push(connection.lock());
    let mut others = Vec::new();
    let mut last = None;
    for row in &connection.fetch(sql).await? {
        let row = Reader::new(row, "kept_files", "");
        let found = (row.uuid("run")?, row.text("image")?);
        // One folder per instance (a bucket is one spool): from the second one on, another instance
        // must be notified.
        if last.as_ref() == Some(&found) && others.last() != Some(&found) {
            others.push(found.clone());
        }
        last = Some(found);
    }
    Ok(others)
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
