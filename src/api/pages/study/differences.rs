//! Which metrics agree best with people, and which cannot be distinguished from the best.

use maud::{Markup, html};

use crate::analysis::{NoInterval, SliceDifferences, TauDifference, TauVerdict};
use crate::api::analysis::alignment_differences::{
    self, AlignmentDifferencesQuery, AlignmentDifferencesResponse,
};
use crate::api::http::ApiError;
use crate::api::pages::{
    address::Address,
    number, show,
    study::methods::no_interval,
    table::{Cell, Column, Table},
    view::View,
};
use crate::api::state::App;

/// Maximum number of slices that are shown.
const MOST_SLICES: usize = 40;

/// Reads the comparisons for the page's filters.
pub(super) async fn read(
    app: &App,
    address: &Address,
) -> Result<AlignmentDifferencesResponse, ApiError> {
    let query: AlignmentDifferencesQuery = address.query(&["view"])?;
    alignment_differences::respond(app, query).await
}

/// Returns the cell that says whether a metric is among the best.
pub(super) fn mark(compared: &AlignmentDifferencesResponse, metric: &str) -> Cell {
    let all = compared.slices.first();
    let found = all.and_then(|all| all.metrics.iter().find(|of| of.metric == metric));
    let words = found.map_or("not compared", |of| verdict(of.verdict, is_best(compared)));
    Cell::text(words).class(class(found))
}

/// Returns the look of a verdict.
fn class(of: Option<&TauDifference>) -> &'static str {
    let is_best = of.is_some_and(|of| of.best == Some(true));
    if is_best { "verdict certain" } else { "verdict" }
}

/// Returns whether the reference metric is the one that agrees best.
fn is_best(compared: &AlignmentDifferencesResponse) -> bool {
    compared.against.is_none()
}

fn verdict(of: TauVerdict, is_best: bool) -> &'static str {
    match (of, is_best) {
        (TauVerdict::Reference, true) => "the best",
        (TauVerdict::Reference, false) => "the reference",
        (TauVerdict::Worse, true) => "worse than the best",
        (TauVerdict::Worse, false) => "worse than the reference",
        (TauVerdict::Better, _) => "better than the reference",
        (TauVerdict::NotDistinguishable, true) => "not distinguishable from the best",
        (TauVerdict::NotDistinguishable, false) => "not distinguishable from the reference",
        (TauVerdict::Unknown, _) => "cannot be tested",
    }
}

/// Renders the differences over all pairs, and by slice if that was requested.
pub(super) fn section(
    view: &mut View,
    of: &AlignmentDifferencesResponse,
    address: &Address,
) -> Markup {
    let Some(all) = of.slices.first().filter(|all| all.metrics.len() > 1) else {
        return html! {};
    };
    let reference = all.reference.as_deref().unwrap_or_default();
    let best = is_best(of);
    let table = table(all, best);
    let by_slice = address.with("slices", "true");
    html! {
        h3 #differences { "Is one metric significantly better?" }
        p {
            "Each metric is compared with " (show::metric(reference))
            @if best { ", which agrees best, " } @else { " " }
            "over the pairs in which both have scores. " strong { "Difference" } " is its tau minus that \
                of " (reference) ". A metric is called worse if the p-value, corrected for "
            (all.comparisons) " comparisons (Holm), is below 0.05. “Not distinguishable” means that \
                these votes do not tell the two apart, not that they are equally good."
        }
        (view.table(&table))
        p.fine {
            "Intervals and p-values resample people (or prompts where no person is known). Intervals \
                are of one difference each, without the correction, so an interval may leave out 0 \
                although the metric is not called worse. "
            @if best {
                "Some metric always comes out best by chance: the correction covers every pair of \
                    metrics for that reason."
            }
        }
        @if of.slices.len() > 1 {
            (slices(view, &of.slices[1..]))
        } @else if !view.is_shared() {
            p { a href=(by_slice) { "Compare the metrics within slices too" }
                " (by kind of prompt, category and attribute; it takes longer)" }
        }
    }
}

fn table(all: &SliceDifferences, best: bool) -> Table {
    let row = |of: &TauDifference| {
        let is_reference = of.verdict == TauVerdict::Reference;
        let missing = match of.no_interval {
            _ if is_reference => "–",
            Some(NoInterval::NoVariation) => "no spread",
            None if of.difference.is_none() => "a tie in every pair",
            reason => no_interval(reason),
        };
        let decimal = |value: Option<f64>| {
            let shown = value.map_or_else(|| missing.to_owned(), |value| number::rounded(value, 3));
            Cell::number(value, shown)
        };
        let p = |value: Option<f64>| {
            let shown = match value {
                None => missing.to_owned(),
                Some(value) if value < 0.001 => "<0.001".to_owned(),
                Some(value) => number::rounded(value, 3),
            };
            Cell::number(value, shown)
        };
        vec![
            Cell::text(&*of.metric).shown(show::metric(&of.metric)).head(),
            Cell::number(Some(of.pairs as f64), number::count(of.pairs as u64)),
            Cell::number(Some(of.clusters as f64), number::count(of.clusters as u64)),
            decimal(of.tau),
            decimal(of.tau_reference),
            decimal(of.difference),
            decimal(of.low),
            decimal(of.high),
            p(of.p),
            p(of.p_holm),
            Cell::text(verdict(of.verdict, best)).class(class(Some(of))),
        ]
        .into()
    };
    Table {
        name: "differences",
        caption: "Differences of metrics in their agreement with people".to_owned(),
        columns: vec![
            Column::text("metric"),
            Column::number("pairs"),
            Column::number("people"),
            Column::number("tau"),
            Column::number("tau of the reference"),
            Column::number("difference"),
            Column::number("low"),
            Column::number("high"),
            Column::number("p"),
            Column::number("p (Holm)"),
            Column::text("verdict"),
        ],
        rows: all.metrics.iter().map(row).collect(),
    }
}

/// Renders the best group of each slice.
fn slices(view: &mut View, slices: &[SliceDifferences]) -> Markup {
    let shown = &slices[..slices.len().min(view.most(MOST_SLICES))];
    let listed = |of: &SliceDifferences, is_one: fn(&TauDifference) -> bool| {
        let codes: Vec<&str> =
            of.metrics.iter().filter(|of| is_one(of)).map(|of| &*of.metric).collect();
        Cell::text(if codes.is_empty() { "none".to_owned() } else { codes.join(", ") })
    };
    let row = |of: &SliceDifferences| {
        vec![
            Cell::text(of.kind.replace('_', " ")),
            Cell::text(&*of.label).shown(html! { bdi { (of.label) } }).head(),
            Cell::number(Some(of.pairs as f64), number::count(of.pairs as u64)),
            Cell::text(of.reference.as_deref().unwrap_or("none")),
            listed(of, |of| of.best == Some(true) && of.verdict != TauVerdict::Reference),
            listed(of, |of| of.verdict == TauVerdict::Worse),
            listed(of, |of| of.verdict == TauVerdict::Unknown),
        ]
        .into()
    };
    let table = Table {
        name: "best",
        caption: "Metrics that agree best with people, by slice".to_owned(),
        columns: vec![
            Column::text("slice"),
            Column::text("label"),
            Column::number("pairs"),
            Column::text("reference"),
            Column::text("not worse"),
            Column::text("worse"),
            Column::text("cannot be tested"),
        ],
        rows: shown.iter().map(row).collect(),
    };
    html! {
        p.fine { "P-values are corrected within each slice, not for the number of slices." }
        (view.table(&table))
        @if slices.len() > shown.len() {
            p.fine { "The first " (shown.len()) " slices. The downloads have all of them." }
        }
    }
}
