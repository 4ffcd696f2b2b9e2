//! Staleness of slice summaries.
//!
//! A fingerprint of the run's running summaries shows whether they are stale. Every recording and
//! deletion updates the running summaries anyway, so nothing else must be marked and no change can
//! be missed.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::content::ContentHash;
use crate::store::Store;
use crate::store::db::{Connection, Connections, Reader, Sql, StoreError, on_backend};

/// Current version of a run with a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunVersion {
    /// Id of the run.
    pub run: Uuid,
    /// Digest of the pack.
    pub pack: String,
    /// Fingerprint of its running summaries.
    pub fingerprint: String,
}

impl Store {
    /// Returns the packs of all runs, or of this run, whose slice summaries are missing or stale.
    pub async fn stale_runs(&self, run: Option<Uuid>) -> Result<Vec<RunVersion>, StoreError> {
        on_backend!(self, pool => stale(pool, run).await)
    }
}

pub(super) async fn stale<P: Connections>(
    pool: &P,
    run: Option<Uuid>,
) -> Result<Vec<RunVersion>, StoreError> {
    let mut connection = pool.reader().await?;
    let mut sql = Sql::new(
        "SELECT summaries.run, summaries.pack, metric, metric_version, n, nulls, pivot, total,
             squares, COALESCE(fingerprint, '') AS fingerprint
         FROM summaries
         LEFT JOIN run_slices ON run_slices.run = summaries.run
             AND run_slices.pack = summaries.pack
         WHERE n + nulls > 0",
    );
    if let Some(run) = run {
        sql.push(" AND summaries.run = ").bind(run);
    }
    sql.push(" ORDER BY summaries.run, summaries.pack, metric, metric_version");
    let rows = connection.fetch(sql).await?;
    drop(connection);
    let mut versions: BTreeMap<(Uuid, String), (String, String)> = BTreeMap::new();
    for row in &rows {
        let row = Reader::new(row, "summaries", "");
        let key = (row.uuid("run")?, row.text("pack")?);
        let known = row.text("fingerprint")?;
        let (text, _) = versions.entry(key).or_insert_with(|| (String::new(), known));
        let number = |name| row.real(name).map(f64::to_bits);
        let bits = [number("pivot")?, number("total")?, number("squares")?];
        let (n, nulls): (u64, u64) = (row.int("n")?, row.int("nulls")?);
        let (version, metric) = (row.int::<u32>("metric_version")?, row.text("metric")?);
        text.extend([format!("{bits:?} {n} {nulls} {version} {metric}\n")]);
    }
    let versions = versions.into_iter().filter_map(|((run, pack), (text, known))| {
        let fingerprint = ContentHash::of(text.as_bytes()).to_hex();
        (fingerprint != known).then_some(RunVersion { run, pack, fingerprint })
    });
    Ok(versions.collect())
}
