//! Methods by category: one metric over all labels of a kind of slice.
//!
//! Each row is a label, and its cells are the rows of the leaderboard of that slice, with the same
//! intervals and ranks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use super::leaderboard::rows_of;
use super::query::{Grouping, LeaderboardQuery};
use super::ranks::more_is_better;
use super::rows::LeaderboardRow;
use crate::pack_id::PackId;
use crate::stats::Interval;
use crate::store::{KindSummary, RunStandings, Slice, Standing};

/// A table of methods by label.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    /// The columns, by method, run and pack.
    pub columns: Vec<MatrixColumn>,
    /// The rows: the labels, those with most samples first.
    pub rows: Vec<MatrixRow>,
    /// Number of labels, including those that were left out.
    pub labels: usize,
}

/// A method or run with one pack.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MatrixColumn {
    /// The method.
    pub method: String,
    /// The run, if columns are runs.
    pub run: Option<String>,
    /// Ids of the runs.
    pub runs: Vec<Uuid>,
    /// The pack of all scores in this column.
    pub pack: PackId,
}

/// A label.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixRow {
    /// The label.
    pub label: String,
    /// Largest number of samples with this label in a column.
    pub samples: u64,
    /// One cell per column; `None` if the column has too few samples with this label.
    pub cells: Vec<Option<MatrixCell>>,
}

/// One metric of a column over the samples with a label.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixCell {
    /// Number of samples with this label, measured or not.
    pub samples: u64,
    /// Number of samples with a number.
    pub n: u64,
    /// Mean of the numbers.
    pub mean: Option<f64>,
    /// 95 % confidence interval of the mean.
    pub interval: Option<Interval>,
    /// Identities among the numbers.
    pub clusters: u64,
    /// Rank among the columns with the same pack and samples, as on the leaderboard.
    pub rank: Option<usize>,
    /// Whether no other column with the same pack and samples has a better mean. False if there is
    /// no other one, and in metrics without a better end.
    pub is_best: bool,
}

/// Returns the matrix of a metric, given the standings of the runs over all samples and the
/// metric's summaries by label of one kind. At most `most` labels are returned.
#[must_use]
pub fn matrix(
    query: &LeaderboardQuery,
    runs: &[Arc<RunStandings>],
    kind: &str,
    metric: &str,
    summaries: Vec<KindSummary>,
    most: usize,
) -> Matrix {
    let known: HashMap<Uuid, (&Arc<RunStandings>, &Standing)> = runs
        .iter()
        .filter_map(|run| {
            // The newest version comes last.
            let of = run.standings.iter().rev().find(|of| of.metric == metric)?;
            Some((run.run, (run, of)))
        })
        .collect();
    let mut labels: BTreeMap<String, Vec<Arc<RunStandings>>> = BTreeMap::new();
    for KindSummary { run, mut summary, own } in summaries {
        let Some((run, standing)) = known.get(&run) else { continue };
        if summary.version != standing.version {
            continue;
        }
        let label = summary.slice.label.clone();
        let sums = std::mem::take(&mut summary.sums);
        let key = (metric.to_owned(), summary.policy.clone());
        let (keys, sample_set) = own.unwrap_or_else(|| (run.keys.clone(), run.sample_set.clone()));
        labels.entry(label).or_default().push(Arc::new(RunStandings {
            run: run.run,
            standings: vec![Standing { slice: Some(summary), ..(*standing).clone() }],
            // A run that was summarised in between has other clusters.
            sums: if sums.len() == keys.len() { [(key, sums)].into() } else { HashMap::new() },
            keys,
            sample_set,
            area: None,
            stamp: run.stamp.clone(),
        }));
    }
    let mut rows: Vec<(String, u64, Vec<LeaderboardRow>)> = labels
        .into_iter()
        .map(|(label, runs)| {
            let mut query = query.clone();
            query.filter.slice = Slice::new(kind, label.clone());
            let rows = rows_of(&query, &runs);
            (label, rows.iter().map(samples).max().unwrap_or_default(), rows)
        })
        .filter(|(.., rows)| !rows.is_empty())
        .collect();
    let labels = rows.len();
    rows.sort_by_key(|(_, samples, _)| std::cmp::Reverse(*samples));
    rows.truncate(most);
    let mut columns: Vec<MatrixColumn> = Vec::new();
    for row in rows.iter().flat_map(|(.., rows)| rows) {
        let column = column_of(row, query.by);
        // A method may have some labels in some of its runs only.
        match columns.iter_mut().find(|known| is_same(known, &column)) {
            Some(known) => {
                known.runs.extend(column.runs);
                known.runs.sort_unstable();
                known.runs.dedup();
            }
            None => columns.push(column),
        }
    }
    columns.sort();
    let rows = rows.into_iter().map(|(label, samples, rows)| {
        let of = |column: &MatrixColumn| {
            rows.iter().position(|row| is_same(column, &column_of(row, query.by)))
        };
        let cells = columns.iter().map(|column| Some(cell(&rows, of(column)?, metric)));
        MatrixRow { label, samples, cells: cells.collect() }
    });
    let rows = rows.collect();
    Matrix { columns, rows, labels }
}

fn samples(row: &LeaderboardRow) -> u64 {
    row.metrics[0].detail.as_ref().map_or(0, |detail| detail.samples)
}

fn column_of(row: &LeaderboardRow, by: Grouping) -> MatrixColumn {
    MatrixColumn {
        method: row.method.clone(),
        run: row.run.clone().filter(|_| by == Grouping::Run),
        runs: row.runs.clone(),
        pack: row.pack.clone(),
    }
}

fn is_same(a: &MatrixColumn, b: &MatrixColumn) -> bool {
    (&a.method, &a.run, &a.pack.digest) == (&b.method, &b.run, &b.pack.digest)
}

fn cell(rows: &[LeaderboardRow], at: usize, metric: &str) -> MatrixCell {
    let row = &rows[at];
    let of = &row.metrics[0];
    let cost = |row: &LeaderboardRow| {
        let mean = row.metrics[0].summary.mean?;
        more_is_better(metric).map(|more| if more { -mean } else { mean })
    };
    let others: Vec<f64> = rows
        .iter()
        .enumerate()
        .filter(|(other, _)| *other != at)
        .filter(|(_, other)| {
            other.pack == row.pack
                && other.sample_set.is_some()
                && other.sample_set == row.sample_set
        })
        .filter_map(|(_, other)| cost(other))
        .collect();
    let is_best =
        cost(row).is_some_and(|own| !others.is_empty() && others.iter().all(|of| own <= *of));
    MatrixCell {
        samples: samples(row),
        n: of.summary.n,
        mean: of.summary.mean,
        interval: of.detail.as_ref().and_then(|detail| detail.interval),
        clusters: of.detail.as_ref().map_or(0, |detail| detail.clusters),
        rank: of.rank,
        is_best,
    }
}
