//! Scores of many samples of a run at once: those that were computed elsewhere, and those that only a whole run has.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use time::OffsetDateTime;
use uuid::{ContextV7, Timestamp, Uuid};

use super::ensure::ensure_pack;
use super::record::check_number;
use super::running::{self, SummaryKey};
use super::runs::RunState;
use super::sql::{Connection, Connections, GIVEN, Reader, Sql, with_retries};
use super::words::{check_name, storable, to_microseconds};
use super::{PackId, RunName, ScoreValue, StoreError};
use crate::content::ContentHash;

/// Rows in one statement: SQLite takes 32,766 arguments, and a sample has four. What all rows share is bound once.
const AT_ONCE: usize = 5_000;

/// For each attribute by name, whether the subject has it and whether the face in the image was found to have it.
pub type AttributeLabels = BTreeMap<String, (bool, bool)>;

/// Of one attribute, whether the subject has it and whether the face in the image was found to have it, sample by sample.
pub type AttributeColumn = Vec<Option<(bool, bool)>>;

/// One metric's scores of several samples.
#[derive(Clone, Debug)]
pub struct ScoreColumn {
    /// The metric's code.
    pub metric: String,
    /// The version of the metric's definition.
    pub metric_version: u32,
    /// A number or null for each sample.
    pub values: Vec<ScoreValue>,
}

/// Scores that were computed elsewhere.
#[derive(Clone, Debug)]
pub struct NewImport {
    /// The run.
    pub run: Uuid,
    /// Now.
    pub created: OffsetDateTime,
    /// The pack under which the scores stand.
    pub pack: PackId,
    /// The version of the service.
    pub service_version: String,
    /// Each sample's name, each once.
    pub names: Vec<String>,
    /// What else is said of a sample that is new, in the order of the names: each a JSON object, as text, since a hundred
    /// thousand parsed ones take ten times the memory.
    pub metadata: Vec<String>,
    /// The scores, every column in the order of the names.
    pub columns: Vec<ScoreColumn>,
    /// What `aps` stands on, by attribute, every column in the order of the names; empty where the scores are of other metrics.
    pub outcomes: BTreeMap<String, AttributeColumn>,
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Samples that were not there before.
    pub samples: u64,
    /// Scores that were written, replaced ones included.
    pub scores: u64,
}

/// Scores that only a whole run has, of samples that are there.
#[derive(Clone, Debug)]
pub struct RunWideScores {
    /// The run.
    pub run: Uuid,
    /// Now.
    pub created: OffsetDateTime,
    /// The pack that they stand on.
    pub pack: PackId,
    /// The version of the service.
    pub service_version: String,
    /// The metric's code.
    pub metric: String,
    /// The version of the metric's definition.
    pub metric_version: u32,
    /// Each sample's id with its score.
    pub scores: Vec<(Uuid, ScoreValue)>,
    /// Each sample's id with what the score stands on.
    pub outcomes: Vec<(Uuid, AttributeLabels)>,
}

/// Imports all or nothing, or says `None` where no run has this id. Scores that the same pack already has are replaced.
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
    // In order, as all transactions take summaries.
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
            // All that counts was just written, and need not be read.
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

/// The samples' ids in ascending order, each with the place of its name, and how many of them were not there before.
async fn ensure_samples<C: Connection>(
    connection: &mut C,
    new: &NewImport,
    created: OffsetDateTime,
) -> Result<(Vec<(Uuid, usize)>, u64), StoreError> {
    let mut ids = vec![None; new.names.len()];
    find_named(connection, new.run, &new.names, &mut ids).await?;
    let missing = (0..ids.len()).filter(|&at| ids[at].is_none());
    // Ascending ids, so that rows come behind each other in their tables and not all over them.
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
        // Somebody else made some of them meanwhile.
        find_named(connection, new.run, &new.names, &mut ids).await?;
    }
    let ids = ids.into_iter().zip(0..).map(|(id, at)| Some((id?, at))).collect::<Option<Vec<_>>>();
    let mut ids = ids.ok_or(StoreError::Contended(sqlx::Error::RowNotFound))?;
    ids.sort_unstable();
    Ok((ids, added))
}

/// `UUIDv7`s of the given time, each greater than the one before.
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
    sql.bind(run).push(C::LOCK_SHARED_RUNS);
    let rows = connection.fetch(sql).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let row = Reader::new(row, "runs", run);
    let name = RunName { method: row.text("method_name")?, run: row.text("name")? };
    Ok(Some((name, row.word("state", RunState::parse)?)))
}

/// Puts the ids of those of these samples that are there in their places.
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

/// Makes samples without an image. Their content is their name: nothing else is known of them.
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

/// Where scores come from.
struct Origin<'a> {
    pack: &'a str,
    service_version: &'a str,
    metric: &'a str,
    version: u32,
    created: OffsetDateTime,
}

impl<'a> Origin<'a> {
    /// Where a run's scores of this metric are summed up.
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

/// Sums up anew what other versions of a metric still have of a run: rows that were replaced counted there.
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

/// Writes what was found of the attributes of each sample: its id and the outcomes as JSON are `of` its row.
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
    // Samples that were deleted meanwhile are left out.
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

/// Attributes by samples of one table: the 40 attributes of `CelebA` of the most samples that a file has.
const MOST_OUTCOMES: usize = 8_000_000;

/// For each attribute by name, what is true and what was found of each of these samples of a run, as far as this pack has it.
/// The names are in order.
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
            // One that was added since the names were read is left out.
            let Ok(at) = names.binary_search(&after) else { continue };
            for (attribute, outcome) in row.json::<AttributeLabels>("outcomes")? {
                if (columns.len() + 1) * names.len() > MOST_OUTCOMES && !columns.contains_key(&attribute) {
                    return Err(StoreError::Invalid {
                        field: "a table of the run's attributes".to_owned(),
                        reason: format!(
                            "there are predictions of more than {} attributes of {} samples: at most {MOST_OUTCOMES} of both \
                             multiplied are judged at once, so import fewer attributes or smaller runs",
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

/// The packs whose scores a run has, by name and digest.
pub(super) async fn packs<P: Connections>(pool: &P, run: Uuid) -> Result<Vec<PackId>, StoreError> {
    let mut sql = Sql::new(
        "SELECT DISTINCT packs.digest, packs.name, weights FROM summaries JOIN packs ON packs.digest = summaries.pack
         WHERE run = ",
    );
    sql.bind(run).push(" ORDER BY packs.name, packs.digest");
    read_packs(pool, sql).await
}

/// All packs that scores were stored of.
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
    fn ids_of_one_moment_ascend() {
        let created = OffsetDateTime::from_unix_timestamp(1_774_008_000).unwrap();
        let ids: Vec<Uuid> = ascending(created).take(10_000).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
    }
}
