//! The leaderboard: methods or their runs, with their metrics and ranks.
//!
//! **Intervals.** A row over one run has the run's interval: studentised bootstrap, clustered by
//! identity. A row over several runs has an interval from the sums of each identity over all of
//! them, so that an identity in two runs counts as one cluster. It is Student's interval with the
//! same standard error and degrees of freedom ([`ClusterMean`]), since resampling at each request
//! would take seconds.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::clusters::Merged;
use super::penalty::{PENALISED, Policy};
use super::query::{Grouping, LeaderboardQuery, Sort};
use super::ranks::rank;
use super::rows::{Area, LeaderboardRow, RankedDetail, RankedMetric};
use crate::content::ContentHash;
use crate::stats::{ClusterMean, Interval};
use crate::store::{
    MAX_PAGE, Moments, RunStandings, Slice, SliceSummary, Standing, StandingsQuery, Store,
    StoreError,
};

/// One page of the leaderboard.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaderboardPage {
    /// The rows, in order.
    pub rows: Vec<LeaderboardRow>,
    /// Cursor of the next page; `None` on the last.
    pub next: Option<String>,
    /// Number of rows on all pages.
    pub total: usize,
}

/// Sort key of a row in the leaderboard, which is also the content of a cursor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Key {
    /// Pack and index of the sample set, so that rows of different ones do not mix; empty if sorted
    /// by name.
    first: String,
    /// The [`ordered`] sort value, negated for descending orders so that every order is ascending;
    /// `ordered(0.0)` if sorted by name. A decimal number could be off by one ulp, and repeat or
    /// skip a row.
    rank: i64,
    method: String,
    run: String,
    pack: String,
}

#[derive(Serialize, Deserialize)]
struct Cursor {
    /// Fingerprint of the query, so that a cursor is not used with another one.
    query: String,
    #[serde(flatten)]
    key: Key,
}

/// Returns the bits of a number as an integer of the same order as [`f64::total_cmp`].
fn ordered(number: f64) -> i64 {
    let bits = number.to_bits() as i64;
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

/// Reads a page of the leaderboard from the summaries. The cost does not grow with the number of
/// scores.
///
/// # Errors
/// [`StoreError::Invalid`] for a limit out of range or a sort by a metric that is not selected,
/// [`StoreError::Cursor`] for a cursor of another query, and errors of the store.
pub async fn leaderboard(
    store: &Store,
    query: &LeaderboardQuery,
) -> Result<LeaderboardPage, StoreError> {
    query.check()?;
    let rows = leaderboard_rows(store, query).await?;
    query.page(rows)
}

/// Returns all rows of the leaderboard with their ranks, in order of method, run and pack.
///
/// # Errors
/// Errors of the store.
pub async fn leaderboard_rows(
    store: &Store,
    query: &LeaderboardQuery,
) -> Result<Vec<LeaderboardRow>, StoreError> {
    let runs = store.standings(&query.standings()).await?;
    Ok(rows_of(query, &runs))
}

/// Returns the rows over these runs with their ranks.
pub(super) fn rows_of(query: &LeaderboardQuery, runs: &[Arc<RunStandings>]) -> Vec<LeaderboardRow> {
    let groups = query.group(runs);
    let mut rows: Vec<LeaderboardRow> =
        groups.into_values().map(|group| group.row(query)).collect();
    rows.retain(|row| !row.metrics.is_empty());
    rank(&mut rows);
    rows
}

impl Area {
    fn of(summary: &SliceSummary) -> Self {
        let ends = summary.low.zip(summary.high);
        Self {
            mean: summary.mean,
            interval: ends.map(|(low, high)| Interval { low, high }),
            n: summary.n,
            clusters: summary.clusters,
        }
    }
}

/// Runs of a row, all of the same pack.
#[derive(Default)]
pub(super) struct Group<'a> {
    pub(super) runs: Vec<&'a RunStandings>,
    /// Standings by metric and version, each with the index of its run.
    metrics: BTreeMap<(&'a str, u32), Vec<(usize, &'a Standing)>>,
}

impl Group<'_> {
    fn row(self, query: &LeaderboardQuery) -> LeaderboardRow {
        let first = &self.runs[0].standings[0];
        let run = (query.by == Grouping::Run).then(|| first.run.clone());
        let mut flags: BTreeMap<String, bool> = BTreeMap::new();
        for (flag, set) in self.runs.iter().flat_map(|run| &run.standings[0].flags) {
            *flags.entry(flag.clone()).or_default() |= set;
        }
        let keys: Vec<&[u64]> = self.runs.iter().map(|run| run.keys.as_slice()).collect();
        let merged = if keys.len() > 1 { Merged::new(&keys) } else { Merged::default() };
        let metrics = self
            .metrics
            .iter()
            .filter_map(|((metric, version), parts)| {
                query.merge((*metric).to_owned(), *version, parts, &self.runs, &merged)
            })
            .collect();
        let runs = self.runs.iter().map(|run| run.run).collect();
        let (method, pack) = (first.method.clone(), first.pack.clone());
        let sample_set = self.sample_set();
        LeaderboardRow {
            method,
            run,
            runs,
            flags,
            pack,
            sample_set,
            set_place: None,
            mean_rank: None,
            metrics,
        }
    }

    /// Returns the runs' sample set if all have the same; otherwise an identifier of the
    /// combination.
    fn sample_set(&self) -> Option<String> {
        let mut sets: Vec<&str> = self.runs.iter().map(|run| run.sample_set.as_str()).collect();
        sets.sort_unstable();
        sets.dedup();
        match sets[..] {
            _ if sets.contains(&"") => None,
            [set] => Some(set.to_owned()),
            _ => {
                let of_all = ContentHash::of_parts(sets.iter().map(|set| set.as_bytes()));
                Some(of_all.to_hex()[..16].to_owned())
            }
        }
    }
}

impl LeaderboardQuery {
    /// Returns the query for the store.
    #[must_use]
    pub fn standings(&self) -> StandingsQuery {
        StandingsQuery {
            filter: self.filter.clone(),
            policy: self.policy.as_str().to_owned(),
            penalised: PENALISED.map(str::to_owned).to_vec(),
        }
    }

    /// Groups runs into rows by method, run (if rows are runs) and pack.
    pub(super) fn group<'a>(
        &self,
        runs: &'a [Arc<RunStandings>],
    ) -> BTreeMap<(&'a str, &'a str, &'a str), Group<'a>> {
        let mut groups: BTreeMap<_, Group<'a>> = BTreeMap::new();
        for run in runs {
            let Some(first) = run.standings.first() else { continue };
            let is = |(flag, wanted): (&String, &bool)| {
                first.flags.get(flag).unwrap_or(&false) == wanted
            };
            if !self.flags.iter().all(is) {
                continue;
            }
            let wanted =
                |of: &&Standing| self.metrics.is_empty() || self.metrics.contains(&of.metric);
            if !run.standings.iter().any(|of| wanted(&of)) {
                continue;
            }
            let name = if self.by == Grouping::Run { first.run.as_str() } else { "" };
            let group = groups
                .entry((first.method.as_str(), name, first.pack.digest.as_str()))
                .or_default();
            let place = group.runs.len();
            for standing in run.standings.iter().filter(wanted) {
                let key = (standing.metric.as_str(), standing.version);
                group.metrics.entry(key).or_default().push((place, standing));
            }
            group.runs.push(run);
        }
        groups
    }

    /// Merges one metric over the runs of a row; `None` if the slice has no or too few samples.
    fn merge(
        &self,
        metric: String,
        version: u32,
        parts: &[(usize, &Standing)],
        runs: &[&RunStandings],
        merged: &Merged,
    ) -> Option<RankedMetric> {
        let slices: Vec<(usize, &Standing, &SliceSummary)> = parts
            .iter()
            .filter_map(|(place, part)| Some((*place, *part, part.slice.as_ref()?)))
            .collect();
        let up_to_date = |of: &Standing, at: u64| {
            !self.filter.slice.is_all() || at == of.running.n + of.running.nulls
        };
        let whole = slices.len() == parts.len() || !self.filter.slice.is_all();
        if slices.is_empty() && !self.filter.slice.is_all() {
            return None;
        }
        if !whole || !slices.iter().all(|(_, part, of)| up_to_date(part, of.n + of.nulls)) {
            let running =
                parts.iter().fold(Moments::default(), |sum, (_, part)| sum.merge(part.running));
            let enough = running.n + running.nulls >= self.min_samples;
            let summary = running.summary(metric, version);
            return enough.then_some(RankedMetric {
                summary,
                detail: None,
                area: None,
                rank: None,
                last_rank: None,
            });
        }
        let moments = slices.iter().fold(Moments::default(), |sum, (_, _, of)| {
            sum.merge(Moments::from_summary(of.n, of.nulls, of.mean, of.std))
        });
        let total =
            |count: fn(&SliceSummary) -> u64| slices.iter().map(|(_, _, of)| count(of)).sum();
        let (interval, clusters) = match slices.as_slice() {
            [(_, _, of)] => {
                (of.low.zip(of.high).map(|(low, high)| Interval { low, high }), of.clusters)
            }
            several => {
                let of = |(place, _, of): &(usize, &Standing, &SliceSummary)| {
                    let sums = runs[*place].sums.get(&(metric.clone(), of.policy.clone()))?;
                    Some((*place, sums.as_slice()))
                };
                let sums: Option<Vec<_>> = several.iter().map(of).collect();
                let mean = sums.and_then(|sums| ClusterMean::new(&merged.sums(sums.into_iter())));
                (mean.map(|mean| mean.interval(0.95)), mean.map_or(0, |mean| mean.clusters as u64))
            }
        };
        let detail = RankedDetail {
            samples: total(|of| of.samples),
            penalised: total(|of| of.penalised),
            undecided: total(|of| of.undecided),
            faceless: total(|of| of.faceless),
            interval,
            clusters,
        };
        let area = match slices.as_slice() {
            [(place, ..)] if metric == "aps" => runs[*place].area.as_ref().map(Area::of),
            _ => None,
        };
        let is_measured =
            moments.n + moments.nulls > 0 || self.filter.slice.kind != Slice::PROMPT_KIND;
        (is_measured && detail.samples >= self.min_samples).then(|| RankedMetric {
            summary: moments.summary(metric, version),
            detail: Some(detail),
            area,
            rank: None,
            last_rank: None,
        })
    }

    /// Validates the query.
    ///
    /// # Errors
    /// Errors of [`leaderboard`] except those of the store.
    pub fn check(&self) -> Result<(), StoreError> {
        self.start()?;
        if !(1..=MAX_PAGE).contains(&self.limit) {
            return Err(StoreError::invalid(
                "limit",
                format!("{} is not in 1..={MAX_PAGE}", self.limit),
            ));
        }
        match &self.sort {
            Sort::Metric { metric, .. }
                if !self.metrics.is_empty() && !self.metrics.contains(metric) =>
            {
                let reason =
                    format!("{metric} is not among the requested metrics; add it to `metrics`");
                Err(StoreError::invalid("sort", reason))
            }
            _ => Ok(()),
        }
    }

    /// Returns the key of the row after which the page begins.
    fn start(&self) -> Result<Option<Key>, StoreError> {
        self.after.as_deref().map(|cursor| self.read_cursor(cursor)).transpose()
    }

    /// Sorts the rows and returns the requested page.
    ///
    /// # Errors
    /// [`StoreError::Cursor`] for a malformed cursor or one of another query.
    pub fn page(&self, rows: Vec<LeaderboardRow>) -> Result<LeaderboardPage, StoreError> {
        let after = self.start()?;
        let total = rows.len();
        let mut rows: Vec<(Key, LeaderboardRow)> =
            rows.into_iter().map(|row| (self.key(&row), row)).collect();
        rows.sort_by(|(a, _), (b, _)| a.cmp(b));
        let start = after.as_ref().map_or(0, |after| rows.partition_point(|(key, _)| key <= after));
        let end = (start + self.limit as usize).min(rows.len());
        let next = (end < rows.len()).then(|| self.write_cursor(&rows[end - 1].0));
        let rows = rows.drain(start..end).map(|(_, row)| row).collect();
        Ok(LeaderboardPage { rows, next, total })
    }

    fn key(&self, row: &LeaderboardRow) -> Key {
        let rank = match &self.sort {
            Sort::Name => 0.0,
            Sort::MeanRank => row.mean_rank.unwrap_or(f64::INFINITY),
            Sort::Metric { metric, version, descending } => row
                .metrics
                .iter()
                .find(|of| of.summary.metric == *metric && of.summary.version == *version)
                .filter(|of| !self.is_unpenalised(of))
                .and_then(|of| of.summary.mean)
                .map_or(f64::INFINITY, |mean| if *descending { -mean } else { mean }),
        };
        Key {
            first: match row.set_place {
                _ if self.sort == Sort::Name => String::new(),
                Some(place) => format!("{} {place:08}", row.pack.digest),
                None => format!("{} ~", row.pack.digest),
            },
            // Turns −0 into 0, which would be a different key.
            rank: ordered(rank + 0.0),
            method: row.method.clone(),
            run: row.run.clone().unwrap_or_default(),
            pack: row.pack.digest.clone(),
        }
    }

    /// Returns whether a mean lacks the requested penalty.
    fn is_unpenalised(&self, of: &RankedMetric) -> bool {
        of.detail.is_none() && self.policy != Policy::None && Policy::concerns(&of.summary.metric)
    }

    fn write_cursor(&self, key: &Key) -> String {
        let cursor = Cursor { query: self.fingerprint(), key: key.clone() };
        let json = serde_json::to_vec(&cursor).expect("strings and numbers are always JSON");
        URL_SAFE_NO_PAD.encode(json)
    }

    fn read_cursor(&self, text: &str) -> Result<Key, StoreError> {
        let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| StoreError::Cursor)?;
        let cursor: Cursor = serde_json::from_slice(&json).map_err(|_| StoreError::Cursor)?;
        if cursor.query != self.fingerprint() {
            return Err(StoreError::Cursor);
        }
        Ok(cursor.key)
    }

    /// Hashes the parts of a query that must be equal for two pages to belong to one list. The page
    /// size may change between them.
    fn fingerprint(&self) -> String {
        let same = Self { limit: 0, after: None, ..self.clone() };
        ContentHash::of(format!("{same:?}").as_bytes()).to_hex()[..16].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::ranks::tests::row;
    use super::*;

    #[test]
    fn keys_have_the_order_of_the_numbers() {
        let numbers = [f64::NEG_INFINITY, -2.5, -1e-300, 0.0, 1e-300, 0.5, 2.0, f64::INFINITY];
        let keys = numbers.map(ordered);
        assert!(keys.is_sorted_by(|one, next| one < next), "{keys:?}");
    }

    #[test]
    fn means_without_the_penalty_come_last() {
        let query = LeaderboardQuery {
            policy: Policy::Stellar,
            sort: Sort::Metric { metric: "ips".into(), version: 1, descending: true },
            ..LeaderboardQuery::default()
        };
        let rows = vec![
            row("pending", "p", &[("ips", 0.9, -1.0)]),
            row("known", "p", &[("ips", 0.1, 0.0)]),
        ];
        let page = query.page(rows).unwrap();
        let order: Vec<_> = page.rows.iter().map(|row| row.method.as_str()).collect();
        assert_eq!(order, ["known", "pending"]);
    }
}
