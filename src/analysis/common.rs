//! Rows over different samples, ranked over those that all of them have.
//!
//! Each run is cut down to the samples whose names every listed row of its pack has, and is then summarised as a run of its own
//! would be: the penalty's threshold, intervals and slices are those of the part. A method has the samples of all its runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::leaderboard::{LeaderboardQuery, LeaderboardRow, rows_of};
use super::slices::{sample_set, summarise_slice};
use crate::blocking::blocking;
use crate::content::ContentHash;
use crate::store::{Moments, RunData, RunStandings, SliceSummary, Standing, Store, StoreError};

/// The most runs whose scores are read for one question: 200 runs of 2,000 samples take about 20 seconds.
const MOST_RUNS: usize = 200;

/// Why rows cannot be ranked over what they share.
#[derive(Debug, thiserror::Error)]
pub enum CommonError {
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// More runs than are read at once.
    #[error(
        "{0} runs are listed, and for what they share the scores of at most {MOST_RUNS} are read: name fewer with `method`, `run`, \
         `dataset`, `split`, `since` or `until`"
    )]
    TooManyRuns(usize),
    /// A row has none of the samples that the others share.
    #[error(
        "the listed rows of the pack {pack} share no sample (samples are the same where their names are): {row} has none of those \
         that the rows before it share; name fewer with `method`, `run`, `dataset` or `split`"
    )]
    Nothing {
        /// The pack's name.
        pack: String,
        /// The method, with its run where rows are runs.
        row: String,
    },
}

/// What the rows of such a question depend on: of the same there are always the same rows.
#[must_use]
pub fn common_key(query: &LeaderboardQuery, runs: &[Arc<RunStandings>]) -> String {
    let page_free = LeaderboardQuery { limit: 1, after: None, sort: super::Sort::Name, ..query.clone() };
    let stamps: Vec<_> = runs.iter().map(|run| (run.run, run.pack(), run.stamp.as_str())).collect();
    // A hash, since what is kept by it is to take the memory of its answer and not that of its question.
    ContentHash::of(format!("{page_free:?} {stamps:?}").as_bytes()).to_hex()
}

/// The rows of the leaderboard, each over the samples that all rows of its pack have.
///
/// `runs` are what [`Store::standings`] has of the query. Reads the scores of every run, one run after the other.
///
/// # Errors
/// See [`CommonError`].
pub async fn rows_on_common(
    store: &Store,
    query: &LeaderboardQuery,
    runs: &[Arc<RunStandings>],
) -> Result<Vec<LeaderboardRow>, CommonError> {
    let groups = query.group(runs);
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
            let Some(mut data) = store.run_data(run.run, Some(pack)).await? else { continue };
            let (names, slice, policy) = (Arc::clone(&common), query.slice.clone(), query.policy);
            let summary = blocking(move || {
                data.restrict(&names);
                let running = running(&data);
                (summarise_slice(&data, &slice, policy), running)
            });
            let ((rows, keys), running) = summary.await;
            parts.extend(standings(run, rows, keys, &running, &set).map(Arc::new));
        }
    }
    Ok(rows_of(query, &parts))
}

/// The names that all rows have.
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

/// Samples with and without a number, by metric: what tells whether a summary is up to date.
fn running(data: &RunData) -> BTreeMap<String, Moments> {
    let counts = data.metrics.iter().map(|(code, column)| {
        let n = column.values.iter().flatten().count() as u64;
        (code.clone(), Moments::from_summary(n, column.nulls() as u64, None, None))
    });
    counts.collect()
}

/// The standings of a part of a run; none where it has none of the samples.
fn standings(
    run: &RunStandings,
    rows: Vec<SliceSummary>,
    keys: Vec<u64>,
    running: &BTreeMap<String, Moments>,
    set: &str,
) -> Option<RunStandings> {
    let first = &run.standings[0];
    let mut sums = std::collections::HashMap::new();
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
        sample_set: set.to_owned(),
        sums,
        stamp: run.stamp.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_known_by_a_key_of_one_length_that_tells_questions_apart() {
        let category = |name: &str| LeaderboardQuery {
            slice: crate::store::Slice { kind: crate::store::Slice::CATEGORY.into(), label: name.into() },
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
