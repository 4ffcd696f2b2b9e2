//! `GET /matrix`: methods by category, for any kind of slice.

use axum::{extract::State, response::Response};
use maud::{Markup, html};

use super::{
    address::Address,
    number,
    table::{Cell, Column, Row, Table},
    view::{Section, View},
};
use crate::analysis::NoInterval;
use crate::api::analysis::matrix::{self, MatrixEntry, MatrixMethod, MatrixResponse};
use crate::api::http::ApiError;
use crate::api::state::Shared;
use crate::metrics::{self, Metric, in_reading_order};

/// Kinds of categories, with their names.
const KINDS: [(&str, &str); 10] = [
    ("category", "Category of the prompt"),
    ("prompt_kind", "Benchmark (kind of prompt)"),
    ("detectable", "Object in the prompt"),
    ("predicate", "Predicate of a relation"),
    ("relation", "Kind of relation"),
    ("template", "Template of the prompt"),
    ("attribute", "Attribute of the person"),
    ("fine_attribute", "Level of an attribute"),
    ("aps_attribute", "Attribute that APS predicts"),
    ("size", "Size of the image"),
];

/// Maximum number of methods on the page.
const MOST_COLUMNS: usize = 24;

/// Responds with the page.
pub(super) async fn read(State(app): Shared, address: Address) -> Result<Response, ApiError> {
    let mut view = View::new(Section::Leaderboard, "By category", &address).style("board.css");
    let response = matrix::respond(&app, address.without("format").query(&[])?).await?;
    let form = if view.is_shared() {
        html! {}
    } else {
        form(&address)
    };
    let shown = if response.rows.is_empty() {
        nothing(&response, view.is_shared())
    } else {
        let table = view.table(&table(&response));
        html! { (facts(&response)) (how(&response)) (table) }
    };
    let content = html! {
        div.title { h1 { "Methods by category" } (view.share()) }
        p.lead { "Which method is best at what." }
        (form)
        (shown)
    };
    view.respond(&app, &content)
}

fn label(code: &str) -> String {
    metrics::find(code).map_or_else(|| code.to_owned(), |metric: &Metric| metric.guide.label())
}

fn kind_name(kind: &str) -> &'static str {
    KINDS.iter().find(|(word, _)| *word == kind).map_or("Category", |(_, name)| name)
}

fn facts(response: &MatrixResponse) -> Markup {
    html! {
        dl.facts.board {
            dt { "Metric" } dd { (label(&response.metric)) }
            dt { "Rows" } dd { (kind_name(&response.kind)) }
            dt { "Penalty" } dd { code { (response.policy.as_str()) } }
            dt { "Categories" }
            dd {
                (number::count(response.rows.len() as u64))
                @if response.rows.len() < response.categories {
                    " of " (number::count(response.categories as u64)) ", those with most images"
                }
            }
            @if response.columns.len() > MOST_COLUMNS {
                dt { "Methods" }
                dd {
                    (MOST_COLUMNS) " of " (number::count(response.columns.len() as u64))
                    ", by name: choose some with the filters"
                }
            }
        }
    }
}

fn how(response: &MatrixResponse) -> Markup {
    html! {
        section.how {
            h2 { "How to read this" }
            ol {
                li {
                    strong { "Number. " }
                    "The average of a method over its images of the category, with the ends of its 95 % \
                     interval and the number of images."
                }
                li {
                    strong { "Best. " }
                    "Bold and the word “best” mark the best average of a row, among methods over the \
                     same images. Intervals that overlap leave open which is better."
                }
                li {
                    strong { "Many rows. " }
                    "Of twenty categories without any difference, about one looks as if it had one."
                }
                @if response.kind == "prompt_kind" {
                    li { "Each kind of prompt is a benchmark with its own penalty." }
                } @else if response.kind == "aps_attribute" {
                    li { "The number is the share of images in which the attribute is right." }
                }
            }
        }
    }
}

fn table(response: &MatrixResponse) -> Table {
    let columns = &response.columns[..response.columns.len().min(MOST_COLUMNS)];
    let halves = response.rows.iter().flat_map(|row| &row.cells).flatten();
    let halves = halves.filter_map(|cell| Some((cell.high? - cell.low?) / 2.0));
    let decimals = number::typical_decimals(halves);
    let mut heads = vec![Column::text(kind_name(&response.kind)), Column::number("Images")];
    heads.extend(columns.iter().map(|column| {
        let name = name(column);
        let head = html! { bdi { (name) } };
        Column::number(name).head(head)
    }));
    let rows = response.rows.iter().map(|row| {
        let category = html! { bdi { (row.category) } };
        let mut cells = vec![
            Cell::text(row.category.clone()).shown(category).head(),
            Cell::number(Some(row.samples as f64), number::count(row.samples)),
        ];
        cells.extend(row.cells.iter().take(MOST_COLUMNS).map(|of| cell(of.as_ref(), decimals)));
        Row::from(cells)
    });
    Table {
        name: "matrix",
        caption: format!("{} by {}", label(&response.metric), response.kind.replace('_', " ")),
        columns: heads,
        rows: rows.collect(),
    }
}

fn name(column: &MatrixMethod) -> String {
    match &column.run {
        Some(run) => format!("{} / {run}", column.method),
        None => column.method.clone(),
    }
}

fn cell(of: Option<&MatrixEntry>, decimals: usize) -> Cell {
    let words = |words: &'static str| Cell {
        shown: Some(html! { small { (words) } }),
        class: "none",
        ..Cell::default()
    };
    let Some(of) = of else { return words("too few images") };
    let Some(mean) = of.mean else { return words("no scores") };
    let text = number::rounded(mean, decimals);
    let shown = html! {
        @if of.best { b { (text) } " " span.tag { "best" } } @else { (text) }
        @if let Some((low, high)) = of.low.zip(of.high) {
            small { (number::rounded(low, decimals)) " to " (number::rounded(high, decimals)) }
        }
        @match of.no_interval {
            Some(NoInterval::NoVariation) => small { "no spread" },
            Some(_) => small { "one person" },
            None => {}
        }
        small { "n " (number::count(of.n)) }
    };
    let plain = super::table::latex(&text);
    let latex = if of.best { format!("\\textbf{{{plain}}}") } else { plain };
    Cell { latex: Some(latex), shown: Some(shown), ..Cell::number(Some(mean), text) }
}

fn nothing(response: &MatrixResponse, is_shared: bool) -> Markup {
    html! {
        div.card.empty {
            h2 { "No category has enough images" }
            p {
                "No run has " (label(&response.metric)) " over enough images of one "
                (kind_name(&response.kind).to_lowercase())
                ". Categories are shown from 20 images on, and runs are summarised some seconds after \
                 they change."
            }
            @if !is_shared {
                p { a.button href="/leaderboard" { "Leaderboard" } }
            }
        }
    }
}

/// Renders the choice of metric and kind. Every change leads to the address of its view.
fn form(address: &Address) -> Markup {
    let current = |name: &str| address.get(name).unwrap_or_default().to_owned();
    let select = |name: &str, label: &str, options: &[(&str, &str)]| {
        html! {
            label {
                (label)
                select name=(name) {
                    @for (value, text) in options {
                        option value=(value) selected[*value == current(name)] { (text) }
                    }
                }
            }
        }
    };
    let text = |name: &str, label: &str| {
        html! {
            label {
                (label)
                input type="text" name=(name) value=[address.get(name)] autocomplete="off";
            }
        }
    };
    html! {
        form.filters.board method="get" action="/matrix" data-auto {
            @for name in ["pack", "min_samples", "limit"] {
                @if let Some(value) = address.get(name) {
                    input type="hidden" name=(name) value=(value);
                }
            }
            (select("kind", "Rows", &KINDS))
            label {
                "Metric"
                select name="metric" {
                    option value="" { "Default" }
                    @for metric in in_reading_order() {
                        option value=(metric.code) selected[metric.code == current("metric")] {
                            (metric.guide.label())
                        }
                    }
                }
            }
            (select("by", "Columns", &[("", "Methods"), ("run", "Runs")]))
            (select("policy", "Penalty for copies", &[
                ("", "stellar: copies count as 0"),
                ("toolkit", "toolkit: as in the paper's code"),
                ("none", "none: scores as measured"),
            ]))
            (text("dataset", "Dataset"))
            (text("split", "Split"))
            (text("method", "Method"))
            noscript { button.main type="submit" { "Show" } }
        }
    }
}
