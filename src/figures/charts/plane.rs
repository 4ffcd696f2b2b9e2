//! Two metrics of many methods: dots with intervals in both directions, and the Pareto front.

use maud::{Markup, html};

use super::{Chart, Scale, label};
use crate::analysis::{Axis, Estimate, TradeOffPoint};

const SIZE: (f64, f64) = (760.0, 520.0);
const LEFT: f64 = 64.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 46.0;
const RIGHT: f64 = 20.0;

/// Maximum length of a name, in characters.
const NAME: usize = 26;

/// Estimated width of a character and height of a line.
const LETTER: (f64, f64) = (6.6, 14.0);

/// Draws points in the plane of two axes. Those that are comparable with the first are round.
pub(crate) fn chart(x: Axis, y: Axis, points: &[TradeOffPoint]) -> Chart {
    let ends = |of: &Estimate| [of.mean, of.low.unwrap_or(of.mean), of.high.unwrap_or(of.mean)];
    let (width, height) = SIZE;
    let across =
        Scale::new(points.iter().flat_map(|point| ends(&point.x)), 6, (LEFT, width - RIGHT));
    let up = Scale::new(points.iter().flat_map(|point| ends(&point.y)), 5, (height - BOTTOM, TOP));
    let at = |point: &TradeOffPoint| (across.at(point.x.mean), up.at(point.y.mean));
    let content = html! {
        (axes(&across, &up, x, y))
        @for path in fronts(points, &at, x) { path class="front" d=(path) {} }
        @for point in points {
            @let (cx, cy) = at(point);
            g {
                title { (title(point)) }
                @if let (Some(low), Some(high)) = (point.x.low, point.x.high) {
                    path class="whisker thin" d=(format!("M{} {cy}H{}", across.at(low), across.at(high))) {}
                }
                @if let (Some(low), Some(high)) = (point.y.low, point.y.high) {
                    path class="whisker thin" d=(format!("M{cx} {}V{}", up.at(low), up.at(high))) {}
                }
                @let class = if point.on_front { "dot" } else { "hollow" };
                @if are_comparable(point, &points[0]) {
                    circle class=(class) cx=(cx) cy=(cy) r="5" {}
                } @else {
                    // Squares are over other images or of another pack than dots.
                    rect class=(class) x=(cx - 4.5) y=(cy - 4.5) width="9" height="9" {}
                }
            }
        }
        (labels(points, &at))
    };
    let front = points.iter().filter(|point| point.on_front).map(name).collect::<Vec<_>>();
    Chart {
        name: "plane",
        title: format!("{} and {}", x.label(), y.label()),
        description: format!(
            "{} methods; on the front: {}. The table below has all numbers.",
            points.len(),
            front.join(", ")
        ),
        size: SIZE,
        content,
    }
}

/// Returns whether two points have the same pack and samples.
pub(crate) fn are_comparable(one: &TradeOffPoint, other: &TradeOffPoint) -> bool {
    (&one.pack, &one.sample_set) == (&other.pack, &other.sample_set)
}

fn axes(across: &Scale, up: &Scale, x: Axis, y: Axis) -> Markup {
    let (width, height) = SIZE;
    let floor = height - BOTTOM;
    let words = |axis: Axis| {
        let better = if axis.is_lower_better() { "lower" } else { "higher" };
        format!("{}, {better} is better", axis.label())
    };
    let lower = Axis::is_lower_better;
    // The corner in which both metrics are best.
    let corner_x = if lower(x) { LEFT + 8.0 } else { width - RIGHT - 4.0 };
    let corner_y = if lower(y) { floor - 8.0 } else { TOP + 12.0 };
    html! {
        @for (at, text) in across.ticks() {
            line class="grid" x1=(at) x2=(at) y1=(TOP) y2=(floor) {}
            text class="quiet middle" x=(at) y=(floor + 16.0) { (text) }
        }
        @for (at, text) in up.ticks() {
            line class="grid" x1=(LEFT) x2=(width - RIGHT) y1=(at) y2=(at) {}
            text class="quiet end" x=(LEFT - 6.0) y=(at + 4.0) { (text) }
        }
        text class="strong middle" x=(f64::midpoint(LEFT, width - RIGHT)) y=(height - 8.0) {
            (words(x))
        }
        text class="strong middle" transform=(format!("translate(14 {}) rotate(-90)", floor / 2.0)) {
            (words(y))
        }
        text class=(if lower(x) { "quiet" } else { "quiet end" }) x=(corner_x) y=(corner_y) {
            "better in both"
        }
    }
}

/// Returns the steps of each group's front: groups are points with the same pack and samples.
fn fronts(
    points: &[TradeOffPoint],
    at: &dyn Fn(&TradeOffPoint) -> (f64, f64),
    x: Axis,
) -> Vec<String> {
    let is_lower = x.is_lower_better();
    let mut groups: Vec<Vec<&TradeOffPoint>> = Vec::new();
    for point in points.iter().filter(|point| point.on_front) {
        let same = |group: &&mut Vec<&TradeOffPoint>| are_comparable(group[0], point);
        match groups.iter_mut().find(same) {
            Some(group) => group.push(point),
            None => groups.push(vec![point]),
        }
    }
    groups
        .into_iter()
        .filter(|group| group.len() > 1)
        .map(|mut group| {
            group.sort_by(|a, b| at(a).0.total_cmp(&at(b).0));
            let steps = group.iter().enumerate().map(|(place, point)| {
                let (x, y) = at(point);
                // The steps bound what some point of the front is better than.
                match (place, is_lower) {
                    (0, _) => format!("M{x} {y}"),
                    (_, false) => format!("V{y}H{x}"),
                    (_, true) => format!("H{x}V{y}"),
                }
            });
            steps.collect()
        })
        .collect()
}

fn name(point: &TradeOffPoint) -> String {
    match &point.run {
        Some(run) => format!("{} / {run}", point.method),
        None => point.method.clone(),
    }
}

fn title(point: &TradeOffPoint) -> String {
    format!("{}: {:.3} across, {:.3} up", name(point), point.x.mean, point.y.mean)
}

/// Places the names beside their dots where they cover nothing else; the table has all of them.
/// Points on the front come first.
fn labels(points: &[TradeOffPoint], at: &dyn Fn(&TradeOffPoint) -> (f64, f64)) -> Markup {
    let dots: Vec<(f64, f64)> = points.iter().map(at).collect();
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by_key(|place| !points[*place].on_front);
    let mut taken: Vec<[f64; 4]> =
        dots.iter().map(|(x, y)| [x - 6.0, y - 6.0, x + 6.0, y + 6.0]).collect();
    let mut placed: Vec<(f64, f64, bool, String)> = Vec::new();
    for place in order {
        let (x, y) = dots[place];
        let text = label(&name(&points[place]), NAME);
        let width = text.chars().count() as f64 * LETTER.0;
        let candidates =
            [(9.0, -6.0, false), (-9.0, -6.0, true), (9.0, 16.0, false), (-9.0, 16.0, true)];
        for (dx, dy, is_left) in candidates {
            let (right, baseline) = (x + dx, y + dy);
            let (from, to) = if is_left { (right - width, right) } else { (right, right + width) };
            let own = [from, baseline - LETTER.1 + 3.0, to, baseline + 3.0];
            let is_inside = from > LEFT && to < SIZE.0 && own[1] > 0.0 && own[3] < SIZE.1 - BOTTOM;
            if is_inside && !taken.iter().any(|other| overlap(own, *other)) {
                taken.push(own);
                placed.push((right, baseline, is_left, text));
                break;
            }
        }
    }
    html! {
        @for (x, y, is_left, text) in placed {
            text class=[is_left.then_some("end")] x=(x) y=(y) { (text) }
        }
    }
}

fn overlap(a: [f64; 4], b: [f64; 4]) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::metrics::find;

    fn point(method: &str, x: f64, y: f64, on_front: bool) -> TradeOffPoint {
        serde_json::from_value(json!({
            "method": method, "runs": [], "sample_set": "s",
            "pack": {"name": "p", "digest": "d", "weights": "official"},
            "x": {"mean": x, "low": x - 0.01, "high": x + 0.01, "n": 9},
            "y": {"mean": y, "low": null, "high": null, "n": 9},
            "on_front": on_front, "dominated_by": []
        }))
        .unwrap()
    }

    fn axis(code: &str) -> Axis {
        Axis::Metric(find(code).unwrap())
    }

    fn draw(points: &[TradeOffPoint]) -> String {
        chart(axis("ips"), axis("clip_t"), points).document()
    }

    #[test]
    fn the_front_is_one_line_through_full_dots() {
        let svg = draw(&[
            point("a", 0.6, 0.20, true),
            point("b", 0.5, 0.25, true),
            point("<c>", 0.4, 0.19, false),
        ]);
        assert_eq!(svg.matches("class=\"front\"").count(), 1);
        assert_eq!(svg.matches("class=\"dot\"").count(), 2);
        assert_eq!(svg.matches("class=\"hollow\"").count(), 1);
        assert_eq!(svg.matches("class=\"whisker thin\"").count(), 3, "y has no intervals");
        assert!(svg.contains("&lt;c&gt;") && !svg.contains("<c>"));
    }

    #[test]
    fn points_over_other_images_are_squares() {
        let mut other = point("b", 0.5, 0.25, true);
        other.sample_set = Some("t".to_owned());
        let svg = draw(&[point("a", 0.6, 0.2, true), other]);
        assert_eq!(svg.matches("<circle").count(), 1);
        assert_eq!(svg.matches("<rect class=\"dot\"").count(), 1);
        assert_eq!(svg.matches("class=\"front\"").count(), 0, "each group has its own front");
    }

    #[test]
    fn names_never_cover_each_other() {
        let same: Vec<_> = (0..9).map(|at| point(&format!("m{at}"), 0.5, 0.5, true)).collect();
        let svg = draw(&same);
        assert!(svg.matches("\u{2068}m").count() <= 4, "four places are around a dot");
        assert_eq!(svg.matches("class=\"dot\"").count(), 9);
    }
}
