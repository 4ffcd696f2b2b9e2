//! Ranks of the leaderboard's rows.
//!
//! Only rows over the same samples are ranked against each other: a higher mean over an easier half
//! of the prompts does not make a method better.
//!
//! **Ranks.** In one metric, a row's rank is 1 + the number of rows of the same pack and samples
//! whose interval lies wholly on the better side of its own. Rows whose intervals do not separate
//! them may share a rank. Rank r means that r − 1 rows are shown to be better. A row without an
//! interval has no rank. The *last rank* is the number of ranked rows less those whose interval
//! lies wholly on its worse side: from rank to last rank are the places that the intervals leave
//! open.
//!
//! **Mean rank.** The mean of a row's places among the means, over all metrics with a direction
//! that any row has. Ties share the mean of their places. A row without a number in a metric comes
//! after all rows with one.

use std::collections::BTreeMap;

use super::rows::LeaderboardRow;
use crate::metrics::{self, Direction};
use crate::stats::{Interval, average_ranks};

/// Returns whether higher is better; `None` for metrics without a direction.
pub(super) fn more_is_better(metric: &str) -> Option<bool> {
    match metrics::find(metric)?.direction {
        Direction::HigherIsBetter => Some(true),
        Direction::LowerIsBetter => Some(false),
        Direction::Support => None,
    }
}

/// Sets the place of each row's sample set, and its ranks among the rows of its pack and set.
pub(super) fn rank(rows: &mut [LeaderboardRow]) {
    let mut packs: BTreeMap<String, BTreeMap<String, Vec<usize>>> = BTreeMap::new();
    for (place, row) in rows.iter().enumerate() {
        let Some(set) = &row.sample_set else { continue };
        packs
            .entry(row.pack.digest.clone())
            .or_default()
            .entry(set.clone())
            .or_default()
            .push(place);
    }
    for sets in packs.into_values() {
        let mut sets: Vec<Vec<usize>> = sets.into_values().collect();
        let samples = |places: &Vec<usize>| {
            places
                .iter()
                .flat_map(|&place| &rows[place].metrics)
                .map(|of| of.summary.n + of.summary.nulls)
                .max()
        };
        // The set with most rows comes first; ties by number of samples.
        sets.sort_by_cached_key(|places| std::cmp::Reverse((places.len(), samples(places))));
        for (at, places) in sets.into_iter().enumerate() {
            for &place in &places {
                rows[place].set_place = Some(at);
            }
            rank_set(rows, places);
        }
    }
}

/// Ranks rows of one pack and sample set.
fn rank_set(rows: &mut [LeaderboardRow], places: Vec<usize>) {
    // Positions of each metric: (row, index in the row's metrics).
    let mut metrics: BTreeMap<(String, u32), Vec<(usize, usize)>> = BTreeMap::new();
    for &place in &places {
        for (at, of) in rows[place].metrics.iter().enumerate() {
            let key = (of.summary.metric.clone(), of.summary.version);
            metrics.entry(key).or_default().push((place, at));
        }
    }
    // Places from the best, summed over the metrics; every row takes part in each metric.
    let (mut totals, mut counted) = (vec![0.0; rows.len()], 0.0);
    let mut ranked = vec![false; rows.len()];
    for ((metric, version), entries) in &metrics {
        let Some(ascending) = more_is_better(metric) else { continue };
        let newest = metrics.range((metric.clone(), 0)..=(metric.clone(), u32::MAX)).next_back();
        rank_metric(rows, entries, ascending);
        if newest.is_none_or(|((_, newest), _)| newest != version) {
            continue;
        }
        let mut costs: BTreeMap<usize, f64> =
            places.iter().map(|&place| (place, f64::MAX)).collect();
        for &(place, at) in entries {
            if let Some(mean) = rows[place].metrics[at].summary.mean {
                costs.insert(place, if ascending { -mean } else { mean });
                ranked[place] = true;
            }
        }
        let costs: Vec<f64> = costs.into_values().collect();
        if !costs.iter().any(|cost| *cost < f64::MAX) {
            continue;
        }
        counted += 1.0;
        for (&place, rank) in places.iter().zip(average_ranks(&costs)) {
            totals[place] += rank;
        }
    }
    for place in places {
        rows[place].mean_rank = ranked[place].then(|| totals[place] / counted);
    }
}

/// Ranks rows in one metric: for each interval, counts those that lie wholly on its better side.
fn rank_metric(rows: &mut [LeaderboardRow], entries: &[(usize, usize)], more_is_better: bool) {
    let interval =
        |&(place, at): &(usize, usize)| rows[place].metrics[at].detail.as_ref()?.interval;
    let intervals: Vec<Option<Interval>> = entries.iter().map(interval).collect();
    for (entry, places) in entries.iter().zip(places(&intervals, more_is_better)) {
        let of = &mut rows[entry.0].metrics[entry.1];
        of.rank = places.map(|(rank, _)| rank);
        of.last_rank = places.map(|(_, last)| last);
    }
}

/// Returns the rank and the last rank of each interval among those given; without an interval there
/// is none.
#[must_use]
pub fn places(intervals: &[Option<Interval>], more_is_better: bool) -> Vec<Option<(usize, usize)>> {
    let oriented = |of: &Interval| {
        if more_is_better { (of.low, of.high) } else { (-of.high, -of.low) }
    };
    let ends = intervals.iter().flatten().map(oriented);
    let (mut lows, mut highs): (Vec<f64>, Vec<f64>) = ends.unzip();
    lows.sort_unstable_by(f64::total_cmp);
    highs.sort_unstable_by(f64::total_cmp);
    let place = |of: &Option<Interval>| {
        let (low, high) = oriented(of.as_ref()?);
        let rank = 1 + lows.len() - lows.partition_point(|low| *low <= high);
        Some((rank, highs.len() - highs.partition_point(|high| *high < low)))
    };
    intervals.iter().map(place).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use uuid::Uuid;

    use super::super::rows::{RankedDetail, RankedMetric};
    use super::*;
    use crate::store::{MetricSummary, PackId, Weights};

    pub(in super::super) fn row(
        method: &str,
        pack: &str,
        metrics: &[(&str, f64, f64)],
    ) -> LeaderboardRow {
        let metrics = metrics.iter().map(|&(metric, mean, reach)| RankedMetric {
            summary: MetricSummary {
                metric: metric.into(),
                version: 1,
                n: 9,
                nulls: 0,
                mean: Some(mean),
                std: Some(1.0),
            },
            detail: (reach >= 0.0).then_some(RankedDetail {
                samples: 9,
                penalised: 0,
                undecided: 0,
                faceless: 0,
                interval: Some(Interval { low: mean - reach, high: mean + reach }),
                clusters: 9,
            }),
            area: None,
            rank: None,
            last_rank: None,
        });
        LeaderboardRow {
            method: method.into(),
            run: None,
            runs: vec![Uuid::nil()],
            flags: BTreeMap::new(),
            pack: PackId { digest: pack.into(), name: pack.into(), weights: Weights::Official },
            sample_set: Some("same".into()),
            set_place: None,
            mean_rank: None,
            metrics: metrics.collect(),
        }
    }

    fn ranks(rows: &[LeaderboardRow]) -> Vec<Option<usize>> {
        rows.iter().map(|row| row.metrics[0].rank).collect()
    }

    #[test]
    fn rows_share_a_rank_where_no_interval_is_wholly_better() {
        let of = |mean, reach| row("m", "p", &[("ips", mean, reach)]);
        let mut rows =
            vec![of(0.9, 0.05), of(0.82, 0.05), of(0.7, 0.05), of(0.71, 0.2), of(0.95, -1.0)];
        rank(&mut rows);
        // The third row is behind the first and, just barely, the second. The wide one is behind
        // none.
        assert_eq!(ranks(&rows), [Some(1), Some(1), Some(3), Some(1), None]);
        // Only the third row is shown to be worse than another one.
        let last: Vec<_> = rows.iter().map(|row| row.metrics[0].last_rank).collect();
        assert_eq!(last, [Some(3), Some(3), Some(4), Some(4), None]);
    }

    #[test]
    fn where_less_is_better_the_smallest_is_first() {
        let of = |mean| row("m", "p", &[("dreamsim", mean, 0.01)]);
        let mut rows = vec![of(0.4), of(0.2), of(0.3)];
        rank(&mut rows);
        assert_eq!(ranks(&rows), [Some(3), Some(1), Some(2)]);
    }

    #[test]
    fn touching_intervals_share_a_rank_and_support_metrics_have_none() {
        let of = |mean, metric| row("m", "p", &[(metric, mean, 0.25)]);
        let mut rows = vec![of(1.0, "ips"), of(0.5, "ips")];
        rank(&mut rows);
        assert_eq!(ranks(&rows), [Some(1), Some(1)]);
        let mut rows = vec![of(1.0, "clip_n"), of(0.1, "clip_n")];
        rank(&mut rows);
        assert_eq!(ranks(&rows), [None, None]);
        assert_eq!(rows[0].mean_rank, None);
    }

    #[test]
    fn packs_are_ranked_separately() {
        let mut rows =
            vec![row("a", "p", &[("ips", 0.9, 0.0)]), row("b", "q", &[("ips", 0.1, 0.0)])];
        rank(&mut rows);
        assert_eq!(ranks(&rows), [Some(1), Some(1)]);
        assert_eq!((rows[0].mean_rank, rows[1].mean_rank), (Some(1.0), Some(1.0)));
    }

    #[test]
    fn the_mean_rank_averages_places_and_a_missing_metric_is_the_last_place() {
        let mut rows = vec![
            row("a", "p", &[("ips", 0.9, 0.0), ("dreamsim", 0.5, 0.0)]),
            row("b", "p", &[("ips", 0.8, 0.0), ("dreamsim", 0.1, 0.0)]),
            row("c", "p", &[("ips", 0.8, 0.0), ("clip_n", 5.0, 0.0)]),
        ];
        rank(&mut rows);
        let mean_ranks: Vec<_> = rows.iter().map(|row| row.mean_rank.unwrap()).collect();
        assert_eq!(mean_ranks, [1.5, 1.75, 2.75]);
    }

    #[test]
    fn two_equal_methods_share_a_rank_and_a_worse_one_is_behind_both() {
        let (trials, mut shared, mut behind) = (60, 0, 0);
        for trial in 0..trials {
            let of = |method: &str, own: u64, truth: f64| {
                let data = super::super::compare::tests::simulated(30, 4, trial, own, truth);
                let summary =
                    super::super::summarise(&data, &BTreeMap::new()).slices.swap_remove(0);
                let (low, high) = (summary.low.unwrap(), summary.high.unwrap());
                let mut row = row(method, "p", &[("dino", summary.mean.unwrap(), 0.0)]);
                row.metrics[0].detail.as_mut().unwrap().interval = Some(Interval { low, high });
                row
            };
            let mut rows = vec![
                of("a", 1000 + trial, 0.0),
                of("b", 2000 + trial, 0.0),
                of("c", 3000 + trial, -3.0),
            ];
            rank(&mut rows);
            shared += usize::from(ranks(&rows)[..2] == [Some(1), Some(1)]);
            behind += usize::from(ranks(&rows)[2] == Some(3));
        }
        assert!(shared >= 58 && behind == 60, "{shared} {behind}");
    }
}
