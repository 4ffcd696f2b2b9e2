//! Dots with intervals: one metric of many methods.

use maud::{Markup, html};

use crate::api::analysis::leaderboard::Row;
use crate::figures::charts::{Chart, Scale, label};
use crate::metrics::{Direction, Metric};

const LEFT: f64 = 132.0;
const WIDTH: f64 = 400.0;
const LINE: f64 = 18.0;
const TOP: f64 = 6.0;

/// Maximum length of a name, in characters.
const NAME: usize = 18;

/// Draws the means of one metric, a line for each row in their order. Rows of different groups must
/// not be compared: a rule is between them.
pub(crate) fn chart(metric: &Metric, rows: &[(usize, &Row)]) -> Chart {
    let of = |(_, row): &(usize, &Row)| {
        let of = row.metrics.get(metric.code)?;
        Some((of.numbers.mean?, of.numbers.low.zip(of.numbers.high)))
    };
    let ends = rows.iter().filter_map(of).flat_map(|(mean, ends)| {
        let (low, high) = ends.unwrap_or((mean, mean));
        [low, mean, high]
    });
    let scale = Scale::new(ends, 3, (LEFT + 8.0, WIDTH - 14.0));
    let bottom = TOP + LINE * rows.len() as f64;
    let better = match metric.direction {
        Direction::HigherIsBetter => "better →",
        Direction::LowerIsBetter => "← better",
        Direction::Support => "not ranked",
    };
    let measured = rows.iter().filter_map(of).count();
    let content = html! {
        @for (at, text) in scale.ticks() {
            line class="grid" x1=(at) x2=(at) y1=(TOP) y2=(bottom) {}
            text class="quiet middle" x=(at) y=(bottom + 14.0) { (text) }
        }
        text class="quiet" x="0" y=(bottom + 14.0) { (better) }
        @for (at, row) in rows.iter().enumerate() {
            @let y = TOP + LINE * (at as f64 + 0.5);
            @if at > 0 && rows[at - 1].0 != row.0 {
                line class="axis" x1="0" x2=(WIDTH) y1=(y - LINE / 2.0) y2=(y - LINE / 2.0) {}
            }
            text class="end" x=(LEFT) y=(y + 4.0) { (name(row.1)) }
            @match of(row) {
                Some((mean, ends)) => (dot(&scale, mean, ends, y)),
                None => text class="quiet" x=(LEFT + 10.0) y=(y + 4.0) { "no number" },
            }
        }
    };
    Chart {
        name: metric.code,
        title: metric.guide.label(),
        description: format!(
            "Averages with 95 % intervals of {measured} of {} rows, in the order of the table. {}",
            rows.len(),
            metric.guide.question
        ),
        size: (WIDTH, bottom + 22.0),
        content,
    }
}

fn dot(scale: &Scale, mean: f64, ends: Option<(f64, f64)>, y: f64) -> Markup {
    html! {
        @if let Some((low, high)) = ends {
            path class="whisker" d=(format!("M{} {y}H{}", scale.at(low), scale.at(high))) {}
            circle class="dot" cx=(scale.at(mean)) cy=(y) r="4" {}
        } @else {
            // Hollow: nothing is known about the uncertainty.
            circle class="hollow" cx=(scale.at(mean)) cy=(y) r="4" {}
        }
    }
}

fn name(row: &Row) -> String {
    match &row.run {
        Some(run) => label(&format!("{} / {run}", row.method), NAME),
        None => label(&row.method, NAME),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::metrics::find;

    fn row(method: &str, mean: Option<f64>, half: Option<f64>) -> Row {
        let end = |sign: f64| mean.zip(half).map(|(mean, half)| mean + sign * half);
        serde_json::from_value(json!({
            "method": method, "runs": [], "flags": {}, "mean_rank": null,
            "pack": {"name": "p", "digest": "d", "weights": "official"},
            "metrics": {"ips": {"version": 1, "n": 9, "nulls": 0, "coverage": 1.0, "mean": mean,
                "std": null, "low": end(-1.0), "high": end(1.0), "rank": null, "pending": false}}
        }))
        .unwrap()
    }

    #[test]
    fn each_row_has_a_dot_and_only_intervals_have_lines() {
        let rows = [
            row("<script>", Some(0.5), Some(0.1)),
            row("b", Some(0.6), None),
            row("c", None, None),
        ];
        let rows = [(0, &rows[0]), (0, &rows[1]), (1, &rows[2])];
        let chart = chart(find("ips").unwrap(), &rows);
        let svg = chart.document();
        assert_eq!(svg.matches("class=\"whisker\"").count(), 1);
        assert_eq!(svg.matches("class=\"dot\"").count(), 1);
        assert_eq!(svg.matches("class=\"hollow\"").count(), 1);
        assert!(svg.contains("no number") && svg.contains("2 of 3 rows"));
        assert!(svg.contains("&lt;script&gt;") && !svg.contains("<script"));
        assert!(svg.contains("better →"));
        assert_eq!(svg.matches("class=\"axis\"").count(), 1, "a rule before the other group");
    }
}
