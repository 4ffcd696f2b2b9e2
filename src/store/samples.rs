//! Stored samples.

use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::db::{Connection, Connections, Reader, Row, Sql, StoreError, on_backend};
use super::run_name::RunName;
use super::scores::{ScoreRecord, score};
use crate::content::ContentHash;

/// A stored sample with everything known about it.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleRecord {
    /// Id of the sample.
    pub id: Uuid,
    /// Method and name of its run, if any.
    pub run: Option<RunName>,
    /// Id of its run, if any.
    pub run_id: Option<Uuid>,
    /// Name within the run; the content hash if none was given.
    pub name: String,
    /// Hash of all inputs, as 64 hexadecimal digits.
    pub content: String,
    /// Prompt, if one was sent.
    pub prompt: Option<String>,
    /// Generated image; `None` if only scores were imported.
    pub image: Option<StoredImage>,
    /// Hashes of the reference images' files, in the order given.
    pub references: Vec<String>,
    /// Hashes of the auxiliary images' files, in the order given.
    pub auxiliary: Vec<String>,
    /// Metadata as it was sent.
    pub metadata: serde_json::Value,
    /// Time of the first recording, UTC, to the microsecond.
    pub created: OffsetDateTime,
    /// Scores, ordered by metric and then by pack.
    pub scores: Vec<ScoreRecord>,
}

/// Hash and size of a generated image.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredImage {
    /// Hash of its file.
    pub hash: ContentHash,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

impl StoredImage {
    /// Reads the columns `image`, `width` and `height`.
    pub(super) fn read<R: Row>(row: &Reader<'_, R>) -> Result<Option<Self>, StoreError> {
        if row.optional_text("image")?.is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            hash: row.hash("image")?,
            width: row.int("width")?,
            height: row.int("height")?,
        }))
    }
}

/// The part of a sample that attribute preservation needs.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSample {
    /// Id of the sample.
    pub id: Uuid,
    /// Name within the run.
    pub name: String,
    /// Hash of the generated image; `None` if only scores were imported.
    pub image: Option<ContentHash>,
    /// Hash of the first reference image, if there is one.
    pub reference: Option<ContentHash>,
    /// Metadata as it was sent.
    pub metadata: serde_json::Value,
}

impl Store {
    /// Looks up a sample with the scores of all packs, or returns `None` if no sample has this id.
    pub async fn sample(&self, id: Uuid) -> Result<Option<SampleRecord>, StoreError> {
        on_backend!(self, pool => sample(pool, id).await)
    }

    /// Returns the samples of a run by name, or `None` if no run has this id.
    pub async fn run_samples(&self, run: Uuid) -> Result<Option<Vec<RunSample>>, StoreError> {
        on_backend!(self, pool => run_samples(pool, run).await)
    }
}

async fn sample<P: Connections>(pool: &P, id: Uuid) -> Result<Option<SampleRecord>, StoreError> {
    let mut connection = pool.reader().await?;
    let mut sql = Sql::new(
        "SELECT samples.id, samples.run, samples.name, content, prompt, image, width, height,
             reference_hashes, auxiliary_hashes, metadata, samples.created,
             methods.name AS method_name, runs.name AS run_name
         FROM samples LEFT JOIN runs ON runs.id = samples.run
         LEFT JOIN methods ON methods.id = runs.method
         WHERE samples.id = ",
    );
    sql.bind(id);
    let rows = connection.fetch(sql).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let row = Reader::new(row, "samples", id);

    let mut sql = Sql::new(
        "SELECT metric, metric_version, value, reason, flags, service_version, scores.created,
                pack, packs.name AS pack_name, weights
         FROM scores JOIN packs ON packs.digest = scores.pack
         WHERE sample = ",
    );
    sql.bind(id).push(" ORDER BY metric, packs.name, pack");
    let scores = connection.fetch(sql).await?;

    Ok(Some(SampleRecord {
        id,
        run_id: row.optional_uuid("run")?,
        run: match row.optional_uuid("run")? {
            Some(_) => {
                Some(RunName { method: row.text("method_name")?, run: row.text("run_name")? })
            }
            None => None,
        },
        name: row.text("name")?,
        content: row.text("content")?,
        prompt: row.optional_text("prompt")?,
        image: StoredImage::read(&row)?,
        references: row.json("reference_hashes")?,
        auxiliary: row.json("auxiliary_hashes")?,
        metadata: row.json("metadata")?,
        created: row.time("created")?,
        scores: scores
            .iter()
            .map(|row| score(&Reader::new(row, "scores", format!("of sample {id}"))))
            .collect::<Result<_, _>>()?,
    }))
}

async fn run_samples<P: Connections>(
    pool: &P,
    run: Uuid,
) -> Result<Option<Vec<RunSample>>, StoreError> {
    let mut connection = pool.reader().await?;
    let mut sql = Sql::new("SELECT id FROM runs WHERE id = ");
    sql.bind(run);
    if connection.fetch(sql).await?.is_empty() {
        return Ok(None);
    }
    let mut sql =
        Sql::new("SELECT id, name, image, reference_hashes, metadata FROM samples WHERE run = ");
    sql.bind(run).push(" ORDER BY name");
    let rows = connection.fetch(sql).await?;
    let samples = rows.iter().map(|row| {
        let row = Reader::new(row, "samples", run);
        let references: Vec<String> = row.json("reference_hashes")?;
        let hash = |hex: &String| {
            let invalid = || row.corrupt("reference_hashes", "contains a value that is not a hash");
            ContentHash::from_hex(hex).ok_or_else(invalid)
        };
        Ok(RunSample {
            id: row.uuid("id")?,
            name: row.text("name")?,
            image: row.optional_text("image")?.map(|_| row.hash("image")).transpose()?,
            reference: references.first().map(hash).transpose()?,
            metadata: row.json("metadata")?,
        })
    });
    samples.collect::<Result<_, _>>().map(Some)
}
