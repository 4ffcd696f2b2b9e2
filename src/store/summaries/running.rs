//! Rows of running summaries: adding a score, removing one, and recomputing the sums. `moments.rs`
//! explains the columns.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::store::db::{Argument, Connection, Reader, Sql, StoreError, storable};
use crate::store::sample::ScoreValue;
use crate::store::scores::{Change, StoredScore};

/// Key of a summary: metric, pack and version of a run. Summaries are locked in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SummaryKey<'a> {
    pub(crate) run: Uuid,
    pub(crate) metric: &'a str,
    pub(crate) pack: &'a str,
    pub(crate) version: u32,
}

/// Scores to add to a summary; `moments.rs` explains the columns.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    n: i64,
    nulls: i64,
    pivot: f64,
    total: f64,
    squares: f64,
}

impl Sums {
    pub(crate) fn add(&mut self, score: &ScoreValue) {
        let Some(number) = score.number().map(storable) else {
            self.nulls += 1;
            return;
        };
        if self.n == 0 {
            self.pivot = number;
        }
        let distance = number - self.pivot;
        self.n += 1;
        self.total += distance;
        self.squares += distance * distance;
    }
}

/// Start of a statement that is followed by [`row`]s.
const INSERT: &str = "INSERT INTO summaries (run, pack, metric, metric_version, n, nulls, pivot,
    total, squares)
    VALUES ";

/// Returns a summary row: the counts of numbers and nulls, the pivot of the numbers, and the sums
/// of distances from it and of their squares.
fn row(
    key: SummaryKey<'_>,
    [n, nulls]: [i64; 2],
    [pivot, total, squares]: [f64; 3],
) -> [Argument; 9] {
    [
        key.run.into(),
        key.pack.into(),
        key.metric.into(),
        key.version.into(),
        n.into(),
        nulls.into(),
        pivot.into(),
        total.into(),
        squares.into(),
    ]
}

/// Applies changes of one sample's scores, sorted by metric, to the summaries.
pub(crate) async fn update<C: Connection>(
    connection: &mut C,
    run: Uuid,
    pack: &str,
    changes: &[Change<'_>],
) -> Result<(), StoreError> {
    if changes.iter().all(|change| change.old.is_none()) {
        return add(connection, &sums(run, pack, changes)).await;
    }
    // A replacement locks two rows of a metric, and two opposite ones (version 1 by 2, 2 by 1)
    // would each hold the lock that the other waits for: so a run allows one replacement at a time.
    // Additions lock one row per metric, in order, and cannot be part of a cycle.
    let mut sql = Sql::new("SELECT id FROM runs WHERE id = ");
    sql.bind(run).push(connection.lock());
    connection.fetch(sql).await?;
    for change in changes {
        if let Some(old) = change.old {
            take(connection, run, pack, &change.new.metric, old).await?;
        }
        add(connection, &sums(run, pack, std::slice::from_ref(change))).await?;
    }
    Ok(())
}

/// Returns what the changes add to each summary.
fn sums<'a>(run: Uuid, pack: &'a str, changes: &[Change<'a>]) -> BTreeMap<SummaryKey<'a>, Sums> {
    let mut sums: BTreeMap<_, Sums> = BTreeMap::new();
    for Change { new, .. } in changes {
        let key = SummaryKey { run, metric: &new.metric, pack, version: new.metric_version };
        sums.entry(key).or_default().add(&new.value);
    }
    sums
}

/// Adds scores to summaries.
pub(crate) async fn add<C: Connection>(
    connection: &mut C,
    sums: &BTreeMap<SummaryKey<'_>, Sums>,
) -> Result<(), StoreError> {
    if sums.is_empty() {
        return Ok(());
    }
    let mut sql = Sql::new(INSERT);
    sql.tuples(sums.iter().map(|(key, of)| {
        row(*key, [of.n, of.nulls], [of.pivot, of.total, of.squares].map(storable))
    }));
    // Let the new pivot be at distance d from the old one, and let n distances from the new one sum
    // to t, and their squares to s. Then distances from the old pivot sum to t + n d, and their
    // squares to s + 2 d t + n d². PostgreSQL fails if a product is too small for a double, hence
    // the guards.
    sql.push(
        " ON CONFLICT (run, pack, metric, metric_version) DO UPDATE SET
              n = summaries.n + excluded.n,
              nulls = summaries.nulls + excluded.nulls,
              pivot = CASE WHEN summaries.n = 0 THEN excluded.pivot ELSE summaries.pivot END,
              total = CASE WHEN summaries.n = 0 THEN excluded.total
                           WHEN excluded.n = 0 THEN summaries.total
                           ELSE summaries.total + (excluded.total
                                + excluded.n * (excluded.pivot - summaries.pivot)) END,
              squares = CASE WHEN summaries.n = 0 THEN excluded.squares
                             WHEN excluded.n = 0 THEN summaries.squares
                             WHEN abs(excluded.pivot - summaries.pivot) < 1e-150
                             THEN summaries.squares + excluded.squares
                             ELSE summaries.squares + (excluded.squares
                                  + CASE WHEN abs(excluded.total) < 1e-150 THEN 0
                                         ELSE 2 * (excluded.pivot - summaries.pivot)
                                                * excluded.total END
                                  + excluded.n * (excluded.pivot - summaries.pivot)
                                               * (excluded.pivot - summaries.pivot)) END",
    );
    connection.execute(sql).await?;
    Ok(())
}

/// Removes a replaced score from its summary. Sums restart at 0 when the last number is removed, so
/// that no rounding error outlives the numbers it came from.
async fn take<C: Connection>(
    connection: &mut C,
    run: Uuid,
    pack: &str,
    metric: &str,
    old: &StoredScore,
) -> Result<(), StoreError> {
    let mut sql = Sql::new("UPDATE summaries SET ");
    match old.value {
        ScoreValue::Null { .. } => {
            sql.push("nulls = nulls - 1");
        }
        ScoreValue::Number(value) => {
            sql.push("n = n - 1, total = CASE WHEN n = 1 THEN 0 ELSE total - (").bind(value);
            sql.push(" - pivot) END, squares = CASE WHEN n = 1 THEN 0 WHEN abs(").bind(value);
            sql.push(" - pivot) < 1e-150 THEN squares ELSE squares - (").bind(value);
            sql.push(" - pivot) * (").bind(value).push(" - pivot) END");
        }
    }
    sql.push(" WHERE run = ").bind(run).push(" AND pack = ").bind(pack);
    sql.push(" AND metric = ").bind(metric).push(" AND metric_version = ").bind(old.version);
    if connection.execute(sql).await? == 1 {
        return Ok(());
    }
    Err(StoreError::Corrupt {
        table: "summaries",
        column: "run",
        row: format!("{run}, {pack}, {metric}, {}", old.version),
        reason: "is missing although a score counts in it".to_owned(),
    })
}

/// Locks a summary for this transaction, and creates it if it does not exist. Returns `true` if no
/// score counts in it yet. Concurrent additions wait.
pub(crate) async fn claim<C: Connection>(
    connection: &mut C,
    key: SummaryKey<'_>,
) -> Result<bool, StoreError> {
    let mut sql = Sql::new(INSERT);
    sql.tuple(row(key, [0, 0], [0.0; 3]));
    sql.push(" ON CONFLICT (run, pack, metric, metric_version) DO NOTHING");
    connection.execute(sql).await?;
    let mut sql = Sql::new("SELECT n, nulls FROM summaries");
    find(&mut sql, " WHERE run = ", key);
    sql.push(connection.lock());
    let rows = connection.fetch(sql).await?;
    let row = rows.first().ok_or(StoreError::Contended(sqlx::Error::RowNotFound))?;
    let row = Reader::new(row, "summaries", key.run);
    Ok(row.int::<u64>("n")? + row.int::<u64>("nulls")? == 0)
}

/// Recomputes a summary from the stored scores, so that nothing of a deleted or replaced one stays
/// in its sums. The summary's row is locked first: a concurrent addition waits for it and adds to
/// the result.
pub(crate) async fn recompute<C: Connection>(
    connection: &mut C,
    key: SummaryKey<'_>,
) -> Result<(), StoreError> {
    let mut sql = Sql::new("SELECT n FROM summaries");
    find(&mut sql, " WHERE run = ", key);
    sql.push(connection.lock());
    connection.fetch(sql).await?;

    let mut sql = Sql::new("SELECT value FROM scores JOIN samples ON samples.id = scores.sample");
    find(&mut sql, " WHERE samples.run = ", key);
    let mut numbers = Vec::new();
    let mut nulls = 0;
    let take = |row: &C::Row| {
        match Reader::new(row, "scores", key.metric).optional_real("value")? {
            Some(number) => numbers.push(number),
            None => nulls += 1,
        }
        Ok(())
    };
    connection.each(sql, take).await?;
    put(connection, key, &numbers, nulls).await
}

/// Writes a summary of these numbers and this many nulls, or deletes it if there are neither.
pub(crate) async fn put<C: Connection>(
    connection: &mut C,
    key: SummaryKey<'_>,
    numbers: &[f64],
    nulls: i64,
) -> Result<(), StoreError> {
    if numbers.is_empty() && nulls == 0 {
        let mut sql = Sql::new("DELETE FROM summaries");
        find(&mut sql, " WHERE run = ", key);
        connection.execute(sql).await?;
        return Ok(());
    }
    let pivot = numbers.first().copied().unwrap_or(0.0);
    let mut sql = Sql::new(INSERT);
    let total = numbers.iter().map(|number| number - pivot).sum::<f64>();
    let squares = numbers.iter().map(|number| (number - pivot).powi(2)).sum::<f64>();
    sql.tuple(row(key, [numbers.len() as i64, nulls], [pivot, total, squares]));
    sql.push(
        " ON CONFLICT (run, pack, metric, metric_version) DO UPDATE SET
             n = excluded.n, nulls = excluded.nulls, pivot = excluded.pivot,
             total = excluded.total, squares = excluded.squares",
    );
    connection.execute(sql).await?;
    Ok(())
}

fn find(sql: &mut Sql, of: &'static str, key: SummaryKey<'_>) {
    sql.push(of)
        .bind(key.run)
        .push(" AND metric = ")
        .bind(key.metric)
        .push(" AND pack = ")
        .bind(key.pack);
    sql.push(" AND metric_version = ").bind(key.version);
}
