//! Images that nothing refers to any more, and the records of deleted images.

use std::collections::BTreeSet;

use time::OffsetDateTime;

use super::Store;
use super::db::{
    Argument, Connection, Connections, ROWS_PER_STATEMENT, Reader, Row, Sql, StoreError,
    on_backend, read, to_microseconds, write,
};
use crate::clock;
use crate::content::ContentHash;

impl Store {
    /// Returns the images deleted since a time, each with the time of its deletion.
    pub async fn deleted_images(
        &self,
        since: OffsetDateTime,
    ) -> Result<Vec<(ContentHash, OffsetDateTime)>, StoreError> {
        let mut sql = Sql::new("SELECT image, deleted FROM deleted_images WHERE deleted >= ");
        sql.bind(to_microseconds(since));
        on_backend!(self, pool => read(pool, sql, deleted_image).await)
    }

    /// Removes the records of images deleted before a time.
    pub async fn forget_deletions(&self, before: OffsetDateTime) -> Result<(), StoreError> {
        on_backend!(self, pool => forget_deletions(pool, before).await)
    }
}

/// Deletes the faces and thumbnails of those images that no sample, enrolled photo or unfinished
/// run refers to any more. Returns the number of images with faces.
pub(super) async fn delete_unused_images<C: Connection>(
    connection: &mut C,
    images: &BTreeSet<ContentHash>,
) -> Result<u64, StoreError> {
    let mut gone = 0;
    for images in images.iter().copied().collect::<Vec<_>>().chunks(ROWS_PER_STATEMENT) {
        // The last two references to an image may be deleted at the same time. One of the
        // deletions waits here, and then sees that the other reference is gone. Recordings do not
        // wait.
        let lock = connection.lock();
        lock_faces(connection, images, lock).await?;
        let candidates = unused(connection, images).await?;
        if candidates.is_empty() {
            continue;
        }
        // A pending sample that is recorded from now on waits, and then finds that its faces are
        // gone. Those that were recorded before are seen by the second look.
        let lock = connection.lock_for_deletion();
        lock_faces(connection, &candidates, lock).await?;
        let unused = unused(connection, &candidates).await?;
        if unused.is_empty() {
            continue;
        }
        let mut sql = Sql::new("DELETE FROM faces WHERE image IN ");
        sql.tuple(unused.iter().map(Argument::from));
        gone += connection.execute(sql).await?;
        let mut sql = Sql::new("DELETE FROM thumbnails WHERE image IN ");
        sql.tuple(unused.iter().map(Argument::from));
        connection.execute(sql).await?;
        note_deleted(connection, &unused).await?;
    }
    Ok(gone)
}

async fn lock_faces<C: Connection>(
    connection: &mut C,
    images: &[ContentHash],
    lock: &'static str,
) -> Result<(), StoreError> {
    let mut sql = Sql::new("SELECT image FROM faces WHERE image IN ");
    sql.tuple(images.iter().map(Argument::from));
    // In this order by all transactions, so that they queue rather than deadlock.
    sql.push(" ORDER BY image").push(lock);
    connection.fetch(sql).await?;
    Ok(())
}

/// Returns those images that nothing refers to.
pub(super) async fn unused<C: Connection>(
    connection: &mut C,
    images: &[ContentHash],
) -> Result<Vec<ContentHash>, StoreError> {
    let mut unused: BTreeSet<ContentHash> = images.iter().copied().collect();
    for text in [
        // Pending samples, and reference images on which a run's probes will be fitted. First,
        // because a pending sample becomes one of the others.
        "SELECT DISTINCT image FROM kept_files WHERE image IN ",
        "SELECT DISTINCT image FROM samples WHERE image IN ",
        "SELECT DISTINCT image FROM sample_photos WHERE image IN ",
        "SELECT DISTINCT image FROM photos WHERE image IN ",
    ] {
        let mut sql = Sql::new(text);
        sql.tuple(images.iter().map(Argument::from));
        for used in hashes(connection, sql).await? {
            unused.remove(&used);
        }
    }
    Ok(unused.into_iter().collect())
}

/// Records that images were deleted: every instance evicts them, and a search that began earlier
/// does not store its result.
pub(super) async fn note_deleted<C: Connection>(
    connection: &mut C,
    images: &[ContentHash],
) -> Result<(), StoreError> {
    let now = clock::now();
    let mut sql = Sql::new("INSERT INTO deleted_images (image, deleted) VALUES ");
    sql.tuples(images.iter().map(|image| [image.into(), now.into()]));
    sql.push(" ON CONFLICT (image) DO UPDATE SET deleted = excluded.deleted");
    connection.execute(sql).await?;
    Ok(())
}

fn deleted_image<R: Row>(row: &R) -> Result<(ContentHash, OffsetDateTime), StoreError> {
    let row = Reader::new(row, "deleted_images", "");
    Ok((row.hash("image")?, row.time("deleted")?))
}

async fn forget_deletions<P: Connections>(
    pool: &P,
    before: OffsetDateTime,
) -> Result<(), StoreError> {
    let old = |text| {
        let mut sql = Sql::new(text);
        sql.bind(to_microseconds(before));
        sql
    };
    // Read first, so that the single writer is not occupied for nothing.
    let some = old("SELECT image FROM deleted_images WHERE deleted < ");
    if pool.reader().await?.fetch(some).await?.is_empty() {
        return Ok(());
    }
    write(pool, old("DELETE FROM deleted_images WHERE deleted < ")).await.map(drop)
}

/// Runs a query for images.
pub(super) async fn hashes<C: Connection>(
    connection: &mut C,
    sql: Sql,
) -> Result<BTreeSet<ContentHash>, StoreError> {
    connection
        .fetch(sql)
        .await?
        .iter()
        .map(|row| Reader::new(row, "samples", "").hash("image"))
        .collect()
}
