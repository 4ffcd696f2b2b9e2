//! Summaries of runs with intervals, by slice and policy: kept, found out of date, and read.
//!
//! They are computed outside (`analysis`), from all samples of a run, and replaced as a whole. Whether they are up to date is
//! told by a fingerprint of the run's running summaries, which every recording and deletion brings up to date anyway: nothing
//! else has to be marked, and nothing can be forgotten.

use std::collections::{BTreeMap, HashMap};

use time::OffsetDateTime;
use uuid::Uuid;

use super::StoreError;
use super::sql::{Argument, Connection, Connections, Reader, Row, Sql, with_retries};
use super::words::{check_name, to_microseconds};
use crate::content::ContentHash;

/// Rows of one statement: SQLite allows 32,766 arguments.
const BATCH: usize = 1_000;

/// A part of a run's samples: those of a label, or all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slice {
    /// What is told apart: one of the constants; empty for all samples.
    pub kind: String,
    /// Which of them; empty for all samples.
    pub label: String,
}

impl Slice {
    /// The kind of the prompt.
    pub const PROMPT_KIND: &'static str = "prompt_kind";
    /// A category of the prompt.
    pub const CATEGORY: &'static str = "category";
    /// A kind of relation that the prompt asks for.
    pub const RELATION: &'static str = "relation";
    /// An attribute of the subject: its name where it is present, with `!` before it where it is absent.
    pub const ATTRIBUTE: &'static str = "attribute";
    /// The class of the image's shorter side.
    pub const SIZE: &'static str = "size";

    /// Whether a label can be kept: names of before they were checked may be too long for an index, or have U+0000.
    #[must_use]
    pub fn can_store(label: &str) -> bool {
        check_name("a slice's label", label).is_ok()
    }

    /// The slice of a label.
    pub fn new(kind: &str, label: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), label: label.into() }
    }

    /// All samples.
    #[must_use]
    pub fn all() -> Self {
        Self { kind: String::new(), label: String::new() }
    }

    /// Whether it is all samples.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.kind.is_empty()
    }
}

/// One metric over a slice of a run under a penalty policy.
#[derive(Clone, Debug, PartialEq)]
pub struct SliceSummary {
    /// The slice.
    pub slice: Slice,
    /// The policy's word.
    pub policy: String,
    /// The metric's code.
    pub metric: String,
    /// The version of its definition.
    pub version: u32,
    /// Samples in the slice, measured or not.
    pub samples: u64,
    /// Samples with a number.
    pub n: u64,
    /// Samples that were measured and have none.
    pub nulls: u64,
    /// Samples that the penalty hit.
    pub penalised: u64,
    /// Samples of which the penalty cannot be decided.
    pub undecided: u64,
    /// Samples in whose image no face was found, as far as this metric looked for one.
    pub faceless: u64,
    /// The mean of the numbers.
    pub mean: Option<f64>,
    /// Their standard deviation, ddof 1.
    pub std: Option<f64>,
    /// The lower end of the mean's 95 % interval.
    pub low: Option<f64>,
    /// The upper end.
    pub high: Option<f64>,
    /// Clusters among the numbers: identities, and samples without one.
    pub clusters: u64,
    /// Sum and count of the numbers in each cluster, in the order of the run's keys. Empty where it was not asked for.
    pub sums: Vec<(f64, usize)>,
}

/// The distribution of a metric's numbers in a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantiles {
    /// The metric's code.
    pub metric: String,
    /// The version of its definition.
    pub version: u32,
    /// How many numbers.
    pub n: u64,
    /// Evenly spaced quantiles, the smallest and the largest number included.
    pub places: Vec<f64>,
}

/// All summaries of a run with one pack.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSummary {
    /// Samples in the run.
    pub samples: u64,
    /// What the set of its samples' names is known by: the same for runs over the same samples.
    pub sample_set: String,
    /// What its clusters are known by.
    pub cluster_keys: Vec<u64>,
    /// One row a slice, metric and policy.
    pub slices: Vec<SliceSummary>,
    /// One a metric.
    pub quantiles: Vec<Quantiles>,
}

/// A run with a pack, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunVersion {
    /// The run.
    pub run: Uuid,
    /// The pack's digest.
    pub pack: String,
    /// What its running summaries are.
    pub fingerprint: String,
}

/// Sum and count in each cluster of a run, by metric and policy.
pub type MetricSums = HashMap<(String, String), Vec<(f64, usize)>>;

/// The sums of runs in a slice, by cluster.
#[derive(Default)]
pub(super) struct ClusterSums {
    /// What the clusters of each run are known by.
    pub(super) keys: HashMap<Uuid, Vec<u64>>,
    /// What the sample set of each run is known by.
    pub(super) sets: HashMap<Uuid, String>,
    /// Sum and count in each of these clusters, by metric and policy, of each run.
    pub(super) sums: HashMap<Uuid, MetricSums>,
}

/// The summaries of a run that may be out of date.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSlices {
    /// When they were computed, UTC, to the microsecond.
    pub computed: OffsetDateTime,
    /// Whether the run has changed since.
    pub stale: bool,
    /// Samples in the run then.
    pub samples: u64,
    /// The rows, by slice, metric and policy, without their sums.
    pub rows: Vec<SliceSummary>,
}

/// The runs whose summaries are not there or out of date; of one run, or of all.
pub(super) async fn stale<P: Connections>(
    pool: &P,
    run: Option<Uuid>,
) -> Result<Vec<RunVersion>, StoreError> {
    let mut connection = pool.reader().await?;
    let mut sql = Sql::new(
        "SELECT summaries.run, summaries.pack, metric, metric_version, n, nulls, pivot, total, squares,
                COALESCE(fingerprint, '') AS fingerprint
         FROM summaries LEFT JOIN run_slices ON run_slices.run = summaries.run AND run_slices.pack = summaries.pack
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

/// Replaces the summaries of a run.
pub(super) async fn save<P: Connections>(
    pool: &P,
    version: &RunVersion,
    summary: &RunSummary,
    computed: OffsetDateTime,
) -> Result<bool, StoreError> {
    with_retries(version.run, || replace(pool, version, summary, computed)).await
}

async fn replace<P: Connections>(
    pool: &P,
    version: &RunVersion,
    summary: &RunSummary,
    computed: OffsetDateTime,
) -> Result<bool, StoreError> {
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;
    // Whoever deletes the run locks its row too: nothing is written for a run that is gone.
    let mut sql = Sql::new("SELECT id FROM runs WHERE id = ");
    sql.bind(version.run).push(lock(connection));
    if connection.fetch(sql).await?.is_empty() {
        return Ok(false);
    }
    forget(connection, version.run, Some(&version.pack)).await?;
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
    for rows in summary.slices.chunks(BATCH) {
        let mut sql = Sql::new(
            "INSERT INTO slice_summaries (run, pack, kind, label, metric, policy, metric_version, samples, n, nulls, penalised,
                                          undecided, faceless, mean, std, low, high, clusters) VALUES ",
        );
        for (position, row) in rows.iter().enumerate() {
            let counts = [row.samples, row.n, row.nulls, row.penalised, row.undecided, row.faceless];
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
        let mut sql =
            Sql::new("INSERT INTO slice_sums (run, pack, kind, label, metric, policy, sums) VALUES ");
        for (position, row) in rows.iter().enumerate() {
            sql.push(if position > 0 { ", " } else { "" });
            sql.tuple(key(row).into_iter().chain([write_sums(&row.sums).into()]));
        }
        connection.execute(sql).await?;
    }
    if !summary.quantiles.is_empty() {
        let mut sql =
            Sql::new("INSERT INTO run_quantiles (pack, metric, metric_version, run, n, places) VALUES ");
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
    let keys: Vec<u8> = summary.cluster_keys.iter().flat_map(|key| key.to_le_bytes()).collect();
    let mut sql = Sql::new(
        "INSERT INTO run_slices (run, pack, fingerprint, sample_set, samples, clusters, computed) VALUES ",
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

fn lock<C: Connection>(_: &C) -> &'static str {
    C::LOCK
}

/// Deletes what was computed of a run: of one pack, or of all.
pub(super) async fn forget<C: Connection>(
    connection: &mut C,
    run: Uuid,
    pack: Option<&str>,
) -> Result<(), StoreError> {
    for text in [
        "DELETE FROM slice_sums WHERE run = ",
        "DELETE FROM slice_summaries WHERE run = ",
        "DELETE FROM run_quantiles WHERE run = ",
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

/// The summaries of a run with a pack, or `None` where there are none yet.
pub(super) async fn run_slices<P: Connections>(
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
        "SELECT kind, label, metric, policy, metric_version, samples, n, nulls, penalised, undecided, faceless, mean, std,
                low, high, clusters FROM slice_summaries WHERE run = ",
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

/// A row of `slice_summaries` without its sums.
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

/// The sums of these runs in a slice under these policies, for intervals over several runs.
pub(super) async fn cluster_sums<P: Connections>(
    pool: &P,
    runs: &[Uuid],
    pack: &str,
    slice: &Slice,
    policies: &[&str],
) -> Result<ClusterSums, StoreError> {
    let mut found = ClusterSums::default();
    let mut connection = pool.reader().await?;
    for runs in runs.chunks(BATCH) {
        let mut sql = Sql::new("SELECT run, clusters, sample_set FROM run_slices WHERE pack = ");
        sql.bind(pack).push(" AND run IN ").tuple(runs.iter().map(|run| (*run).into()));
        for row in &connection.fetch(sql).await? {
            let row = Reader::new(row, "run_slices", "");
            let bytes = row.optional_bytes("clusters")?.unwrap_or_default();
            let numbers: Vec<u64> = bytes.as_chunks().0.iter().map(|key| u64::from_le_bytes(*key)).collect();
            found.keys.insert(row.uuid("run")?, numbers);
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
            // A run that was summarised anew between the two statements has other clusters: it is left out this time.
            if found.keys.get(&run).is_some_and(|keys| keys.len() == sums.len()) {
                let of_run = found.sums.entry(run).or_default();
                of_run.insert((row.text("metric")?, row.text("policy")?), sums);
            }
        }
    }
    Ok(found)
}

/// The distributions of metrics in all runs with a pack that have been summarised, but one run's.
pub(super) async fn quantiles<P: Connections>(
    pool: &P,
    pack: &str,
) -> Result<Vec<(Uuid, Quantiles)>, StoreError> {
    let mut connection = pool.reader().await?;
    let mut sql = Sql::new("SELECT run, metric, metric_version, n, places FROM run_quantiles WHERE pack = ");
    sql.bind(pack).push(" ORDER BY metric, metric_version, run");
    let rows = connection.fetch(sql).await?;
    let quantiles = rows.iter().map(|row| {
        let row = Reader::new(row, "run_quantiles", pack);
        let bytes = row.optional_bytes("places")?.unwrap_or_default();
        let places = bytes.as_chunks().0.iter().map(|place| f64::from_le_bytes(*place)).collect();
        let (metric, version) = (row.text("metric")?, row.int("metric_version")?);
        Ok((row.uuid("run")?, Quantiles { metric, version, n: row.int("n")?, places }))
    });
    quantiles.collect()
}

fn write_sums(sums: &[(f64, usize)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12 * sums.len());
    for (sum, count) in sums {
        bytes.extend(sum.to_le_bytes());
        bytes.extend(u32::try_from(*count).unwrap_or(u32::MAX).to_le_bytes());
    }
    bytes
}

fn read_sums(bytes: &[u8]) -> Vec<(f64, usize)> {
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
