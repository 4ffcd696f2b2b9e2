//! Faces found in images: personal data with limited retention, deleted on request.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::Store;
use super::db::{
    Argument, Connection, Connections, ROWS_PER_STATEMENT, Reader, Row, Sql, StoreError,
    on_backend, read_first, to_microseconds, write,
};
use super::sample::NeededFaces;
use crate::clock;
use crate::content::ContentHash;

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
        on_backend!(self, pool => save(pool, record, Wanted::Always).await)
    }

    /// Like [`save_faces`](Self::save_faces), for a sample of a run: nothing is stored for an image
    /// that no pending sample, unfinished run or dataset needs any more. No clock matters.
    pub async fn save_needed_faces(&self, record: &FacesRecord) -> Result<(), StoreError> {
        on_backend!(self, pool => save(pool, record, Wanted::IfNeeded).await)
    }

    /// Like [`save_faces`](Self::save_faces), for a search that began at this time: nothing is
    /// stored for an image that any instance has deleted since.
    pub async fn save_found_faces(
        &self,
        record: &FacesRecord,
        began: OffsetDateTime,
    ) -> Result<(), StoreError> {
        on_backend!(self, pool => save(pool, record, Wanted::UnlessDeletedSince(began)).await)
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
        sql.bind(graphs).push(" AND image IN (");
        match of {
            ImagesOf::Run(run) => {
                sql.push(OF_RUN[0]).bind(run).push(OF_RUN[1]).bind(run).push(")");
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

/// When faces are stored.
#[derive(Clone, Copy)]
enum Wanted {
    Always,
    IfNeeded,
    UnlessDeletedSince(OffsetDateTime),
}

async fn save<P: Connections>(
    pool: &P,
    record: &FacesRecord,
    wanted: Wanted,
) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    let is_wanted = match wanted {
        Wanted::Always => true,
        Wanted::IfNeeded => lock_need(&mut *transaction, record.image).await?,
        Wanted::UnlessDeletedSince(began) => {
            let mut sql = Sql::new("SELECT image FROM deleted_images WHERE image = ");
            sql.bind(record.image).push(" AND deleted >= ").bind(to_microseconds(began));
            // A deletion of the image waits for this transaction, so that it sees the faces.
            sql.push(transaction.lock_shared_deletions());
            transaction.fetch(sql).await?.is_empty()
        }
    };
    if !is_wanted {
        return Ok(());
    }
    let mut sql = Sql::new("INSERT INTO faces (image, graphs, faces, created) VALUES ");
    sql.tuple([
        record.image.into(),
        record.graphs.into(),
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

/// Returns whether a pending sample, an unfinished run or a dataset needs an image. All deletions
/// remove these rows before the faces, so they wait for this transaction and then see the faces.
async fn lock_need<C: Connection>(
    connection: &mut C,
    image: ContentHash,
) -> Result<bool, StoreError> {
    for text in
        ["SELECT image FROM kept_files WHERE image = ", "SELECT image FROM photos WHERE image = "]
    {
        let mut sql = Sql::new(text);
        sql.bind(image).push(" LIMIT 1").push(connection.lock_shared_rows());
        if !connection.fetch(sql).await?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Faces that are stored, by image and graphs.
pub(super) type StoredFaces = HashSet<(ContentHash, ContentHash)>;

impl NeededFaces {
    /// Returns true if all these faces are stored.
    pub(super) fn are_in(&self, stored: &StoredFaces) -> bool {
        self.images.iter().all(|image| stored.contains(&(*image, self.graphs)))
    }
}

/// Age after which faces that are needed again have their retention restarted.
const OLD: Duration = Duration::DAY;

/// Returns those needed faces that are stored, locks them against deletion, and restarts their
/// retention.
pub(super) async fn lock_needed<C: Connection>(
    connection: &mut C,
    needed: impl Iterator<Item = &NeededFaces>,
) -> Result<StoredFaces, StoreError> {
    let mut by_graphs: BTreeMap<ContentHash, BTreeSet<ContentHash>> = BTreeMap::new();
    for NeededFaces { images, graphs } in needed {
        by_graphs.entry(*graphs).or_default().extend(images);
    }
    let now = clock::now();
    let mut stored = HashSet::new();
    for (graphs, images) in by_graphs {
        for images in images.into_iter().collect::<Vec<_>>().chunks(ROWS_PER_STATEMENT) {
            let mut sql = Sql::new("SELECT image, created FROM faces WHERE graphs = ");
            sql.bind(graphs).push(" AND image IN ");
            sql.tuple(images.iter().map(Argument::from));
            // In this order by all transactions, so that they queue rather than deadlock.
            sql.push(" ORDER BY image").push(connection.lock_shared_rows());
            let mut old = Vec::new();
            for row in &connection.fetch(sql).await? {
                let row = Reader::new(row, "faces", "");
                let image = row.hash("image")?;
                if row.time("created")? < now - OLD {
                    old.push(image);
                }
                stored.insert((image, graphs));
            }
            if !old.is_empty() {
                let mut sql = Sql::new("UPDATE faces SET created = ");
                sql.bind(to_microseconds(now)).push(" WHERE graphs = ").bind(graphs);
                sql.push(" AND image IN ").tuple(old.iter().map(Argument::from));
                connection.execute(sql).await?;
            }
        }
    }
    Ok(stored)
}

/// Returns those images of a run's samples whose faces are stored. A deletion of an image waits
/// until the transaction ends.
pub(super) async fn stored_of_run<C: Connection>(
    connection: &mut C,
    run: Uuid,
    graphs: ContentHash,
) -> Result<HashSet<ContentHash>, StoreError> {
    // Locks the table: `exclude_recordings` waits.
    let mut sql = Sql::new("SELECT image FROM deleted_images WHERE 1 = 0");
    sql.push(connection.lock_shared_deletions());
    connection.fetch(sql).await?;
    let mut sql = Sql::new("SELECT image FROM faces WHERE graphs = ");
    sql.bind(graphs).push(" AND image IN (").push(OF_RUN[0]).bind(run);
    sql.push(OF_RUN[1]).bind(run).push(")");
    let rows = connection.fetch(sql).await?;
    rows.iter().map(|row| Reader::new(row, "faces", "").hash("image")).collect()
}

/// Selects the images of a run's samples; its id follows each part.
const OF_RUN: [&str; 2] = [
    "SELECT image FROM samples WHERE run = ",
    " UNION
     SELECT sample_photos.image FROM sample_photos
     JOIN samples ON samples.id = sample_photos.sample WHERE samples.run = ",
];

async fn load<P: Connections>(
    pool: &P,
    images: &[ContentHash],
    graphs: ContentHash,
) -> Result<HashMap<ContentHash, Vec<u8>>, StoreError> {
    let mut found = HashMap::with_capacity(images.len());
    let mut connection = pool.reader().await?;
    for images in images.chunks(ROWS_PER_STATEMENT) {
        let mut sql = Sql::new("SELECT image, faces FROM faces WHERE graphs = ");
        sql.bind(graphs).push(" AND image IN ");
        sql.tuple(images.iter().map(Argument::from));
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
