//! Two metrics of the leaderboard, or a metric and a cost, against each other, with the methods
//! that no other one beats in both.

use maud::{Markup, html};

use super::cells;
use super::page::{Page, group_name};
use crate::analysis::{Axis, Cost, Estimate, Samples, TradeOffPoint};
use crate::api::analysis::leaderboard::LeaderboardQuery;
use crate::api::analysis::trade_off;
use crate::api::http::ApiError;
use crate::api::pages::charts::plane;
use crate::api::pages::number;
use crate::api::pages::table::{Cell, Column, Row, Table};
use crate::api::pages::view::View;
use crate::api::state::App;
use crate::metrics::{Direction, in_reading_order};

/// Maximum number of points in the table and in the chart.
const MOST_ROWS: usize = 100;

/// Renders the view.
pub(super) async fn content(
    app: &App,
    page: &Page,
    query: LeaderboardQuery,
    view: &mut View,
) -> Result<Markup, ApiError> {
    let query = query.into_query(app).await?;
    let axis = |name| page.address.get(name).map(ToOwned::to_owned);
    let response = trade_off::respond(app, axis("x"), axis("y"), query).await?;
    let (x, y) = (trade_off::axis_of(&response.x)?, trade_off::axis_of(&response.y)?);
    let total = response.points.len() as u64;
    let (groups, mut points) = in_groups(response.points);
    points.truncate(MOST_ROWS);
    let points = &points[..];
    let is_mixed = groups.iter().take(MOST_ROWS).any(|group| *group > 0);
    let chart = view.chart(&plane::chart(x, y, points));
    let table = view.table(&table(x, y, points, is_mixed.then_some(&groups)));
    Ok(html! {
        (axes(page, x, y))
        @if points.is_empty() {
            div.card.empty {
                h2 { "No row has both numbers" }
                p {
                    "Choose other metrics, or submit a run that is scored in both. Costs are those that \
                     methods declare in their cards (" code { "POST /v1/methods" } ")."
                }
                pre tabindex="0" {
                    code { "stellar-score submit --method NAME --dataset FOLDER --images FOLDER" }
                }
            }
        } @else {
            section.how {
                h2 { "How to read this" }
                p {
                    "Each dot is a method, at its averages in both metrics; the lines through it are \
                     where the true averages lie (95 of 100 such lines contain them). The better corner \
                     is marked. A full dot is on the front: no other method over the same images is at \
                     least as good in both averages. A hollow one is behind some other in the averages; \
                     it is certainly worse only if the table names a method that is better in both."
                }
                p.fine {
                    "Penalty: " code { (response.policy.as_str()) } ". Images: "
                    @match response.on {
                        Samples::All => "all of each method.",
                        Samples::Common => "those that all methods of a pack share.",
                    }
                }
            }
            @if is_mixed {
                p.note.warn role="note" {
                    "Do not compare dots with squares: squares are over other images, or of other packs. \
                     Each group has a front of its own. "
                    @if response.on == Samples::All && !page.is_shared {
                        a href=(page.address.with("on", "common")) {
                            "Compare all over the images that they share"
                        }
                    }
                }
            }
            (chart)
            (table)
            @if total > MOST_ROWS as u64 {
                p.fine {
                    (MOST_ROWS) " of " (number::count(total))
                    " methods are shown, the best in " (x.label())
                    ". Filter by dataset or method for the others."
                }
            }
        }
    })
}

/// Renders the choice of the two metrics.
fn axes(page: &Page, x: Axis, y: Axis) -> Markup {
    let ranked =
        || in_reading_order().into_iter().filter(|metric| metric.direction != Direction::Support);
    html! {
        @if !page.is_shared {
            form.filters.board method="get" action="/leaderboard" data-auto {
                @for (name, value) in page.address.parameters() {
                    @if name != "x" && name != "y" {
                        input type="hidden" name=(name) value=(value);
                    }
                }
                @for (name, label, current) in [("x", "Across", x), ("y", "Up", y)] {
                    label {
                        (label)
                        select name=(name) {
                            @for cost in Cost::ALL.map(Axis::Cost) {
                                option value=(cost.code()) selected[cost.code() == current.code()] {
                                    (cost.label())
                                }
                            }
                            @for metric in ranked() {
                                option value=(metric.code) selected[metric.code == current.code()] {
                                    (metric.guide.label())
                                }
                            }
                        }
                    }
                }
                noscript { button.main type="submit" { "Show" } }
            }
        }
    }
}

/// Sorts points by group, the largest first, and returns the group of each. Points of one group
/// have the same pack and samples.
fn in_groups(points: Vec<TradeOffPoint>) -> (Vec<usize>, Vec<TradeOffPoint>) {
    let mut groups: Vec<Vec<TradeOffPoint>> = Vec::new();
    for point in points {
        let is_same = |group: &&mut Vec<TradeOffPoint>| plane::are_comparable(&group[0], &point);
        match groups.iter_mut().find(is_same) {
            Some(group) => group.push(point),
            None => groups.push(vec![point]),
        }
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    let places = groups.iter().enumerate().flat_map(|(at, group)| vec![at; group.len()]).collect();
    (places, groups.into_iter().flatten().collect())
}

/// Returns the table of the points. `groups` has the group of each, if there are several.
fn table(x: Axis, y: Axis, points: &[TradeOffPoint], groups: Option<&Vec<usize>>) -> Table {
    let mut columns = vec![Column::text("Method")];
    if groups.is_some() {
        columns.push(Column::text("Group"));
    }
    for axis in [x, y] {
        let label = axis.label();
        let better = match axis {
            Axis::Metric(metric) => cells::better(metric),
            Axis::Cost(_) => "↓ lower is better",
        };
        let head = html! { (label) " " small { (better) } };
        columns.push(Column::number(label).head(head));
        for end in ["low", "high"] {
            columns.push(Column::number(format!("{} {end}", axis.short())));
        }
    }
    columns.push(Column::text("On the front"));
    columns.push(Column::text("Certainly worse than"));
    let decimals = [
        decimals(points.iter().map(|point| &point.x)),
        decimals(points.iter().map(|point| &point.y)),
    ];
    let numbers = |of: &Estimate, decimals: usize| {
        [Some(of.mean), of.low, of.high].map(|value| {
            let shown = value.map_or("—".to_owned(), |value| number::rounded(value, decimals));
            Cell::number(value, shown)
        })
    };
    let row = |(at, point): (usize, &TradeOffPoint)| {
        let name = match &point.run {
            Some(run) => format!("{} / {run}", point.method),
            None => point.method.clone(),
        };
        let shown = html! { bdi { (name) } };
        let mut cells = vec![Cell::text(name).shown(shown).head()];
        cells.extend(groups.map(|groups| Cell::text(group_name(groups[at]))));
        cells.extend(numbers(&point.x, decimals[0]));
        cells.extend(numbers(&point.y, decimals[1]));
        let front = match (&point.sample_set, point.on_front) {
            (None, _) => "pending",
            (_, true) => "yes",
            (_, false) => "no",
        };
        cells.push(Cell::text(front));
        let shown = html! {
            @for (at, name) in point.dominated_by.iter().take(5).enumerate() {
                @if at > 0 { ", " }
                bdi { (name) }
            }
            @if point.dominated_by.len() > 5 { " and " (point.dominated_by.len() - 5) " others" }
            @if point.dominated_by.is_empty() { "none" }
        };
        cells.push(Cell::text(point.dominated_by.join(", ")).shown(shown));
        Row::from(cells)
    };
    Table {
        name: "trade-off",
        caption: format!("Methods by {} and {}", x.label(), y.label()),
        columns,
        rows: points.iter().enumerate().map(row).collect(),
    }
}

fn decimals<'a>(estimates: impl Iterator<Item = &'a Estimate>) -> usize {
    number::typical_decimals(estimates.filter_map(|of| Some((of.high? - of.low?) / 2.0)))
}
