//! The leaderboard as CSV, with all digits, and as LaTeX, for papers.

use super::page::{group_name, groups};
use super::{area, cells};
use crate::api::analysis::leaderboard::{LeaderboardResponse, Row as BoardRow};
use crate::api::http::csv::optional;
use crate::api::pages::number;
use crate::api::pages::table::{Cell, Column, Row, Table, latex as escaped};
use crate::metrics::{Direction, Metric};
use crate::store::APS_AREA;

fn name(row: &BoardRow) -> String {
    match &row.run {
        Some(run) => format!("{} / {run}", row.method),
        None => row.method.clone(),
    }
}

/// Returns the table with every number: a row for each method and five columns for each metric.
pub(super) fn csv(response: &LeaderboardResponse, metrics: &[&Metric]) -> Table {
    let mut columns: Vec<Column> = [
        "source",
        "method",
        "run",
        "dataset",
        "group",
        "pack",
        "weights",
        "policy",
        "samples",
        "penalty_rate",
        "mean_rank",
    ]
    .map(Column::text)
    .into();
    for metric in metrics {
        columns.push(Column::number(metric.code));
        for part in ["low", "high", "n", "rank", "last_rank"] {
            columns.push(Column::number(format!("{}_{part}", metric.code)));
        }
        if area::is_shown(metric, response) {
            columns.extend(
                ["", "_low", "_high"].map(|part| Column::number(format!("{APS_AREA}{part}"))),
            );
        }
    }
    if response.published.is_some() {
        columns.push(Column::text("comparable"));
    }
    let text = |value: &str| Cell::text(value);
    let mut rows: Vec<Row> = Vec::new();
    for (row, group) in response.rows.iter().zip(groups(response)) {
        let mut cells = vec![
            text("measured"),
            text(&row.method),
            text(row.run.as_deref().unwrap_or_default()),
            Cell::default(),
            text(&group_name(group)),
            text(&row.pack.digest),
            text(row.pack.weights.as_str()),
            text(response.policy.as_str()),
            Cell::text(cells::samples(row).to_string()),
            Cell::text(optional(cells::penalty_rate(row))),
            Cell::text(optional(row.mean_rank)),
        ];
        for metric in metrics {
            let of = row.metrics.get(metric.code);
            let numbers = of.map(|of| &of.numbers);
            cells.extend([
                Cell::text(optional(numbers.and_then(|of| of.mean))),
                Cell::text(optional(numbers.and_then(|of| of.low))),
                Cell::text(optional(numbers.and_then(|of| of.high))),
                Cell::text(optional(numbers.map(|of| of.n))),
                Cell::text(optional(of.and_then(|of| of.rank))),
                Cell::text(optional(of.and_then(|of| of.last_rank))),
            ]);
            if area::is_shown(metric, response) {
                let area = of.and_then(|of| of.area);
                let ends = [
                    area.and_then(|of| of.mean),
                    area.and_then(|of| of.low),
                    area.and_then(|of| of.high),
                ];
                cells.extend(ends.map(|end| Cell::text(optional(end))));
            }
        }
        if response.published.is_some() {
            cells.push(Cell::default());
        }
        rows.push(cells.into());
    }
    for row in response.published.iter().flat_map(|published| &published.rows) {
        let mut cells = vec![text("published"), text(&row.method), text(""), text(&row.dataset)];
        cells.extend((0..7).map(|_| Cell::default()));
        for metric in metrics {
            let mean = |code: &str| optional(row.metrics.get(code).map(|of| of.mean));
            cells.push(Cell::text(mean(metric.code)));
            cells.extend((0..5).map(|_| Cell::default()));
            if area::is_shown(metric, response) {
                cells.push(Cell::text(mean(APS_AREA)));
                cells.extend((0..2).map(|_| Cell::default()));
            }
        }
        let comparing = row.metrics.iter().filter(|(_, of)| of.comparable);
        let comparing: Vec<&str> = comparing.map(|(code, _)| &**code).collect();
        cells.push(Cell::text(comparing.join(" ")));
        rows.push(cells.into());
    }
    Table { name: "leaderboard", caption: String::new(), columns, rows }
}

/// Returns the table of a paper: means with intervals. Means that share the first rank are bold.
pub(super) fn latex(response: &LeaderboardResponse, metrics: &[&Metric]) -> Table {
    let arrow = |metric: &Metric| match metric.direction {
        Direction::HigherIsBetter => " ↑",
        Direction::LowerIsBetter => " ↓",
        Direction::Support => "",
    };
    let heads = metrics.iter().map(|metric| format!("{}{}", metric.guide.short, arrow(metric)));
    let mut columns = vec![Column::text("Method"), Column::number("Images")];
    for (metric, head) in metrics.iter().zip(heads) {
        columns.push(Column::number(head));
        if area::is_shown(metric, response) {
            columns.push(Column::number(format!("{}{}", area::NAME, arrow(metric))));
        }
    }
    let mut rows: Vec<Row> = Vec::new();
    for row in &response.rows {
        let mut cells = vec![Cell::text(name(row)), Cell::text(number::count(cells::samples(row)))];
        for metric in metrics {
            let Some(of) = row.metrics.get(metric.code) else {
                cells.push(Cell::text("--"));
                cells.extend(area::is_shown(metric, response).then(|| Cell::text("--")));
                continue;
            };
            let numbers = &of.numbers;
            let text = match (numbers.mean, numbers.low, numbers.high) {
                (Some(mean), Some(low), Some(high)) => {
                    let decimals = number::decimals((high - low) / 2.0).min(4);
                    let of = |value| escaped(&number::rounded(value, decimals));
                    let mean = of(mean);
                    let is_first = row.metrics[metric.code].rank == Some(1);
                    let mean = if is_first { format!("\\textbf{{{mean}}}") } else { mean };
                    format!("{mean} {{\\scriptsize [{}, {}]}}", of(low), of(high))
                }
                (Some(mean), ..) => escaped(&number::plain(mean)),
                (None, ..) => "--".to_owned(),
            };
            cells.push(Cell { latex: Some(text), ..Cell::default() });
            if area::is_shown(metric, response) {
                let mean = of.area.and_then(|of| of.mean);
                let mean = mean.map_or("--".to_owned(), |mean| escaped(&number::rounded(mean, 3)));
                cells.push(Cell { latex: Some(mean), ..Cell::default() });
            }
        }
        rows.push(cells.into());
    }
    for row in response.published.iter().flat_map(|published| &published.rows) {
        let mut cells = vec![Cell::text(format!("{} (published)", row.method)), Cell::default()];
        let published = |metric: &&Metric| row.metrics.get(metric.code).map(|of| of.mean);
        let text = |mean: Option<f64>| {
            Cell::text(mean.map_or("--".to_owned(), |mean| number::rounded(mean, 3)))
        };
        for metric in metrics {
            cells.push(text(published(metric)));
            if area::is_shown(metric, response) {
                cells.push(text(row.metrics.get(APS_AREA).map(|of| of.mean)));
            }
        }
        rows.push(cells.into());
    }
    Table { name: "leaderboard", caption: String::new(), columns, rows }
}
