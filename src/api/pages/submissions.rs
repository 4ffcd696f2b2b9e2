//! `GET /submissions`: bundles of scores with their states, and the change log of the board.

use axum::{extract::State, response::Response};
use maud::{Markup, html};
use uuid::Uuid;

use super::{
    address::Address,
    charts::clip,
    number, show,
    table::{Cell, Column, Order, Row, Table},
    view::{Section, View},
};
use crate::api::http::{ApiError, query_of};
use crate::api::state::Shared;
use crate::api::submissions::changes::{self, BoardEntry, ChangesParameters};
use crate::api::submissions::{self, SubmissionResponse, SubmissionsParameters};
use crate::store::SubmissionState;

/// Rows of each table by default.
const ROWS: u32 = 40;

/// The cursor of the change log, which is the page's own parameter.
const CHANGES_AFTER: &str = "changes_after";

/// Characters of a digest or a note in lists.
const DIGEST: usize = 13;
const NOTE: usize = 200;

/// Responds with the page.
pub(super) async fn read(State(app): Shared, address: Address) -> Result<Response, ApiError> {
    let mut query: SubmissionsParameters = address.query(&[CHANGES_AFTER])?;
    query.limit.get_or_insert(ROWS);
    let after = address.get(CHANGES_AFTER).map(|id| ("after".to_owned(), id.to_owned()));
    let log: ChangesParameters = query_of(after.as_slice())?;
    let log = ChangesParameters { limit: Some(ROWS), ..log };
    let is_filtered = ["method", "state", "after"].iter().any(|name| address.get(name).is_some());
    let page = submissions::respond(&app, query).await?;
    let log = changes::respond(&app, log).await?;
    let mut view = View::new(Section::Submissions, "Submissions", &address).style("runs.css");
    view.has_loaded(false);
    let content = html! {
        h1 { "Submissions" }
        p.lead {
            "A submission is a bundle with the scores of a run and everything that others need to \
             check them. It is on the leaderboard once a part of it was scored again here."
        }
        (filters(&address))
        @if page.items.is_empty() {
            (empty(is_filtered))
        } @else {
            (view.table(&list(&page.items)))
            (pager("Pages of submissions", &address, "after", page.next))
        }
        h2 #changes { "Change log of the board" }
        @if log.items.is_empty() {
            p { "There are no changes" @if address.get(CHANGES_AFTER).is_some() { " before these" } "." }
        } @else {
            (view.table(&entries(&log.items)))
        }
        (pager("Pages of the change log", &address, CHANGES_AFTER, log.next))
    };
    view.respond(&app, &content)
}

fn filters(address: &Address) -> Markup {
    let value = |name| address.get(name).unwrap_or_default();
    html! {
        form.filters data-auto method="get" action="/submissions" {
            label { "Method" input type="search" name="method" value=(value("method")) placeholder="Exact name"; }
            label {
                "State"
                select name="state" {
                    option value="" { "All" }
                    @for state in SubmissionState::ALL {
                        option value=(state.as_str()) selected[value("state") == state.as_str()] {
                            (state.as_str())
                        }
                    }
                }
            }
            button { "Apply" }
        }
    }
}

fn empty(is_filtered: bool) -> Markup {
    html! {
        div.card.empty {
            @if is_filtered {
                p { "No submission matches. " a href="/submissions" { "Show all submissions" } "." }
            } @else {
                p { "There are no submissions yet. Make a bundle of a finished run, and send it:" }
                pre tabindex="0" {
                    code {
                        "stellar-score submission pack --run METHOD/RUN --images FOLDER --out mine.zip\n"
                        "stellar-score submission send mine.zip --server URL"
                    }
                }
            }
        }
    }
}

/// Renders a state.
fn state(state: SubmissionState) -> Markup {
    html! {
        @match state {
            SubmissionState::Received => span.tag.warn { "received" },
            SubmissionState::Verified => span.tag.good { "verified" },
            SubmissionState::Withdrawn => span.tag { "withdrawn" },
        }
    }
}

fn digest(digest: &str) -> Cell {
    Cell::text(digest).shown(html! { code title=(digest) { (clip(digest, DIGEST)) } })
}

fn list(items: &[SubmissionResponse]) -> Table {
    let row = |of: &SubmissionResponse| -> Row {
        let name = match of.run_id {
            Some(id) => show::run_link(id, &of.method, &of.run),
            None => show::run_name(&of.method, &of.run),
        };
        let dataset = of.dataset.clone().unwrap_or_default();
        let again = match &of.verification {
            Some(done) => {
                format!("{} of {}", number::count(done.samples), number::count(of.samples))
            }
            None => String::new(),
        };
        let bundle = html! {
            a.fine href=(format!("/v1/submissions/{}", of.id)) { "facts" } " · "
            a.fine href=(format!("/v1/submissions/{}/bundle", of.id)) download { "bundle" }
        };
        vec![
            Cell::text(format!("{} / {}", of.method, of.run)).shown(name).head(),
            Cell::text(of.state.as_str()).shown(state(of.state)),
            Cell::text(&dataset).shown(html! { bdi { (clip(&dataset, 60)) } }),
            Cell::text(&*of.pack.name).shown(html! { bdi { (clip(&of.pack.name, 40)) } }),
            Cell::number(Some(of.samples as f64), number::count(of.samples)),
            Cell::text(again),
            digest(&of.digest),
            Cell::text(of.created.to_string()).shown(show::time(of.created)),
            Cell::text(of.id.to_string()).shown(bundle),
        ]
        .into()
    };
    Table {
        name: "submissions",
        caption: "Submissions".to_owned(),
        columns: vec![
            Column::text("Run"),
            Column::text("State"),
            Column::text("Dataset"),
            Column::text("Pack"),
            Column::number("Samples"),
            Column::text("Scored again"),
            Column::text("Digest"),
            Column { sorted: Some(Order::Descending), ..Column::text("Received") },
            Column::text("id").head(html! { "Details" }),
        ],
        rows: items.iter().map(row).collect(),
    }
}

fn entries(items: &[BoardEntry]) -> Table {
    let row = |of: &BoardEntry| -> Row {
        let name = show::run_name(&of.method, &of.run);
        vec![
            Cell::text(of.at.to_string()).shown(show::time(of.at)),
            Cell::text(of.action.as_str()).shown(state(of.action)),
            Cell::text(format!("{} / {}", of.method, of.run)).shown(name).head(),
            digest(&of.digest),
            Cell::text(&*of.note).shown(html! { bdi { (clip(&of.note, NOTE)) } }),
        ]
        .into()
    };
    Table {
        name: "changes",
        caption: "Changes of the board".to_owned(),
        columns: vec![
            Column { sorted: Some(Order::Descending), ..Column::text("Time") },
            Column::text("Change"),
            Column::text("Run"),
            Column::text("Digest"),
            Column::text("Note"),
        ],
        rows: items.iter().map(row).collect(),
    }
}

fn pager(label: &str, address: &Address, cursor: &str, next: Option<Uuid>) -> Markup {
    html! {
        @if next.is_some() || address.get(cursor).is_some() {
            nav.pager aria-label=(label) {
                @if address.get(cursor).is_some() {
                    a.button href=(address.without(cursor)) { "First page" }
                }
                @if let Some(next) = next {
                    a.button href=(address.with(cursor, next)) { "Next page" }
                }
            }
        }
    }
}
