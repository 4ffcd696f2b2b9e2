//! Methods and metrics of one benchmark, beside the published numbers.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    options::{Options, slug},
    part::Part,
    source::Answered,
    text::{bold, interval, small},
};
use crate::analysis::places;
use crate::api::analysis::leaderboard::{LeaderboardResponse, Row as BoardRow, Summary};
use crate::api::analysis::published::PublishedCell;
use crate::figures::number;
use crate::figures::table::{Cell, Column, Row, Table, latex};
use crate::metrics::{self, Direction, Metric, in_reading_order};
use crate::stats::Interval;
use crate::store::APS_AREA;

/// Name of the area under the ROC curve beside `aps`.
const AREA_NAME: &str = "APS, area";

/// Methods over the prompts of one kind, or over all.
pub(super) struct Board {
    pub(super) kind: Option<String>,
    pub(super) of: LeaderboardResponse,
    pub(super) request: String,
    /// Methods that were read and not wanted.
    dropped: usize,
}

impl Board {
    /// Keeps the wanted methods, which are ranked anew among themselves.
    pub(super) fn new(
        kind: Option<&str>,
        answer: Answered<LeaderboardResponse>,
        options: &Options,
    ) -> Self {
        let Answered { mut of, request } = answer;
        let before = of.rows.len();
        of.rows.retain(|row| options.keeps(&row.method, &row.runs));
        let dropped = before - of.rows.len();
        if dropped > 0 {
            compare(&mut of.rows);
            rank(&mut of.rows);
        }
        Self { kind: kind.map(ToOwned::to_owned), of, request, dropped }
    }

    /// Returns whether a row changed within the last seconds and is not summarised yet.
    pub(super) fn is_pending(&self) -> bool {
        let rows = self.of.rows.iter();
        rows.flat_map(|row| row.metrics.values()).any(|summary| summary.pending)
    }

    /// Name of the benchmark in words.
    pub(super) fn title(&self) -> String {
        match &self.kind {
            Some(kind) => format!("prompts of kind {kind}"),
            None => "all prompts".to_owned(),
        }
    }

    /// Returns the metrics with a number, in reading order.
    pub(super) fn metrics(&self) -> Vec<&'static Metric> {
        let has = |metric: &&Metric| {
            let mut measured = self.of.rows.iter().filter_map(|row| row.metrics.get(metric.code));
            let mut published = self.of.published.iter().flat_map(|of| &of.rows);
            measured.any(|of| of.numbers.mean.is_some())
                || published.any(|row| row.metrics.contains_key(metric.code))
        };
        in_reading_order().into_iter().filter(has).collect()
    }

    /// Returns the table of the paper with its files.
    pub(super) fn part(&self, options: &Options) -> Part {
        let slug = self.kind.as_deref().map_or_else(|| "all".to_owned(), slug);
        let caption = format!(
            "Means over {} with 95\\,\\% intervals by identity. The best mean is bold; the numbers in \
             parentheses are the places that the intervals leave open. Penalty policy: {}.{}",
            latex(&self.title()),
            options.policy.as_str(),
            if self.has_published() { " Published numbers were not measured here." } else { "" }
        );
        let mut part = Part::new(format!("methods-{slug}"), "Methods", caption)
            .requested(&self.request)
            .latex(&self.table())
            .csv(&self.lines(options));
        if self.has_published() {
            part.notes = self.notes();
        }
        if self.dropped > 0 {
            part.remarks.push(format!(
                "{} further rows were read and left out; places, and which samples are those of most \
                 methods, are among the rows kept",
                self.dropped
            ));
        }
        let others = self.of.rows.iter().filter(|row| row.comparable == Some(false)).count();
        if others > 0 {
            part.notes.push(
                "$^{*}$ over other samples than most methods: neither ranked with them nor bold."
                    .to_owned(),
            );
            part.remarks.push(format!("{others} methods are over other samples than most"));
        }
        part
    }

    pub(super) fn has_published(&self) -> bool {
        self.of.published.as_ref().is_some_and(|of| !of.rows.is_empty())
    }

    /// Explanations of numbers that do not compare, each with its mark.
    fn marks(&self) -> BTreeMap<&str, char> {
        let cells = self.of.published.iter().flat_map(|of| &of.rows).flat_map(|row| &row.metrics);
        let mut marks = BTreeMap::new();
        for explanation in cells.filter_map(|(_, cell)| cell.explanation.as_deref()) {
            let next = char::from(b'a' + u8::try_from(marks.len().min(25)).unwrap_or_default());
            marks.entry(explanation).or_insert(next);
        }
        marks
    }

    fn notes(&self) -> Vec<String> {
        let mut notes: Vec<(char, String)> = self
            .marks()
            .into_iter()
            .map(|(text, mark)| (mark, format!("$^{{{mark}}}$ does not compare: {}.", latex(text))))
            .collect();
        notes.sort_unstable();
        let source =
            self.of.published.iter().map(|of| format!("Published: {}.", latex(&of.source)));
        source.chain(notes.into_iter().map(|(_, note)| note)).collect()
    }

    /// A row for each metric and a column for each method.
    fn table(&self) -> Table {
        let mut columns = vec![Column::text("Metric")];
        for row in &self.of.rows {
            let mark = if row.comparable == Some(false) { "*" } else { "" };
            columns.push(Column::number(format!("{}{mark}", row.method)));
        }
        let marks = self.marks();
        let published: Vec<_> = self.of.published.iter().flat_map(|of| &of.rows).collect();
        columns.extend(
            published.iter().map(|row| Column::number(format!("{} (published)", row.method))),
        );
        let of_row = |label: &str, metric: &Metric, numbers: &[Numbers], code: &str| {
            let mut cells = vec![Cell::text(format!("{label}{}", arrow(metric))).head()];
            cells.extend(measured(numbers, metric));
            cells.extend(published.iter().map(|row| cell(row.metrics.get(code), &marks)));
            Row::from(cells)
        };
        let mut rows = Vec::new();
        for metric in self.metrics() {
            let of = |row: &BoardRow| Numbers::of(row, row.metrics.get(metric.code));
            let numbers: Vec<Numbers> = self.of.rows.iter().map(of).collect();
            rows.push(of_row(metric.guide.short, metric, &numbers, metric.code));
            let areas = self.of.rows.iter().map(|row| Numbers::of_area(row, metric.code));
            let areas: Vec<Numbers> = areas.collect();
            let is_published = published.iter().any(|row| row.metrics.contains_key(APS_AREA));
            let has_area = areas.iter().any(|of| of.mean.is_some());
            if metric.code == "aps" && (has_area || is_published) {
                rows.push(of_row(AREA_NAME, metric, &areas, APS_AREA));
            }
        }
        Table { name: "methods", caption: String::new(), columns, rows }
    }

    /// A line for each method and metric, with all digits.
    fn lines(&self, options: &Options) -> Table {
        let heads = [
            "source",
            "method",
            "kind",
            "dataset",
            "pack",
            "policy",
            "metric",
            "version",
            "mean",
            "std",
            "low",
            "high",
            "n",
            "nulls",
            "coverage",
            "rank",
            "last_rank",
            "mean_rank",
            "penalty_rate",
            "clusters",
            "comparable",
            "reason",
        ];
        let text = |text: Option<&str>| Cell::text(text.unwrap_or_default());
        let kind = self.kind.as_deref();
        let mut rows: Vec<Row> = Vec::new();
        for row in &self.of.rows {
            let begin = || {
                vec![
                    Cell::text("measured"),
                    Cell::text(&*row.method),
                    text(kind),
                    text(options.dataset.as_deref()),
                    Cell::text(&*row.pack.digest),
                    Cell::text(self.of.policy.as_str()),
                ]
            };
            for (code, of) in &row.metrics {
                let mut cells = begin();
                cells.extend([Cell::text(&**code), Cell::text(of.numbers.version.to_string())]);
                cells.extend(
                    [of.numbers.mean, of.numbers.std, of.numbers.low, of.numbers.high].map(digits),
                );
                cells.extend([
                    digits(Some(of.numbers.n)),
                    digits(Some(of.numbers.nulls)),
                    digits(Some(of.numbers.coverage)),
                    digits(of.rank),
                    digits(of.last_rank),
                    digits(row.mean_rank),
                    digits(of.penalty_rate),
                    digits(of.clusters),
                    digits(row.comparable),
                    Cell::default(),
                ]);
                rows.push(cells.into());
                let Some(area) = of.area else { continue };
                let mut cells = begin();
                cells.extend([Cell::text(APS_AREA), Cell::text(of.numbers.version.to_string())]);
                cells.extend([area.mean, None, area.low, area.high].map(digits));
                cells.push(digits(Some(area.n)));
                cells.extend((0..6).map(|_| Cell::default()));
                cells.extend([
                    digits(Some(area.clusters)),
                    digits(row.comparable),
                    Cell::default(),
                ]);
                rows.push(cells.into());
            }
        }
        for row in self.of.published.iter().flat_map(|of| &of.rows) {
            for (code, of) in &row.metrics {
                let mut cells = vec![Cell::text("published"), Cell::text(&*row.method), text(kind)];
                cells.extend([Cell::text(&*row.dataset), Cell::default(), Cell::default()]);
                cells.extend([Cell::text(&**code), Cell::default(), digits(Some(of.mean))]);
                cells.extend((0..11).map(|_| Cell::default()));
                cells.extend([digits(Some(of.comparable)), text(of.explanation.as_deref())]);
                rows.push(cells.into());
            }
        }
        let columns = heads.map(Column::text).into();
        Table { name: "methods", caption: String::new(), columns, rows }
    }
}

/// Returns a number with all its digits.
pub(super) fn digits(value: Option<impl ToString>) -> Cell {
    Cell::text(value.map(|value| value.to_string()).unwrap_or_default())
}

/// Returns the arrow to a metric's better end.
pub(super) fn arrow(metric: &Metric) -> &'static str {
    match metric.direction {
        Direction::HigherIsBetter => " ↑",
        Direction::LowerIsBetter => " ↓",
        Direction::Support => "",
    }
}

/// The numbers of a cell.
#[derive(Clone, Copy, Default)]
struct Numbers {
    mean: Option<f64>,
    ends: Option<(f64, f64)>,
    places: Option<(usize, usize)>,
    /// Whether the row may be compared with most others.
    is_ranked: bool,
}

impl Numbers {
    fn of(row: &BoardRow, of: Option<&Summary>) -> Self {
        let Some(of) = of else { return Self::default() };
        Self {
            mean: of.numbers.mean,
            ends: of.numbers.low.zip(of.numbers.high),
            places: of.rank.zip(of.last_rank),
            is_ranked: row.comparable != Some(false),
        }
    }

    fn of_area(row: &BoardRow, code: &str) -> Self {
        let area = row.metrics.get(code).and_then(|of| of.area);
        let Some(area) = area else { return Self::default() };
        Self {
            mean: area.mean,
            ends: area.low.zip(area.high),
            places: None,
            is_ranked: row.comparable != Some(false),
        }
    }
}

/// Returns the best of several means; `None` if there is no other to compare with.
pub(super) fn best_mean(direction: Direction, means: impl Iterator<Item = f64>) -> Option<f64> {
    let means: Vec<f64> = means.collect();
    let is_compared = means.len() > 1;
    let best = match direction {
        Direction::HigherIsBetter => means.into_iter().reduce(f64::max),
        Direction::LowerIsBetter => means.into_iter().reduce(f64::min),
        Direction::Support => None,
    };
    best.filter(|_| is_compared)
}

/// Returns the cells of a metric; the best mean among comparable rows is bold.
fn measured(numbers: &[Numbers], metric: &Metric) -> Vec<Cell> {
    let halves = numbers.iter().filter_map(|of| of.ends).map(|(low, high)| (high - low) / 2.0);
    let decimals = number::typical_decimals(halves);
    let ranked = numbers.iter().filter(|of| of.is_ranked).filter_map(|of| of.mean);
    let best = best_mean(metric.direction, ranked);
    let cell = |of: &Numbers| {
        let Some(mean) = of.mean else {
            return Cell { latex: Some("--".to_owned()), ..Cell::default() };
        };
        let shown = latex(&number::rounded(mean, decimals));
        let is_best = of.is_ranked && best.is_some_and(|best| best.total_cmp(&mean).is_eq());
        let mut text = if is_best { bold(&shown) } else { shown };
        if let Some((low, high)) = of.ends {
            let [low, high] = [low, high].map(|end| number::rounded(end, decimals));
            text = format!("{text} {}", interval(&low, &high));
        }
        if let Some((first, last)) = of.places {
            let places =
                if first == last { format!("({first})") } else { format!("({first}--{last})") };
            text = format!("{text} {}", small(&places));
        }
        Cell { latex: Some(text), ..Cell::text(mean.to_string()) }
    };
    numbers.iter().map(cell).collect()
}

fn cell(of: Option<&PublishedCell>, marks: &BTreeMap<&str, char>) -> Cell {
    let Some(of) = of else {
        return Cell { latex: Some("--".to_owned()), ..Cell::default() };
    };
    let mut text = latex(&number::rounded(of.mean, 3));
    if let Some(mark) = of.explanation.as_deref().and_then(|text| marks.get(text)) {
        text = format!("{text}$^{{{mark}}}$");
    }
    Cell { latex: Some(text), ..Cell::text(of.mean.to_string()) }
}

/// Finds the rows over the same samples as most, as the leaderboard does. They come first.
fn compare(rows: &mut [BoardRow]) {
    let mut counts: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for (row, set) in rows.iter().filter_map(|row| Some((row, row.sample_set.as_deref()?))) {
        let samples = row.metrics.values().map(|of| of.numbers.n + of.numbers.nulls).max();
        let (count, most) = counts.entry(set).or_default();
        *count += 1;
        *most = (*most).max(samples.unwrap_or_default());
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    let most = most.map(|(set, _)| set.to_owned());
    for row in rows.iter_mut() {
        row.comparable = row.sample_set.as_ref().map(|set| Some(set) == most.as_ref());
    }
    rows.sort_by_key(|row| row.comparable != Some(true));
}

/// Ranks rows among themselves, as the leaderboard does.
fn rank(rows: &mut [BoardRow]) {
    let codes: BTreeSet<String> = rows.iter().flat_map(|row| row.metrics.keys().cloned()).collect();
    let sets: BTreeSet<String> = rows.iter().filter_map(|row| row.sample_set.clone()).collect();
    for row in rows.iter_mut() {
        // It is over methods that are left out.
        row.mean_rank = None;
    }
    for code in &codes {
        let more = match metrics::find(code).map(|metric| metric.direction) {
            Some(Direction::HigherIsBetter) => true,
            Some(Direction::LowerIsBetter) => false,
            _ => continue,
        };
        for set in &sets {
            let members: Vec<usize> =
                (0..rows.len()).filter(|&at| rows[at].sample_set.as_ref() == Some(set)).collect();
            let ends = |&at: &usize| {
                let numbers = &rows[at].metrics.get(code)?.numbers;
                Some(Interval { low: numbers.low?, high: numbers.high? })
            };
            let ends: Vec<Option<Interval>> = members.iter().map(ends).collect();
            for (&at, places) in members.iter().zip(places(&ends, more)) {
                if let Some(of) = rows[at].metrics.get_mut(code) {
                    of.rank = places.map(|(first, _)| first);
                    of.last_rank = places.map(|(_, last)| last);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn options(methods: &[&str]) -> Options {
        Options {
            methods: methods.iter().map(|&name| name.to_owned()).collect(),
            runs: BTreeSet::new(),
            dataset: None,
            split: None,
            pack: None,
            policy: crate::analysis::Policy::None,
            kinds: vec![],
            by_category: vec![],
            questions: vec![],
            gallery: 0,
            command: String::new(),
            server: String::new(),
        }
    }

    fn row(method: &str, set: &str, is_comparable: bool, mean: f64) -> serde_json::Value {
        json!({
            "method": method, "runs": [], "flags": {},
            "pack": {"name": "p", "digest": "d", "weights": "demo"},
            "sample_set": set, "comparable": is_comparable, "mean_rank": 1.0,
            "metrics": {"dino": {
                "mean": mean, "std": 0.1, "low": mean - 0.01, "high": mean + 0.01, "n": 9,
                "nulls": 0, "coverage": 1.0, "version": 1, "rank": 1, "last_rank": 1,
                "pending": false, "flags": {}, "clusters": 9, "few_clusters": false
            }}
        })
    }

    #[test]
    fn rows_are_compared_with_those_that_are_kept() {
        let rows = [
            row("a", "of two", true, 0.1),
            row("b", "of three", false, 0.3),
            row("c", "of two", true, 0.2),
            row("d", "of three", false, 0.4),
        ];
        let of = json!({"rows": rows, "policy": "none", "total": 4, "next": null});
        let of: LeaderboardResponse = serde_json::from_value(of).unwrap();
        let answer = Answered { of, request: String::new() };
        let board = Board::new(None, answer, &options(&["a", "b", "d"]));
        let found: Vec<_> = board
            .of
            .rows
            .iter()
            .map(|row| (&*row.method, row.comparable, row.metrics["dino"].rank))
            .collect();
        assert_eq!(
            found,
            [("b", Some(true), Some(2)), ("d", Some(true), Some(1)), ("a", Some(false), Some(1))]
        );
        let part = board.part(&options(&["a", "b", "d"]));
        let tex = String::from_utf8(part.files[0].bytes.clone()).unwrap();
        assert!(tex.contains("\\textbf{0.4") && tex.contains("a*"), "{tex}");
        assert!(part.remarks.iter().any(|remark| remark.starts_with("1 methods")), "{part:?}");
    }

    #[test]
    fn the_best_mean_is_that_of_several() {
        let best = |direction, means: &[f64]| best_mean(direction, means.iter().copied());
        assert_eq!(best(Direction::HigherIsBetter, &[1.0, 2.0]), Some(2.0));
        assert_eq!(best(Direction::LowerIsBetter, &[1.0, 2.0]), Some(1.0));
        assert_eq!(best(Direction::Support, &[1.0, 2.0]), None);
        assert_eq!(best(Direction::HigherIsBetter, &[1.0]), None);
    }
}
