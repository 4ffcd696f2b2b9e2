//! One metric of a comparison: by person or prompt, by slice, and sample by sample.

use maud::{Markup, html};

use super::difference::{differences, finding, sign, signed, tone, turned};
use crate::analysis::{Difference, GroupBy, GroupDifference, NoInterval, SliceComparison};
use crate::api::pages::{
    address::Address,
    charts::{
        clip,
        forest::{ForestRow, Scales, forest},
    },
    number, show,
    table::{Cell, Column, Row, Table},
    view::View,
};
use crate::api::runs::changes::{ChangedPair, ChangesResponse};
use crate::api::runs::compare::CompareResponse;
use crate::api::runs::ranked::Brief;
use crate::metrics;

/// Groups and pairs of samples that are shown at each end.
pub(super) const GROUPS: usize = 10;
const PAIRS: usize = 6;

/// Renders one metric of a comparison.
pub(super) fn detail(
    view: &mut View,
    address: &Address,
    found: &CompareResponse,
    details: &ChangesResponse,
) -> Markup {
    let all = found.comparison.slices.first().map_or(&[][..], |slice| &slice.metrics);
    let codes = all.iter().filter_map(|of| metrics::find(&of.metric));
    html! {
        h2 #details { "One metric in detail" }
        form.filters data-auto method="get" action="#details" {
            (show::hidden(address, &["metric", "by"]))
            label {
                "Metric"
                select name="metric" {
                    @for metric in codes {
                        option value=(metric.code) selected[metric.code == details.metric] { (metric.code) }
                    }
                }
            }
            label {
                "Pairs by"
                select name="by" {
                    option value="identity" selected[details.by == GroupBy::Identity] { "Person" }
                    option value="prompt" selected[details.by == GroupBy::Prompt] { "Prompt" }
                }
            }
            button { "Show" }
        }
        (groups(view, details))
        (slices(view, address, &found.comparison.slices, &details.metric))
        (pairs("Where A gains most", details, &details.gains))
        (pairs("Where A loses most", details, &details.losses))
    }
}

fn groups(view: &mut View, of: &ChangesResponse) -> Markup {
    let (one, many, resampled) = match of.by {
        GroupBy::Identity => ("person", "people", "the person's samples"),
        GroupBy::Prompt => ("prompt", "prompts", "people"),
    };
    let metric = &*of.metric;
    let rows: Vec<ForestRow> = of
        .groups
        .iter()
        .map(|group| ForestRow {
            label: group.label.clone(),
            value: Some(sign(metric) * group.difference),
            interval: turned(metric, group.low, group.high),
            note: format!(
                "{} · {} pairs",
                signed(group.difference, group.low.zip(group.high)),
                group.n
            ),
            tone: tone(group.finding),
        })
        .collect();
    let title = format!("{metric} by {one}: right is better for A");
    let description = format!("The difference A − B of each {one} with its interval.");
    let chart = forest("groups", title, description, &rows, Scales::Shared(Some(0.0)));
    html! {
        h3 { "By " (one) }
        @if of.groups.is_empty() {
            p {
                "No " (one) " has two pairs of scores. "
                @if of.by == GroupBy::Identity { "People come from the metadata of samples (" code { "identity" } ")." }
            }
        } @else {
            p {
                (number::count(of.groups_found as u64)) " " (many) " have at least two pairs. "
                @if of.groups.len() < of.groups_found {
                    "The " (GROUPS) " in which A is best and the " (GROUPS) " in which it is worst are shown. "
                }
                "Intervals resample " (resampled) ". They are not corrected for the number of " (many)
                ": about one of twenty without any difference seems to have one. The ends of a list are \
                    extreme by selection, so their true differences are likely smaller."
            }
            (view.chart(&chart))
            details {
                summary { "As a table" }
                (view.table(&group_table(one, metric, &of.groups)))
            }
        }
    }
}

/// Slices that are shown: those with most pairs.
const SLICES: usize = 60;

fn slices(view: &mut View, address: &Address, all: &[SliceComparison], metric: &str) -> Markup {
    if all.len() < 2 {
        let link = address.with("metric", metric).with("slices", "true");
        return html! { p { a href=(format!("{link}#slices")) { "Compare slices of the samples too" } } };
    }
    let mut listed: Vec<(&SliceComparison, &Difference)> = all[1..]
        .iter()
        .filter_map(|slice| Some((slice, slice.metrics.iter().find(|of| of.metric == metric)?)))
        .collect();
    listed.sort_by_key(|(slice, _)| std::cmp::Reverse(slice.pairs));
    listed.truncate(SLICES);
    listed.sort_by_key(|(slice, _)| {
        (&slice.kind, slice.label.trim_start_matches('!'), slice.label.starts_with('!'))
    });
    let mut rows: Vec<ForestRow> = Vec::new();
    for (at, (slice, of)) in listed.iter().enumerate() {
        if at == 0 || listed[at - 1].0.kind != slice.kind {
            rows.push(ForestRow::heading(show::slice_kind(&slice.kind)));
        }
        rows.push(ForestRow {
            label: show::slice_label(&slice.kind, &slice.label),
            value: Some(sign(metric) * of.difference),
            interval: turned(metric, of.low, of.high),
            note: format!("{} · {} pairs", signed(of.difference, of.low.zip(of.high)), of.n),
            tone: tone(of.finding),
        });
    }
    let title = format!("{metric} by slice: right is better for A");
    let description = "The difference A − B within each slice, with its interval.".to_owned();
    let chart = forest("slices", title, description, &rows, Scales::Shared(Some(0.0)));
    html! {
        h3 #slices { "By slice" }
        @if listed.is_empty() {
            p { "No slice has enough pairs with scores of this metric." }
        } @else {
            p { "Differences within slices of the samples. With many slices, a few are decided by chance." }
            (view.chart(&chart))
            details {
                summary { "As a table" }
                (view.table(&differences("by-slice", "Differences by slice", &listed)))
            }
        }
    }
}

fn group_table(one: &str, metric: &str, groups: &[GroupDifference]) -> Table {
    let rows = groups.iter().map(|group| -> Row {
        let plain =
            |value: Option<f64>| Cell::number(value, value.map_or("–".to_owned(), number::plain));
        let note = group.no_interval.map(|reason| match reason {
            // Within a person, pairs are resampled.
            NoInterval::TooFewPeople => "no interval: too few to resample",
            other => show::no_interval(other),
        });
        vec![
            Cell::text(&group.label).shown(html! { bdi { (clip(&group.label, 160)) } }).head(),
            plain(Some(group.mean_a)),
            plain(Some(group.mean_b)),
            Cell::number(
                Some(group.difference),
                signed(group.difference, group.low.zip(group.high)),
            ),
            plain(group.low),
            plain(group.high),
            Cell::number(Some(group.n as f64), number::count(group.n as u64)),
            Cell::text(format!("{:?}", group.finding).to_lowercase()).shown(finding(group.finding)),
            Cell::text(note.unwrap_or_default()),
        ]
        .into()
    });
    let columns = vec![
        Column::text(one),
        Column::number("A"),
        Column::number("B"),
        Column::number("Difference"),
        Column::number("from"),
        Column::number("to"),
        Column::number("Pairs"),
        Column::text("Finding"),
        Column::text("Note"),
    ];
    Table { name: "groups", caption: format!("{metric} by {one}"), columns, rows: rows.collect() }
}

fn pairs(title: &str, of: &ChangesResponse, pairs: &[ChangedPair]) -> Markup {
    html! {
        h3 { (title) }
        @if pairs.is_empty() {
            p { "In no pair." }
        } @else {
            ol.pairs {
                @for pair in pairs.iter().take(PAIRS) {
                    @let scores = &pair.scores;
                    li.pair {
                        p {
                            strong { (signed(scores.difference, None)) } " " (of.metric) " · "
                            (show::prompt(pair.sample_a.as_ref().or(pair.sample_b.as_ref())))
                        }
                        @let caption = html! { "A " strong { (number::plain(scores.a)) } };
                        (side(&scores.name, pair.sample_a.as_ref(), &caption))
                        @let caption = html! { "B " strong { (number::plain(scores.b)) } };
                        (side(&scores.name, pair.sample_b.as_ref(), &caption))
                    }
                }
            }
        }
    }
}

/// Renders the sample of one run.
fn side(name: &str, of: Option<&Brief>, caption: &Markup) -> Markup {
    show::sample(&show::alt(name, of), of, caption)
}
