//! The agreement of metrics with people.

use maud::{Markup, html};

use crate::analysis::{MetricAlignment, SliceAlignment};
use crate::api::analysis::alignment::AlignmentResponse;
use crate::api::analysis::alignment_differences::AlignmentDifferencesResponse;
use crate::api::pages::{
    charts::agreement::{self, Line, Words},
    number,
    study::{differences, methods::no_interval},
    table::{Cell, Column, Table},
    view::View,
};

/// Maximum number of slices that are shown.
const MOST_SLICES: usize = 40;

/// Renders the agreement over all pairs, and by slice.
pub(super) fn section(
    view: &mut View,
    of: &AlignmentResponse,
    compared: &AlignmentDifferencesResponse,
) -> Markup {
    let Some(all) = of.slices.first().filter(|all| !all.metrics.is_empty()) else {
        return html! {
            h2 #metrics { "Which metric agrees with people?" }
            p { "The loaded pack has no scores of the images that people compared. Choose the pack of \
                the scores above." }
        };
    };
    let mut metrics: Vec<&MetricAlignment> = all.metrics.iter().collect();
    metrics.sort_by(|a, b| {
        let tau = |of: &MetricAlignment| of.tau.unwrap_or(f64::NEG_INFINITY);
        tau(b).total_cmp(&tau(a)).then_with(|| a.metric.cmp(&b.metric))
    });
    let published = |metric: &MetricAlignment| of.published.tau.get(&metric.metric).copied();
    let lines: Vec<Line> = metrics
        .iter()
        .filter_map(|metric| {
            Some(Line {
                label: metric.metric.clone(),
                value: metric.tau?,
                interval: metric.low.zip(metric.high),
                other: published(metric),
            })
        })
        .collect();
    let has_published = metrics.iter().any(|metric| published(metric).is_some());
    let chart = agreement::chart(
        Words {
            name: "tau",
            title: if has_published {
                "Agreement of metrics with people (Kendall’s tau; rings: published)".to_owned()
            } else {
                "Agreement of metrics with people (Kendall’s tau)".to_owned()
            },
            description:
                "Kendall’s tau-b of each metric with the votes, with 95 % intervals. Rings are \
                published numbers. The table has the numbers."
                    .to_owned(),
            reference: (0.0, "no better than chance"),
        },
        &lines,
    );
    html! {
        h2 #metrics { "Which metric agrees with people?" }
        p {
            "Over the " (number::count(all.pairs as u64)) " pairs of images that people compared: "
            strong { "tau" } " is 1 if the metric always prefers the same image, 0 if it does no better \
                than chance, and below 0 if it prefers the other one. " strong { "Agreement" } " is the \
                share of pairs with a preference in which the metric has the same. Intervals resample \
                people, whose prompts share a face. The last column says which metrics are not told \
                apart from the best one; the differences are below."
        }
        @if has_published {
            p.fine { "Rings: numbers published in " (of.published.source) ", for other images and \
                annotators. They are a guide, not a target." }
        }
        @if !lines.is_empty() { (view.chart(&chart)) }
        (view.table(&table(&metrics, of, compared)))
        (slices(view, &of.slices[1..], &metrics))
    }
}

fn table(
    metrics: &[&MetricAlignment],
    of: &AlignmentResponse,
    compared: &AlignmentDifferencesResponse,
) -> Table {
    let row = |metric: &&MetricAlignment| {
        let missing = no_interval(metric.no_interval);
        let tau = |value: Option<f64>, missing: &str| {
            let shown = value.map_or_else(|| missing.to_owned(), |value| number::rounded(value, 3));
            Cell::number(value, shown)
        };
        let guide = format!("/metrics-guide#{}", metric.metric);
        vec![
            Cell::text(&*metric.metric).shown(html! { a href=(guide) { (metric.metric) } }).head(),
            Cell::number(Some(metric.pairs as f64), number::count(metric.pairs as u64)),
            tau(metric.tau, "a tie in every pair"),
            tau(metric.low, missing),
            tau(metric.high, missing),
            Cell::number(
                metric.agreement,
                metric.agreement.map_or_else(|| "no preference".to_owned(), number::percent),
            ),
            tau(of.published.tau.get(&metric.metric).copied(), "not published"),
            differences::mark(compared, &metric.metric),
        ]
        .into()
    };
    Table {
        name: "alignment",
        caption: "Agreement of metrics with people".to_owned(),
        columns: vec![
            Column::text("metric"),
            Column::number("pairs"),
            Column::number("tau"),
            Column::number("low"),
            Column::number("high"),
            Column::number("agreement"),
            Column::number("published tau"),
            Column::text("best?"),
        ],
        rows: metrics.iter().map(row).collect(),
    }
}

/// Renders tau by slice, one column for each metric.
fn slices(view: &mut View, slices: &[SliceAlignment], metrics: &[&MetricAlignment]) -> Markup {
    if slices.is_empty() {
        return html! {
            p.fine { "No slice (a kind of prompt, a category, an attribute) has enough pairs." }
        };
    }
    let shown = &slices[..slices.len().min(view.most(MOST_SLICES))];
    let mut columns = vec![Column::text("slice"), Column::text("label"), Column::number("pairs")];
    columns.extend(metrics.iter().map(|metric| Column::number(&*metric.metric)));
    let row = |slice: &SliceAlignment| {
        let mut cells = vec![
            Cell::text(slice.kind.replace('_', " ")),
            Cell::text(&*slice.label).shown(html! { bdi { (slice.label) } }).head(),
            Cell::number(Some(slice.pairs as f64), slice.pairs.to_string()),
        ];
        cells.extend(metrics.iter().map(|metric| {
            let of = slice.metrics.iter().find(|of| of.metric == metric.metric);
            let tau = of.and_then(|of| of.tau);
            let shown = tau.map_or_else(|| "none".to_owned(), |tau| number::rounded(tau, 2));
            let cell = Cell::number(tau, shown);
            match of.and_then(|of| of.low.zip(of.high)) {
                // Certain of its sign.
                Some((low, high)) if low > 0.0 || high < 0.0 => cell.class("certain"),
                _ => cell,
            }
        }));
        cells.into()
    };
    let table = Table {
        name: "slices",
        caption: "Kendall’s tau by slice".to_owned(),
        columns,
        rows: shown.iter().map(row).collect(),
    };
    html! {
        details {
            summary { "By kind of prompt, category and attribute (" (slices.len()) " slices)" }
            p.fine { "Bold: the 95 % interval lies on one side of 0. With many slices, about one of \
                twenty does so by chance." }
            (view.table(&table))
            @if slices.len() > shown.len() {
                p.fine { "The first " (shown.len()) " slices. Raise “fewest pairs” to see the larger \
                    ones only. The downloads have all of them." }
            }
        }
    }
}
