//! Reads stored samples.

use time::OffsetDateTime;
use uuid::Uuid;

use super::db::{Connection, Connections, Reader, Sql, StoreError};
use super::{PackId, RunName, Weights};
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
    pub(super) fn read<R: super::db::Row>(row: &Reader<'_, R>) -> Result<Option<Self>, StoreError> {
        if row.optional_text("image")?.is_none() {
            return Ok(None);
        }
        Ok(Some(Self { hash: row.hash("image")?, width: row.int("width")?, height: row.int("height")? }))
    }
}

/// A stored score with its provenance.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreRecord {
    /// Code of the metric.
    pub metric: String,
    /// Version of the metric's definition.
    pub metric_version: u32,
    /// Number, or the reason why there is none.
    pub value: ScoreValue,
    /// Flags for a reader of the number (`truncated`, …).
    pub flags: Vec<String>,
    /// Pack it was computed with.
    pub pack: PackId,
    /// Version of the service that computed it.
    pub service_version: String,
    /// Time of computation, UTC, to the microsecond.
    pub created: OffsetDateTime,
}

/// Value of a metric for a sample: a number, or the reason why there is none.
#[derive(Clone, Debug, PartialEq)]
pub enum ScoreValue {
    /// A finite number.
    Number(f64),
    /// Null, with the reason's code (`no_face_in_reference`, `no_detectables`, …); never counted as
    /// 0.
    Null {
        /// Code of the reason.
        reason: String,
    },
}

impl ScoreValue {
    /// Returns the number, if there is one.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(value) => Some(*value),
            Self::Null { .. } => None,
        }
    }
}

pub(super) async fn sample<P: Connections>(pool: &P, id: Uuid) -> Result<Option<SampleRecord>, StoreError> {
    let mut connection = pool.reader().await?;
    let mut sql = Sql::new(
        "SELECT samples.id, samples.run, samples.name, content, prompt, image, width, height, reference_hashes,
                auxiliary_hashes, metadata, samples.created, methods.name AS method_name, runs.name AS run_name
         FROM samples LEFT JOIN runs ON runs.id = samples.run LEFT JOIN methods ON methods.id = runs.method
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
            Some(_) => Some(RunName { method: row.text("method_name")?, run: row.text("run_name")? }),
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

fn score<R: super::db::Row>(row: &Reader<'_, R>) -> Result<ScoreRecord, StoreError> {
    Ok(ScoreRecord {
        metric: row.text("metric")?,
        metric_version: row.int("metric_version")?,
        value: value(row)?,
        flags: row.json("flags")?,
        pack: PackId {
            digest: row.text("pack")?,
            name: row.text("pack_name")?,
            weights: row.word("weights", Weights::parse)?,
        },
        service_version: row.text("service_version")?,
        created: row.time("created")?,
    })
}

/// Reads a number or its reason from the columns `value` and `reason`.
pub(super) fn value<R: super::db::Row>(row: &Reader<'_, R>) -> Result<ScoreValue, StoreError> {
    match (row.optional_real("value")?, row.optional_text("reason")?) {
        (Some(value), None) if value.is_finite() => Ok(ScoreValue::Number(value)),
        (None, Some(reason)) => Ok(ScoreValue::Null { reason }),
        _ => Err(row.corrupt("value", "is neither a finite number nor null with a reason")),
    }
}
