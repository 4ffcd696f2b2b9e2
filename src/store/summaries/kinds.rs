//! Summaries of one metric over all labels of one kind of slice.

use uuid::Uuid;

use super::slice::{Slice, SliceSummary};
use super::slices::{read_keys, read_sums, summary};
use crate::store::Store;
use crate::store::db::{Connection, Connections, Reader, Row, Sql, StoreError, on_backend};

/// Runs per statement.
const RUNS: usize = 1_000;

/// One metric over one slice of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct KindSummary {
    /// Id of the run.
    pub run: Uuid,
    /// The summary, with its sums.
    pub summary: SliceSummary,
    /// For a benchmark: the keys of its clusters and its sample set. Other slices have those of
    /// the run.
    pub own: Option<(Vec<u64>, String)>,
}

impl Store {
    /// Reads one metric of these runs with a pack over all labels of a kind of slice, under a
    /// policy, by run and label.
    ///
    /// # Errors
    /// Errors of the database.
    pub async fn summaries_of_kind(
        &self,
        runs: &[Uuid],
        pack: &str,
        kind: &str,
        metric: &str,
        policy: &str,
    ) -> Result<Vec<KindSummary>, StoreError> {
        on_backend!(self, pool => of_kind(pool, runs, [pack, kind, metric, policy]).await)
    }
}

async fn of_kind<P: Connections>(
    pool: &P,
    runs: &[Uuid],
    [pack, kind, metric, policy]: [&str; 4],
) -> Result<Vec<KindSummary>, StoreError> {
    let mut found = Vec::new();
    let mut connection = pool.reader().await?;
    for runs in runs.chunks(RUNS) {
        let mut sql = Sql::new(
            "SELECT cells.run, cells.label, cells.metric, metric_version, cells.samples, n, nulls,
                 penalised, undecided, faceless, mean, std, low, high, cells.clusters, sums,
                 benchmark_sets.clusters AS keys, benchmark_sets.sample_set
             FROM slice_summaries AS cells
             JOIN slice_sums ON slice_sums.run = cells.run AND slice_sums.pack = cells.pack
                 AND slice_sums.kind = cells.kind AND slice_sums.label = cells.label
                 AND slice_sums.metric = cells.metric AND slice_sums.policy = cells.policy
             LEFT JOIN benchmark_sets ON benchmark_sets.run = cells.run
                 AND benchmark_sets.pack = cells.pack AND benchmark_sets.label = cells.label
                 AND cells.kind = ",
        );
        sql.bind(Slice::PROMPT_KIND).push(" WHERE cells.pack = ").bind(pack);
        sql.push(" AND cells.kind = ").bind(kind).push(" AND cells.metric = ").bind(metric);
        sql.push(" AND cells.policy = ").bind(policy);
        sql.push(" AND cells.run IN ").tuple(runs.iter().map(|run| (*run).into()));
        sql.push(" ORDER BY cells.run, cells.label");
        for row in &connection.fetch(sql).await? {
            found.push(kind_summary(row, kind, policy)?);
        }
    }
    Ok(found)
}

fn kind_summary<R: Row>(row: &R, kind: &str, policy: &str) -> Result<KindSummary, StoreError> {
    let row = Reader::new(row, "slice_summaries", "");
    let slice = Slice::new(kind, row.text("label")?);
    let sums = read_sums(&row.optional_bytes("sums")?.unwrap_or_default());
    let own = row.optional_bytes("keys")?.map(|keys| read_keys(&keys));
    Ok(KindSummary {
        run: row.uuid("run")?,
        summary: SliceSummary { sums, ..summary(&row, slice, policy.to_owned())? },
        own: own.zip(row.optional_text("sample_set")?),
    })
}
