//! `GET /leaderboard`: methods or runs with their metrics, intervals and ranks, as a table, as one
//! chart for each metric, or as a plane of two metrics.

mod area;
mod board;
mod cells;
mod dots;
mod exports;
mod options;
mod page;
mod plane;
mod published;
mod switch;
mod words;

use axum::{extract::State, response::Response};
use maud::{Markup, html};

use super::{
    address::{Address, DOWNLOAD},
    number,
    table::Table,
    view::{Section, View},
};
use crate::api::analysis::leaderboard::{self, LeaderboardResponse};
use crate::api::http::ApiError;
use crate::api::state::Shared;
use page::{Page, Shape, in_groups};

/// Number of metrics of a table that fits on a sheet of paper.
const COLUMNS_ON_PAPER: usize = 5;

/// Responds with the page.
pub(super) async fn read(State(app): Shared, mut address: Address) -> Result<Response, ApiError> {
    address.join("metrics");
    let shape = Shape::of(&address)?;
    let mut view = View::new(Section::Leaderboard, "Leaderboard", &address)
        .style("board.css")
        .script("board.js");
    let page = Page::of(&address, &view, app.scoring.pack().id())?;
    let query = page.query(&address, shape)?;
    let content = match shape {
        Shape::Plane => plane::content(&app, &page, query, &mut view).await?,
        Shape::Table | Shape::Charts => {
            let response = leaderboard::respond(&app, query).await?;
            let loaded = app.scoring.pack().id();
            let shown = &response.rows;
            view.has_loaded(shown.is_empty() || shown.iter().any(|row| row.pack == loaded));
            rows(&page, &response, shape, &address, &mut view)
        }
    };
    let options = if page.is_shared {
        html! {}
    } else {
        options::form(&page, shape, &options::datasets(&app).await?)
    };
    let content = html! {
        div.title {
            h1 { "Leaderboard" }
            (view.share())
        }
        p.lead { "Generators of personalised images, ranked by their scores." }
        (switch::benchmarks(&page))
        (tabs(&page, shape))
        (options)
        (content)
    };
    view.respond(&app, &content)
}

/// Renders the links to the other views.
fn tabs(page: &Page, shape: Shape) -> Markup {
    html! {
        @if !page.is_shared {
            nav.tabs aria-label="Views" {
                @for (each, word, label) in Shape::ALL {
                    a href=(page.address.with("view", word))
                        aria-current=[(each == shape).then_some("page")] { (label) }
                }
                a href=(matrix(page)) { "Methods by category" }
                a href=(first_places(page)) { "First places" }
            }
        }
    }
}

/// Returns the address of the same runs by category.
fn matrix(page: &Page) -> Address {
    let kept = ["dataset", "split", "method", "policy", "by", "pack"];
    let known = kept.into_iter().filter_map(|name| Some((name, page.address.get(name)?)));
    let known = known.filter(|(name, value)| *name != "pack" || *value != "all");
    known.fold(Address::new("/matrix"), |address, (name, value)| address.with(name, value))
}

/// Returns the address of the first places of the same methods.
fn first_places(page: &Page) -> Address {
    let kept = [("dataset", "dataset"), ("split", "split"), ("prompt_kind", "kind")];
    let known = kept.into_iter().filter_map(|(of, name)| Some((name, page.address.get(of)?)));
    known.fold(Address::new("/first-places"), |address, (name, value)| address.with(name, value))
}

/// Renders the rows as a table or as charts.
fn rows(
    page: &Page,
    response: &LeaderboardResponse,
    shape: Shape,
    address: &Address,
    view: &mut View,
) -> Markup {
    let has_published =
        response.published.as_ref().is_some_and(|published| !published.rows.is_empty());
    if response.rows.is_empty() && !has_published {
        return words::nothing(page);
    }
    let columns = page.columns(response);
    let rows = match shape {
        Shape::Table => {
            let wanted = address.get(DOWNLOAD).unwrap_or_default();
            let tables: Vec<Table> = match wanted.split(':').next() {
                Some("csv") => vec![exports::csv(response, &columns)],
                Some("latex") => vec![exports::latex(response, &columns)],
                // Paper has no scroll bars.
                _ if page.is_shared => columns
                    .chunks(COLUMNS_ON_PAPER)
                    .map(|columns| board::table(page, response, columns))
                    .collect(),
                _ => vec![board::table(page, response, &columns)],
            };
            let rendered: Vec<Markup> = tables.iter().map(|table| view.table(table)).collect();
            html! {
                @for table in rendered { (table) }
                (board::legend(page, response, &columns))
                @if !page.is_shared { (board::popovers(page, &columns)) }
            }
        }
        Shape::Charts | Shape::Plane => {
            let rows = in_groups(response);
            let charts: Vec<Markup> =
                columns.iter().map(|metric| view.chart(&dots::chart(metric, &rows))).collect();
            html! { div.multiples { @for chart in charts { (chart) } } }
        }
    };
    html! {
        (words::facts(page, response))
        (words::warnings(page, response))
        div.read {
            (words::how_to_read(response.policy, shape == Shape::Table))
            (words::verdicts(page, response, &columns))
        }
        (rows)
        (pages(page, response, address))
        @if page.is_shared { (words::definitions(&columns)) }
    }
}

/// Renders the links to the other rows.
fn pages(page: &Page, response: &LeaderboardResponse, address: &Address) -> Markup {
    let (shown, total) = (response.rows.len() as u64, response.total as u64);
    let is_later = address.get("after").is_some();
    html! {
        @if is_later || response.next.is_some() {
            p.pages {
                (number::count(shown)) " of " (number::count(total)) " rows. "
                @if !page.is_shared {
                    @if is_later { a href=(page.address) { "First rows" } " " }
                    @if let Some(next) = &response.next {
                        a rel="next" href=(page.address.with("after", next)) { "Next rows" }
                    }
                }
            }
        }
    }
}
