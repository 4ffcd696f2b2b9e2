//! The cells of a metric: the mean with its interval as a bar, and the rank.

use maud::{Markup, PreEscaped, html};

use crate::analysis::NoInterval;
use crate::api::analysis::leaderboard::{LeaderboardResponse, Row, Summary};
use crate::api::pages::number;
use crate::api::pages::table::Cell;
use crate::metrics::{Direction, Metric};

/// Width of the bars in pixels; all bars of a column have one scale.
const WIDTH: f64 = 72.0;

/// Coverage below which a mean is marked: it is then a mean over other images than its neighbours.
const FULL: f64 = 0.95;

/// The scale and the decimals of a column.
pub(super) struct Measure {
    low: f64,
    high: f64,
    decimals: usize,
    /// Whether intervals are shown as numbers.
    has_ends: bool,
}

impl Measure {
    /// Measures a column over all rows of the page, so that its bars can be compared by eye.
    pub(super) fn of(metric: &Metric, response: &LeaderboardResponse, has_ends: bool) -> Self {
        let of = response.rows.iter().filter_map(|row| row.metrics.get(metric.code));
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        let mut halves = Vec::new();
        for numbers in of.map(|of| &of.numbers) {
            for end in [numbers.low, numbers.high, numbers.mean].into_iter().flatten() {
                (low, high) = (low.min(end), high.max(end));
            }
            if let (Some(low), Some(high)) = (numbers.low, numbers.high) {
                halves.push((high - low) / 2.0);
            }
        }
        let decimals = number::typical_decimals(halves.into_iter());
        Self { low, high, decimals, has_ends }
    }

    fn at(&self, value: f64) -> i64 {
        // Equal values differ by rounding.
        let width = self.high - self.low;
        let width = if width > 1e-9 * self.high.abs().max(self.low.abs()) { width } else { 0.0 };
        let share = (value - self.low) / width;
        if share.is_finite() { (share * WIDTH).round() as i64 } else { (WIDTH / 2.0) as i64 }
    }

    /// Returns a number as the column shows it.
    pub(super) fn number(&self, value: f64) -> String {
        number::rounded(value, self.decimals)
    }

    /// Returns a published number as it was published.
    pub(super) fn published(&self, value: f64) -> String {
        number::rounded(value, self.decimals.max(3))
    }

    /// Draws an interval. The vertex in the middle has the mark of the mean (`board.css`).
    fn bar(&self, low: f64, mean: f64, high: f64) -> Markup {
        let (low, mean, high) = (self.at(low), self.at(mean), self.at(high));
        let (left, right) = ((mean - low).max(0), (high - mean).max(1));
        // Thousands of bars are on a page: no attribute that a style sheet can set.
        PreEscaped(format!("<svg><path d=\"M{low} 4h{left}h{right}\"/></svg>"))
    }

    /// Returns the cell of a mean.
    pub(super) fn cell(&self, of: Option<&Summary>) -> Cell {
        let Some(of) = of else { return words("not measured") };
        let numbers = &of.numbers;
        let Some(mean) = numbers.mean else { return words(no_number(of)) };
        let text = self.number(mean);
        let note = no_interval(of);
        let is_partial = numbers.coverage < FULL;
        let shown = html! {
            (text)
            @if let (Some(low), Some(high)) = (numbers.low, numbers.high) {
                @if self.has_ends {
                    small { (self.number(low)) " to " (self.number(high)) }
                } @else {
                    (self.bar(low, mean, high))
                }
            }
            @if let Some(note) = note { small { (note) } }
            @if is_partial { small.part { (number::percent(numbers.coverage)) } }
        };
        let is_as_shown = note.is_none() && !is_partial && !self.has_ends;
        // Scripts copy six digits of the others: the downloads have all.
        let value = if is_as_shown { String::new() } else { format!("{mean:.6}") };
        Cell { value, shown: Some(shown), is_as_shown, ..Cell::default() }
    }
}

fn words(words: &'static str) -> Cell {
    Cell { shown: Some(html! { small { (words) } }), class: "none", ..Cell::default() }
}

/// Returns why there is no mean.
pub(super) fn no_number(of: &Summary) -> &'static str {
    match of.undecided {
        Some(undecided) if undecided > 0 => "undecided",
        _ => "no scores",
    }
}

/// Returns why a mean has no interval.
pub(super) fn no_interval(of: &Summary) -> Option<&'static str> {
    of.numbers.no_interval.map(|reason| match reason {
        NoInterval::Pending => "pending",
        NoInterval::Declared => "declared",
        NoInterval::NoVariation => "no spread",
        NoInterval::TooFewPeople | NoInterval::TooFewPrompts | NoInterval::TooFewShared => {
            "one person"
        }
    })
}

/// Returns whether a mean is over clearly fewer images than were measured.
pub(super) fn is_partial(of: &Summary) -> bool {
    of.numbers.mean.is_some() && of.numbers.coverage < FULL
}

/// Returns a rank as text: the places that the intervals leave open.
pub(super) fn rank(of: &Summary) -> Option<String> {
    let first = of.rank?;
    let last = of.last_rank.unwrap_or(first);
    Some(if first >= last { first.to_string() } else { format!("{first}–{last}") })
}

/// Returns the cell of a rank. First places stand out, unless they are those of most rows.
pub(super) fn rank_cell(of: Option<&Summary>, is_marked: bool) -> Cell {
    let text = of.and_then(rank).unwrap_or_default();
    let is_first = is_marked && of.is_some_and(|of| of.rank == Some(1));
    let shown = is_first.then(|| html! { b { (text) } });
    Cell { value: text, shown, is_as_shown: true, ..Cell::default() }
}

/// Returns whether first places of a metric are few enough to stand out.
pub(super) fn marks_first(metric: &Metric, response: &LeaderboardResponse) -> bool {
    let of = response.rows.iter().filter_map(|row| row.metrics.get(metric.code)?.rank);
    let (all, first) =
        of.fold((0, 0), |(all, first), rank| (all + 1, first + usize::from(rank == 1)));
    all < 4 || first * 3 <= all
}

/// Returns the share of penalised images of a row.
pub(super) fn penalty_rate(row: &Row) -> Option<f64> {
    ["ips", "sis", "aps"].iter().find_map(|code| row.metrics.get(*code)?.penalty_rate)
}

/// Returns the number of images of a row.
pub(super) fn samples(row: &Row) -> u64 {
    let counts = row.metrics.values();
    counts
        .map(|of| of.samples.unwrap_or_default().max(of.numbers.n + of.numbers.nulls))
        .max()
        .unwrap_or_default()
}

/// Says which end of a metric is better.
pub(super) fn better(metric: &Metric) -> &'static str {
    match metric.direction {
        Direction::HigherIsBetter => "↑ higher is better",
        Direction::LowerIsBetter => "↓ lower is better",
        Direction::Support => "not ranked",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(rank: Option<usize>, last: Option<usize>) -> Summary {
        serde_json::from_value(serde_json::json!({
            "version": 1, "n": 10, "nulls": 0, "coverage": 1.0, "mean": 0.5, "std": 0.1, "low": 0.4,
            "high": 0.6, "rank": rank, "last_rank": last, "pending": false
        }))
        .unwrap()
    }

    #[test]
    fn a_rank_is_a_place_or_the_places_that_are_open() {
        assert_eq!(rank(&summary(Some(1), Some(1))).as_deref(), Some("1"));
        assert_eq!(rank(&summary(Some(2), Some(4))).as_deref(), Some("2–4"));
        assert_eq!(rank(&summary(None, None)), None);
    }

    #[test]
    fn bars_of_a_column_share_a_scale() {
        let measure = Measure { low: 0.0, high: 1.0, decimals: 2, has_ends: false };
        let bar = measure.bar(0.25, 0.5, 1.0).into_string();
        assert_eq!(bar, r#"<svg><path d="M18 4h18h36"/></svg>"#);
        // Equal numbers have a bar that is visible.
        let none = Measure { low: 0.5, high: 0.5, ..measure };
        assert_eq!(none.bar(0.5, 0.5, 0.5).into_string(), r#"<svg><path d="M36 4h0h1"/></svg>"#);
    }

    #[test]
    fn a_cell_says_why_it_has_no_number() {
        let measure = Measure { low: 0.0, high: 1.0, decimals: 2, has_ends: false };
        let shown = |of: Option<&Summary>| measure.cell(of).shown.unwrap().into_string();
        assert_eq!(shown(None), "<small>not measured</small>");
        let mut of = summary(None, None);
        of.numbers.mean = None;
        assert_eq!(shown(Some(&of)), "<small>no scores</small>");
        of.undecided = Some(3);
        assert_eq!(shown(Some(&of)), "<small>undecided</small>");
    }
}
