//! `GET /runs`: all runs with their progress.

use std::collections::BTreeSet;

use axum::{extract::State, response::Response};
use maud::{Markup, html};

use super::{
    address::Address,
    charts::clip,
    number, show,
    table::{Cell, Column, Order, Row, Table},
    view::{Section, View},
};
use crate::api::http::ApiError;
use crate::api::methods::{self, MethodsQuery};
use crate::api::runs::{self, RunOrder, RunResponse, RunsQuery};
use crate::api::state::Shared;
use crate::store::{MethodRecord, RunState};

/// Rows of a page by default.
const ROWS: u32 = 40;

/// Methods in the list to choose from.
const METHODS: u32 = 100;

/// Responds with the page.
pub(super) async fn read(State(app): Shared, address: Address) -> Result<Response, ApiError> {
    let mut query: RunsQuery = address.query(&[])?;
    if address.get("order").is_none() {
        query.order = RunOrder::Newest;
    }
    query.limit.get_or_insert(ROWS);
    let is_filtered = ["method", "dataset", "state"].iter().any(|name| address.get(name).is_some());
    let page = runs::respond(&app, query).await?;
    let methods = MethodsQuery { after: None, limit: Some(METHODS) };
    let methods = methods::respond_list(&app, methods).await?.methods;
    let mut view = View::new(Section::Runs, "Runs", &address).style("runs.css");
    let content = html! {
        h1 { "Runs" }
        p.lead {
            "A run is one set of images of a method, such as one seed or one setting."
        }
        (filters(&address, &methods, &page.runs))
        @if page.runs.is_empty() {
            (empty(is_filtered))
        } @else {
            form #picked action="/compare" method="get" {}
            (view.table(&table(&page.runs, &address)))
            p.picks {
                button form="picked" { "Compare two selected runs" } " "
                button form="picked" formaction="/gallery" { "Images of selected runs side by side" }
            }
            (pager(&address, page.next.map(|id| id.to_string()).as_deref()))
        }
    };
    view.respond(&app, &content)
}

fn filters(address: &Address, methods: &[MethodRecord], runs: &[RunResponse]) -> Markup {
    let datasets: BTreeSet<&str> = runs.iter().filter_map(|run| run.dataset.as_deref()).collect();
    let value = |name| address.get(name).unwrap_or_default();
    html! {
        form.filters data-auto method="get" action="/runs" {
            label { "Method" input type="search" name="method" list="methods" value=(value("method")) placeholder="Exact name"; }
            label { "Dataset" input type="search" name="dataset" list="datasets" value=(value("dataset")) placeholder="Exact name"; }
            label {
                "State"
                select name="state" {
                    option value="" { "All" }
                    @for state in RunState::ALL {
                        option value=(state.as_str()) selected[value("state") == state.as_str()] {
                            (state.as_str())
                        }
                    }
                }
            }
            label {
                "Order"
                select name="order" {
                    @for (word, label) in [("newest", "Newest first"), ("oldest", "Oldest first")] {
                        option value=(word) selected[value("order") == word] { (label) }
                    }
                }
            }
            button { "Apply" }
            (show::names("methods", methods.iter().map(|method| &*method.name)))
            (show::names("datasets", datasets.into_iter()))
        }
    }
}

fn empty(is_filtered: bool) -> Markup {
    html! {
        div.card.empty {
            @if is_filtered {
                p { "No run matches these filters. " a href="/runs" { "Show all runs" } "." }
            } @else {
                p { "There are no runs yet. Send one:" }
                (show::submit())
                p { a href="/docs/" { "The API" } " takes samples from any program." }
            }
        }
    }
}

fn table(runs: &[RunResponse], address: &Address) -> Table {
    let is_oldest_first = address.get("order") == Some("oldest");
    let order = if is_oldest_first { Order::Ascending } else { Order::Descending };
    let columns = vec![
        Column::text("run_id").head(html! { span.fine { "Select" } }),
        Column::text("Run"),
        Column::text("Dataset"),
        Column::text("State"),
        Column::number("Progress"),
        Column::number("Scored"),
        Column::number("Pending"),
        Column::number("Failed"),
        Column { sorted: Some(order), ..Column::text("Created") },
    ];
    let rows = runs.iter().map(|run| row(run, address)).collect();
    Table { name: "runs", caption: "Runs".to_owned(), columns, rows }
}

fn row(run: &RunResponse, address: &Address) -> Row {
    let counts = run.counts;
    let name = format!("{} / {}", run.method, run.run);
    let done = counts.scored + counts.failed;
    let of_method = address.without("after").with("method", &run.method);
    let count = |count: u64| Cell::number(Some(count as f64), number::count(count));
    let select = html! {
        input type="checkbox" form="picked" name="runs" value=(run.run_id)
            aria-label=(format!("Select {}", clip(&name, show::NAME)));
    };
    let link = html! {
        (show::run_link(run.run_id, &run.method, &run.run))
        // Percent-encoded, a long name would be the largest part of the page.
        @if run.method.len() <= show::LINKED {
            " " a.fine.only href=(of_method) title="Runs of this method only" { "only this method" }
        }
    };
    let state = html! {
        (show::state(run.state))
        @if run.held.is_some() { " " span.tag.bad { "blocked" } }
    };
    let progress = html! {
        progress max=(counts.accepted.max(1)) value=(done)
            aria-label=(format!("{done} of {} samples", counts.accepted)) {}
    };
    let dataset = run.dataset.clone().unwrap_or_default();
    let split = run.split.as_ref().map(|split| format!(" · {split}")).unwrap_or_default();
    let failed = if counts.failed > 0 { "bad" } else { "" };
    vec![
        Cell::text(run.run_id.to_string()).shown(select),
        Cell::text(name).shown(link).head(),
        Cell::text(&dataset).shown(html! { bdi { (clip(&dataset, 60)) (clip(&split, 40)) } }),
        Cell::text(run.state.as_str()).shown(state),
        Cell::text(format!("{done}/{}", counts.accepted)).shown(progress),
        count(counts.scored),
        count(counts.pending),
        count(counts.failed).class(failed),
        Cell::text(run.created.to_string()).shown(show::time(run.created)),
    ]
    .into()
}

fn pager(address: &Address, next: Option<&str>) -> Markup {
    html! {
        nav.pager aria-label="Pages of runs" {
            @if address.get("after").is_some() {
                a.button href=(address.without("after")) { "First page" }
            }
            @if let Some(next) = next { a.button href=(address.with("after", next)) { "Next page" } }
        }
    }
}
