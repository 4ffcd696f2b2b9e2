//! Correlations of the metrics: a heat map, also as a table with coloured cells.

use std::fmt::Write as _;

use super::{board::digits, part::Part, people::short, source::Answered};
use crate::api::analysis::correlations::CorrelationsResponse;
use crate::figures::charts::heat;
use crate::figures::number;
use crate::figures::table::{Cell, Column, Row, Table, latex};

/// Share of the colour of a coefficient of 1, in percent: black text on it is easy to read.
const MOST_COLOUR: f64 = 55.0;

pub(super) fn part(answer: &Answered<CorrelationsResponse>) -> Part {
    let of = &answer.of;
    let caption = format!(
        "Kendall's $\\tau_b$ of every two metrics over {} images of {} runs, as measured, without \
         penalty. Blue: they rise together; brown: one falls where the other rises.",
        number::count(of.samples as u64),
        number::count(of.runs as u64)
    );
    let title = "Kendall's tau of every two metrics".to_owned();
    let chart = heat::chart(title, &of.metrics, &of.matrix);
    let mut part = Part::new("correlations", "Correlations", caption)
        .requested(&answer.request)
        .tex(&tex(of))
        .csv(&lines(of))
        .svg("correlations", chart.document());
    if (of.samples as u64) < of.of {
        part.remarks.push(format!("{} of {} images, evenly spaced", of.samples, of.of));
    }
    part
}

fn tex(of: &CorrelationsResponse) -> String {
    let mut text = String::from(
        "% Needs \\usepackage{booktabs}, \\usepackage[table]{xcolor} and the colours together and \
         opposite\n",
    );
    let _ = writeln!(text, "\\begin{{tabular}}{{l{}}}", "r".repeat(of.metrics.len()));
    text.push_str("\\toprule\n");
    for (at, _) in of.metrics.iter().enumerate() {
        let _ = write!(text, " & {}", at + 1);
    }
    text.push_str(" \\\\\n\\midrule\n");
    for (at, (code, row)) in of.metrics.iter().zip(&of.matrix).enumerate() {
        let _ = write!(text, "{} {}", at + 1, latex(short(code)));
        for (other, cell) in row.iter().enumerate() {
            match cell.value {
                _ if other == at => text.push_str(" & $\\cdot$"),
                None => text.push_str(" & --"),
                Some(value) => {
                    let colour = if value < 0.0 { "opposite" } else { "together" };
                    let share = (value.abs().min(1.0) * MOST_COLOUR).round();
                    let shown = latex(&number::rounded(value, 2));
                    let _ = write!(text, " & \\cellcolor{{{colour}!{share}}}{shown}");
                }
            }
        }
        text.push_str(" \\\\\n");
    }
    text.push_str("\\bottomrule\n\\end{tabular}\n");
    text
}

fn lines(of: &CorrelationsResponse) -> Table {
    let heads = ["metric", "with", "coefficient", "value", "low", "high", "n", "pack"];
    let mut rows: Vec<Row> = Vec::new();
    for (at, row) in of.matrix.iter().enumerate() {
        for (other, cell) in row.iter().enumerate().take(at) {
            let mut cells = vec![
                Cell::text(&*of.metrics[other]),
                Cell::text(&*of.metrics[at]),
                Cell::text("kendall"),
            ];
            cells.extend([cell.value, cell.low, cell.high].map(digits));
            cells.extend([digits(Some(cell.n)), Cell::text(&*of.pack)]);
            rows.push(cells.into());
        }
    }
    let columns = heads.map(Column::text).into();
    Table { name: "correlations", caption: String::new(), columns, rows }
}
