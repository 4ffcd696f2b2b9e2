//! The leaderboard: methods (or their runs) and what each metric says of them, read from the summaries.

use serde::{Deserialize, Serialize};

use super::sql::{Connection, Connections, Reader, Row, Sql};
use super::summary::Moments;
use super::{MetricSummary, Pack, StoreError, Weights};
use crate::content::ContentHash;

/// The most rows of one page.
pub const MAX_PAGE: u32 = 1_000;

/// What to rank, how, and which page of it.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaderboardQuery {
    /// Only this method.
    pub method: Option<String>,
    /// Only runs of this name.
    pub run: Option<String>,
    /// Only these metrics; all when empty.
    pub metrics: Vec<String>,
    /// Only scores of the pack with this digest.
    pub pack: Option<String>,
    /// Only scores of packs with such weights.
    pub weights: Option<Weights>,
    /// Whether a method's runs are counted together.
    pub by: Grouping,
    /// The order of the rows.
    pub sort: Sort,
    /// The most rows to return, 1 to [`MAX_PAGE`].
    pub limit: u32,
    /// Where the last page ended: its [`LeaderboardPage::next`].
    pub after: Option<String>,
}

impl Default for LeaderboardQuery {
    /// The first hundred methods by name, with all their metrics.
    fn default() -> Self {
        Self {
            method: None,
            run: None,
            metrics: Vec::new(),
            pack: None,
            weights: None,
            by: Grouping::Method,
            sort: Sort::Name,
            limit: 100,
            after: None,
        }
    }
}

/// What a row of the leaderboard stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// A method, over the samples of all its runs.
    Method,
    /// A run.
    Run,
}

/// The order of the leaderboard's rows; ties are in order of method, run and pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sort {
    /// By method, then run, then pack digest, in the order of their UTF-8 bytes.
    Name,
    /// By the mean of one metric; rows without it come last.
    Metric {
        /// The metric's code. It must be among the query's metrics where those are limited.
        metric: String,
        /// The version of its definition to compare.
        version: u32,
        /// Largest first.
        descending: bool,
    },
}

/// One page of the leaderboard.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaderboardPage {
    /// The rows in order.
    pub rows: Vec<LeaderboardRow>,
    /// The cursor of the next page; none on the last.
    pub next: Option<String>,
}

/// A method (or a run) with one pack: scores of different packs are in different rows.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaderboardRow {
    /// The method.
    pub method: String,
    /// The run, where the rows are runs.
    pub run: Option<String>,
    /// The pack of all its scores.
    pub pack: Pack,
    /// What each metric says, ordered by metric and version.
    pub metrics: Vec<MetricSummary>,
}

/// Stands for "no mean" in the order of rows: nothing sorts after it.
const LAST: f64 = f64::MAX;

/// The key of a row in the order of the leaderboard, and with that the cursor's content.
///
/// `rank` is the mean of the metric sorted by, negated where the largest comes first, so that every order is
/// ascending; 0 where rows are sorted by name.
#[derive(Clone, Debug, PartialEq)]
struct Key {
    rank: f64,
    method: String,
    run: String,
    pack: String,
}

#[derive(Serialize, Deserialize)]
struct Cursor {
    /// What the query asked for, so that a cursor is not used with another one.
    query: String,
    /// The bits of the rank: a decimal might be off by one and repeat or skip a row.
    rank: u64,
    method: String,
    run: String,
    pack: String,
}

pub(super) async fn leaderboard<P: Connections>(
    pool: &P,
    query: &LeaderboardQuery,
) -> Result<LeaderboardPage, StoreError> {
    query.check()?;
    let after = query.after.as_deref().map(|cursor| query.read_cursor(cursor)).transpose()?;
    let mut connection = pool.reader().await?;
    let found = connection.fetch(query.sql(after.as_ref())).await?;
    drop(connection);

    let mut rows: Vec<(Key, LeaderboardRow)> = Vec::new();
    // The moments of the last row's last metric, which the runs of a method add to.
    let mut open: Option<(String, u32, Moments)> = None;
    for row in &found {
        let row = Reader::new(row, "summaries", "");
        let key = key(&row)?;
        if rows.last().is_none_or(|(last, _)| *last != key) {
            close(&mut open, &mut rows);
            let run = (query.by == Grouping::Run).then(|| key.run.clone());
            let pack = Pack {
                digest: key.pack.clone(),
                name: row.text("pack_name")?,
                weights: row.word("weights", Weights::parse)?,
            };
            rows.push((key.clone(), LeaderboardRow { method: key.method, run, pack, metrics: Vec::new() }));
        }
        let (metric, version) = (row.text("metric")?, row.int("metric_version")?);
        let moments = Moments::from_sums(
            row.int("n")?,
            row.int("nulls")?,
            row.real("pivot")?,
            row.real("total")?,
            row.real("squares")?,
        );
        match &mut open {
            Some((open_metric, open_version, sum)) if *open_metric == metric && *open_version == version => {
                *sum = sum.merge(moments);
            }
            _ => {
                close(&mut open, &mut rows);
                open = Some((metric, version, moments));
            }
        }
    }
    close(&mut open, &mut rows);

    // One row more than asked for was read: whether there is a next page.
    let limit = query.limit as usize;
    let next = (rows.len() > limit).then(|| query.write_cursor(&rows[limit - 1].0));
    rows.truncate(limit);
    Ok(LeaderboardPage { rows: rows.into_iter().map(|(_, row)| row).collect(), next })
}

fn key<R: Row>(row: &Reader<'_, R>) -> Result<Key, StoreError> {
    Ok(Key {
        rank: row.real("row_rank")?,
        method: row.text("method")?,
        run: row.text("run")?,
        pack: row.text("pack")?,
    })
}

fn close(open: &mut Option<(String, u32, Moments)>, rows: &mut [(Key, LeaderboardRow)]) {
    if let (Some((metric, version, moments)), Some((_, row))) = (open.take(), rows.last_mut()) {
        row.metrics.push(moments.summary(metric, version));
    }
}

impl LeaderboardQuery {
    fn check(&self) -> Result<(), StoreError> {
        if !(1..=MAX_PAGE).contains(&self.limit) {
            return Err(StoreError::invalid("limit", format!("{} is not in 1..={MAX_PAGE}", self.limit)));
        }
        match &self.sort {
            Sort::Metric { metric, .. } if !self.metrics.is_empty() && !self.metrics.contains(metric) => {
                let reason = format!("{metric} is not among the metrics asked for; ask for it too");
                Err(StoreError::invalid("sort", reason))
            }
            _ => Ok(()),
        }
    }

    /// One statement, so that a page is of one moment: the keys of the page's rows, then all their summaries.
    fn sql(&self, after: Option<&Key>) -> Sql {
        let run = if self.by == Grouping::Run { "runs.name" } else { "''" };
        let mut sql = Sql::new("WITH board AS (SELECT methods.id AS method_id, methods.name AS method, ");
        sql.push(run).push(" AS run, summaries.pack AS pack, ");
        self.push_rank(&mut sql);
        sql.push(" AS row_rank FROM summaries JOIN runs ON runs.id = summaries.run JOIN methods ON methods.id = runs.method");
        self.push_filters(&mut sql);
        if let Some(method) = &self.method {
            sql.push(" AND methods.name = ").bind(method.as_str());
        }
        if let Some(pack) = &self.pack {
            sql.push(" AND summaries.pack = ").bind(pack.as_str());
        }
        if let Some(weights) = self.weights {
            sql.push(" AND summaries.pack IN (SELECT digest FROM packs WHERE weights = ");
            sql.bind(weights.as_str()).push(")");
        }
        sql.push(" GROUP BY methods.id, methods.name, summaries.pack");
        if self.by == Grouping::Run {
            sql.push(", runs.name");
        }
        sql.push("), page AS (SELECT * FROM board");
        if let Some(after) = after {
            sql.push(" WHERE (row_rank, method, run, pack) > ");
            sql.tuple([
                after.rank.into(),
                after.method.as_str().into(),
                after.run.as_str().into(),
                after.pack.as_str().into(),
            ]);
        }
        sql.push(" ORDER BY row_rank, method, run, pack LIMIT ").bind(i64::from(self.limit) + 1);
        sql.push(
            ") SELECT row_rank, page.method, page.run, page.pack, packs.name AS pack_name, weights,
                      metric, metric_version, n, nulls, pivot, total, squares
               FROM page JOIN runs ON runs.method = page.method_id
               JOIN summaries ON summaries.run = runs.id AND summaries.pack = page.pack
               JOIN packs ON packs.digest = page.pack",
        );
        self.push_filters(&mut sql);
        if self.by == Grouping::Run {
            sql.push(" AND runs.name = page.run");
        }
        sql.push(" ORDER BY row_rank, page.method, page.run, page.pack, metric, metric_version, runs.name");
        sql
    }

    /// The filters that hold for keys and summaries alike. Summaries whose scores were all replaced say nothing.
    fn push_filters(&self, sql: &mut Sql) {
        sql.push(" WHERE summaries.n + summaries.nulls > 0");
        if let Some(run) = &self.run {
            sql.push(" AND runs.name = ").bind(run.as_str());
        }
        if !self.metrics.is_empty() {
            sql.push(" AND summaries.metric IN ").tuple(self.metrics.iter().map(|m| m.as_str().into()));
        }
    }

    fn push_rank(&self, sql: &mut Sql) {
        let Sort::Metric { metric, version, descending } = &self.sort else {
            sql.push("CAST(0 AS double precision)");
            return;
        };
        // The mean over the runs; nulls, which the sums skip, are what is left of rows without the metric.
        sql.push("COALESCE(").push(if *descending { "-" } else { "" });
        sql.push("SUM(CASE WHEN summaries.metric = ").bind(metric.as_str());
        sql.push(" AND summaries.metric_version = ").bind(*version);
        sql.push(" THEN summaries.n * summaries.pivot + summaries.total END) / NULLIF(CAST(SUM(CASE WHEN summaries.metric = ");
        sql.bind(metric.as_str()).push(" AND summaries.metric_version = ").bind(*version);
        sql.push(" THEN summaries.n END) AS double precision), 0), ").bind(LAST).push(")");
    }

    fn write_cursor(&self, key: &Key) -> String {
        let cursor = Cursor {
            query: self.fingerprint(),
            rank: key.rank.to_bits(),
            method: key.method.clone(),
            run: key.run.clone(),
            pack: key.pack.clone(),
        };
        let json = serde_json::to_vec(&cursor).expect("strings and numbers are always JSON");
        json.iter().fold(String::with_capacity(2 * json.len()), |mut text, byte| {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from_digit(digit.into(), 16).expect("four bits are a digit"));
            }
            text
        })
    }

    fn read_cursor(&self, text: &str) -> Result<Key, StoreError> {
        let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
        let json: Vec<u8> = digits
            .ok_or(StoreError::Cursor)?
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |byte, d| byte << 4 | *d as u8))
            .collect();
        let cursor: Cursor = serde_json::from_slice(&json).map_err(|_| StoreError::Cursor)?;
        let rank = f64::from_bits(cursor.rank);
        if cursor.query != self.fingerprint() || !rank.is_finite() || cursor.method.contains('\0') {
            return Err(StoreError::Cursor);
        }
        Ok(Key { rank, method: cursor.method, run: cursor.run, pack: cursor.pack })
    }

    /// What must be equal for two pages to be of one list. The size of a page may change between them.
    fn fingerprint(&self) -> String {
        let same = Self { limit: 0, after: None, ..self.clone() };
        ContentHash::of(format!("{same:?}").as_bytes()).to_hex()[..16].to_owned()
    }
}
