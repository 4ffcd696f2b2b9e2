//! The state of the page, which all its parts share.

use crate::api::analysis::leaderboard::{LeaderboardQuery, LeaderboardResponse, Row};
use crate::api::http::{ApiError, Code};
use crate::api::pages::address::{Address, DOWNLOAD, SHARE};
use crate::api::pages::view::View;
use crate::metrics::{self, Metric};
use crate::pack_id::PackId;
use crate::store::MAX_PAGE;

/// Parameters that the page has and the API does not.
const OWN: [&str; 4] = ["view", "x", "y", "intervals"];

/// Maximum number of cells or points on a page, so that it stays small.
const MOST_CELLS: usize = 2_000;
const MOST_POINTS: usize = 480;

/// Maximum number of rows of a page.
const MOST_ROWS: usize = 100;

/// Maximum number of rows of a response of the API.
const MAX_ROWS: usize = MAX_PAGE as usize;

/// How the page shows the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Table,
    Charts,
    Plane,
}

impl Shape {
    pub(super) const ALL: [(Self, &'static str, &'static str); 3] = [
        (Self::Table, "table", "Table"),
        (Self::Charts, "charts", "One chart for each metric"),
        (Self::Plane, "trade-off", "Two metrics against each other"),
    ];

    pub(super) fn of(address: &Address) -> Result<Self, ApiError> {
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
pub(super) struct Page {
    /// The address without the cursor, from which links are made.
    pub(super) address: Address,
    /// Metrics that the reader chose, in their order; `None` for all.
    pub(super) chosen: Option<Vec<&'static Metric>>,
    /// Code of the metric that the rows are sorted by, `mean_rank` or `name`.
    pub(super) sort: String,
    pub(super) is_shared: bool,
    /// The pack that the service has loaded; the notice of every page is about it.
    pub(super) loaded: PackId,
}

impl Page {
    pub(super) fn of(address: &Address, view: &View, loaded: PackId) -> Result<Self, ApiError> {
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
    pub(super) fn query(
        &self,
        address: &Address,
        shape: Shape,
    ) -> Result<LeaderboardQuery, ApiError> {
        let metrics = self.chosen.as_ref().map_or(metrics::REGISTRY.len(), Vec::len).max(1);
        // Downloaded tables have all rows, in one file.
        let download = address.get(DOWNLOAD).unwrap_or_default();
        let is_table = download.starts_with("csv:") || download.starts_with("latex:");
        let most = match shape {
            _ if is_table => MAX_ROWS,
            Shape::Charts => (MOST_POINTS / metrics).clamp(5, MOST_ROWS),
            Shape::Table | Shape::Plane => (MOST_CELLS / metrics).min(MOST_ROWS),
        };
        let mut request = match &*self.sort {
            "name" => address.without("sort"),
            sort => address.with("sort", sort),
        };
        // A larger page would be too heavy; a number out of range is for the API to refuse.
        let limit = address.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(most);
        if is_table {
            request = request.without("after").with("limit", most);
        } else if address.get("limit").is_none() || limit > most && limit <= MAX_ROWS {
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
    pub(super) fn columns(&self, response: &LeaderboardResponse) -> Vec<&'static Metric> {
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
}

/// Returns whether a text is a date as browsers send it; the API takes times only.
pub(super) fn is_date(text: &str) -> bool {
    let is_like = |char: char, like: char| match like {
        '0' => char.is_ascii_digit(),
        like => char == like,
    };
    text.len() == 10
        && text.chars().zip("0000-00-00".chars()).all(|(char, like)| is_like(char, like))
}

/// Returns the groups of rows that may be compared, as indices in order of appearance: rows with
/// the same pack over the same samples.
pub(super) fn groups(response: &LeaderboardResponse) -> Vec<usize> {
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

/// Returns the rows with their groups, so that groups stay together in every order.
pub(super) fn in_groups(response: &LeaderboardResponse) -> Vec<(usize, &Row)> {
    let mut rows: Vec<(usize, &Row)> = groups(response).into_iter().zip(&response.rows).collect();
    rows.sort_by_key(|(group, _)| *group);
    rows
}

/// Returns the name of a group: `A`, `B` and so on, then numbers.
pub(super) fn group_name(group: usize) -> String {
    u8::try_from(group)
        .ok()
        .filter(|group| *group < 26)
        .map_or_else(|| (group + 1).to_string(), |group| char::from(b'A' + group).to_string())
}
