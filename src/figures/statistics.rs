//! The table of a dataset's statistics.

use maud::html;

use super::number;
use super::table::{Cell, Column, Row, Table};
use crate::analysis::{KindStatistics, QuantityStatistics, Spread};

/// Returns a row for each kind of prompts and quantity.
pub(crate) fn table(kinds: &[KindStatistics]) -> Table {
    let columns = [
        ("kind", false),
        ("quantity", false),
        ("different", true),
        ("total", true),
        ("mean per prompt", true),
        ("median per prompt", true),
        ("max per prompt", true),
        ("mean per person", true),
        ("median per person", true),
        ("max per person", true),
    ];
    let columns = columns.map(
        |(label, is_number)| if is_number { Column::number(label) } else { Column::text(label) },
    );
    let rows = kinds.iter().flat_map(|of| {
        [texts(of)].into_iter().chain(of.quantities.iter().map(move |each| row(of, each)))
    });
    Table {
        name: "statistics",
        caption: "Statistics of the prompts".to_owned(),
        columns: columns.into(),
        rows: rows.collect(),
    }
}

fn kind(of: &KindStatistics) -> Cell {
    match &of.kind {
        Some(kind) => Cell::text(&**kind).shown(html! { bdi { (kind) } }),
        None => Cell::text("all"),
    }
}

fn count(count: Option<u64>) -> Cell {
    let shown = count.map(number::count).unwrap_or_default();
    Cell::number(count.map(|count| count as f64), shown)
}

fn mean(mean: f64) -> Cell {
    Cell::number(Some(mean), number::rounded(mean, 2))
}

fn spread(of: &Spread) -> [Cell; 3] {
    [mean(of.mean), mean(of.median), count(Some(of.max))]
}

/// The prompts themselves.
fn texts(of: &KindStatistics) -> Row {
    let mut cells = vec![
        kind(of),
        Cell::text("prompts").head(),
        count(Some(of.texts as u64)),
        count(Some(of.prompts as u64)),
    ];
    cells.extend([Cell::default(), Cell::default(), Cell::default()]);
    cells.extend(spread(&of.prompts_per_person));
    cells.into()
}

fn row(of: &KindStatistics, each: &QuantityStatistics) -> Row {
    let mut cells = vec![
        kind(of),
        Cell::text(each.quantity.word()).head(),
        count(each.distinct.map(|distinct| distinct as u64)),
        count(Some(each.per_prompt.total)),
    ];
    cells.extend(spread(&each.per_prompt));
    cells.extend(spread(&each.per_person));
    cells.into()
}
