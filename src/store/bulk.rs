//! Scores of many samples of a run at once: imported ones, and run-wide ones such as `aps`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use time::OffsetDateTime;
use uuid::{ContextV7, Timestamp, Uuid};

use super::db::{
    Connection, Connections, GIVEN, Reader, Sql, StoreError, check_name, storable, to_microseconds,
    with_retries,
};
use super::ensure::ensure_pack;
use super::record::check_number;
use super::running::{self, SummaryKey};
use super::runs::RunState;
use super::{PackId, RunName, ScoreValue};
use crate::content::ContentHash;

/// Rows per statement: SQLite accepts 32,766 arguments, and a sample has four. Values that all rows
/// share are bound once.
const AT_ONCE: usize = 5_000;

/// For each attribute by name: `true` if the subject has it, and `true` if it was predicted for the
/// face in the image.
pub type AttributeLabels = BTreeMap<String, (bool, bool)>;

/// One attribute, sample by sample: `true` if the subject has it, and `true` if it was predicted
/// for the face in the image.
pub type AttributeColumn = Vec<Option<(bool, bool)>>;

/// One metric's scores of several samples.
#[derive(Clone, Debug)]
pub struct ScoreColumn {
    /// Code of the metric.
    pub metric: String,
    /// Version of the metric's definition.
    pub metric_version: u32,
    /// Number or null of each sample.
    pub values: Vec<ScoreValue>,
}

/// Scores to import, which were computed elsewhere.
#[derive(Clone, Debug)]
pub struct NewImport {
    /// Id of the run.
    pub run: Uuid,
    /// Time of the import.
    pub created: OffsetDateTime,
    /// Pack under which the scores are stored.
    pub pack: PackId,
    /// Version of the service.
    pub service_version: String,
    /// Names of the samples, without duplicates.
    pub names: Vec<String>,
    /// Metadata of samples that are new, in the order of `names`: JSON objects as text, because a
    /// hundred thousand parsed ones take ten times the memory.
    pub metadata: Vec<String>,
    /// Scores, with every column in the order of `names`.
    pub columns: Vec<ScoreColumn>,
    /// Evidence behind `aps` by attribute, with every column in the order of `names`; empty if the
    /// scores are of other metrics.
    pub outcomes: BTreeMap<String, AttributeColumn>,
}

/// Result of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Number of new samples.
    pub samples: u64,
    /// Number of scores written, including replaced ones.
    pub scores: u64,
}

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
    /// Score of each sample, by its id.
    pub scores: Vec<(Uuid, ScoreValue)>,
    /// Evidence behind the score of each sample, by its id.
    pub outcomes: Vec<(Uuid, AttributeLabels)>,
}

/// Imports scores, all or nothing. Returns `None` if no run has this id. Existing scores of the
/// same pack are replaced.
pub(super) async fn import<P: Connections>(
    pool: &P,
    new: &NewImport,
) -> Result<Option<Imported>, StoreError> {
    for name in &new.names {
        check_name("the sample's name", name)?;
    }
    check_name("the source", &new.pack.name)?;
    for column in &new.columns {
        for value in column.values.iter().filter_map(ScoreValue::number) {
            check_number(&column.metric, value)?;
        }
    }
    with_retries(new.run, || import_transaction(pool, new)).await
}

async fn import_transaction<P: Connections>(
    pool: &P,
    new: &NewImport,
) -> Result<Option<Imported>, StoreError> {
    let created = to_microseconds(new.created);
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;
    let Some((name, state)) = locked(connection, new.run).await? else { return Ok(None) };
    if state != RunState::Open {
        return Err(StoreError::RunFinished { run: name });
    }
    ensure_pack(connection, &new.pack, created).await?;
    let (ids, samples) = ensure_samples(connection, new, created).await?;
    let mut sql = Sql::new("UPDATE runs SET revision = revision + 1, scored = scored + ");
    sql.bind(samples as i64).push(" WHERE id = ").bind(new.run);
    connection.execute(sql).await?;
    let mut scores = 0;
    // Sorted, because all transactions lock summaries in this order.
    let mut columns: Vec<&ScoreColumn> = new.columns.iter().collect();
    columns.sort_by(|a, b| a.metric.cmp(&b.metric));
    for column in columns {
        let of = Origin {
            pack: &new.pack.digest,
            service_version: &new.service_version,
            metric: &column.metric,
            version: column.metric_version,
            created,
        };
        let key = of.summary(new.run);
        let is_first = running::claim(connection, key).await?;
        let rows: Vec<_> = ids.iter().map(|&(id, at)| (id, &column.values[at])).collect();
        scores += write_scores(connection, &of, &rows, true).await?;
        forget_versions(connection, key).await?;
        if is_first {
            // The summary covers only the rows just written, so nothing needs to be read.
            let numbers: Vec<f64> =
                rows.iter().filter_map(|(_, value)| value.number().map(storable)).collect();
            let nulls = rows.len() - numbers.len();
            running::put(connection, key, &numbers, nulls as i64).await?;
        } else {
            running::recompute(connection, key).await?;
        }
    }
    if !new.outcomes.is_empty() {
        let of_sample = |at: usize| {
            let known = new.outcomes.iter().filter_map(|(name, column)| Some((name.as_str(), column[at]?)));
            known.collect::<BTreeMap<&str, (bool, bool)>>()
        };
        write_outcomes(connection, &new.pack.digest, &ids, |&(id, at)| (id, json(&of_sample(at)))).await?;
    }
    transaction.commit().await?;
    Ok(Some(Imported { samples, scores }))
}

/// Returns the samples' ids in ascending order, each with the position of its name, and the number
/// of new samples.
async fn ensure_samples<C: Connection>(
    connection: &mut C,
    new: &NewImport,
    created: OffsetDateTime,
) -> Result<(Vec<(Uuid, usize)>, u64), StoreError> {
    let mut ids = vec![None; new.names.len()];
    find_named(connection, new.run, &new.names, &mut ids).await?;
    let missing = (0..ids.len()).filter(|&at| ids[at].is_none());
    // Ascending ids, so that new rows are adjacent in their tables.
    let fresh: Vec<(Uuid, usize)> = ascending(created).zip(missing).collect();
    let mut added = 0;
    for fresh in fresh.chunks(AT_ONCE) {
        added += add_samples(connection, new, fresh, created).await?;
    }
    if added == fresh.len() as u64 {
        for (id, at) in fresh {
            ids[at] = Some(id);
        }
    } else {
        // A concurrent transaction created some of them.
        find_named(connection, new.run, &new.names, &mut ids).await?;
    }
    let ids = ids.into_iter().zip(0..).map(|(id, at)| Some((id?, at))).collect::<Option<Vec<_>>>();
    let mut ids = ids.ok_or(StoreError::Contended(sqlx::Error::RowNotFound))?;
    ids.sort_unstable();
    Ok((ids, added))
}

/// Generates `UUIDv7`s of the given time, each greater than the one before.
fn ascending(created: OffsetDateTime) -> impl Iterator<Item = Uuid> {
    let context = ContextV7::new();
    let seconds = u64::try_from(created.unix_timestamp()).unwrap_or_default();
    std::iter::repeat_with(move || {
        Uuid::new_v7(Timestamp::from_unix(&context, seconds, created.nanosecond()))
    })
}

async fn locked<C: Connection>(
    connection: &mut C,
    run: Uuid,
) -> Result<Option<(RunName, RunState)>, StoreError> {
    let mut sql = Sql::new(
        "SELECT methods.name AS method_name, runs.name, state FROM runs JOIN methods ON methods.id = runs.method
         WHERE runs.id = ",
    );
    sql.bind(run).push(connection.lock_shared_runs());
    let rows = connection.fetch(sql).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let row = Reader::new(row, "runs", run);
    let name = RunName { method: row.text("method_name")?, run: row.text("name")? };
    Ok(Some((name, row.word("state", RunState::parse)?)))
}

/// Fills in the ids of those samples that exist, each at the position of its name.
async fn find_named<C: Connection>(
    connection: &mut C,
    run: Uuid,
    names: &[String],
    ids: &mut [Option<Uuid>],
) -> Result<(), StoreError> {
    for (names, ids) in names.chunks(AT_ONCE).zip(ids.chunks_mut(AT_ONCE)) {
        let places: HashMap<&str, usize> = names.iter().map(String::as_str).zip(0..).collect();
        let mut sql = Sql::new("SELECT id, name FROM samples WHERE run = ");
        sql.bind(run).push(" AND name IN ");
        sql.tuple(names.iter().map(|name| name.as_str().into()));
        let take = |row: &C::Row| {
            let row = Reader::new(row, "samples", "");
            if let Some(&at) = places.get(row.text("name")?.as_str()) {
                ids[at] = Some(row.uuid("id")?);
            }
            Ok(())
        };
        connection.each(sql, take).await?;
    }
    Ok(())
}

/// Inserts samples without an image. Their content is their name, because nothing else is known of
/// them.
async fn add_samples<C: Connection>(
    connection: &mut C,
    new: &NewImport,
    fresh: &[(Uuid, usize)],
    created: OffsetDateTime,
) -> Result<u64, StoreError> {
    let mut sql = Sql::new(
        "INSERT INTO samples (id, run, name, content, reference_hashes, auxiliary_hashes, metadata, created) SELECT column1, ",
    );
    sql.bind(new.run).push(", column2, column3, '[]', '[]', column4, ").bind(created);
    sql.push(" FROM (VALUES ");
    sql.tuples(fresh.iter().map(|&(id, at)| {
        let name = new.names[at].as_str();
        let content = ContentHash::of_parts([b"import".as_slice(), name.as_bytes()]).to_hex();
        let metadata = new.metadata.get(at).map_or("{}", String::as_str);
        [id.into(), name.into(), content.into(), metadata.into()]
    }));
    sql.push(GIVEN).push(" ON CONFLICT (run, name) DO NOTHING");
    Ok(connection.execute(sql).await?)
}

/// Origin of scores: pack, service version, metric and time.
struct Origin<'a> {
    pack: &'a str,
    service_version: &'a str,
    metric: &'a str,
    version: u32,
    created: OffsetDateTime,
}

impl<'a> Origin<'a> {
    /// Returns the key of the summary that a run's scores of this metric count in.
    fn summary(&self, run: Uuid) -> SummaryKey<'a> {
        SummaryKey { run, metric: self.metric, pack: self.pack, version: self.version }
    }
}

async fn write_scores<C: Connection>(
    connection: &mut C,
    of: &Origin<'_>,
    rows: &[(Uuid, &ScoreValue)],
    replace: bool,
) -> Result<u64, StoreError> {
    let mut written = 0;
    for rows in rows.chunks(AT_ONCE) {
        let mut sql = Sql::new(
            "INSERT INTO scores (sample, metric, pack, metric_version, value, reason, flags, service_version, created)
             SELECT column1, ",
        );
        sql.bind(of.metric).push(", ").bind(of.pack).push(", ").bind(of.version);
        sql.push(", column2, column3, '[]', ").bind(of.service_version).push(", ").bind(of.created);
        sql.push(" FROM (VALUES ");
        sql.tuples(rows.iter().map(|(sample, value)| {
            let (value, reason) = match value {
                ScoreValue::Number(value) => (Some(storable(*value)), None),
                ScoreValue::Null { reason } => (None, Some(reason.clone())),
            };
            [(*sample).into(), value.into(), reason.into()]
        }));
        sql.push(GIVEN);
        sql.push(if replace {
            " ON CONFLICT (sample, metric, pack) DO UPDATE SET
                  metric_version = excluded.metric_version, value = excluded.value, reason = excluded.reason,
                  flags = excluded.flags, service_version = excluded.service_version, created = excluded.created"
        } else {
            " ON CONFLICT (sample, metric, pack) DO NOTHING"
        });
        written += connection.execute(sql).await?;
    }
    Ok(written)
}

/// Recomputes the summaries of other versions of a metric, which counted the replaced rows.
async fn forget_versions<C: Connection>(connection: &mut C, key: SummaryKey<'_>) -> Result<(), StoreError> {
    let mut sql = Sql::new("SELECT metric_version FROM summaries WHERE run = ");
    sql.bind(key.run).push(" AND pack = ").bind(key.pack).push(" AND metric = ").bind(key.metric);
    sql.push(" AND metric_version <> ").bind(key.version).push(" ORDER BY metric_version");
    for row in &connection.fetch(sql).await? {
        let version = Reader::new(row, "summaries", key.run).int("metric_version")?;
        running::recompute(connection, SummaryKey { version, ..key }).await?;
    }
    Ok(())
}

/// Writes the attribute labels and predictions of each sample; `of` returns the id and the outcomes
/// as JSON.
async fn write_outcomes<C: Connection, T: Sync>(
    connection: &mut C,
    pack: &str,
    rows: &[T],
    of: impl Fn(&T) -> (Uuid, String) + Send,
) -> Result<(), StoreError> {
    for rows in rows.chunks(AT_ONCE) {
        let mut sql = Sql::new("INSERT INTO attribute_outcomes (sample, pack, outcomes) SELECT column1, ");
        sql.bind(pack).push(", column2 FROM (VALUES ");
        sql.tuples(rows.iter().map(|row| {
            let (sample, text) = of(row);
            [sample.into(), text.into()]
        }));
        sql.push(GIVEN).push(" ON CONFLICT (sample, pack) DO UPDATE SET outcomes = excluded.outcomes");
        connection.execute(sql).await?;
    }
    Ok(())
}

fn json(outcomes: &impl serde::Serialize) -> String {
    serde_json::to_string(outcomes).expect("plain data always serialises")
}

/// Adds the scores of one metric to samples that have none of it yet, in one transaction.
pub(super) async fn add_run_wide<P: Connections>(pool: &P, new: &RunWideScores) -> Result<u64, StoreError> {
    with_retries(new.run, || run_wide_transaction(pool, new)).await
}

async fn run_wide_transaction<P: Connections>(pool: &P, new: &RunWideScores) -> Result<u64, StoreError> {
    let created = to_microseconds(new.created);
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;
    if locked(connection, new.run).await?.is_none() {
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
    let rows = new.scores.iter().filter(|(id, _)| there.contains(id)).map(|(id, value)| (*id, value));
    let key = of.summary(new.run);
    running::claim(connection, key).await?;
    let written = write_scores(connection, &of, &rows.collect::<Vec<_>>(), false).await?;
    let outcomes: Vec<_> = new.outcomes.iter().filter(|(id, _)| there.contains(id)).collect();
    write_outcomes(connection, &new.pack.digest, &outcomes, |(id, outcomes)| (*id, json(outcomes))).await?;
    running::recompute(connection, key).await?;
    let mut sql = Sql::new("UPDATE runs SET revision = revision + 1 WHERE id = ");
    sql.bind(new.run);
    connection.execute(sql).await?;
    transaction.commit().await?;
    Ok(written)
}

async fn of_run<C: Connection>(connection: &mut C, run: Uuid) -> Result<BTreeSet<Uuid>, StoreError> {
    let mut sql = Sql::new("SELECT id FROM samples WHERE run = ");
    sql.bind(run);
    let rows = connection.fetch(sql).await?;
    rows.iter().map(|row| Reader::new(row, "samples", run).uuid("id")).collect()
}

/// Maximum of attributes times samples in one table: the 40 attributes of `CelebA` for the largest
/// number of samples in a file.
const MOST_OUTCOMES: usize = 8_000_000;

/// Returns label and prediction of each of these samples of a run, for each attribute by name, as
/// far as this pack has them. The names are in ascending order.
pub(super) async fn outcomes<P: Connections>(
    pool: &P,
    run: Uuid,
    pack: &str,
    names: &[String],
) -> Result<BTreeMap<String, AttributeColumn>, StoreError> {
    const BATCH: u32 = 5_000;
    let mut connection = pool.reader().await?;
    let mut columns: BTreeMap<String, AttributeColumn> = BTreeMap::new();
    let mut after = String::new();
    loop {
        let mut sql = Sql::new(
            "SELECT name, outcomes FROM attribute_outcomes JOIN samples ON samples.id = attribute_outcomes.sample
             WHERE samples.run = ",
        );
        sql.bind(run).push(" AND pack = ").bind(pack).push(" AND name > ").bind(after.as_str());
        sql.push(" ORDER BY name LIMIT ").bind(BATCH);
        let rows = connection.fetch(sql).await?;
        for row in &rows {
            let row = Reader::new(row, "attribute_outcomes", run);
            after = row.text("name")?;
            // Skips samples that were added after the names were read.
            let Ok(at) = names.binary_search(&after) else { continue };
            for (attribute, outcome) in row.json::<AttributeLabels>("outcomes")? {
                if (columns.len() + 1) * names.len() > MOST_OUTCOMES && !columns.contains_key(&attribute) {
                    return Err(StoreError::Invalid {
                        field: "a table of the run's attributes".to_owned(),
                        reason: format!(
                            "there are predictions of more than {} attributes of {} samples, and the product of both \
                             may be at most {MOST_OUTCOMES}: import fewer attributes or smaller runs",
                            columns.len(),
                            names.len()
                        ),
                    });
                }
                let column = columns.entry(attribute).or_insert_with(|| vec![None; names.len()]);
                column[at] = Some(outcome);
            }
        }
        if rows.len() < BATCH as usize {
            return Ok(columns);
        }
    }
}

/// Returns the packs that a run has scores of, by name and digest.
pub(super) async fn packs<P: Connections>(pool: &P, run: Uuid) -> Result<Vec<PackId>, StoreError> {
    let mut sql = Sql::new(
        "SELECT DISTINCT packs.digest, packs.name, weights FROM summaries JOIN packs ON packs.digest = summaries.pack
         WHERE run = ",
    );
    sql.bind(run).push(" ORDER BY packs.name, packs.digest");
    read_packs(pool, sql).await
}

/// Returns all packs that have stored scores, by name and digest.
pub(super) async fn all_packs<P: Connections>(pool: &P) -> Result<Vec<PackId>, StoreError> {
    read_packs(pool, Sql::new("SELECT digest, name, weights FROM packs ORDER BY name, digest")).await
}

async fn read_packs<P: Connections>(pool: &P, sql: Sql) -> Result<Vec<PackId>, StoreError> {
    let rows = pool.reader().await?.fetch(sql).await?;
    rows.iter()
        .map(|row| {
            let row = Reader::new(row, "packs", "");
            Ok(PackId {
                digest: row.text("digest")?,
                name: row.text("name")?,
                weights: row.word("weights", super::Weights::parse)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_instant_are_ascending() {
        let created = OffsetDateTime::from_unix_timestamp(1_774_008_000).unwrap();
        let ids: Vec<Uuid> = ascending(created).take(10_000).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
    }
}
