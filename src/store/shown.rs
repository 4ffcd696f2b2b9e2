//! What an annotator is shown of a sample.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use uuid::Uuid;

use super::Store;
use super::db::{Connection, Connections, ROWS_PER_STATEMENT, Reader, Sql, StoreError, on_backend};
use crate::content::ContentHash;

/// What an annotator is shown of a sample: no score.
#[derive(Clone, Debug, PartialEq)]
pub struct ShownSample {
    /// Prompt, if one was sent.
    pub prompt: Option<String>,
    /// Hash of the generated image; `None` if only scores were imported.
    pub image: Option<ContentHash>,
    /// Hashes of the reference images, then of the auxiliary ones.
    pub photos: Vec<String>,
}

impl Store {
    /// Returns the samples with these names, by run and name. Those that do not exist are missing.
    pub async fn shown_samples(
        &self,
        wanted: &BTreeMap<Uuid, BTreeSet<String>>,
    ) -> Result<BTreeMap<(Uuid, String), ShownSample>, StoreError> {
        on_backend!(self, pool => shown(pool, wanted).await)
    }

    /// Returns the samples of these runs whose prompts are of a kind (`metadata.prompt_kind`).
    pub async fn samples_of_kind(
        &self,
        runs: &BTreeSet<Uuid>,
        kind: &str,
    ) -> Result<BTreeSet<(Uuid, String)>, StoreError> {
        on_backend!(self, pool => of_kind(pool, runs, kind).await)
    }
}

/// Metadata fields that select samples; all others are ignored.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Facts {
    prompt_kind: Option<String>,
}

async fn of_kind<P: Connections>(
    pool: &P,
    runs: &BTreeSet<Uuid>,
    kind: &str,
) -> Result<BTreeSet<(Uuid, String)>, StoreError> {
    let mut connection = pool.reader().await?;
    let mut found = BTreeSet::new();
    for &run in runs {
        let mut sql = Sql::new("SELECT name, metadata FROM samples WHERE run = ");
        sql.bind(run).push(" AND metadata LIKE '%\"prompt_kind\"%'");
        connection
            .each(sql, |row| {
                let row = Reader::new(row, "samples", run);
                let facts: Facts = row.json("metadata")?;
                if facts.prompt_kind.as_deref() == Some(kind) {
                    found.insert((run, row.text("name")?));
                }
                Ok(())
            })
            .await?;
    }
    Ok(found)
}

async fn shown<P: Connections>(
    pool: &P,
    wanted: &BTreeMap<Uuid, BTreeSet<String>>,
) -> Result<BTreeMap<(Uuid, String), ShownSample>, StoreError> {
    let mut connection = pool.reader().await?;
    let mut found = BTreeMap::new();
    for (run, names) in wanted {
        for names in names.iter().collect::<Vec<_>>().chunks(ROWS_PER_STATEMENT) {
            let mut sql = Sql::new(
                "SELECT name, prompt, image, reference_hashes, auxiliary_hashes
                 FROM samples WHERE run = ",
            );
            sql.bind(*run)
                .push(" AND name IN ")
                .tuple(names.iter().map(|name| (**name).clone().into()));
            for row in &connection.fetch(sql).await? {
                let row = Reader::new(row, "samples", *run);
                let image = row.optional_text("image")?.map(|_| row.hash("image")).transpose()?;
                let mut photos: Vec<String> = row.json("reference_hashes")?;
                photos.extend(row.json::<Vec<String>>("auxiliary_hashes")?);
                let sample = ShownSample { prompt: row.optional_text("prompt")?, image, photos };
                found.insert((*run, row.text("name")?), sample);
            }
        }
    }
    Ok(found)
}
