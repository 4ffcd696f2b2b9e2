//! Faces found in images: personal data with limited retention, deleted on request.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::db::{
    Connection, Connections, Reader, Row, Sql, StoreError, on_backend, read_first, to_microseconds,
    write,
};
use super::sample::NeededFaces;
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

impl Store {
    /// Stores the faces that the face graphs found in an image.
    pub async fn save_faces(&self, record: &FacesRecord) -> Result<(), StoreError> {
        on_backend!(self, pool => save(pool, record, None).await)
    }

    /// Like [`save_faces`](Self::save_faces), for a search that began at this time: nothing is
    /// stored for an image that any instance has deleted since, unless a pending sample, an
    /// unfinished run or a dataset needs it. Its owner has sent it again then.
    pub async fn save_found_faces(
        &self,
        record: &FacesRecord,
        began: OffsetDateTime,
    ) -> Result<(), StoreError> {
        on_backend!(self, pool => save(pool, record, Some(began)).await)
    }

    /// Returns the stored faces of these images. Images without any are missing from the result.
    pub async fn faces(
        &self,
        images: &[ContentHash],
        graphs: ContentHash,
    ) -> Result<HashMap<ContentHash, Vec<u8>>, StoreError> {
        on_backend!(self, pool => load(pool, images, graphs).await)
    }

    /// Returns a fingerprint of the faces that these graphs found in images of a run or a dataset:
    /// it changes when any are added or deleted.
    pub async fn faces_state(
        &self,
        of: ImagesOf,
        graphs: ContentHash,
    ) -> Result<FacesState, StoreError> {
        let mut sql = Sql::new(
            "SELECT COUNT(*) AS images, MAX(created) AS newest FROM faces WHERE graphs = ",
        );
        sql.bind(graphs.to_hex()).push(" AND image IN (");
        match of {
            ImagesOf::Run(run) => {
                sql.push("SELECT image FROM samples WHERE run = ").bind(run);
                sql.push(
                    " UNION
                     SELECT sample_photos.image FROM sample_photos
                     JOIN samples ON samples.id = sample_photos.sample",
                );
                sql.push(" WHERE samples.run = ").bind(run).push(")");
            }
            ImagesOf::Dataset(dataset) => {
                sql.push("SELECT image FROM photos WHERE dataset = ").bind(dataset).push(")");
            }
        }
        let state = on_backend!(self, pool => {
            read_first(pool, sql, |row| faces_state(&Reader::new(row, "faces", ""))).await
        });
        state?.ok_or(StoreError::Contended(sqlx::Error::RowNotFound))
    }

    /// Deletes the faces that were found before a time, except those of enrolled photos; without a
    /// time, all faces. Returns the number of deleted records.
    pub async fn purge_faces(&self, before: Option<OffsetDateTime>) -> Result<u64, StoreError> {
        let mut sql = Sql::new("DELETE FROM faces");
        if let Some(before) = before {
            sql.push(" WHERE created < ").bind(to_microseconds(before));
            sql.push(" AND NOT EXISTS (SELECT 1 FROM photos WHERE photos.image = faces.image)");
        }
        on_backend!(self, pool => write(pool, sql).await)
    }
}

async fn save<P: Connections>(
    pool: &P,
    record: &FacesRecord,
    began: Option<OffsetDateTime>,
) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    if let Some(began) = began {
        let mut sql = Sql::new("SELECT image FROM deleted_images WHERE image = ");
        sql.bind(record.image.to_hex()).push(" AND deleted >= ").bind(to_microseconds(began));
        // The times come from the clocks of two instances, and can be wrong. These rows cannot.
        sql.push(" AND NOT EXISTS (SELECT 1 FROM kept_files WHERE kept_files.image = ");
        sql.bind(record.image.to_hex());
        sql.push(") AND NOT EXISTS (SELECT 1 FROM photos WHERE photos.image = ");
        sql.bind(record.image.to_hex()).push(")");
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
    sql.push(
        " ON CONFLICT (image, graphs) DO UPDATE SET
             faces = excluded.faces, created = excluded.created",
    );
    transaction.execute(sql).await?;
    transaction.commit().await?;
    Ok(())
}

/// Faces that are stored, by image and graphs.
pub(super) type StoredFaces = HashSet<(ContentHash, ContentHash)>;

impl NeededFaces {
    /// Returns true if all these faces are stored.
    pub(super) fn are_in(&self, stored: &StoredFaces) -> bool {
        self.images.iter().all(|image| stored.contains(&(*image, self.graphs)))
    }
}

/// Returns those needed faces that are stored, and locks them against deletion.
pub(super) async fn lock_needed<C: Connection>(
    connection: &mut C,
    needed: impl Iterator<Item = &NeededFaces>,
) -> Result<StoredFaces, StoreError> {
    let mut by_graphs: BTreeMap<ContentHash, BTreeSet<ContentHash>> = BTreeMap::new();
    for NeededFaces { images, graphs } in needed {
        by_graphs.entry(*graphs).or_default().extend(images);
    }
    let mut stored = HashSet::new();
    for (graphs, images) in by_graphs {
        for images in images.into_iter().collect::<Vec<_>>().chunks(AT_ONCE) {
            let mut sql = Sql::new("SELECT image FROM faces WHERE graphs = ");
            sql.bind(graphs.to_hex()).push(" AND image IN ");
            sql.tuple(images.iter().map(|image| image.to_hex().into()));
            // In this order by all transactions, so that they queue rather than deadlock.
            sql.push(" ORDER BY image").push(connection.lock_shared_faces());
            for row in &connection.fetch(sql).await? {
                stored.insert((Reader::new(row, "faces", "").hash("image")?, graphs));
            }
        }
    }
    Ok(stored)
}

async fn load<P: Connections>(
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

fn faces_state<R: Row>(row: &Reader<'_, R>) -> Result<FacesState, StoreError> {
    Ok(FacesState { images: row.int("images")?, newest: row.optional_time("newest")? })
}
