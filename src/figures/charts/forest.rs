//! Numbers with their intervals, one below the other.

use maud::{Markup, html};

use super::{Chart, Scale, clip};

const ROW: f64 = 24.0;
/// Width of the labels at most, of the intervals, and of the numbers.
const WIDTHS: (f64, f64, f64) = (230.0, 330.0, 160.0);
/// Characters of a label that fit.
const LABEL: usize = 32;

/// A row: a number with its interval, or the heading of the rows that follow.
pub(crate) struct ForestRow {
    pub(crate) label: String,
    /// The number; without one the row is a heading.
    pub(crate) value: Option<f64>,
    pub(crate) interval: Option<(f64, f64)>,
    /// Text at the end of the row.
    pub(crate) note: String,
    pub(crate) tone: Tone,
}

impl ForestRow {
    /// Creates the heading of the rows that follow.
    pub(crate) fn heading(label: impl Into<String>) -> Self {
        let (label, note) = (label.into(), String::new());
        Self { label, value: None, interval: None, note, tone: Tone::Plain }
    }
}

/// Colour of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Better,
    Worse,
    /// A number that shows nothing on its own.
    Quiet,
}

/// Scale of the rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scales {
    /// One for all rows, with a line at this number.
    Shared(Option<f64>),
    /// One for each row, all with zero in the middle.
    Own,
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Quiet => "faint",
        }
    }
}

/// Draws rows of numbers with their intervals.
pub(crate) fn forest(
    name: &'static str,
    title: String,
    description: String,
    rows: &[ForestRow],
    scales: Scales,
) -> Chart {
    let ends = |row: &ForestRow| {
        let (low, high) = row.interval.unzip();
        [row.value, low, high]
    };
    let all = rows.iter().flat_map(ends).flatten();
    let line = if let Scales::Shared(line) = scales { line } else { None };
    // Short labels leave room on narrow screens.
    let longest = rows.iter().map(|row| row.label.chars().count().min(LABEL)).max();
    let left = (longest.unwrap_or_default() as f64 * 6.8 + 24.0).min(WIDTHS.0);
    let sides = (left, left + WIDTHS.1);
    let shared = Scale::new(all.chain(line), 5, sides);
    let bottom = rows.len() as f64 * ROW + 8.0;
    let middle = f64::midpoint(sides.0, sides.1);
    let (at_line, axis) = match scales {
        Scales::Shared(line) => (line.map(|line| shared.at(line)), shared.ticks()),
        Scales::Own => (Some(middle), vec![(middle, "0".to_owned())]),
    };
    let content = html! {
        @for (at, label) in &axis {
            path.grid d=(format!("M{at} 4V{bottom}")) {}
            text.quiet.middle x=(at) y=(bottom + 16.0) { (label) }
        }
        @if let Some(at) = at_line { path.axis d=(format!("M{at} 4V{bottom}")) {} }
        @for (place, row) in rows.iter().enumerate() {
            @let y = place as f64 * ROW + ROW / 2.0 + 4.0;
            @let own = row_scale(row, sides);
            (drawn(row, y, sides, if scales == Scales::Own { &own } else { &shared }))
        }
    };
    Chart { name, title, description, size: (sides.1 + WIDTHS.2, bottom + 24.0), content }
}

/// Returns a scale with zero in its middle.
fn row_scale(row: &ForestRow, sides: (f64, f64)) -> Scale {
    let (low, high) = row.interval.unzip();
    let ends = [row.value, low, high].into_iter().flatten();
    let most = ends.map(f64::abs).fold(0.0, f64::max);
    Scale {
        low: -most * 1.08 - 1e-12,
        high: most * 1.08 + 1e-12,
        step: 1.0,
        from: sides.0,
        to: sides.1,
    }
}

fn drawn(row: &ForestRow, y: f64, sides: (f64, f64), scale: &Scale) -> Markup {
    let clipped = clip(&row.label, LABEL);
    html! {
        @if let Some(value) = row.value {
            g class=(row.tone.class()) {
                text x=(sides.0 - 12.0) y=(y + 4.0) class="end" {
                    @if clipped.len() != row.label.len() { title { (clip(&row.label, 300)) } }
                    (clipped)
                }
                @if let Some((low, high)) = row.interval {
                    path.whisker d=(format!("M{} {y}H{}", scale.at(low), scale.at(high))) {}
                    circle.dot cx=(scale.at(value)) cy=(y) r="4.5" {}
                } @else {
                    circle.hollow cx=(scale.at(value)) cy=(y) r="4" {}
                }
                text.quiet x=(sides.1 + 12.0) y=(y + 4.0) { (row.note) }
            }
        } @else {
            text.strong x="8" y=(y + 4.0) { (clipped) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: f64, interval: Option<(f64, f64)>) -> ForestRow {
        let (label, note) = ("<b>person</b>".to_owned(), String::new());
        ForestRow { label, value: Some(value), interval, note, tone: Tone::Plain }
    }

    fn drawn(rows: &[ForestRow], scales: Scales) -> String {
        forest("x", "t".into(), "d".into(), rows, scales).content.into_string()
    }

    #[test]
    fn rows_of_their_own_scale_have_zero_in_the_middle() {
        let rows = [row(10.0, Some((5.0, 15.0))), row(-0.1, Some((-0.2, 0.0)))];
        let svg = drawn(&rows, Scales::Own);
        // The widest end of each row is near its side, whatever the unit.
        assert!(svg.contains("H430.2") && svg.contains("M124.6 "), "{svg}");
        assert!(svg.contains("M124.6 40H277.4"), "zero is the middle: {svg}");
    }

    #[test]
    fn a_number_without_an_interval_is_hollow_and_labels_stay_text() {
        let svg = drawn(&[row(0.5, None)], Scales::Shared(Some(0.0)));
        assert!(svg.contains("hollow") && !svg.contains("whisker"), "{svg}");
        assert!(svg.contains("&lt;b&gt;") && !svg.contains("<b>"), "{svg}");
    }

    #[test]
    fn long_labels_are_clipped() {
        assert_eq!(clip("abcdef", 4), "abc…");
        assert_eq!(clip("abcd", 4), "abcd");
    }
}
