//! A heat map of correlations.

use maud::{Markup, html};

use super::{Chart, label};
use crate::analysis::Cell;
use crate::figures::number;
use crate::metrics;

const SIDE: f64 = 44.0;
const LEFT: f64 = 150.0;
const TOP: f64 = 110.0;

/// Opacity of a coefficient of 1: text on it keeps a contrast of 4.5 in both themes.
const MOST_OPACITY: f64 = 0.55;

/// Draws a matrix of coefficients; rows and columns have these codes.
pub(crate) fn chart(title: String, codes: &[String], matrix: &[Vec<Cell>]) -> Chart {
    let side = SIDE * codes.len() as f64;
    let size = (LEFT + side + 40.0, TOP + side + 46.0);
    let content = html! {
        @for (at, code) in codes.iter().enumerate() {
            @let middle = SIDE * (at as f64 + 0.5);
            text class="end" x=(LEFT - 8.0) y=(TOP + middle + 4.0) { (label(name(code), 22)) }
            text transform=(format!("translate({} {}) rotate(-45)", LEFT + middle, TOP - 8.0)) {
                (label(short(code), 16))
            }
        }
        @for (row, cells) in matrix.iter().enumerate() {
            @for (column, cell) in cells.iter().enumerate() {
                (square(row, column, cell, codes))
            }
        }
        (key(TOP + side + 14.0))
    };
    Chart {
        name: "correlations",
        title,
        description: format!(
            "A square for each pair of {} metrics. Blue: they rise together. Brown: one falls where \
             the other rises. The table below has the numbers.",
            codes.len()
        ),
        size,
        content,
    }
}

fn square(row: usize, column: usize, cell: &Cell, codes: &[String]) -> Markup {
    let (x, y) = (LEFT + SIDE * column as f64, TOP + SIDE * row as f64);
    let value = cell.value.unwrap_or_default();
    let opacity = number::rounded(value.abs().min(1.0) * MOST_OPACITY, 2);
    let is_self = row == column;
    html! {
        @if !is_self && cell.value.is_some() {
            rect class=(if value < 0.0 { "low" } else { "high" }) fill-opacity=(opacity)
                x=(x + 1.0) y=(y + 1.0) width=(SIDE - 2.0) height=(SIDE - 2.0) rx="4" {
                title {
                    (name(&codes[row])) " and " (name(&codes[column])) ": " (number::rounded(value, 2))
                    @if let (Some(low), Some(high)) = (cell.low, cell.high) {
                        ", from " (number::rounded(low, 2)) " to " (number::rounded(high, 2))
                    }
                }
            }
        }
        @let middle = (x + SIDE / 2.0, y + SIDE / 2.0 + 4.0);
        @match (is_self, cell.value) {
            (true, _) => text class="quiet middle" x=(middle.0) y=(middle.1) { "·" },
            (false, Some(value)) => text class="middle" x=(middle.0) y=(middle.1) {
                (number::rounded(value, 2))
            },
            (false, None) => text class="quiet middle" x=(middle.0) y=(middle.1) { "—" },
        }
    }
}

/// Draws the key of the colours.
fn key(y: f64) -> Markup {
    let steps = [-1.0, -0.5, 0.0, 0.5, 1.0];
    html! {
        @for (at, value) in steps.into_iter().enumerate() {
            @let x = LEFT + SIDE * at as f64;
            rect class=(if value < 0.0 { "low" } else { "high" })
                fill-opacity=(number::rounded(f64::abs(value) * MOST_OPACITY, 2))
                x=(x) y=(y) width=(SIDE) height="12" {}
            text class="quiet middle" x=(x + SIDE / 2.0) y=(y + 26.0) { (number::rounded(value, 1)) }
        }
        text class="quiet end" x=(LEFT - 8.0) y=(y + 11.0) { "opposite" }
        text class="quiet" x=(LEFT + SIDE * 5.0 + 8.0) y=(y + 11.0) { "together" }
    }
}

fn name(code: &str) -> &str {
    metrics::find(code).map_or(code, |metric| metric.guide.name)
}

fn short(code: &str) -> &str {
    metrics::find(code).map_or(code, |metric| metric.guide.short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{Coefficient, correlations};

    #[test]
    fn colours_follow_sign_and_size_and_missing_numbers_have_none() {
        let (a, b) = ([Some(1.0), Some(2.0), Some(3.0)], [Some(3.0), Some(2.0), Some(1.0)]);
        let none = [None, None, None];
        let columns: [&[Option<f64>]; 3] = [&a, &b, &none];
        let matrix = correlations(&columns, Coefficient::Kendall, None);
        let codes = ["ips", "clip_t", "goa"].map(str::to_owned);
        let svg = chart("Correlations".to_owned(), &codes, &matrix).document();
        let strongest = r#"<rect class="low" fill-opacity="0.55" x="#;
        assert_eq!(svg.matches(strongest).count(), 3, "two squares and the key");
        assert_eq!(svg.matches(">−1.00</text>").count(), 2);
        assert_eq!(svg.matches(">—</text>").count(), 4);
    }
}
