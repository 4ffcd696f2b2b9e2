//! Samples of a run as lists show them, and the samples that a metric ranks first.

use std::collections::BTreeMap;

use serde::Deserialize;
use uuid::Uuid;

use super::Store;
use super::db::{Connection, Connections, Reader, Row, Sql, StoreError, on_backend, read};

/// Samples per statement: SQLite accepts 32,766 arguments.
const BATCH: usize = 1_000;

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

/// Selects samples of a run by their scores in one metric.
#[derive(Clone, Debug)]
pub struct Ranking<'a> {
    /// Id of the run.
    pub run: Uuid,
    /// Digest of the pack of the scores.
    pub pack: &'a str,
    /// Code of the metric. Only its newest version in the run counts.
    pub metric: &'a str,
    /// Whether the largest score comes first.
    pub descending: bool,
    /// Number of samples to skip.
    pub offset: u32,
    /// Maximum number of samples.
    pub limit: u32,
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

    /// Returns names and numbers of the samples that have one in a metric, in the order of the
    /// numbers; ties in the order of names.
    pub async fn ranked_samples(
        &self,
        ranking: &Ranking<'_>,
    ) -> Result<Vec<(String, f64)>, StoreError> {
        let mut sql = Sql::new(
            "SELECT samples.name, value FROM samples JOIN scores ON scores.sample = samples.id
             WHERE value IS NOT NULL AND samples.run = ",
        );
        sql.bind(ranking.run).push(" AND scores.pack = ").bind(ranking.pack);
        sql.push(" AND metric = ").bind(ranking.metric);
        sql.push(
            " AND metric_version = (SELECT MAX(metric_version) FROM summaries
                  WHERE n + nulls > 0 AND run = ",
        );
        sql.bind(ranking.run).push(" AND pack = ").bind(ranking.pack);
        sql.push(" AND metric = ").bind(ranking.metric).push(") ORDER BY value");
        sql.push(if ranking.descending { " DESC" } else { "" });
        sql.push(", samples.name LIMIT ").bind(ranking.limit);
        sql.push(" OFFSET ").bind(ranking.offset);
        on_backend!(self, pool => {
            read(pool, sql, |row| {
                let row = Reader::new(row, "scores", ranking.run);
                Ok((row.text("name")?, row.real("value")?))
            })
            .await
        })
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
    for names in names.chunks(BATCH) {
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
