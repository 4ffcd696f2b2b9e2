//! What is kept beside scores, for readers: their evidence, and thumbnails of images. Both are
//! personal data with limited retention.

use std::collections::{BTreeMap, HashSet};

use time::OffsetDateTime;
use uuid::{NoContext, Timestamp, Uuid};

use super::Store;
use super::db::{
    Argument, Connection, Connections, ROWS_PER_STATEMENT, Reader, Sql, StoreError, new_id,
    on_backend, read, read_first, to_microseconds, write,
};
use super::sample::{NewSample, NewThumbnail};
use crate::content::ContentHash;

/// Stored evidence of a sample's scores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceRecord {
    /// Digest of the pack that computed the scores.
    pub pack: String,
    /// The evidence, as it was given.
    pub evidence: Vec<u8>,
}

impl Store {
    /// Returns the evidence of a sample's scores, in the order of recording.
    pub async fn evidence(&self, sample: Uuid) -> Result<Vec<EvidenceRecord>, StoreError> {
        let mut sql = Sql::new("SELECT pack, evidence FROM evidence WHERE sample = ");
        sql.bind(sample).push(" ORDER BY id");
        on_backend!(self, pool => {
            read(pool, sql, |row| {
                let row = Reader::new(row, "evidence", sample);
                let evidence = row.optional_bytes("evidence")?.unwrap_or_default();
                Ok(EvidenceRecord { pack: row.text("pack")?, evidence })
            })
            .await
        })
    }

    /// Returns the thumbnail of an image as WebP, if one is stored.
    pub async fn thumbnail(&self, image: ContentHash) -> Result<Option<Vec<u8>>, StoreError> {
        let mut sql = Sql::new("SELECT webp FROM thumbnails WHERE image = ");
        sql.bind(image);
        on_backend!(self, pool => {
            read_first(pool, sql, |row| {
                let row = Reader::new(row, "thumbnails", image.to_hex());
                Ok(row.optional_bytes("webp")?.unwrap_or_default())
            })
            .await
        })
    }

    /// Returns those of these images that have a thumbnail which was stored after a time.
    pub async fn with_thumbnail(
        &self,
        images: &[ContentHash],
        since: OffsetDateTime,
    ) -> Result<HashSet<ContentHash>, StoreError> {
        on_backend!(self, pool => with_thumbnail(pool, images, since).await)
    }

    /// Deletes evidence that was recorded before a time; without a time, all of it. Returns the
    /// number of deleted rows.
    pub async fn purge_evidence(&self, before: Option<OffsetDateTime>) -> Result<u64, StoreError> {
        let mut sql = Sql::new("DELETE FROM evidence");
        if let Some(before) = before {
            sql.push(" WHERE id < ").bind(least_id(before));
        }
        on_backend!(self, pool => write(pool, sql).await)
    }

    /// Deletes thumbnails that were stored before a time; without a time, all of them. Returns
    /// their number.
    pub async fn purge_thumbnails(
        &self,
        before: Option<OffsetDateTime>,
    ) -> Result<u64, StoreError> {
        let mut sql = Sql::new("DELETE FROM thumbnails");
        if let Some(before) = before {
            sql.push(" WHERE created < ").bind(to_microseconds(before));
        }
        on_backend!(self, pool => write(pool, sql).await)
    }
}

/// Returns the least `UUIDv7` of a time.
fn least_id(time: OffsetDateTime) -> Uuid {
    let seconds = u64::try_from(time.unix_timestamp()).unwrap_or_default();
    let id = Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, time.nanosecond()));
    // The first 48 bits are milliseconds, the rest is random.
    let milliseconds = u128::from_be_bytes(*id.as_bytes()) >> 80;
    Uuid::from_u128(milliseconds << 80)
}

async fn with_thumbnail<P: Connections>(
    pool: &P,
    images: &[ContentHash],
    since: OffsetDateTime,
) -> Result<HashSet<ContentHash>, StoreError> {
    let mut found = HashSet::with_capacity(images.len());
    let mut connection = pool.reader().await?;
    for images in images.chunks(ROWS_PER_STATEMENT) {
        let mut sql = Sql::new("SELECT image FROM thumbnails WHERE created > ");
        sql.bind(to_microseconds(since)).push(" AND image IN ");
        sql.tuple(images.iter().map(Argument::from));
        for row in &connection.fetch(sql).await? {
            found.insert(Reader::new(row, "thumbnails", "").hash("image")?);
        }
    }
    Ok(found)
}

/// A sample that was just recorded, with its id in the database.
pub(super) type OfSample<'a> = (Uuid, &'a NewSample);

/// Images with the times at which they were deleted.
type Deletions = BTreeMap<ContentHash, OffsetDateTime>;

/// Writes the extras of recorded samples.
pub(super) async fn insert<C: Connection>(
    connection: &mut C,
    samples: &[OfSample<'_>],
) -> Result<(), StoreError> {
    let deleted = deleted_since(connection, samples).await?;
    insert_evidence(connection, samples, &deleted).await?;
    insert_thumbnails(connection, samples, &deleted).await
}

/// Writes the thumbnails of a sample whose evidence is stored already.
pub(super) async fn insert_again<C: Connection>(
    connection: &mut C,
    sample: OfSample<'_>,
) -> Result<(), StoreError> {
    if sample.1.extras.thumbnails.is_empty() {
        return Ok(());
    }
    let deleted = deleted_since(connection, &[sample]).await?;
    insert_thumbnails(connection, &[sample], &deleted).await
}

async fn insert_evidence<C: Connection>(
    connection: &mut C,
    samples: &[OfSample<'_>],
    deleted: &Deletions,
) -> Result<(), StoreError> {
    // Evidence has the faces of all images.
    let has_all = |sample: &NewSample| {
        let inputs = &sample.inputs;
        let mut images = std::iter::once(&inputs.image).chain(inputs.photos());
        images.all(|image| is_kept(deleted, image, sample))
    };
    let mut samples = samples.to_vec();
    samples.retain(|(_, sample)| sample.extras.evidence.is_some() && has_all(sample));
    if samples.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new("INSERT INTO evidence (id, sample, pack, evidence) VALUES ");
    sql.tuples(samples.iter().map(|(id, sample)| {
        let evidence = sample.extras.evidence.as_deref().unwrap_or_default();
        [
            new_id(to_microseconds(sample.created)).into(),
            (*id).into(),
            sample.pack.digest.as_str().into(),
            evidence.to_vec().into(),
        ]
    }));
    connection.execute(sql).await?;
    Ok(())
}

async fn insert_thumbnails<C: Connection>(
    connection: &mut C,
    samples: &[OfSample<'_>],
    deleted: &Deletions,
) -> Result<(), StoreError> {
    // In this order by all transactions, so that they queue rather than deadlock.
    let thumbnails: BTreeMap<String, (&NewThumbnail, OffsetDateTime)> = samples
        .iter()
        .flat_map(|(_, sample)| {
            let kept = sample.extras.thumbnails.iter();
            kept.filter(|of| is_kept(deleted, &of.image, sample))
                .map(|of| (of.image.to_hex(), (of, sample.created)))
        })
        .collect();
    if thumbnails.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new("INSERT INTO thumbnails (image, webp, created) VALUES ");
    sql.tuples(thumbnails.into_iter().map(|(image, (thumbnail, created))| {
        [image.into(), thumbnail.webp.to_vec().into(), to_microseconds(created).into()]
    }));
    // Needed again: the retention restarts.
    sql.push(
        " ON CONFLICT (image) DO UPDATE SET
             webp = excluded.webp, created = excluded.created",
    );
    connection.execute(sql).await?;
    Ok(())
}

/// Returns whether an image was not deleted since the scoring of a sample began.
fn is_kept(deleted: &Deletions, image: &ContentHash, sample: &NewSample) -> bool {
    deleted.get(image).is_none_or(|at| sample.extras.began.is_none_or(|began| *at < began))
}

/// Returns true if evidence of this pack is stored for the sample.
pub(super) async fn has_evidence<C: Connection>(
    connection: &mut C,
    sample: Uuid,
    pack: &str,
) -> Result<bool, StoreError> {
    let mut sql = Sql::new("SELECT id FROM evidence WHERE sample = ");
    sql.bind(sample).push(" AND pack = ").bind(pack).push(" LIMIT 1");
    Ok(!connection.fetch(sql).await?.is_empty())
}

/// Returns the images that were deleted since the first of these samples with extras began to be
/// scored.
async fn deleted_since<C: Connection>(
    connection: &mut C,
    samples: &[OfSample<'_>],
) -> Result<Deletions, StoreError> {
    let with_extras = samples
        .iter()
        .map(|(_, sample)| &sample.extras)
        .filter(|extras| extras.evidence.is_some() || !extras.thumbnails.is_empty());
    let began = with_extras.filter_map(|extras| extras.began).min();
    let Some(began) = began else { return Ok(Deletions::new()) };
    let mut sql = Sql::new("SELECT image, deleted FROM deleted_images WHERE deleted >= ");
    // A deletion of an image waits for this transaction, so that it sees what is written now.
    sql.bind(to_microseconds(began)).push(connection.lock_shared_deletions());
    let rows = connection.fetch(sql).await?;
    let pair = |row| {
        let row = Reader::new(row, "deleted_images", "");
        Ok((row.hash("image")?, row.time("deleted")?))
    };
    rows.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_before_a_time_are_less_than_its_least_id() {
        let now = OffsetDateTime::now_utc();
        let earlier = now - time::Duration::milliseconds(2);
        assert!(new_id(earlier) < least_id(now) && least_id(now) <= new_id(now));
    }
}
