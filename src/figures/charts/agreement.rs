//! Numbers with intervals, one in a line, against a reference such as chance.

use maud::{Markup, html};

use super::{Chart, Scale, label};
use crate::figures::number;

const LABELS: f64 = 210.0;
const PLOT: f64 = 440.0;
const NUMBERS: f64 = 150.0;
const LINE: f64 = 26.0;
const TOP: f64 = 30.0;

/// Maximum number of characters of a label; the whole one is its title.
const LONGEST: usize = 28;

/// A number with its interval.
pub(crate) struct Line {
    pub(crate) label: String,
    pub(crate) value: f64,
    pub(crate) interval: Option<(f64, f64)>,
    /// A number to compare with, drawn as a ring.
    pub(crate) other: Option<f64>,
}

/// Words of the chart.
pub(crate) struct Words {
    pub(crate) name: &'static str,
    pub(crate) title: String,
    pub(crate) description: String,
    /// The value of the reference line, and what it means.
    pub(crate) reference: (f64, &'static str),
}

/// Draws numbers with intervals from top to bottom.
pub(crate) fn chart(words: Words, lines: &[Line]) -> Chart {
    let (reference, meaning) = words.reference;
    let ends = lines.iter().flat_map(|line| {
        let (low, high) = line.interval.unwrap_or((line.value, line.value));
        [low, high, line.value, line.other.unwrap_or(line.value)]
    });
    let scale = Scale::new(ends.chain([reference]), 5, (LABELS, LABELS + PLOT));
    let bottom = TOP + LINE * lines.len() as f64;
    let content = html! {
        @for (x, label) in scale.ticks() {
            line.grid x1=(x) x2=(x) y1=(TOP - 6.0) y2=(bottom) {}
            text.quiet.middle x=(x) y=(TOP - 12.0) { (label) }
        }
        line.axis x1=(scale.at(reference)) x2=(scale.at(reference)) y1=(TOP - 6.0) y2=(bottom) {}
        text.quiet.middle x=(scale.at(reference)) y=(bottom + 18.0) { (meaning) }
        @for (at, line) in lines.iter().enumerate() {
            (row(line, &scale, TOP + LINE * (at as f64 + 0.5)))
        }
    };
    Chart {
        name: words.name,
        title: words.title,
        description: words.description,
        size: (LABELS + PLOT + NUMBERS, bottom + 28.0),
        content,
    }
}

fn row(line: &Line, scale: &Scale, y: f64) -> Markup {
    let x = scale.at(line.value);
    let shown = match line.interval {
        Some((low, high)) => {
            let of = |value| number::rounded(value, 2);
            format!("{}  [{}, {}]", of(line.value), of(low), of(high))
        }
        None => number::rounded(line.value, 2),
    };
    html! {
        text.end x=(LABELS - 12.0) y=(y + 4.0) { title { (line.label) } (label(&line.label, LONGEST)) }
        @if let Some((low, high)) = line.interval {
            line.whisker x1=(scale.at(low)) x2=(scale.at(high)) y1=(y) y2=(y) {}
        }
        @if let Some(other) = line.other { circle.hollow cx=(scale.at(other)) cy=(y) r="4.5" {} }
        circle.dot cx=(x) cy=(y) r="4.5" {}
        text x=(LABELS + PLOT + 12.0) y=(y + 4.0) { (shown) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        Words {
            name: "tau",
            title: "Tau".to_owned(),
            description: "Tau by metric".to_owned(),
            reference: (0.0, "chance"),
        }
    }

    #[test]
    fn a_line_has_its_interval_and_a_cut_label_its_title() {
        let long = format!("<script>{}", "x".repeat(490));
        let line = Line {
            label: long.clone(),
            value: 0.5,
            interval: Some((0.25, 1.0)),
            other: Some(0.75),
        };
        let svg = chart(words(), &[line]).content.into_string();
        assert!(svg.contains("&lt;script&gt;") && !svg.contains("<script>"), "{svg}");
        assert!(svg.contains("…\u{2069}") && svg.contains("0.50  [0.25, 1.00]"), "{svg}");
        // From 0 to 1 over the plot.
        assert!(svg.contains(r#"class="whisker" x1="320" x2="650""#), "{svg}");
        assert!(svg.contains(r#"class="hollow" cx="540""#), "{svg}");
    }

    #[test]
    fn without_lines_there_is_a_scale() {
        let drawn = chart(words(), &[]);
        assert!(drawn.size.1 > 0.0 && drawn.content.into_string().contains("chance"));
    }
}
