//! Faces found in images: personal data with limited retention, deleted on request.

use std::collections::HashMap;

use time::OffsetDateTime;
use uuid::Uuid;

use super::db::{Connection, Connections, Reader, Sql, StoreError, to_microseconds};
use crate::content::ContentHash;

/// Images per statement: SQLite accepts 32,766 arguments, and shorter statements are parsed faster.
const AT_ONCE: usize = 500;

/// Faces that the face graphs found in an image, as bytes that the store does not interpret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FacesRecord {
    /// Hash of the image's file.
    pub image: ContentHash,
    /// Digest of the graphs and their preprocessing.
    pub graphs: ContentHash,
    /// Boxes, probabilities, landmarks and embeddings.
    pub faces: Vec<u8>,
    /// Time of the search, UTC, to the microsecond.
    pub created: OffsetDateTime,
}

pub(super) async fn save<P: Connections>(
    pool: &P,
    record: &FacesRecord,
    began: Option<OffsetDateTime>,
) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    if let Some(began) = began {
        let mut sql = Sql::new("SELECT image FROM deleted_images WHERE image = ");
        sql.bind(record.image.to_hex()).push(" AND deleted >= ").bind(to_microseconds(began));
        if !transaction.fetch(sql).await?.is_empty() {
            return Ok(());
        }
    }
    let mut sql = Sql::new("INSERT INTO faces (image, graphs, faces, created) VALUES ");
    sql.tuple([
        record.image.to_hex().into(),
        record.graphs.to_hex().into(),
        record.faces.clone().into(),
        to_microseconds(record.created).into(),
    ]);
    // Found again: the same faces, whose retention restarts.
    sql.push(" ON CONFLICT (image, graphs) DO UPDATE SET faces = excluded.faces, created = excluded.created");
    transaction.execute(sql).await?;
    transaction.commit().await?;
    Ok(())
}

pub(super) async fn load<P: Connections>(
    pool: &P,
    images: &[ContentHash],
    graphs: ContentHash,
) -> Result<HashMap<ContentHash, Vec<u8>>, StoreError> {
    let mut found = HashMap::with_capacity(images.len());
    let mut connection = pool.reader().await?;
    for images in images.chunks(AT_ONCE) {
        let mut sql = Sql::new("SELECT image, faces FROM faces WHERE graphs = ");
        sql.bind(graphs.to_hex()).push(" AND image IN ");
        sql.tuple(images.iter().map(|image| image.to_hex().into()));
        for row in &connection.fetch(sql).await? {
            let row = Reader::new(row, "faces", "");
            found.insert(row.hash("image")?, row.optional_bytes("faces")?.unwrap_or_default());
        }
    }
    Ok(found)
}

/// Owner of a set of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImagesOf {
    /// A run: the generated, reference and auxiliary images of its samples.
    Run(Uuid),
    /// A dataset: its photos.
    Dataset(Uuid),
}

/// Fingerprint of the faces that are stored for a set of images. Every change makes it differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FacesState {
    /// Number of images with stored faces.
    pub images: u64,
    /// Time of the newest search. An addition is later than all others, and a deletion lowers the
    /// count.
    pub newest: Option<OffsetDateTime>,
}

pub(super) async fn state<P: Connections>(
    pool: &P,
    of: ImagesOf,
    graphs: ContentHash,
) -> Result<FacesState, StoreError> {
    let mut sql = Sql::new("SELECT COUNT(*) AS images, MAX(created) AS newest FROM faces WHERE graphs = ");
    sql.bind(graphs.to_hex()).push(" AND image IN (");
    match of {
        ImagesOf::Run(run) => {
            sql.push("SELECT image FROM samples WHERE run = ").bind(run);
            sql.push(" UNION SELECT sample_photos.image FROM sample_photos JOIN samples ON samples.id = sample_photos.sample");
            sql.push(" WHERE samples.run = ").bind(run).push(")");
        }
        ImagesOf::Dataset(dataset) => {
            sql.push("SELECT image FROM photos WHERE dataset = ").bind(dataset).push(")");
        }
    }
    let rows = pool.reader().await?.fetch(sql).await?;
    let row = rows.first().ok_or(StoreError::Contended(sqlx::Error::RowNotFound))?;
    let row = Reader::new(row, "faces", "");
    Ok(FacesState { images: row.int("images")?, newest: row.optional_time("newest")? })
}

/// Deletes faces that were found before `before`, or all faces; enrolled photos keep theirs unless
/// all are deleted.
pub(super) async fn purge<P: Connections>(
    pool: &P,
    before: Option<OffsetDateTime>,
) -> Result<u64, StoreError> {
    let mut sql = Sql::new("DELETE FROM faces");
    if let Some(before) = before {
        sql.push(" WHERE created < ").bind(to_microseconds(before));
        sql.push(" AND NOT EXISTS (SELECT 1 FROM photos WHERE photos.image = faces.image)");
    }
    let mut transaction = pool.begin().await?;
    let gone = transaction.execute(sql).await?;
    transaction.commit().await?;
    Ok(gone)
}
