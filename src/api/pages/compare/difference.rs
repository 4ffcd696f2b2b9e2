//! A difference between two runs, as charts and tables show it.

use maud::{Markup, html};

use crate::analysis::{Difference, Finding, SliceComparison};
use crate::api::pages::{
    charts::{clip, forest::Tone},
    number, show,
    table::{Cell, Column, Row, Table},
};

/// Returns the sign by which a difference is turned so that more is better.
pub(super) fn sign(metric: &str) -> f64 {
    match show::direction(metric) {
        Some(("↓", _)) => -1.0,
        _ => 1.0,
    }
}

/// Returns an interval turned like its difference.
pub(super) fn turned(metric: &str, low: Option<f64>, high: Option<f64>) -> Option<(f64, f64)> {
    let (low, high) = low.zip(high)?;
    Some(if sign(metric) < 0.0 { (-high, -low) } else { (low, high) })
}

/// Returns the colour of a finding.
pub(super) fn tone(finding: Finding) -> Tone {
    match finding {
        Finding::Better => Tone::Better,
        Finding::Worse => Tone::Worse,
        Finding::Undecided => Tone::Quiet,
    }
}

/// Returns a difference with its sign.
pub(super) fn signed(value: f64, ends: Option<(f64, f64)>) -> String {
    let text = ends.map_or_else(
        || number::plain(value),
        |(low, high)| number::with_interval(value, low, high),
    );
    if value > 0.0 { format!("+{text}") } else { text }
}

/// Renders a finding.
pub(super) fn finding(of: Finding) -> Markup {
    html! {
        @match of {
            Finding::Better => span.better { "A is better" },
            Finding::Worse => span.worse { "A is worse" },
            Finding::Undecided => span.fine { "undecided" },
        }
    }
}

/// Returns the table of differences, with their slices if there are any.
pub(super) fn differences(
    name: &'static str,
    caption: &str,
    listed: &[(&SliceComparison, &Difference)],
) -> Table {
    let is_sliced = listed.iter().any(|(slice, _)| !slice.kind.is_empty());
    let mut columns = vec![
        Column::text("Metric"),
        Column::number("A"),
        Column::number("B"),
        Column::number("Difference"),
        Column::number("from"),
        Column::number("to"),
        Column::number("A wins"),
        Column::number("p"),
        Column::text("Finding"),
        Column::number("Pairs"),
        Column::number("People"),
        Column::text("Note"),
    ];
    if is_sliced {
        columns.insert(0, Column::text("Slice"));
    }
    let rows = listed.iter().map(|(slice, of)| {
        let mut cells = difference(of);
        if is_sliced {
            let label = show::slice_label(&slice.kind, &slice.label);
            let label = format!("{}: {label}", show::slice_kind(&slice.kind));
            let shown = html! { bdi { (clip(&label, show::NAME)) } };
            cells.insert(0, Cell::text(&label).shown(shown));
        }
        Row::from(cells)
    });
    Table { name, caption: caption.to_owned(), columns, rows: rows.collect() }
}

fn difference(of: &Difference) -> Vec<Cell> {
    let ends = of.low.zip(of.high);
    let decimals = ends.map_or(3, |(low, high)| number::decimals((high - low) / 2.0));
    let end = |end: Option<f64>| {
        Cell::number(end, end.map_or("–".to_owned(), |end| number::rounded(end, decimals)))
    };
    let plain = |value: f64| Cell::number(Some(value), number::rounded(value, decimals));
    let p = of.p_holm.map_or("–".to_owned(), |p| match p {
        p if p < 0.001 => "<0.001".to_owned(),
        p => number::rounded(p, 3),
    });
    let mut note = of.no_interval.map(show::no_interval).unwrap_or_default();
    if of.few_clusters && of.low.is_some() {
        note = "few people: the interval is rough";
    }
    vec![
        Cell::text(&of.metric).shown(show::metric(&of.metric)).head(),
        plain(of.mean_a),
        plain(of.mean_b),
        Cell::number(Some(of.difference), signed(of.difference, ends)),
        end(of.low),
        end(of.high),
        Cell::number(of.win_rate, of.win_rate.map_or("–".to_owned(), number::percent)),
        Cell::number(of.p_holm, p),
        Cell::text(format!("{:?}", of.finding).to_lowercase()).shown(finding(of.finding)),
        Cell::number(Some(of.n as f64), number::count(of.n as u64)),
        Cell::number(Some(of.clusters as f64), number::count(of.clusters as u64)),
        Cell::text(note),
    ]
}
