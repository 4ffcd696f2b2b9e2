//! `GET /first-places`: how often each method has the best image of a prompt, by each metric and by
//! people.

use axum::{extract::State, response::Response};
use maud::{Markup, html};

use super::{
    address::Address,
    number, show,
    table::{Cell, Column, Row, Table},
    view::{Section, View},
};
use crate::analysis::{FirstPlaceShare, NoInterval, PeopleFirstPlaces};
use crate::api::analysis::first_places::{
    self, FirstPlacesQuery, FirstPlacesResponse, FirstPlacesRun, MOST_RUNS, NoFirstPlaces,
};
use crate::api::http::ApiError;
use crate::api::state::Shared;

/// Responds with the page.
pub(super) async fn read(State(app): Shared, mut address: Address) -> Result<Response, ApiError> {
    address.join("runs");
    address.join("metrics");
    let query: FirstPlacesQuery = address.query(&[])?;
    let found = first_places::respond(&app, query).await?;
    let mut view = View::new(Section::Leaderboard, "First places", &address).style("board.css");
    let loaded = app.scoring.pack().id();
    view.has_loaded(found.pack.as_ref().is_none_or(|pack| *pack == loaded));
    let shown = if let Some(reason) = found.no_shares {
        nothing(reason, view.is_shared())
    } else {
        let metrics = view.table(&by_metric(&found));
        html! { (facts(&found)) (how(&found)) (metrics) }
    };
    let people = if let Some(people) = &found.people {
        let table = view.table(&by_people(&found, people));
        html! { (about_people(people)) (table) }
    } else {
        html! {
            h2 #people { "By people" }
            p { "Nobody has judged images of these methods only, on this question." }
        }
    };
    let content = html! {
        div.title { h1 { "First places" } (view.share()) }
        p.lead { "How often each method has the best image of a prompt: by each metric, and by people." }
        @if !view.is_shared() { (form(&address)) }
        (shown)
        @if !found.runs.is_empty() { (people) }
    };
    view.respond(&app, &content)
}

fn facts(found: &FirstPlacesResponse) -> Markup {
    html! {
        dl.facts.board {
            @if let Some(dataset) = &found.dataset { dt { "Dataset" } dd { bdi { (dataset) } } }
            @if let Some(kind) = &found.kind { dt { "Kind of prompt" } dd { bdi { (kind) } } }
            @if let Some(pack) = &found.pack {
                dt { "Pack" }
                dd { bdi { (pack.name) } " (" (pack.weights.as_str()) " weights)" }
            }
            dt { "Prompts" } dd { (number::count(found.prompts as u64)) ", which all methods have" }
            dt { "Runs" }
            dd {
                @for (at, run) in found.runs.iter().enumerate() {
                    @if at > 0 { ", " }
                    (show::run_link(run.id, &run.method, &run.run))
                }
            }
        }
    }
}

fn how(found: &FirstPlacesResponse) -> Markup {
    let chance = number::percent(1.0 / found.runs.len().max(1) as f64);
    html! {
        section.how {
            h2 { "How to read this" }
            ol {
                li {
                    strong { "Share. " }
                    "Of the prompts, the part for which the method’s image has the best score. Equal \
                     scores share the place. All shares of a row sum to 100 %; a method that is as \
                     good as the others has " (chance) "."
                }
                li {
                    strong { "Brackets. " }
                    "95 % intervals over people, whose prompts share a face."
                }
                li {
                    strong { "First is not best. " }
                    "A method that is often first may also be often last. The leaderboard has the \
                     averages. Copies of the photo are not penalised here."
                }
            }
        }
        h2 #metrics { "By metric" }
    }
}

fn name(run: &FirstPlacesRun, all: &[FirstPlacesRun]) -> String {
    let is_only = all.iter().filter(|other| other.method == run.method).count() == 1;
    if is_only { run.method.clone() } else { format!("{} / {}", run.method, run.run) }
}

fn heads(found: &FirstPlacesResponse) -> Vec<Column> {
    let mut columns = Vec::new();
    for run in &found.runs {
        let name = name(run, &found.runs);
        let head = html! { bdi { (name) } };
        columns.push(Column::number(&*name).head(head));
        columns.push(Column::number(format!("{name} low")).head(html! { "low" }));
        columns.push(Column::number(format!("{name} high")).head(html! { "high" }));
    }
    columns
}

fn cells(shares: &[FirstPlaceShare]) -> Vec<Cell> {
    let missing = |of: &FirstPlaceShare| match of.no_interval {
        _ if of.share.is_none() => "not shown",
        Some(NoInterval::NoVariation) => "no spread",
        Some(NoInterval::TooFewPrompts) => "one prompt",
        _ => "one person",
    };
    let percent = |of: &FirstPlaceShare, value: Option<f64>| {
        Cell::number(value, value.map_or_else(|| missing(of).to_owned(), number::percent))
    };
    let of_one = |of: &FirstPlaceShare| [of.share, of.low, of.high].map(|value| percent(of, value));
    shares.iter().flat_map(of_one).collect()
}

fn by_metric(found: &FirstPlacesResponse) -> Table {
    let mut columns =
        vec![Column::text("metric"), Column::number("prompts"), Column::number("shared places")];
    columns.extend(heads(found));
    let row = |of: &crate::analysis::MetricFirstPlaces| {
        let mut row = vec![
            Cell::text(&*of.metric).shown(show::metric(&of.metric)).head(),
            Cell::number(Some(of.prompts as f64), number::count(of.prompts as u64)),
            Cell::number(Some(of.shared as f64), number::count(of.shared as u64)),
        ];
        row.extend(cells(&of.shares));
        Row::from(row)
    };
    Table {
        name: "first_places",
        caption: "Shares of first places by metric".to_owned(),
        columns,
        rows: found.metrics.iter().map(row).collect(),
    }
}

fn about_people(people: &PeopleFirstPlaces) -> Markup {
    html! {
        h2 #people { "By people, and by metrics over the same images" }
        p {
            "Over " (number::count(people.answers as u64)) " answers about "
            (number::count(people.prompts as u64)) " prompts, in which only images of these methods \
                were shown: of the answers in which a method’s image was shown, the part in which it \
                was chosen. A tie is a part of a choice. A method that is as good as the others has "
            (number::percent(people.chance)) ". The rows of metrics say what the metric would have \
                chosen among the same images; where its row is like that of people, it ranks the \
                methods as people do."
        }
    }
}

fn by_people(found: &FirstPlacesResponse, people: &PeopleFirstPlaces) -> Table {
    let mut columns = vec![Column::text("who")];
    columns.extend(heads(found));
    let mut first = vec![Cell::text("people").head()];
    first.extend(cells(&people.shares));
    let row = |of: &crate::analysis::MetricFirstPlaces| {
        let mut row = vec![Cell::text(&*of.metric).shown(show::metric(&of.metric)).head()];
        for share in &of.shares {
            let value = share.share_of_answers;
            let shown = value.map_or_else(|| "not shown".to_owned(), number::percent);
            row.extend([Cell::number(value, shown), Cell::text(""), Cell::text("")]);
        }
        Row::from(row)
    };
    Table {
        name: "first_choices",
        caption: "Shares of first choices by people, and by metrics over the same images"
            .to_owned(),
        columns,
        rows: std::iter::once(Row::from(first)).chain(found.metrics.iter().map(row)).collect(),
    }
}

fn nothing(reason: NoFirstPlaces, is_shared: bool) -> Markup {
    html! {
        div.card.empty {
            h2 { "No first places" }
            p {
                @match reason {
                    NoFirstPlaces::TooFewRuns => {
                        "At least two methods with finished runs and scores are needed."
                    }
                    NoFirstPlaces::NoCommonPrompts => {
                        "The runs have no prompts in common. Samples are matched by name: name those of \
                         all methods after their prompts."
                    }
                    NoFirstPlaces::NoScores => {
                        "No metric has numbers of all methods for one of the common prompts."
                    }
                }
            }
            @if !is_shared { p { a.button href="/leaderboard" { "Leaderboard" } } }
        }
    }
}

fn form(address: &Address) -> Markup {
    let text = |name: &str, label: &str, hint: &str| {
        html! {
            label {
                (label)
                input type="text" name=(name) value=[address.get(name)] placeholder=(hint)
                    autocomplete="off";
            }
        }
    };
    html! {
        form.filters.board method="get" action="/first-places" data-auto {
            (show::hidden(address, &["methods", "dataset", "split", "kind", "metrics", "question"]))
            (text("methods", "Methods", &format!("all, at most {MOST_RUNS}")))
            (text("dataset", "Dataset", "of the newest run"))
            (text("split", "Split", "all"))
            (text("kind", "Kind of prompt", "all, or T"))
            (text("metrics", "Metrics", "all, or ips,clip_t"))
            (text("question", "Question to people", "overall"))
            button { "Show" }
        }
    }
}
