//! Slice summaries: summaries of runs with intervals, by slice and penalty policy. They are
//! computed in `analysis` from all samples of a run, and replaced as a whole.

use std::collections::HashMap;

use time::OffsetDateTime;
use uuid::Uuid;

use super::slice::{MetricSums, Slice, SliceSummary};
use super::staleness::{RunVersion, stale};
use crate::store::Store;
use crate::store::db::{
    Argument, Connection, Connections, ROWS_PER_STATEMENT, Reader, Row, Sql, StoreError,
    on_backend, read, to_microseconds, with_retries,
};

/// Distribution of a metric's numbers in a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantiles {
    /// Code of the metric.
    pub metric: String,
    /// Version of the metric's definition.
    pub version: u32,
    /// Number of values.
    pub n: u64,
    /// Evenly spaced quantiles, including the minimum and the maximum.
    pub places: Vec<f64>,
}

/// Samples of one kind of prompt in a run, which are summarised like a run of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BenchmarkSet {
    /// The kind of prompt: the label of the slice.
    pub label: String,
    /// Number of its samples.
    pub samples: u64,
    /// Fingerprint of the set of its samples' names.
    pub sample_set: String,
    /// Keys of its clusters, in the order of the sums of its summaries.
    pub cluster_keys: Vec<u64>,
}

/// All summaries of a run with one pack.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSummary {
    /// Number of samples in the run.
    pub samples: u64,
    /// Fingerprint of the set of its samples' names: equal for runs over the same samples.
    pub sample_set: String,
    /// Keys of its clusters.
    pub cluster_keys: Vec<u64>,
    /// Samples of each of its benchmarks.
    pub benchmarks: Vec<BenchmarkSet>,
    /// One row per slice, metric and policy.
    pub slices: Vec<SliceSummary>,
    /// One entry per metric.
    pub quantiles: Vec<Quantiles>,
}

/// Sums of runs in a slice, by cluster.
#[derive(Default)]
pub(super) struct ClusterSums {
    /// Keys of the clusters of each run.
    pub(super) keys: HashMap<Uuid, Vec<u64>>,
    /// Fingerprint of the sample set of each run.
    pub(super) sets: HashMap<Uuid, String>,
    /// Sum and count in each of these clusters, by metric and policy, for each run.
    pub(super) sums: HashMap<Uuid, MetricSums>,
}

/// Slice summaries of a run, which may be stale.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSlices {
    /// Time of computation, UTC, to the microsecond.
    pub computed: OffsetDateTime,
    /// `true` if the run has changed since.
    pub stale: bool,
    /// Number of samples in the run at that time.
    pub samples: u64,
    /// Rows by slice, metric and policy, without their sums.
    pub rows: Vec<SliceSummary>,
}

impl Store {
    /// Replaces the slice summaries of a run; `false` if the run was deleted.
    pub async fn save_run_summary(
        &self,
        version: &RunVersion,
        summary: &RunSummary,
        computed: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        on_backend!(self, pool => {
            with_retries(|| replace(pool, version, summary, computed)).await
        })
    }

    /// Returns the slice summaries of a run for the pack with this digest, or `None` if there are
    /// none yet.
    pub async fn run_slices(&self, run: Uuid, pack: &str) -> Result<Option<RunSlices>, StoreError> {
        on_backend!(self, pool => run_slices(pool, run, pack).await)
    }

    /// Returns the distributions of all metrics in the summarised runs, for the pack with this
    /// digest.
    pub async fn run_quantiles(&self, pack: &str) -> Result<Vec<(Uuid, Quantiles)>, StoreError> {
        let mut sql = Sql::new(
            "SELECT run, metric, metric_version, n, places FROM run_quantiles WHERE pack = ",
        );
        sql.bind(pack).push(" ORDER BY metric, metric_version, run");
        on_backend!(self, pool => read(pool, sql, |row| quantiles(row, pack)).await)
    }
}

async fn replace<P: Connections>(
    pool: &P,
    version: &RunVersion,
    summary: &RunSummary,
    computed: OffsetDateTime,
) -> Result<bool, StoreError> {
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;
    // Deleting the run locks its row too, so nothing is written for a deleted run.
    let mut sql = Sql::new("SELECT id FROM runs WHERE id = ");
    sql.bind(version.run).push(connection.lock());
    if connection.fetch(sql).await?.is_empty() {
        return Ok(false);
    }
    forget(connection, version.run, Some(&version.pack)).await?;
    insert_slices(connection, version, &summary.slices).await?;
    if !summary.quantiles.is_empty() {
        let mut sql = Sql::new(
            "INSERT INTO run_quantiles (pack, metric, metric_version, run, n, places) VALUES ",
        );
        sql.tuples(summary.quantiles.iter().map(|of| {
            let places: Vec<u8> = of.places.iter().flat_map(|place| place.to_le_bytes()).collect();
            let n = Argument::Int(of.n as i64);
            [
                version.pack.as_str().into(),
                of.metric.as_str().into(),
                of.version.into(),
                version.run.into(),
                n,
                places.into(),
            ]
        }));
        connection.execute(sql).await?;
    }
    if !summary.benchmarks.is_empty() {
        let mut sql = Sql::new(
            "INSERT INTO benchmark_sets (run, pack, label, sample_set, samples, clusters) VALUES ",
        );
        sql.tuples(summary.benchmarks.iter().map(|of| {
            [
                version.run.into(),
                version.pack.as_str().into(),
                of.label.as_str().into(),
                of.sample_set.as_str().into(),
                Argument::Int(of.samples as i64),
                write_keys(&of.cluster_keys).into(),
            ]
        }));
        connection.execute(sql).await?;
    }
    let keys = write_keys(&summary.cluster_keys);
    let mut sql = Sql::new(
        "INSERT INTO run_slices (run, pack, fingerprint, sample_set, samples, clusters, computed)
         VALUES ",
    );
    sql.tuple([
        version.run.into(),
        version.pack.as_str().into(),
        version.fingerprint.as_str().into(),
        summary.sample_set.as_str().into(),
        Argument::Int(summary.samples as i64),
        keys.into(),
        to_microseconds(computed).into(),
    ]);
    connection.execute(sql).await?;
    transaction.commit().await?;
    Ok(true)
}

async fn insert_slices<C: Connection>(
    connection: &mut C,
    version: &RunVersion,
    slices: &[SliceSummary],
) -> Result<(), StoreError> {
    let key = |row: &SliceSummary| -> [Argument; 6] {
        [
            version.run.into(),
            version.pack.as_str().into(),
            row.slice.kind.as_str().into(),
            row.slice.label.as_str().into(),
            row.metric.as_str().into(),
            row.policy.as_str().into(),
        ]
    };
    for rows in slices.chunks(ROWS_PER_STATEMENT) {
        let mut sql = Sql::new(
            "INSERT INTO slice_summaries (run, pack, kind, label, metric, policy, metric_version,
                 samples, n, nulls, penalised, undecided, faceless, mean, std, low, high,
                 clusters)
             VALUES ",
        );
        for (position, row) in rows.iter().enumerate() {
            let counts =
                [row.samples, row.n, row.nulls, row.penalised, row.undecided, row.faceless];
            let numbers = [row.mean, row.std, row.low, row.high];
            sql.push(if position > 0 { ", " } else { "" });
            sql.tuple(
                key(row)
                    .into_iter()
                    .chain([row.version.into()])
                    .chain(counts.map(|count| Argument::Int(count as i64)))
                    .chain(numbers.map(Argument::Real))
                    .chain([Argument::Int(row.clusters as i64)]),
            );
        }
        connection.execute(sql).await?;
        let mut sql = Sql::new(
            "INSERT INTO slice_sums (run, pack, kind, label, metric, policy, sums) VALUES ",
        );
        for (position, row) in rows.iter().enumerate() {
            sql.push(if position > 0 { ", " } else { "" });
            sql.tuple(key(row).into_iter().chain([write_sums(&row.sums).into()]));
        }
        connection.execute(sql).await?;
    }
    Ok(())
}

/// Deletes the slice summaries of a run, of one pack or of all.
pub(crate) async fn forget<C: Connection>(
    connection: &mut C,
    run: Uuid,
    pack: Option<&str>,
) -> Result<(), StoreError> {
    for text in [
        "DELETE FROM slice_sums WHERE run = ",
        "DELETE FROM slice_summaries WHERE run = ",
        "DELETE FROM run_quantiles WHERE run = ",
        "DELETE FROM benchmark_sets WHERE run = ",
        "DELETE FROM run_slices WHERE run = ",
    ] {
        let mut sql = Sql::new(text);
        sql.bind(run);
        if let Some(pack) = pack {
            sql.push(" AND pack = ").bind(pack);
        }
        connection.execute(sql).await?;
    }
    Ok(())
}

async fn run_slices<P: Connections>(
    pool: &P,
    run: Uuid,
    pack: &str,
) -> Result<Option<RunSlices>, StoreError> {
    let stale = stale(pool, Some(run)).await?.iter().any(|version| version.pack == pack);
    let mut connection = pool.reader().await?;
    let mut sql = Sql::new("SELECT samples, computed FROM run_slices WHERE run = ");
    sql.bind(run).push(" AND pack = ").bind(pack);
    let state = connection.fetch(sql).await?;
    let Some(state) = state.first() else { return Ok(None) };
    let state = Reader::new(state, "run_slices", run);
    let mut sql = Sql::new(
        "SELECT kind, label, metric, policy, metric_version, samples, n, nulls, penalised,
             undecided, faceless, mean, std, low, high, clusters
         FROM slice_summaries
         WHERE run = ",
    );
    sql.bind(run).push(" AND pack = ").bind(pack).push(" ORDER BY kind, label, metric, policy");
    let rows = connection.fetch(sql).await?;
    let rows = rows.iter().map(|row| {
        let row = Reader::new(row, "slice_summaries", run);
        let slice = Slice { kind: row.text("kind")?, label: row.text("label")? };
        summary(&row, slice, row.text("policy")?)
    });
    Ok(Some(RunSlices {
        computed: state.time("computed")?,
        stale,
        samples: state.int("samples")?,
        rows: rows.collect::<Result<_, _>>()?,
    }))
}

/// Reads a row of `slice_summaries`, without its sums.
pub(super) fn summary<R: Row>(
    row: &Reader<'_, R>,
    slice: Slice,
    policy: String,
) -> Result<SliceSummary, StoreError> {
    Ok(SliceSummary {
        slice,
        policy,
        metric: row.text("metric")?,
        version: row.int("metric_version")?,
        samples: row.int("samples")?,
        n: row.int("n")?,
        nulls: row.int("nulls")?,
        penalised: row.int("penalised")?,
        undecided: row.int("undecided")?,
        faceless: row.int("faceless")?,
        mean: row.optional_real("mean")?,
        std: row.optional_real("std")?,
        low: row.optional_real("low")?,
        high: row.optional_real("high")?,
        clusters: row.int("clusters")?,
        sums: Vec::new(),
    })
}

/// Returns the sums of these runs in a slice under these policies, for intervals over several runs.
pub(super) async fn cluster_sums<P: Connections>(
    pool: &P,
    runs: &[Uuid],
    pack: &str,
    slice: &Slice,
    policies: &[&str],
) -> Result<ClusterSums, StoreError> {
    let mut found = ClusterSums::default();
    let mut connection = pool.reader().await?;
    for runs in runs.chunks(ROWS_PER_STATEMENT) {
        let mut sql = if slice.kind == Slice::PROMPT_KIND {
            let mut sql =
                Sql::new("SELECT run, clusters, sample_set FROM benchmark_sets WHERE label = ");
            sql.bind(slice.label.as_str()).push(" AND pack = ");
            sql
        } else {
            Sql::new("SELECT run, clusters, sample_set FROM run_slices WHERE pack = ")
        };
        sql.bind(pack).push(" AND run IN ").tuple(runs.iter().map(|run| (*run).into()));
        for row in &connection.fetch(sql).await? {
            let row = Reader::new(row, "cluster keys", "");
            let keys = read_keys(&row.optional_bytes("clusters")?.unwrap_or_default());
            found.keys.insert(row.uuid("run")?, keys);
            found.sets.insert(row.uuid("run")?, row.text("sample_set")?);
        }
        let mut sql = Sql::new("SELECT run, metric, policy, sums FROM slice_sums WHERE pack = ");
        sql.bind(pack).push(" AND kind = ").bind(slice.kind.as_str());
        sql.push(" AND label = ").bind(slice.label.as_str());
        sql.push(" AND policy IN ").tuple(policies.iter().map(|policy| (*policy).into()));
        sql.push(" AND run IN ").tuple(runs.iter().map(|run| (*run).into()));
        for row in &connection.fetch(sql).await? {
            let row = Reader::new(row, "slice_sums", "");
            let run = row.uuid("run")?;
            let sums = read_sums(&row.optional_bytes("sums")?.unwrap_or_default());
            // A run that was summarised again between the two statements has other clusters: it is
            // left out this time.
            if found.keys.get(&run).is_some_and(|keys| keys.len() == sums.len()) {
                let of_run = found.sums.entry(run).or_default();
                of_run.insert((row.text("metric")?, row.text("policy")?), sums);
            }
        }
    }
    Ok(found)
}

fn quantiles<R: Row>(row: &R, pack: &str) -> Result<(Uuid, Quantiles), StoreError> {
    let row = Reader::new(row, "run_quantiles", pack);
    let bytes = row.optional_bytes("places")?.unwrap_or_default();
    let places = bytes.as_chunks().0.iter().map(|place| f64::from_le_bytes(*place)).collect();
    let (metric, version) = (row.text("metric")?, row.int("metric_version")?);
    Ok((row.uuid("run")?, Quantiles { metric, version, n: row.int("n")?, places }))
}

fn write_keys(keys: &[u64]) -> Vec<u8> {
    keys.iter().flat_map(|key| key.to_le_bytes()).collect()
}

pub(super) fn read_keys(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|key| u64::from_le_bytes(*key)).collect()
}

fn write_sums(sums: &[(f64, usize)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12 * sums.len());
    for (sum, count) in sums {
        bytes.extend(sum.to_le_bytes());
        bytes.extend(u32::try_from(*count).unwrap_or(u32::MAX).to_le_bytes());
    }
    bytes
}

pub(super) fn read_sums(bytes: &[u8]) -> Vec<(f64, usize)> {
    let (entries, _) = bytes.as_chunks::<12>();
    let entries = entries.iter().map(|entry| {
        let (sum, count) = entry.split_at(8);
        let sum = f64::from_le_bytes(sum.try_into().expect("8 bytes"));
        (sum, u32::from_le_bytes(count.try_into().expect("4 bytes")) as usize)
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_read_back_as_they_were_written() {
        let sums = [(0.1, 3), (0.0, 0), (-1e300, 4_000_000_000)];
        assert_eq!(read_sums(&write_sums(&sums)), sums);
    }
}
