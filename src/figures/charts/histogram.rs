//! A histogram with the median and the middle half of the numbers.

use std::fmt::Write as _;

use maud::html;

use super::{Chart, Scale};
use crate::analysis::Distribution;
use crate::figures::number;

const SIZE: (f64, f64) = (300.0, 132.0);
/// Top and bottom of the bars.
const BARS: (f64, f64) = (22.0, 100.0);
const SIDES: (f64, f64) = (24.0, 276.0);

/// Draws the distribution of a metric's scores.
pub(crate) fn histogram(name: &'static str, of: &Distribution) -> Chart {
    let x = Scale::new([of.least, of.most], 3, SIDES);
    let tallest = of.counts.iter().copied().max().unwrap_or_default().max(1) as f64;
    let height = |count: u64| (BARS.1 - BARS.0) * count as f64 / tallest;
    let bins = of.counts.len() as f64;
    let end = |at: usize| {
        let share = if of.most > of.least { at as f64 / bins } else { 0.0 };
        x.at(of.least + share * (of.most - of.least))
    };
    let mut bars = String::new();
    for (at, &count) in of.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        // A bin without a width, of equal numbers, is a line.
        let width = (end(at + 1) - end(at) - 0.6).max(1.5);
        let (left, tall) = (end(at), height(count).max(0.8));
        let _ = write!(bars, "M{left:.1} {}h{width:.1}v-{tall:.1}h-{width:.1}z", BARS.1);
    }
    let shown = |value: f64| number::rounded(value, 3);
    let description = format!(
        "{} scores from {} to {}. The median is {}; the middle half is between {} and {}.",
        of.n,
        shown(of.least),
        shown(of.most),
        shown(of.median),
        shown(of.q1),
        shown(of.q3)
    );
    let content = html! {
        path.bar d=(bars) {}
        path.axis d=(format!("M{} {}H{}", SIDES.0, BARS.1, SIDES.1)) {}
        @for (at, label) in x.ticks() {
            path.axis d=(format!("M{at} {}v4", BARS.1)) {}
            text.quiet.middle x=(at) y=(BARS.1 + 16.0) { (label) }
        }
        // The middle half and the median, above the bars.
        path.whisker d=(format!("M{} 14H{}", x.at(of.q1), x.at(of.q3))) {}
        circle.hollow cx=(x.at(of.median)) cy="14" r="4" {}
    };
    Chart { name, title: name.to_owned(), description, size: SIZE, content }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(counts: Vec<u64>, least: f64, most: f64) -> Distribution {
        let n = counts.iter().sum::<u64>() as usize;
        let (q1, median, q3) = (least, f64::midpoint(least, most), most);
        Distribution { metric: "ips".into(), version: 1, n, least, q1, median, q3, most, counts }
    }

    #[test]
    fn the_tallest_bar_fills_the_height_and_empty_bins_have_none() {
        let chart = histogram("ips", &of(vec![1, 0, 4], 0.0, 3.0));
        let content = chart.content.into_string();
        assert_eq!(content.matches('z').count(), 2, "{content}");
        assert!(content.contains("v-78.0") && content.contains("v-19.5"), "{content}");
        assert!(
            chart.description.contains("5 scores from 0.000 to 3.000"),
            "{}",
            chart.description
        );
    }

    #[test]
    fn equal_numbers_are_a_line() {
        let content = histogram("ips", &of(vec![3], 0.5, 0.5)).content.into_string();
        assert!(content.contains("h1.5v-78.0"), "{content}");
        assert!(!content.contains("NaN"), "{content}");
    }
}
