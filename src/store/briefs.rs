//! Samples of a run as lists show them, and the samples that a metric ranks first.

use std::collections::BTreeMap;

use serde::Deserialize;
use uuid::Uuid;

use super::Store;
use super::db::{
    Connection, Connections, ROWS_PER_STATEMENT, Reader, Row, Sql, StoreError, on_backend, read,
};

/// What a list shows of a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleBrief {
    /// Id of the sample.
    pub id: Uuid,
    /// Prompt, if one was sent.
    pub prompt: Option<String>,
    /// Identity that it shows, if it was given.
    pub identity: Option<String>,
    /// Hash of the generated image's file; `None` if only scores were imported.
    pub image: Option<String>,
    /// Hashes of the reference images' files, in the order given.
    pub references: Vec<String>,
}

/// What a sample was made from.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplePhotos {
    /// Prompt, if one was sent.
    pub prompt: Option<String>,
    /// Hashes of the reference images' files.
    pub references: Vec<String>,
}

/// Metadata fields of a brief; all others are ignored.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Facts {
    identity: Option<String>,
}

impl Store {
    /// Returns what lists show of these samples of a run, by name. Names that the run does not have
    /// are left out.
    pub async fn sample_briefs(
        &self,
        run: Uuid,
        names: &[String],
    ) -> Result<BTreeMap<String, SampleBrief>, StoreError> {
        on_backend!(self, pool => briefs(pool, run, names).await)
    }

    /// Returns the prompt of each sample of a run that has one, by the sample's name.
    pub async fn sample_prompts(&self, run: Uuid) -> Result<BTreeMap<String, String>, StoreError> {
        let mut sql =
            Sql::new("SELECT name, prompt FROM samples WHERE prompt IS NOT NULL AND run = ");
        sql.bind(run);
        let prompts = on_backend!(self, pool => {
            read(pool, sql, |row| {
                let row = Reader::new(row, "samples", run);
                Ok((row.text("name")?, row.text("prompt")?))
            })
            .await
        });
        Ok(prompts?.into_iter().collect())
    }

    /// Returns the prompt and the reference images of each sample of a run, by the sample's name.
    pub async fn sample_photos(
        &self,
        run: Uuid,
    ) -> Result<BTreeMap<String, SamplePhotos>, StoreError> {
        let mut sql = Sql::new("SELECT name, prompt, reference_hashes FROM samples WHERE run = ");
        sql.bind(run);
        let photos = on_backend!(self, pool => {
            read(pool, sql, |row| {
                let row = Reader::new(row, "samples", run);
                let (prompt, references) =
                    (row.optional_text("prompt")?, row.json("reference_hashes")?);
                Ok((row.text("name")?, SamplePhotos { prompt, references }))
            })
            .await
        });
        Ok(photos?.into_iter().collect())
    }

    /// Counts the failed samples of a run by the code of their reason, most frequent first.
    pub async fn failure_counts(&self, run: Uuid) -> Result<Vec<(String, u64)>, StoreError> {
        let mut sql = Sql::new(
            "SELECT reason, COUNT(*) AS samples FROM pending_samples
             WHERE state = 'failed' AND reason IS NOT NULL AND run = ",
        );
        sql.bind(run).push(" GROUP BY reason ORDER BY samples DESC, reason");
        on_backend!(self, pool => {
            read(pool, sql, |row| {
                let row = Reader::new(row, "pending_samples", run);
                Ok((row.text("reason")?, row.int("samples")?))
            })
            .await
        })
    }
}

async fn briefs<P: Connections>(
    pool: &P,
    run: Uuid,
    names: &[String],
) -> Result<BTreeMap<String, SampleBrief>, StoreError> {
    let mut connection = pool.reader().await?;
    let mut found = BTreeMap::new();
    for names in names.chunks(ROWS_PER_STATEMENT) {
        let mut sql = Sql::new(
            "SELECT id, name, prompt, image, reference_hashes, metadata FROM samples WHERE run = ",
        );
        sql.bind(run).push(" AND name IN ").tuple(names.iter().map(|name| name.as_str().into()));
        for row in &connection.fetch(sql).await? {
            let row = Reader::new(row, "samples", run);
            found.insert(row.text("name")?, brief(&row)?);
        }
    }
    Ok(found)
}

fn brief<R: Row>(row: &Reader<'_, R>) -> Result<SampleBrief, StoreError> {
    Ok(SampleBrief {
        id: row.uuid("id")?,
        prompt: row.optional_text("prompt")?,
        identity: row.json::<Facts>("metadata")?.identity,
        image: row.optional_text("image")?,
        references: row.json("reference_hashes")?,
    })
}
