//! Leaderboard rows over different samples, ranked over their common samples.
//!
//! Each run is restricted to the samples whose names every listed row of its pack has, and is then
//! summarised like a run of only these samples: the penalty's threshold, intervals and slices are
//! computed from them. A method has the samples of all its runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::leaderboard::rows_of;
use super::query::LeaderboardQuery;
use super::rows::LeaderboardRow;
use super::slices::{PartSummary, sample_set, summarise_slice};
use crate::blocking::blocking;
use crate::content::ContentHash;
use crate::store::{
    APS_AREA, Moments, RunData, RunStandings, Slice, SliceSummary, Standing, Store, StoreError,
};

/// Maximum number of runs whose scores are read for one request. 200 runs of 2,000 samples take
/// about 20 seconds.
const MOST_RUNS: usize = 200;

/// Errors of ranking rows over their common samples.
#[derive(Debug, thiserror::Error)]
pub enum CommonError {
    /// An error of the store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// More runs than the limit.
    #[error(
        "{0} runs are listed, but common samples are computed for at most {MOST_RUNS} runs: select \
            fewer with `method`, `run`, \
         `dataset`, `split`, `since` or `until`"
    )]
    TooManyRuns(usize),
    /// A row has none of the samples that the others share.
    #[error(
        "the listed rows of the pack {pack} have no samples in common (samples are matched by \
            name): {row} has none of the samples \
         that the preceding rows share; select fewer rows with `method`, `run`, `dataset` or \
         `split`"
    )]
    Nothing {
        /// The pack's name.
        pack: String,
        /// The method, with its run if rows are runs.
        row: String,
    },
}

/// Returns the cache key of such a request: equal keys have equal rows.
#[must_use]
pub fn common_key(query: &LeaderboardQuery, runs: &[Arc<RunStandings>]) -> String {
    let page_free =
        LeaderboardQuery { limit: 1, after: None, sort: super::Sort::Name, ..query.clone() };
    let stamps: Vec<_> = runs.iter().map(|run| (run.run, run.pack(), run.stamp.as_str())).collect();
    // Hashed, so that a cache entry takes the memory of its response and not that of its request.
    ContentHash::of(format!("{page_free:?} {stamps:?}").as_bytes()).to_hex()
}

/// Returns the rows of the leaderboard, each over the samples that all rows of its pack have.
///
/// `runs` is the result of [`Store::standings`] for the query. Reads the scores of every run, one
/// run after the other.
///
/// # Errors
/// See [`CommonError`].
pub async fn rows_on_common(
    store: &Store,
    query: &LeaderboardQuery,
    runs: &[Arc<RunStandings>],
) -> Result<Vec<LeaderboardRow>, CommonError> {
    let slice = &query.filter.slice;
    // A run without samples of a benchmark is no row of it.
    let has_part = |run: &&Arc<RunStandings>| {
        slice.kind != Slice::PROMPT_KIND || run.standings.iter().any(|of| of.slice.is_some())
    };
    let runs: Vec<_> = runs.iter().filter(has_part).cloned().collect();
    let groups = query.group(&runs);
    let listed: usize = groups.values().map(|group| group.runs.len()).sum();
    if listed > MOST_RUNS {
        return Err(CommonError::TooManyRuns(listed));
    }
    let mut packs: BTreeMap<&str, Vec<&[&RunStandings]>> = BTreeMap::new();
    for ((_, _, pack), group) in &groups {
        packs.entry(pack).or_default().push(&group.runs);
    }
    let mut parts = Vec::new();
    for (pack, rows) in packs {
        let common = common(store, query, &rows).await?;
        let set = sample_set(&common);
        let common = Arc::new(common);
        for run in rows.into_iter().flatten() {
            let Some(data) = store.run_data(run.run, Some(pack)).await? else { continue };
            let (names, slice, policy) =
                (Arc::clone(&common), query.filter.slice.clone(), query.policy);
            let mut data = Arc::unwrap_or_clone(data);
            data.restrict(&names);
            let outcomes = store.outcomes(run.run, pack, &data.names).await?;
            let summary = blocking(move || {
                let running = running(&data);
                (summarise_slice(&data, &outcomes, &slice, policy), running)
            });
            let (part, running) = summary.await;
            parts.extend(standings(run, part, &running, &set).map(Arc::new));
        }
    }
    Ok(rows_of(query, &parts))
}

/// Returns the sample names that all rows have.
async fn common(
    store: &Store,
    query: &LeaderboardQuery,
    rows: &[&[&RunStandings]],
) -> Result<BTreeSet<String>, CommonError> {
    let mut common: Option<BTreeSet<String>> = None;
    for runs in rows {
        let mut names = BTreeSet::new();
        for run in *runs {
            names.append(&mut store.sample_names(run.run, usize::MAX).await?);
        }
        if let Some(before) = common {
            names.retain(|name| before.contains(name));
        }
        if names.is_empty() {
            let first = &runs[0].standings[0];
            let row = match query.by {
                super::Grouping::Method => first.method.clone(),
                super::Grouping::Run => format!("{}/{}", first.method, first.run),
            };
            return Err(CommonError::Nothing { pack: first.pack.name.clone(), row });
        }
        common = Some(names);
    }
    Ok(common.unwrap_or_default())
}

/// Counts samples with and without a number, by metric. A summary is up to date if these are equal.
fn running(data: &RunData) -> BTreeMap<String, Moments> {
    let counts = data.metrics.iter().map(|(code, column)| {
        let n = column.values.iter().flatten().count() as u64;
        (code.clone(), Moments::from_summary(n, column.nulls() as u64, None, None))
    });
    counts.collect()
}

/// Returns the standings of a part of a run; `None` if the run has none of the samples.
fn standings(
    run: &RunStandings,
    part: PartSummary,
    running: &BTreeMap<String, Moments>,
    set: &str,
) -> Option<RunStandings> {
    let first = &run.standings[0];
    let mut sums = std::collections::HashMap::new();
    let PartSummary { rows, keys, sample_set } = part;
    let (areas, rows): (Vec<SliceSummary>, Vec<_>) =
        rows.into_iter().partition(|row| row.metric == APS_AREA);
    let standings: Vec<Standing> = rows
        .into_iter()
        .filter(|row| row.n + row.nulls > 0)
        .map(|mut row| {
            sums.insert((row.metric.clone(), row.policy.clone()), std::mem::take(&mut row.sums));
            Standing {
                metric: row.metric.clone(),
                version: row.version,
                running: running.get(&row.metric).copied().unwrap_or_default(),
                slice: Some(row),
                ..first.clone()
            }
        })
        .collect();
    (!standings.is_empty()).then(|| RunStandings {
        run: run.run,
        standings,
        keys,
        sample_set: sample_set.unwrap_or_else(|| set.to_owned()),
        sums,
        area: areas.into_iter().next(),
        stamp: run.stamp.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StandingsFilter;

    #[test]
    fn cache_keys_have_a_fixed_length_and_differ_by_request() {
        let category = |name: &str| LeaderboardQuery {
            filter: StandingsFilter {
                slice: Slice::new(Slice::CATEGORY, name),
                ..StandingsFilter::default()
            },
            ..LeaderboardQuery::default()
        };
        let (long, short) = (category(&"x".repeat(5_000)), category("x"));
        let keys = [common_key(&long, &[]), common_key(&short, &[])];
        assert!(keys[0] != keys[1] && keys.iter().all(|key| key.len() == 64), "{keys:?}");
        assert_eq!(
            common_key(&LeaderboardQuery { limit: 7, ..short.clone() }, &[]),
            keys[1],
            "pages are of one list"
        );
    }
}
