//! Faces found in pictures: personal data, kept for a limited time and deleted on request.

use std::collections::HashMap;

use time::OffsetDateTime;

use super::StoreError;
use super::record::to_microseconds;
use super::sql::{Connection, Connections, Reader, Sql};
use crate::content::ContentHash;

/// Pictures asked for in one statement: SQLite takes 32,766 arguments, and shorter texts are parsed sooner.
const AT_ONCE: usize = 500;

/// What the face graphs found in a picture, as bytes that the store does not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FacesRecord {
    /// The hash of the picture's file.
    pub image: ContentHash,
    /// The digest of the graphs and their preprocessing.
    pub graphs: ContentHash,
    /// Boxes, probabilities, landmarks and embeddings.
    pub faces: Vec<u8>,
    /// When they were found, UTC, to the microsecond.
    pub created: OffsetDateTime,
}

pub(super) async fn save<P: Connections>(pool: &P, record: &FacesRecord) -> Result<(), StoreError> {
    let mut sql = Sql::new("INSERT INTO faces (image, graphs, faces, created) VALUES ");
    sql.tuple([
        record.image.to_hex().into(),
        record.graphs.to_hex().into(),
        record.faces.clone().into(),
        to_microseconds(record.created).into(),
    ]);
    // Found again: the same faces, whose time begins anew.
    sql.push(" ON CONFLICT (image, graphs) DO UPDATE SET faces = excluded.faces, created = excluded.created");
    let mut transaction = pool.begin().await?;
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

/// Deletes what was found before `before`, or everything; enrolled photos keep theirs unless everything goes.
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
