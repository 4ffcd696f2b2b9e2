//! Run-wide scores such as `aps`, which are computed when a run finishes.

use std::collections::BTreeSet;

use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::attributes::{AttributeLabels, json, write_outcomes};
use super::columns::{self, Origin};
use super::db::{
    Connection, Connections, Reader, Sql, StoreError, on_backend, to_microseconds, with_retries,
};
use super::faces::stored_of_run;
use super::packs::ensure_pack;
use super::runs::lock_run;
use super::sample::ScoreValue;
use super::summaries::running;
use crate::content::ContentHash;
use crate::pack_id::PackId;

/// Run-wide scores of existing samples.
#[derive(Clone, Debug)]
pub struct RunWideScores {
    /// Id of the run.
    pub run: Uuid,
    /// Time of computation.
    pub created: OffsetDateTime,
    /// Pack that they were computed with.
    pub pack: PackId,
    /// Version of the service.
    pub service_version: String,
    /// Code of the metric.
    pub metric: String,
    /// Version of the metric's definition.
    pub metric_version: u32,
    /// Digest of the graphs that found the faces, if faces are stored. Evidence about an image
    /// whose faces have since been deleted is then not written.
    pub graphs: Option<ContentHash>,
    /// Score of each sample.
    pub scores: Vec<RunWideScore>,
}

/// Run-wide score of one sample.
#[derive(Clone, Debug)]
pub struct RunWideScore {
    /// Id of the sample.
    pub sample: Uuid,
    /// The score.
    pub value: ScoreValue,
    /// Evidence behind it.
    pub outcomes: Option<AttributeLabels>,
    /// Images whose faces the evidence is about.
    pub images: Vec<ContentHash>,
}

impl Store {
    /// Adds run-wide scores to those samples of a run that have none yet, in one transaction, and
    /// returns how many it wrote.
    pub async fn add_run_wide(&self, scores: &RunWideScores) -> Result<u64, StoreError> {
        on_backend!(self, pool => with_retries(|| transaction(pool, scores)).await)
    }
}

async fn transaction<P: Connections>(pool: &P, new: &RunWideScores) -> Result<u64, StoreError> {
    let created = to_microseconds(new.created);
    let mut transaction = pool.begin_large().await?;
    let connection = &mut *transaction;
    if lock_run(connection, new.run).await?.is_none() {
        return Ok(0);
    }
    ensure_pack(connection, &new.pack, created).await?;
    // Skips samples that were deleted in the meantime.
    let there = of_run(connection, new.run).await?;
    let of = Origin {
        pack: &new.pack.digest,
        service_version: &new.service_version,
        metric: &new.metric,
        version: new.metric_version,
        created,
    };
    let scores: Vec<_> = new.scores.iter().filter(|one| there.contains(&one.sample)).collect();
    let rows: Vec<_> = scores.iter().map(|one| (one.sample, &one.value)).collect();
    let key = of.summary(new.run);
    running::claim(connection, key).await?;
    let written = columns::write(connection, &of, &rows, false).await?;
    let stored = match new.graphs {
        Some(graphs) => Some(stored_of_run(connection, new.run, graphs).await?),
        None => None,
    };
    let is_stored = |image| stored.as_ref().is_none_or(|stored| stored.contains(image));
    let outcomes = scores.into_iter().filter(|one| one.images.iter().all(is_stored));
    let outcomes = outcomes.filter_map(|one| Some((one.sample, one.outcomes.as_ref()?)));
    let outcomes: Vec<_> = outcomes.collect();
    write_outcomes(connection, &new.pack.digest, &outcomes, |(id, outcomes)| (*id, json(outcomes)))
        .await?;
    running::recompute(connection, key).await?;
    let mut sql = Sql::new("UPDATE runs SET revision = revision + 1 WHERE id = ");
    sql.bind(new.run);
    connection.execute(sql).await?;
    transaction.commit().await?;
    Ok(written)
}

async fn of_run<C: Connection>(
    connection: &mut C,
    run: Uuid,
) -> Result<BTreeSet<Uuid>, StoreError> {
    let mut sql = Sql::new("SELECT id FROM samples WHERE run = ");
    sql.bind(run);
    let rows = connection.fetch(sql).await?;
    rows.iter().map(|row| Reader::new(row, "samples", run).uuid("id")).collect()
}
