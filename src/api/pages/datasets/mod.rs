//! `/datasets` and `/datasets/{dataset}`: what datasets ask for, and whether the photos of their
//! people agree.

mod people;
mod prompts;
mod statistics;

use axum::{extract::State, response::Response};
use maud::{Markup, html};

use super::{
    address::Address,
    number,
    table::{Cell, Column, Table},
    view::{Section, View},
};
use crate::api::datasets::{
    DatasetEntry, DatasetResponse, DatasetsQuery, composition, consistency, find, respond,
    respond_list, statistics as counted,
};
use crate::api::http::{ApiError, InPath, PageQuery, encode};
use crate::api::state::Shared;

/// `GET /datasets`.
pub(super) async fn list(State(app): Shared, address: Address) -> Result<Response, ApiError> {
    let query: DatasetsQuery = address.query(&[])?;
    let after = query.after.is_some();
    let found = respond_list(&app, query).await?;
    let mut view = View::new(Section::Datasets, "Datasets", &address).style("study.css");
    let content = html! {
        h1 { "Datasets" }
        p.lead {
            "Prompts that generators are given, and labelled photos of the people. Attribute \
                preservation learns from the photos, and slices of the leaderboard come from the \
                properties of the prompts."
        }
        @if found.datasets.is_empty() {
            (empty(after))
        } @else {
            (view.table(&table(&found.datasets)))
            @if let Some(next) = &found.next {
                p { a.button href=(address.with("after", next)) { "Next page" } }
            }
        }
    };
    view.respond(&app, &content)
}

fn empty(is_page: bool) -> Markup {
    html! {
        div.card.empty {
            @if is_page {
                p { "No dataset comes after this name. " a href="/datasets" { "All datasets" } }
            } @else {
                p { strong { "No dataset is registered." } }
                p { "A dataset is a folder of photos and prompts. Register one:" }
                pre tabindex="0" { code { "stellar-score dataset register FOLDER" } }
                p { "To try it without any data, make one up first:" }
                pre tabindex="0" { code {
                    "stellar-score dataset synthesize --out sample --identities 20 --prompts 100\n\
                     stellar-score dataset prepare --download sample/download \\\n    \
                         --prompts sample/prompts --out stellar"
                } }
            }
        }
    }
}

/// Returns the address of a dataset's page.
fn page(name: &str) -> String {
    format!("/datasets/{}", encode(name))
}

fn table(datasets: &[DatasetEntry]) -> Table {
    let count = |count: u64| Cell::number(Some(count as f64), number::count(count));
    let row = |dataset: &DatasetEntry| {
        let name = html! { a href=(page(&dataset.name)) { bdi { (dataset.name) } } };
        vec![
            Cell::text(&*dataset.name).shown(name).head(),
            count(dataset.prompts),
            count(dataset.photos),
            count(dataset.revision),
            Cell::text(dataset.created.date().to_string()),
        ]
        .into()
    };
    Table {
        name: "datasets",
        caption: "Datasets".to_owned(),
        columns: vec![
            Column::text("dataset"),
            Column::number("prompts"),
            Column::number("photos"),
            Column::number("revision"),
            Column::text("created"),
        ],
        rows: datasets.iter().map(row).collect(),
    }
}

/// `GET /datasets/{dataset}`.
pub(super) async fn read(
    State(app): Shared,
    name: InPath<String>,
    address: Address,
) -> Result<Response, ApiError> {
    // Unknown parameters are refused, as by the API.
    let PageQuery { offset, limit } = address.query(&["statistics"])?;
    let record = find(&app, name).await?;
    let composition = composition::respond(&app, &record).await?;
    let statistics = match address.get("statistics") {
        Some("true") => Some(counted::respond(&app, &record).await?),
        _ => None,
    };
    let consistency = consistency::respond(&app, &record).await?;
    let page = PageQuery { offset, limit: limit.or(Some(1)) };
    let dataset = respond(&app, record, page).await?;
    let title = dataset.dataset.name.clone();
    let mut view = View::new(Section::Datasets, title, &address).style("study.css");
    let content = html! {
        p.fine { a href="/datasets" { "Datasets" } }
        h1 { bdi { (dataset.dataset.name) } }
        (people::warning(&consistency.people))
        (facts(&dataset, &composition))
        (prompts::section(&mut view, &dataset.dataset.name, &composition))
        (statistics::section(&mut view, &address, statistics.as_ref()))
        (people::section(&mut view, &consistency))
        (attributes(&mut view, &dataset))
    };
    view.respond(&app, &content)
}

fn facts(of: &DatasetResponse, prompts: &composition::CompositionResponse) -> Markup {
    let board = Address::new("/leaderboard").with("dataset", &of.dataset.name);
    let big = |count: usize, label: &str, text: Markup| {
        html! {
            div.card.figure {
                h2 { (label) }
                p.big { (number::count(count as u64)) }
                p.fine { (text) }
            }
        }
    };
    html! {
        div.cards {
            (big(prompts.prompts, "Prompts", html! {
                (number::count(prompts.templates as u64)) " different texts for "
                (number::count(prompts.people as u64)) " people"
            }))
            (big(of.dataset.photos as usize, "Photos", html! {
                (number::count(of.totals.with_face as u64)) " with a face, "
                (number::count(of.totals.without_face as u64)) " without, "
                (number::count(of.totals.unknown as u64)) " not searched by the loaded pack"
            }))
            div.card.figure {
                h2 { "State" }
                p.big { "Revision " (of.dataset.revision) }
                p.fine { "Created " (of.dataset.created.date().to_string()) ". "
                    a href=(board) { "Leaderboard on this dataset" } }
            }
        }
        @if of.totals.unknown > 0 {
            p.note.warn {
                "The faces of " (number::count(of.totals.unknown as u64)) " photos are not stored for \
                    the loaded pack. Nothing is learnt from them and they are not compared. Send them \
                    again: " code { "stellar-score dataset register FOLDER" } "."
            }
        }
    }
}

/// Renders the labels from which attribute preservation learns.
fn attributes(view: &mut View, of: &DatasetResponse) -> Markup {
    let count = |count: usize| Cell::number(Some(count as f64), number::count(count as u64));
    let rows = of.totals.attributes.iter().map(|(name, labels)| {
        vec![Cell::text(name.replace('_', " ")).head(), count(labels.present), count(labels.absent)]
            .into()
    });
    let table = Table {
        name: "attributes",
        caption: "Labelled photos with a face, by attribute".to_owned(),
        columns: vec![
            Column::text("attribute"),
            Column::number("photos with it"),
            Column::number("photos without it"),
        ],
        rows: rows.collect(),
    };
    html! {
        h2 #attributes { "Labels" }
        @if table.rows.is_empty() {
            p { "No photo with a face has attribute labels, so " code { "aps" } " of single images is \
                null for this dataset. Runs are judged by their own photos." }
        } @else {
            p { code { "aps" } " of single images is learnt from these. An attribute that nearly all or \
                nearly no photos have is learnt badly." }
            (view.table(&table))
        }
    }
}
