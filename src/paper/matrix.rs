//! Methods by category.

use std::collections::BTreeSet;

use super::{
    board::{best_mean, digits},
    options::{Options, slug},
    part::Part,
    people::short,
    source::Answered,
    text::{bold, interval},
};
use crate::api::analysis::matrix::{MatrixEntry, MatrixResponse};
use crate::figures::number;
use crate::figures::table::{Cell, Column, Row, Table, latex};
use crate::metrics::{self, Direction};

/// Categories in LaTeX, those with most images; the CSV file has all of the response.
const MOST_ROWS: usize = 24;

/// Categories that are asked for: the service's maximum.
pub(super) const MOST_CATEGORIES: &str = "100";

/// Returns the table of one metric; nothing if no category has enough images.
///
/// If methods are left out, the best mean is that of the others among `comparable`, and there is no
/// rank.
pub(super) fn part(
    answer: Answered<MatrixResponse>,
    options: &Options,
    comparable: &BTreeSet<String>,
) -> Option<Part> {
    let Answered { mut of, request } = answer;
    let is_kept: Vec<bool> =
        of.columns.iter().map(|column| options.keeps(&column.method, &column.runs)).collect();
    let dropped = is_kept.iter().filter(|kept| !**kept).count();
    let mut kept = is_kept.iter();
    of.columns.retain(|_| *kept.next().unwrap_or(&true));
    for row in &mut of.rows {
        let mut kept = is_kept.iter();
        row.cells.retain(|_| *kept.next().unwrap_or(&true));
    }
    if dropped > 0 {
        choose_best(&mut of, comparable);
    }
    of.rows.retain(|row| row.cells.iter().any(Option::is_some));
    if of.rows.is_empty() {
        return None;
    }
    let caption = format!(
        "{} by {}: means with 95\\,\\% intervals by identity, which are not corrected for the number \
         of rows. The best mean of a row is bold. Penalty policy: {}.",
        latex(short(&of.metric)),
        latex(&of.kind.replace('_', " ")),
        of.policy.as_str()
    );
    let name = format!("{}-{}", slug(&of.kind), slug(&of.metric));
    let mut part = Part::new(name, "Categories", caption).requested(&request);
    if of.rows.len() > MOST_ROWS || of.rows.len() < of.categories {
        part.remarks.push(format!(
            "LaTeX has {} of {} rows, the CSV file {}: those with most images",
            of.rows.len().min(MOST_ROWS),
            of.categories,
            of.rows.len()
        ));
    }
    if dropped > 0 {
        part.remarks.push(format!("{dropped} further columns were read and left out"));
    }
    Some(part.latex(&table(&of)).csv(&lines(&of)))
}

/// Finds the best mean of each row among the columns that are left.
fn choose_best(of: &mut MatrixResponse, comparable: &BTreeSet<String>) {
    let direction = metrics::find(&of.metric).map_or(Direction::Support, |of| of.direction);
    let is_ranked: Vec<bool> =
        of.columns.iter().map(|column| comparable.contains(&column.method)).collect();
    for row in &mut of.rows {
        let means = row.cells.iter().zip(&is_ranked).filter(|(_, ranked)| **ranked);
        let means = means.filter_map(|(cell, _)| cell.as_ref()?.mean);
        let best = best_mean(direction, means);
        for (cell, ranked) in row.cells.iter_mut().zip(&is_ranked) {
            let Some(cell) = cell else { continue };
            cell.rank = None;
            let is_best = cell.mean.zip(best).is_some_and(|(a, b)| a.total_cmp(&b).is_eq());
            cell.best = *ranked && is_best;
        }
    }
}

fn table(of: &MatrixResponse) -> Table {
    let mut columns = vec![Column::text(of.kind.replace('_', " ")), Column::number("Images")];
    columns.extend(of.columns.iter().map(|column| Column::number(&*column.method)));
    let halves = of.rows.iter().flat_map(|row| &row.cells).flatten();
    let halves = halves.filter_map(|cell| Some((cell.high? - cell.low?) / 2.0));
    let decimals = number::typical_decimals(halves);
    let cell = |cell: Option<&MatrixEntry>| {
        let Some((cell, mean)) = cell.and_then(|cell| Some((cell, cell.mean?))) else {
            return Cell { latex: Some("--".to_owned()), ..Cell::default() };
        };
        let text = latex(&number::rounded(mean, decimals));
        let mut text = if cell.best { bold(&text) } else { text };
        if let Some((low, high)) = cell.low.zip(cell.high) {
            let [low, high] = [low, high].map(|end| number::rounded(end, decimals));
            text = format!("{text} {}", interval(&low, &high));
        }
        Cell { latex: Some(text), ..Cell::default() }
    };
    let rows = of.rows.iter().take(MOST_ROWS).map(|row| {
        let mut cells = vec![Cell::text(&*row.category), Cell::text(number::count(row.samples))];
        cells.extend(row.cells.iter().map(|of| cell(of.as_ref())));
        Row::from(cells)
    });
    Table { name: "matrix", caption: String::new(), columns, rows: rows.collect() }
}

fn lines(of: &MatrixResponse) -> Table {
    let heads = [
        "kind", "category", "method", "metric", "policy", "pack", "samples", "n", "mean", "low",
        "high", "clusters", "rank", "best",
    ];
    let mut rows: Vec<Row> = Vec::new();
    for row in &of.rows {
        for (column, cell) in of.columns.iter().zip(&row.cells) {
            let Some(cell) = cell else { continue };
            let mut cells = vec![
                Cell::text(&*of.kind),
                Cell::text(&*row.category),
                Cell::text(&*column.method),
                Cell::text(&*of.metric),
                Cell::text(of.policy.as_str()),
                Cell::text(&*column.pack.digest),
            ];
            cells.extend([cell.samples, cell.n].map(Some).map(digits));
            cells.extend([cell.mean, cell.low, cell.high].map(digits));
            cells.extend([digits(Some(cell.clusters)), digits(cell.rank), digits(Some(cell.best))]);
            rows.push(cells.into());
        }
    }
    let columns = heads.map(Column::text).into();
    Table { name: "matrix", caption: String::new(), columns, rows }
}
