//! Datasets: labelled photos of identities, for metrics that learn from them.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::db::{
    Connection, Connections, Reader, Row, Sql, StoreError, check_name, new_id, on_backend, read,
    read_first, to_microseconds, with_retries, write,
};
use crate::content::ContentHash;

/// Facial attributes by name; `true` if present.
pub type Attributes = BTreeMap<String, bool>;

/// A photo to enrol.
#[derive(Clone, Debug)]
pub struct NewPhoto {
    /// Dataset, created if it is new.
    pub dataset: String,
    /// Identity that it shows.
    pub identity: String,
    /// Name among the identity's photos.
    pub name: String,
    /// Hash of its file.
    pub image: ContentHash,
    /// Labels of the photo.
    pub attributes: Attributes,
    /// Time of enrolment.
    pub created: OffsetDateTime,
    /// `true` if its faces were not known before: linear probes of the dataset are then stale even
    /// if the photo existed.
    pub new_faces: bool,
}

/// Result of enrolling a photo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// `true` if the photo is new.
    pub created: bool,
    /// Revision of the dataset afterwards; every change raises it.
    pub revision: u64,
}

/// A dataset with its number of photos and prompts.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetRecord {
    /// Id of the dataset.
    pub id: Uuid,
    /// Name of the dataset.
    pub name: String,
    /// Revision, which every change raises.
    pub revision: u64,
    /// Number of enrolled photos.
    pub photos: u64,
    /// Number of registered prompts.
    pub prompts: u64,
    /// Whether its photos may be shown to others.
    pub redistributable: bool,
    /// Time of creation, UTC, to the microsecond.
    pub created: OffsetDateTime,
}

/// An enrolled photo.
#[derive(Clone, Debug, PartialEq)]
pub struct PhotoRecord {
    /// Identity that it shows.
    pub identity: String,
    /// Name among the identity's photos.
    pub name: String,
    /// Hash of its file.
    pub image: ContentHash,
    /// Labels of the photo.
    pub attributes: Attributes,
    /// Time of enrolment, UTC, to the microsecond.
    pub created: OffsetDateTime,
}

impl Store {
    /// Enrols a labelled photo in a dataset, which is created if it is new.
    ///
    /// A photo is identified by its identity and name: repeating it changes nothing; other content
    /// or attributes are a [`StoreError::PhotoConflict`].
    pub async fn enrol(&self, photo: &NewPhoto) -> Result<Enrolled, StoreError> {
        on_backend!(self, pool => enrol(pool, photo).await)
    }

    /// Lists at most `limit` datasets by name, starting after the name `after`.
    pub async fn datasets(
        &self,
        after: &str,
        limit: u32,
    ) -> Result<Vec<DatasetRecord>, StoreError> {
        let mut sql = Sql::new(DATASETS);
        sql.push("> ").bind(after).push(" ORDER BY name LIMIT ").bind(limit);
        on_backend!(self, pool => read(pool, sql, dataset_record).await)
    }

    /// Looks up a dataset, or returns `None` if none has this name.
    pub async fn dataset(&self, name: &str) -> Result<Option<DatasetRecord>, StoreError> {
        let mut sql = Sql::new(DATASETS);
        sql.push("= ").bind(name);
        on_backend!(self, pool => read_first(pool, sql, dataset_record).await)
    }

    /// Returns the first dataset by name whose photos may not be shown to others.
    pub async fn private_dataset(&self) -> Result<Option<String>, StoreError> {
        let sql =
            Sql::new("SELECT name FROM datasets WHERE redistributable = 0 ORDER BY name LIMIT 1");
        on_backend!(self, pool => {
            read_first(pool, sql, |row| Reader::new(row, "datasets", "").text("name")).await
        })
    }

    /// Sets whether the photos of a dataset may be shown to others. Unknown datasets are ignored.
    pub async fn set_redistributable(&self, name: &str, value: bool) -> Result<(), StoreError> {
        let mut sql = Sql::new("UPDATE datasets SET redistributable = ");
        sql.bind(i64::from(value)).push(" WHERE name = ").bind(name);
        on_backend!(self, pool => write(pool, sql).await.map(drop))
    }

    /// Returns all photos of a dataset, by identity and name.
    pub async fn photos(&self, dataset: Uuid) -> Result<Vec<PhotoRecord>, StoreError> {
        on_backend!(self, pool => read(pool, photos_of(dataset), |row| photo(row, dataset)).await)
    }

    /// Returns one page of a dataset's photos, by identity and name.
    pub async fn photos_page(
        &self,
        dataset: Uuid,
        offset: u64,
        limit: u32,
    ) -> Result<Vec<PhotoRecord>, StoreError> {
        let mut sql = photos_of(dataset);
        sql.push(" LIMIT ")
            .bind(limit)
            .push(" OFFSET ")
            .bind(i64::try_from(offset).unwrap_or(i64::MAX));
        on_backend!(self, pool => read(pool, sql, |row| photo(row, dataset)).await)
    }
}

async fn enrol<P: Connections>(pool: &P, photo: &NewPhoto) -> Result<Enrolled, StoreError> {
    check_name("the dataset's name", &photo.dataset)?;
    // Identity and name are indexed together.
    check_name("the identity and the name together", &format!("{}{}", photo.identity, photo.name))?;
    check_name("the identity", &photo.identity)?;
    check_name("the photo's name", &photo.name)?;
    with_retries(|| transaction(pool, photo)).await
}

async fn transaction<P: Connections>(pool: &P, photo: &NewPhoto) -> Result<Enrolled, StoreError> {
    let created = to_microseconds(photo.created);
    let attributes =
        serde_json::to_string(&photo.attributes).expect("plain data always serialises");
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;
    let dataset = ensure_dataset(connection, &photo.dataset, created).await?;

    let mut sql = Sql::new(
        "INSERT INTO photos (dataset, identity, name, image, attributes, created) VALUES ",
    );
    sql.tuple([
        dataset.into(),
        photo.identity.as_str().into(),
        photo.name.as_str().into(),
        photo.image.into(),
        attributes.as_str().into(),
        created.into(),
    ]);
    sql.push(" ON CONFLICT (dataset, identity, name) DO NOTHING");
    let is_new = connection.execute(sql).await? == 1;
    if !is_new {
        let mut sql = Sql::new("SELECT image, attributes FROM photos WHERE dataset = ");
        sql.bind(dataset).push(" AND identity = ").bind(photo.identity.as_str());
        sql.push(" AND name = ").bind(photo.name.as_str());
        let rows = connection.fetch(sql).await?;
        let row = rows.first().ok_or(StoreError::Contended(sqlx::Error::RowNotFound))?;
        let row = Reader::new(row, "photos", photo.name.as_str());
        if row.hash("image")? != photo.image
            || row.json::<Attributes>("attributes")? != photo.attributes
        {
            return Err(StoreError::PhotoConflict {
                dataset: photo.dataset.clone(),
                identity: photo.identity.clone(),
                name: photo.name.clone(),
            });
        }
    }
    if is_new || photo.new_faces {
        let mut sql = Sql::new("UPDATE datasets SET revision = revision + 1 WHERE id = ");
        sql.bind(dataset);
        connection.execute(sql).await?;
    }
    let mut sql = Sql::new("SELECT revision FROM datasets WHERE id = ");
    sql.bind(dataset);
    let rows = connection.fetch(sql).await?;
    let row = rows.first().ok_or(StoreError::Contended(sqlx::Error::RowNotFound))?;
    let revision = Reader::new(row, "datasets", photo.dataset.as_str()).int("revision")?;
    transaction.commit().await?;
    Ok(Enrolled { created: is_new, revision })
}

/// Returns the dataset's id, creates the dataset if it is new, and locks its row until the
/// transaction ends.
pub(super) async fn ensure_dataset<C: Connection>(
    connection: &mut C,
    name: &str,
    created: OffsetDateTime,
) -> Result<Uuid, StoreError> {
    let mut sql = Sql::new("INSERT INTO datasets (id, name, created) VALUES ");
    sql.tuple([new_id(created).into(), name.into(), created.into()]);
    sql.push(" ON CONFLICT (name) DO NOTHING");
    connection.execute(sql).await?;
    let mut sql = Sql::new("SELECT id FROM datasets WHERE name = ");
    sql.bind(name).push(connection.lock());
    let rows = connection.fetch(sql).await?;
    let row = rows.first().ok_or(StoreError::Contended(sqlx::Error::RowNotFound))?;
    Reader::new(row, "datasets", name).uuid("id")
}

const DATASETS: &str = "SELECT id, name, revision, redistributable, created,
    (SELECT COUNT(*) FROM photos WHERE photos.dataset = datasets.id) AS photos,
    (SELECT COUNT(*) FROM prompts WHERE prompts.dataset = datasets.id) AS prompts
    FROM datasets WHERE name ";

fn dataset_record<R: Row>(row: &R) -> Result<DatasetRecord, StoreError> {
    let row = Reader::new(row, "datasets", "");
    Ok(DatasetRecord {
        id: row.uuid("id")?,
        name: row.text("name")?,
        revision: row.int("revision")?,
        photos: row.int("photos")?,
        prompts: row.int("prompts")?,
        redistributable: row.int::<i64>("redistributable")? != 0,
        created: row.time("created")?,
    })
}

fn photos_of(dataset: Uuid) -> Sql {
    let mut sql =
        Sql::new("SELECT identity, name, image, attributes, created FROM photos WHERE dataset = ");
    sql.bind(dataset).push(" ORDER BY identity, name");
    sql
}

fn photo<R: Row>(row: &R, dataset: Uuid) -> Result<PhotoRecord, StoreError> {
    let row = Reader::new(row, "photos", dataset);
    Ok(PhotoRecord {
        identity: row.text("identity")?,
        name: row.text("name")?,
        image: row.hash("image")?,
        attributes: row.json("attributes")?,
        created: row.time("created")?,
    })
}
