//! `GET /leaderboard`: methods or runs with their metrics, intervals and ranks, as a table, as one
//! chart for each metric, or as a plane of two metrics.

mod board;
mod cells;
mod exports;
mod options;
mod plane;
mod words;

use axum::{extract::State, response::Response};
use maud::{Markup, html};

use super::{
    address::Address,
    charts::dots,
    number,
    view::{DOWNLOAD, SHARE, Section, View},
};
use crate::api::analysis::leaderboard::{self, LeaderboardQuery, LeaderboardResponse};
use crate::api::http::{ApiError, Code};
use crate::api::state::Shared;
use crate::metrics::{self, Metric};
use crate::pack_id::PackId;

/// Parameters that the page has and the API does not.
const OWN: [&str; 4] = ["view", "x", "y", "intervals"];

/// Maximum number of cells or points on a page, so that it stays small.
const MOST_CELLS: usize = 2_000;
const MOST_POINTS: usize = 480;

/// Maximum number of rows of a page.
const MOST_ROWS: usize = 100;

/// How the page shows the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Table,
    Charts,
    Plane,
}

impl Shape {
    const ALL: [(Self, &'static str, &'static str); 3] = [
        (Self::Table, "table", "Table"),
        (Self::Charts, "charts", "One chart for each metric"),
        (Self::Plane, "trade-off", "Two metrics against each other"),
    ];

    fn of(address: &Address) -> Result<Self, ApiError> {
        let Some(word) = address.get("view") else { return Ok(Self::Table) };
        let known = Self::ALL.iter().find(|(_, known, _)| *known == word);
        known.map(|(shape, ..)| *shape).ok_or_else(|| {
            let word: String = word.chars().take(80).collect();
            let problem = format!("view is `{word}`: send table, charts or trade-off");
            ApiError::new(Code::MalformedRequest, problem)
        })
    }
}

/// What all parts of the page share.
struct Page {
    /// The address without the cursor, from which links are made.
    address: Address,
    /// Metrics that the reader chose, in their order; `None` for all.
    chosen: Option<Vec<&'static Metric>>,
    /// Code of the metric that the rows are sorted by, `mean_rank` or `name`.
    sort: String,
    is_shared: bool,
    /// The pack that the service has loaded; the notice of every page is about it.
    loaded: PackId,
}

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
            page.rows(&response, shape, &address, &mut view)
        }
    };
    let options = if page.is_shared {
        html! {}
    } else {
        options::form(&page, &options::datasets(&app).await?)
    };
    let content = html! {
        div.title {
            h1 { "Leaderboard" }
            (view.share())
        }
        p.lead { "Generators of personalised images, ranked by their scores." }
        (page.tabs(shape))
        (options)
        (content)
    };
    view.respond(&app, &content)
}

impl Page {
    fn of(address: &Address, view: &View, loaded: PackId) -> Result<Self, ApiError> {
        let chosen = address.get("metrics").map(metrics::parse_list).transpose()?;
        Ok(Self {
            address: address.without("after").without(DOWNLOAD).without(SHARE),
            chosen,
            sort: address.get("sort").unwrap_or("mean_rank").to_owned(),
            is_shared: view.is_shared(),
            loaded,
        })
    }

    /// Returns the query of the API for this page.
    fn query(&self, address: &Address, shape: Shape) -> Result<LeaderboardQuery, ApiError> {
        let metrics = self.chosen.as_ref().map_or(metrics::REGISTRY.len(), Vec::len).max(1);
        let most = match shape {
            Shape::Charts => (MOST_POINTS / metrics).clamp(5, MOST_ROWS),
            Shape::Table | Shape::Plane => (MOST_CELLS / metrics).min(MOST_ROWS),
        };
        let mut request = match &*self.sort {
            "name" => address.without("sort"),
            sort => address.with("sort", sort),
        };
        // A larger page would be too heavy; a number out of range is for the API to refuse.
        let limit = address.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(most);
        if address.get("limit").is_none() || limit > most && limit <= 1000 {
            request = request.with("limit", most);
        }
        for name in ["since", "until"] {
            if let Some(date) = address.get(name).filter(|date| is_date(date)) {
                request = request.with(name, format!("{date}T00:00:00Z"));
            }
        }
        request.without("format").query(&OWN)
    }

    /// Returns the columns: the chosen metrics, or all that a row has.
    fn columns(&self, response: &LeaderboardResponse) -> Vec<&'static Metric> {
        let mut columns = self.chosen.clone().unwrap_or_else(|| {
            let published = response.published.iter().flat_map(|published| &published.rows);
            let codes: Vec<&String> = response
                .rows
                .iter()
                .flat_map(|row| row.metrics.keys())
                .chain(published.flat_map(|row| row.metrics.keys()))
                .collect();
            let is_there = |metric: &&Metric| codes.iter().any(|code| **code == metric.code);
            metrics::in_reading_order().into_iter().filter(is_there).collect()
        });
        if let Some(sorted) = metrics::find(&self.sort)
            && !columns.iter().any(|metric| metric.code == sorted.code)
        {
            columns.push(sorted);
        }
        columns
    }

    fn tabs(&self, shape: Shape) -> Markup {
        html! {
            @if !self.is_shared {
                nav.tabs aria-label="Views" {
                    @for (each, word, label) in Shape::ALL {
                        a href=(self.address.with("view", word))
                            aria-current=[(each == shape).then_some("page")] { (label) }
                    }
                }
            }
        }
    }

    /// Renders the rows as a table or as charts.
    fn rows(
        &self,
        response: &LeaderboardResponse,
        shape: Shape,
        address: &Address,
        view: &mut View,
    ) -> Markup {
        let has_published =
            response.published.as_ref().is_some_and(|published| !published.rows.is_empty());
        if response.rows.is_empty() && !has_published {
            return words::nothing(&self.address);
        }
        let columns = self.columns(response);
        let rows = match shape {
            Shape::Table => {
                let wanted = address.get(DOWNLOAD).unwrap_or_default();
                let table = match wanted.split(':').next() {
                    Some("csv") => exports::csv(response, &columns),
                    Some("latex") => exports::latex(response, &columns),
                    _ => board::table(self, response, &columns),
                };
                let rendered = view.table(&table);
                html! {
                    (rendered)
                    (board::legend(self, response))
                    @if !self.is_shared { (board::popovers(self, &columns)) }
                }
            }
            Shape::Charts | Shape::Plane => {
                let charts: Vec<Markup> = columns
                    .iter()
                    .map(|metric| view.chart(&dots::chart(metric, &response.rows)))
                    .collect();
                html! { div.multiples { @for chart in charts { (chart) } } }
            }
        };
        html! {
            (words::facts(self, response))
            (words::warnings(self, response))
            div.read {
                (words::how_to_read(response.policy, shape == Shape::Table))
                (words::verdicts(self, response, &columns))
            }
            (rows)
            (self.pages(response, address))
            @if self.is_shared { (words::definitions(&columns)) }
        }
    }

    /// Renders the links to the other rows.
    fn pages(&self, response: &LeaderboardResponse, address: &Address) -> Markup {
        let (shown, total) = (response.rows.len() as u64, response.total as u64);
        let is_later = address.get("after").is_some();
        html! {
            @if is_later || response.next.is_some() {
                p.pages {
                    (number::count(shown)) " of " (number::count(total)) " rows. "
                    @if !self.is_shared {
                        @if is_later { a href=(self.address) { "First rows" } " " }
                        @if let Some(next) = &response.next {
                            a rel="next" href=(self.address.with("after", next)) { "Next rows" }
                        }
                    }
                }
            }
        }
    }
}

/// Returns whether a text is a date as browsers send it; the API takes times only.
fn is_date(text: &str) -> bool {
    let is_like = |char: char, like: char| match like {
        '0' => char.is_ascii_digit(),
        like => char == like,
    };
    text.len() == 10
        && text.chars().zip("0000-00-00".chars()).all(|(char, like)| is_like(char, like))
}

/// Returns the groups of rows that may be compared, as indices in order of appearance: rows with the
/// same pack over the same samples.
fn groups(response: &LeaderboardResponse) -> Vec<usize> {
    let mut known: Vec<(&str, Option<&str>)> = Vec::new();
    response
        .rows
        .iter()
        .map(|row| {
            let key = (row.pack.digest.as_str(), row.sample_set.as_deref());
            known.iter().position(|each| *each == key).unwrap_or_else(|| {
                known.push(key);
                known.len() - 1
            })
        })
        .collect()
}

/// Returns the name of a group: `A`, `B` and so on, then numbers.
fn group_name(group: usize) -> String {
    u8::try_from(group)
        .ok()
        .filter(|group| *group < 26)
        .map_or_else(|| (group + 1).to_string(), |group| char::from(b'A' + group).to_string())
}
