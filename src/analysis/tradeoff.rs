//! Trade-off between two metrics, or a metric and a cost: which rows are on the Pareto front.

use std::collections::HashMap;
use std::hash::BuildHasher;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::axis::Axis;
use super::reasons::NoInterval;
use super::rows::LeaderboardRow;
use crate::card::MethodCard;
use crate::pack_id::PackId;
use crate::stats::Interval;

/// A mean with its interval, or a declared cost, which has none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Lower end of its 95 % confidence interval.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Reason if the mean has no interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_interval: Option<NoInterval>,
    /// Number of samples with a number; 0 for a declared cost.
    pub n: u64,
}

/// A row of the leaderboard in the plane of two axes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TradeOffPoint {
    /// The method.
    pub method: String,
    /// The run, if rows are runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Ids of the runs in this row.
    pub runs: Vec<Uuid>,
    /// The pack; points of different packs are not compared.
    pub pack: PackId,
    /// Identifier of the set of samples; points over different samples are not compared. Null until
    /// the runs are summarised.
    pub sample_set: Option<String>,
    /// The first axis.
    pub x: Estimate,
    /// The second axis.
    pub y: Estimate,
    /// Whether the row is on the Pareto front: no other row over the same samples is at least as
    /// good in both means and better in one. False until the runs are summarised.
    pub on_front: bool,
    /// Rows whose intervals lie wholly on the better side on both axes, so that they are shown to
    /// be better. A declared cost counts as an exact number.
    pub dominated_by: Vec<String>,
}

/// Returns the points of rows that have both metrics, grouped by pack and sorted by `x`, best
/// first. `cards` has the cards by method; a row without a declared cost has no point on its axis.
#[must_use]
pub fn trade_off(
    rows: &[LeaderboardRow],
    cards: &HashMap<String, MethodCard, impl BuildHasher>,
    x: Axis,
    y: Axis,
) -> Vec<TradeOffPoint> {
    let estimate = |row: &LeaderboardRow, axis: Axis| {
        let metric = match axis {
            Axis::Metric(metric) => metric.code,
            Axis::Cost(cost) => {
                let mean = cost.of(cards.get(&row.method)?)?;
                let no_interval = Some(NoInterval::Declared);
                return Some(Estimate { mean, low: None, high: None, no_interval, n: 0 });
            }
        };
        // The newest version comes last.
        let of = row.metrics.iter().rev().find(|of| of.summary.metric == metric)?;
        let interval = of.detail.as_ref().and_then(|detail| detail.interval);
        Some(Estimate {
            mean: of.summary.mean?,
            low: interval.map(|ends| ends.low),
            high: interval.map(|ends| ends.high),
            no_interval: of.no_interval(),
            n: of.summary.n,
        })
    };
    let mut points: Vec<TradeOffPoint> = rows
        .iter()
        .filter_map(|row| {
            let (of_x, of_y) = (estimate(row, x)?, estimate(row, y)?);
            let LeaderboardRow { method, run, runs, pack, sample_set, .. } = row.clone();
            Some(TradeOffPoint {
                // The samples of a row are unknown until it is summarised.
                on_front: sample_set.is_some(),
                method,
                run,
                runs,
                pack,
                sample_set,
                x: of_x,
                y: of_y,
                dominated_by: vec![],
            })
        })
        .collect();
    let signs = [x, y].map(|axis| if axis.is_lower_better() { -1.0 } else { 1.0 });
    let oriented = |point: &TradeOffPoint| [signs[0] * point.x.mean, signs[1] * point.y.mean];
    points.sort_by(|a, b| {
        a.pack.digest.cmp(&b.pack.digest).then_with(|| oriented(b)[0].total_cmp(&oriented(a)[0]))
    });
    let all = points.clone();
    for point in &mut points {
        let own = oriented(point);
        let same = |other: &&TradeOffPoint| {
            other.pack == point.pack
                && point.sample_set.is_some()
                && other.sample_set == point.sample_set
        };
        for other in all.iter().filter(same) {
            let of = oriented(other);
            if of[0] >= own[0] && of[1] >= own[1] && (of[0] > own[0] || of[1] > own[1]) {
                point.on_front = false;
            }
            let shown = |sign: f64, better: &Estimate, worse: &Estimate| {
                let ends = |of: &Estimate| match of.no_interval {
                    Some(NoInterval::Declared) => Some(Interval { low: of.mean, high: of.mean }),
                    _ => Some(Interval { low: of.low?, high: of.high? }),
                };
                ends(better).zip(ends(worse)).is_some_and(|(better, worse)| {
                    if sign > 0.0 { better.low > worse.high } else { better.high < worse.low }
                })
            };
            if shown(signs[0], &other.x, &point.x) && shown(signs[1], &other.y, &point.y) {
                point.dominated_by.push(match &other.run {
                    Some(run) => format!("{}/{run}", other.method),
                    None => other.method.clone(),
                });
            }
        }
    }
    points
}
