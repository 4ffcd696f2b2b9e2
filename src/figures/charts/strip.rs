//! Numbers as dots on one axis: where most are, and which are apart.

use maud::html;

use super::{Chart, Scale};

const WIDTH: f64 = 720.0;
const LEFT: f64 = 36.0;
/// Diameter of a dot with its gap.
const DOT: f64 = 9.0;
/// Most dots above each other; further ones share the highest place.
const HIGHEST: usize = 22;

/// A number with a title; marked ones have another look.
pub(crate) struct Dot {
    pub(crate) label: String,
    pub(crate) value: f64,
    pub(crate) is_marked: bool,
}

/// Draws each number as a dot, stacked where they are close.
pub(crate) fn chart(name: &'static str, title: &str, description: String, dots: &[Dot]) -> Chart {
    let scale = Scale::new(dots.iter().map(|dot| dot.value), 8, (LEFT, WIDTH - LEFT));
    let columns = ((WIDTH - 2.0 * LEFT) / DOT) as usize + 1;
    let mut stacks = vec![0_usize; columns + 1];
    let placed: Vec<(f64, usize, &Dot)> = dots
        .iter()
        .map(|dot| {
            let column = ((scale.at(dot.value) - LEFT) / DOT).round() as usize;
            let level = stacks[column].min(HIGHEST - 1);
            stacks[column] += 1;
            (LEFT + column as f64 * DOT, level, dot)
        })
        .collect();
    let levels = stacks.iter().max().map_or(1, |most| (*most).clamp(1, HIGHEST));
    let bottom = 10.0 + levels as f64 * DOT;
    let content = html! {
        @for (x, label) in scale.ticks() {
            line.grid x1=(x) x2=(x) y1="6" y2=(bottom) {}
            text.quiet.middle x=(x) y=(bottom + 18.0) { (label) }
        }
        line.axis x1=(LEFT) x2=(WIDTH - LEFT) y1=(bottom) y2=(bottom) {}
        @for (x, level, dot) in placed {
            @let y = bottom - DOT * (level as f64 + 0.5);
            circle class=(if dot.is_marked { "low" } else { "dot" }) cx=(x) cy=(y) r="3.6" {
                title { (dot.label) }
            }
        }
    };
    Chart { name, title: title.to_owned(), description, size: (WIDTH, bottom + 28.0), content }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_numbers_are_stacked_and_marked_ones_have_their_look() {
        let dot = |value, is_marked| Dot { label: "x".to_owned(), value, is_marked };
        let dots = [dot(0.5, false), dot(0.5, false), dot(0.1, true)];
        let svg = chart("s", "S", String::new(), &dots).content.into_string();
        assert_eq!(svg.matches(r#"class="dot""#).count(), 2);
        assert_eq!(svg.matches(r#"class="low""#).count(), 1);
        let heights: std::collections::BTreeSet<_> =
            svg.match_indices("cy=").map(|(at, _)| &svg[at..at + 9]).collect();
        assert_eq!(heights.len(), 2, "{svg}");
    }
}
