//! Scores of a run: its table, the distributions, and why scores are missing.

use maud::{Markup, html};

use crate::analysis::{Policy, Statistic};
use crate::api::pages::{
    address::Address,
    charts::histogram::histogram,
    number, show,
    table::{Cell, Column, Row, Table},
    view::View,
};
use crate::api::runs::report::{Line, Tabulated};
use crate::metrics;

const POLICIES: [(Policy, &str); 3] = [
    (Policy::Stellar, "Stellar: identity counts 0 if the image ignores the prompt"),
    (Policy::Toolkit, "Toolkit: as the reference implementation computes it"),
    (Policy::None, "None: scores as measured"),
];

/// Renders the table of a run with the choice of its policy.
pub(super) fn section(
    view: &mut View,
    address: &Address,
    shown: Option<&Tabulated>,
    problem: Option<&str>,
) -> Markup {
    let policy = address.get("policy").unwrap_or("stellar");
    html! {
        h2 #scores { "Scores" }
        form.filters data-auto method="get" action="#scores" {
            (show::hidden(address, &["policy"]))
            label {
                "Penalty"
                select name="policy" {
                    @for (each, words) in POLICIES {
                        option value=(each.as_str()) selected[each.as_str() == policy] { (words) }
                    }
                }
            }
            button { "Apply" }
        }
        @if let Some(problem) = problem {
            p.note.warn {
                (problem) ". "
                a href=(address.with("policy", "none")) { "Show the scores as measured" } "."
            }
        }
        @if let Some(shown) = shown { (table(view, shown)) }
    }
}

fn table(view: &mut View, of: &Tabulated) -> Markup {
    let response = of.response();
    let columns = vec![
        Column::text("Metric"),
        Column::number("Mean"),
        Column::number("95 % from"),
        Column::number("to"),
        Column::number("Std"),
        Column::number("Samples"),
        Column::number("Coverage"),
        Column::number("People"),
        Column::text("Note"),
    ];
    let rows = response.rows.iter().map(line).collect();
    let table = Table { name: "scores", caption: "Scores".to_owned(), columns, rows };
    html! {
        (view.table(&table))
        p.fine {
            "Over " (number::count(response.samples as u64)) " samples"
            @if let Some(penalised) = response.penalised {
                ", of which " (number::count(penalised as u64)) " are penalised: their images follow the \
                    prompt hardly better than the reference image does"
            }
            @if response.undecided > 0 {
                ". For " (number::count(response.undecided as u64)) " the penalty cannot be decided, \
                    because " code { "clip_t" } " or " code { "clip_n" } " is missing"
            }
            ". Sample set " code { (response.sample_set) } ": only tables over the same set are \
                comparable."
        }
        p.fine {
            "The 95 % interval says how sure the mean is: if the same evaluation were repeated with \
                other people, about 19 of 20 such intervals would contain the true mean. Samples of one \
                person are alike, so whole people are resampled. Coverage is the share of samples that \
                have a score."
        }
    }
}

fn line(line: &Line) -> Row {
    let row = &line.row;
    let ends = row.low.zip(row.high);
    let mean = row.mean.map_or("–".to_owned(), |mean| match ends {
        Some((low, high)) => number::with_interval(mean, low, high),
        None => number::plain(mean),
    });
    let decimals = ends.map_or(3, |(low, high)| number::decimals((high - low) / 2.0));
    let end = |end: Option<f64>| {
        Cell::number(end, end.map_or("–".to_owned(), |end| number::rounded(end, decimals)))
    };
    let mut notes: Vec<String> = Vec::new();
    if row.n == 0 {
        let most = line.nulls.iter().max_by_key(|(_, count)| **count);
        notes.extend(most.map(|(reason, _)| format!("no score: {}", show::words(reason))));
    }
    notes.extend(line.no_interval.map(show::no_interval).map(str::to_owned));
    if line.few_clusters && row.low.is_some() {
        notes.push("few people: the interval is rough".to_owned());
    }
    if row.statistic == Statistic::AttributeAuc {
        notes.push("area under the ROC curve, over the whole run".to_owned());
        notes
            .extend(row.sample_mean.map(|mean| format!("mean of samples {}", number::plain(mean))));
    }
    vec![
        Cell::text(&row.metric).shown(show::metric(&row.metric)).head(),
        Cell::number(row.mean, mean),
        end(row.low),
        end(row.high),
        Cell::number(row.std, row.std.map_or("–".to_owned(), number::plain)),
        Cell::number(Some(row.n as f64), number::count(row.n as u64)),
        Cell::number(Some(row.coverage), number::percent(row.coverage)),
        Cell::number(Some(row.clusters as f64), number::count(row.clusters as u64)),
        Cell::text(notes.join("; ")),
    ]
    .into()
}

/// Renders a histogram for each metric.
pub(super) fn distributions(view: &mut View, of: &Tabulated) -> Markup {
    let known =
        of.table.distributions.iter().filter_map(|of| Some((metrics::find(&of.metric)?, of)));
    html! {
        h2 #distributions { "Distributions" }
        p {
            "How the scores of single samples are spread, as measured: no penalty is applied. The circle \
                above the bars is the median, the line around it the middle half of the samples."
        }
        div.histograms {
            @for (metric, of) in known { (view.chart(&histogram(metric.code, of))) }
        }
    }
}

/// Renders the reasons for null scores.
pub(super) fn nulls(view: &mut View, of: &Tabulated) -> Markup {
    let nulls = of.table.nulls.iter();
    let rows: Vec<Row> = nulls
        .flat_map(|(metric, reasons)| {
            reasons.iter().map(move |(reason, count)| (metric, reason, *count))
        })
        .map(|(metric, reason, count)| {
            let row = vec![
                Cell::text(metric).shown(show::metric(metric)).head(),
                Cell::text(reason).shown(html! { (show::words(reason)) }),
                Cell::number(Some(count as f64), number::count(count as u64)),
                Cell::text(show::help(reason)),
            ];
            row.into()
        })
        .collect();
    if rows.is_empty() {
        return html! {};
    }
    let columns = vec![
        Column::text("Metric"),
        Column::text("Reason"),
        Column::number("Samples"),
        Column::text("What to do"),
    ];
    let table = Table { name: "missing", caption: "Missing scores".to_owned(), columns, rows };
    html! {
        h2 #missing { "Missing scores" }
        p { "Samples without a number are left out of the means. A missing score is never counted as 0." }
        (view.table(&table))
    }
}
