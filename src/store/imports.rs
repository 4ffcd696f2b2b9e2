//! Imported scores, which were computed elsewhere.

use std::collections::{BTreeMap, HashMap};

use time::OffsetDateTime;
use uuid::{ContextV7, Timestamp, Uuid};

use super::Store;
use super::attributes::{AttributeColumn, json, write_outcomes};
use super::columns::{self, Origin, ScoreColumn};
use super::db::{
    Column, Connection, Connections, Reader, SCORES_PER_STATEMENT, Sql, StoreError, check_name,
    on_backend, storable, to_microseconds, with_retries,
};
use super::packs::ensure_pack;
use super::runs::{RunState, lock_run};
use super::sample::ScoreValue;
use super::scores::check_number;
use super::summaries::running::{self, SummaryKey};
use crate::content::ContentHash;
use crate::pack_id::PackId;

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
    /// Hashes of their inputs, in the order of `names`; empty if nothing is known of them but their
    /// names.
    pub contents: Vec<String>,
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

impl Store {
    /// Imports scores that were computed elsewhere, all or nothing. Existing scores of the same
    /// pack are replaced. Returns `None` if no run has this id.
    pub async fn import(&self, import: &NewImport) -> Result<Option<Imported>, StoreError> {
        on_backend!(self, pool => import_scores(pool, import).await)
    }
}

async fn import_scores<P: Connections>(
    pool: &P,
    new: &NewImport,
) -> Result<Option<Imported>, StoreError> {
    check_import(new)?;
    with_retries(|| import_transaction(pool, new)).await
}

/// Refuses names and numbers that a database cannot store.
pub(super) fn check_import(new: &NewImport) -> Result<(), StoreError> {
    for name in &new.names {
        check_name("the sample's name", name)?;
    }
    check_name("the source", &new.pack.name)?;
    for column in &new.columns {
        check_name("a metric's code", &column.metric)?;
        for value in column.values.iter().flatten() {
            match value {
                ScoreValue::Number(value) => check_number(&column.metric, *value)?,
                ScoreValue::Null { reason } => check_name("a null's reason", reason)?,
            }
        }
    }
    Ok(())
}

async fn import_transaction<P: Connections>(
    pool: &P,
    new: &NewImport,
) -> Result<Option<Imported>, StoreError> {
    let mut transaction = pool.begin_large().await?;
    let imported = import_rows(&mut *transaction, new).await?;
    transaction.commit().await?;
    Ok(imported)
}

/// Writes the rows of an import in a transaction.
pub(super) async fn import_rows<C: Connection>(
    connection: &mut C,
    new: &NewImport,
) -> Result<Option<Imported>, StoreError> {
    let created = to_microseconds(new.created);
    let Some((name, state)) = lock_run(connection, new.run).await? else { return Ok(None) };
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
        let scored = |&(id, at): &(Uuid, usize)| Some((id, column.values[at].as_ref()?));
        let rows: Vec<_> = ids.iter().filter_map(scored).collect();
        scores += columns::write(connection, &of, &rows, true).await?;
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
            let known =
                new.outcomes.iter().filter_map(|(name, column)| Some((name.as_str(), column[at]?)));
            known.collect::<BTreeMap<&str, (bool, bool)>>()
        };
        write_outcomes(connection, &new.pack.digest, &ids, |&(id, at)| (id, json(&of_sample(at))))
            .await?;
    }
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
    for fresh in fresh.chunks(SCORES_PER_STATEMENT) {
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

/// Fills in the ids of those samples that exist, each at the position of its name.
async fn find_named<C: Connection>(
    connection: &mut C,
    run: Uuid,
    names: &[String],
    ids: &mut [Option<Uuid>],
) -> Result<(), StoreError> {
    for (names, ids) in names.chunks(SCORES_PER_STATEMENT).zip(ids.chunks_mut(SCORES_PER_STATEMENT))
    {
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

/// Inserts samples without an image. If nothing else is known of them, their content is their name.
async fn add_samples<C: Connection>(
    connection: &mut C,
    new: &NewImport,
    fresh: &[(Uuid, usize)],
    created: OffsetDateTime,
) -> Result<u64, StoreError> {
    let mut sql = Sql::new(
        "INSERT INTO samples (id, run, name, content, reference_hashes, auxiliary_hashes,
             metadata, created)
         SELECT column1, ",
    );
    sql.bind(new.run).push(", column2, column3, '[]', '[]', column4, ").bind(created);
    let content = |at: usize| {
        let by_name =
            || ContentHash::of_parts([b"import".as_slice(), new.names[at].as_bytes()]).to_hex();
        new.contents.get(at).cloned().unwrap_or_else(by_name)
    };
    let metadata = |at: usize| new.metadata.get(at).map_or("{}", String::as_str);
    let columns = vec![
        Column::Uuid(fresh.iter().map(|(id, _)| *id).collect()),
        Column::texts(fresh.iter().map(|(_, at)| new.names[*at].as_str())),
        Column::texts(fresh.iter().map(|(_, at)| content(*at))),
        Column::texts(fresh.iter().map(|(_, at)| metadata(*at))),
    ];
    connection.push_rows(&mut sql, columns);
    sql.push(" ON CONFLICT (run, name) DO NOTHING");
    Ok(connection.execute(sql).await?)
}

/// Recomputes the summaries of other versions of a metric, which counted the replaced rows.
async fn forget_versions<C: Connection>(
    connection: &mut C,
    key: SummaryKey<'_>,
) -> Result<(), StoreError> {
    let mut sql = Sql::new("SELECT metric_version FROM summaries WHERE run = ");
    sql.bind(key.run).push(" AND pack = ").bind(key.pack).push(" AND metric = ").bind(key.metric);
    sql.push(" AND metric_version <> ").bind(key.version).push(" ORDER BY metric_version");
    for row in &connection.fetch(sql).await? {
        let version = Reader::new(row, "summaries", key.run).int("metric_version")?;
        running::recompute(connection, SummaryKey { version, ..key }).await?;
    }
    Ok(())
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
