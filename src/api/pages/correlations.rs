//! `GET /correlations`: which metrics tell the same and which tell something new.

use axum::{extract::State, response::Response};
use maud::{Markup, html};

use super::{
    address::Address,
    charts::heat,
    number, show,
    table::{Cell as TableCell, Column, Row, Table},
    view::{Section, View},
};
use crate::analysis::{Cell, Coefficient, NoCoefficient};
use crate::api::analysis::correlations::{self, CorrelationsResponse, Within};
use crate::api::analysis::leaderboard;
use crate::api::http::ApiError;
use crate::api::state::{App, Shared};
use crate::metrics::{self, Family, Metric};

/// Maximum number of runs to choose from.
const MOST_RUNS: u32 = 200;

/// Number of pairs that are put into words.
const STRONGEST: usize = 3;

/// Responds with the page.
pub(super) async fn read(State(app): Shared, mut address: Address) -> Result<Response, ApiError> {
    address.join("metrics");
    let mut view = View::new(Section::Correlations, "Correlations", &address).style("board.css");
    let response = correlations::respond(&app, address.query(&[])?).await?;
    let form = if view.is_shared() {
        html! {}
    } else {
        form(&app, &address).await?
    };
    let shown = match response.metrics.len() {
        0 | 1 => nothing(view.is_shared()),
        _ => matrix(&response, &address, &mut view),
    };
    let content = html! {
        div.title { h1 { "Correlations" } (view.share()) }
        p.lead { "Which metrics tell the same, and which tell something new." }
        (form)
        (shown)
    };
    view.respond(&app, &content)
}

fn matrix(response: &CorrelationsResponse, address: &Address, view: &mut View) -> Markup {
    let has_intervals = address.get("intervals") == Some("true");
    let title = format!("{} of every two metrics", name(response.coefficient));
    let chart = view.chart(&heat::chart(title, &response.metrics, &response.matrix));
    let pairs = pairs(response);
    let table = view.table(&table(&pairs, response, has_intervals));
    let families = view.table(&families(response));
    html! {
        p.fine {
            (number::count(response.samples as u64)) " images of "
            (number::count(response.runs as u64))
            @if response.runs == 1 { " run" } @else { " runs" }
            @if (response.samples as u64) < response.of {
                ", evenly spaced among " (number::count(response.of))
            }
            " · pack " code title=(response.pack) {
                (response.pack.chars().take(12).collect::<String>())
            }
        }
        section.how {
            h2 { "How to read this" }
            ol {
                li { (meaning(response.coefficient)) }
                @if response.within == Some(Within::Prompt) {
                    li {
                        "Only images of the same prompt are compared with each other: those of the same \
                         name in several runs. That some prompts are easy for every method does not \
                         count."
                    }
                }
                li {
                    "Near 1, two metrics order the images alike, so that the second adds little. Near 0, \
                     they look at different things. Below 0, images that are good in one tend to be bad \
                     in the other."
                }
                li {
                    "It is over single images of the chosen runs, as measured, without any penalty. It \
                     says nothing about causes, and little about methods: for these see the "
                    (view.link(&Address::new("/leaderboard").with("view", "trade-off"), &html! {
                        "leaderboard"
                    }))
                    ". For a metric of which less is better, a negative number is agreement."
                }
                @if has_intervals {
                    li {
                        "The true number lies between “from” and “to” (95 of 100 such intervals contain \
                         it). Where the interval contains 0, it is open whether the metrics are related."
                    }
                }
            }
        }
        (in_words(&pairs))
        @if !view.is_shared() {
            p {
                @if has_intervals {
                    a href=(address.without("intervals")) { "Hide the intervals" }
                } @else {
                    a href=(address.with("intervals", "true")) { "Show 95 % intervals" }
                    span.fine { " (takes some seconds)" }
                }
            }
        }
        (chart)
        dl.facts {
            @for of in &response.families {
                dt { (of.title) }
                dd {
                    @for (at, code) in of.metrics.iter().enumerate() {
                        @if at > 0 { ", " }
                        (label(code))
                    }
                    span.fine { " — " (of.family.meaning()) }
                }
            }
        }
        h2 { "By family" }
        p.fine {
            "Metrics of one family read the same inputs and agree more. The number is the mean of the \
             coefficients of their pairs, each without its sign. Agreement of different families says \
             more than agreement within one."
        }
        (families)
        h2 { "By pair" }
        (table)
    }
}

fn name(coefficient: Coefficient) -> &'static str {
    match coefficient {
        Coefficient::Kendall => "Kendall's tau",
        Coefficient::Spearman => "Spearman's rho",
        Coefficient::Pearson => "Pearson's r",
    }
}

fn meaning(coefficient: Coefficient) -> &'static str {
    match coefficient {
        Coefficient::Kendall => {
            "Kendall's tau: take two images at random. A tau of 0.3 means that both metrics prefer the \
             same one in 65 of 100 such pairs, and different ones in 35 (ties aside)."
        }
        Coefficient::Spearman => {
            "Spearman's rho compares the places of the images in the two orders: 1 for the same order, \
             −1 for the opposite one."
        }
        Coefficient::Pearson => {
            "Pearson's r: how well a straight line leads from one score to the other. A few extreme \
             images can decide it."
        }
    }
}

/// Two metrics and their coefficient.
struct Pair<'a> {
    metrics: [&'a str; 2],
    cell: Cell,
}

/// Returns every pair once, the strongest first.
fn pairs(response: &CorrelationsResponse) -> Vec<Pair<'_>> {
    let codes = &response.metrics;
    let mut pairs: Vec<Pair<'_>> = (0..codes.len())
        .flat_map(|row| (0..row).map(move |column| (row, column)))
        .map(|(row, column)| Pair {
            metrics: [&codes[column], &codes[row]],
            cell: response.matrix[row][column],
        })
        .collect();
    let size = |pair: &Pair<'_>| pair.cell.value.map_or(-1.0, f64::abs);
    pairs.sort_by(|a, b| size(b).total_cmp(&size(a)));
    pairs
}

fn label(code: &str) -> String {
    metrics::find(code).map_or_else(|| code.to_owned(), |metric: &Metric| metric.guide.label())
}

fn in_words(pairs: &[Pair<'_>]) -> Markup {
    let strongest = pairs.iter().filter_map(|pair| Some((pair.metrics, pair.cell.value?)));
    html! {
        section.words {
            h2 { "In words" }
            ul {
                @for ([one, other], value) in strongest.take(STRONGEST) {
                    li {
                        strong { (label(one)) } " and " strong { (label(other)) }
                        @if value < 0.0 { " go in opposite directions" } @else { " rise together" }
                        " (" (number::rounded(value, 2)) ")."
                    }
                }
            }
        }
    }
}

fn families(response: &CorrelationsResponse) -> Table {
    let name = |family: Family| TableCell::text(family.title());
    let rows = response.family_pairs.iter().map(|of| {
        let number =
            TableCell::number(Some(of.mean_absolute), number::rounded(of.mean_absolute, 2));
        let pairs = TableCell::text(of.pairs.to_string());
        Row::from(vec![name(of.a).head(), name(of.b), number, pairs])
    });
    Table {
        name: "families",
        caption: "Mean size of the coefficients by family".to_owned(),
        columns: vec![
            Column::text("Family"),
            Column::text("With"),
            Column::number("Mean size"),
            Column::number("Pairs"),
        ],
        rows: rows.collect(),
    }
}

fn table(pairs: &[Pair<'_>], response: &CorrelationsResponse, has_intervals: bool) -> Table {
    let coefficient = response.coefficient;
    let is_within = response.within.is_some();
    let family = |code: &str| {
        TableCell::text(metrics::find(code).map_or("", |metric| metric.family.title()))
    };
    let row = |pair: &Pair<'_>| {
        let shown = match (pair.cell.value, pair.cell.reason) {
            (Some(value), _) => number::rounded(value, 3),
            (None, Some(NoCoefficient::Constant)) => "one metric is constant".to_owned(),
            (None, _) if is_within => "too few images of one prompt have both".to_owned(),
            (None, _) => "too few images have both".to_owned(),
        };
        let mut cells = vec![
            TableCell::text(label(pair.metrics[0])).head(),
            TableCell::text(label(pair.metrics[1])),
            family(pair.metrics[0]),
            family(pair.metrics[1]),
            TableCell::number(pair.cell.value, shown),
        ];
        if has_intervals {
            for end in [pair.cell.low, pair.cell.high] {
                let shown = match (end, pair.cell.value) {
                    (Some(end), _) => number::rounded(end, 2),
                    (None, Some(_)) => "too few people".to_owned(),
                    (None, None) => "—".to_owned(),
                };
                cells.push(TableCell::number(end, shown));
            }
        }
        cells.push(
            TableCell::text(pair.cell.n.to_string())
                .shown(html! { (number::count(pair.cell.n as u64)) }),
        );
        if is_within {
            let prompts = pair.cell.prompts.unwrap_or_default();
            let shown = html! { (number::count(prompts as u64)) };
            cells.push(TableCell::text(prompts.to_string()).shown(shown));
        }
        Row::from(cells)
    };
    let mut columns = vec![
        Column::text("Metric"),
        Column::text("With"),
        Column::text("Family"),
        Column::text("Family of the other"),
        Column::number(name(coefficient)),
    ];
    if has_intervals {
        columns.extend(["from", "to"].map(Column::number));
    }
    columns.push(Column::number("Images"));
    if is_within {
        columns.push(Column::number("Prompts"));
    }
    Table {
        name: "pairs",
        caption: "Pairs of metrics, the strongest first".to_owned(),
        columns,
        rows: pairs.iter().map(row).collect(),
    }
}

/// Renders the choice of run and coefficient. Runs are those of the leaderboard.
async fn form(app: &App, address: &Address) -> Result<Markup, ApiError> {
    let mut runs = Address::new("/leaderboard").with("by", "run").with("limit", MOST_RUNS);
    if let Some(pack) = address.get("pack") {
        runs = runs.with("pack", pack);
    }
    let board = leaderboard::respond(app, runs.query(&[])?).await?;
    let current = address.get("run").unwrap_or_default();
    let choices: Vec<(String, String)> = board
        .rows
        .iter()
        .filter_map(|row| {
            let name = format!("{} / {}", row.method, row.run.as_deref().unwrap_or_default());
            Some((row.runs.first()?.to_string(), name))
        })
        .collect();
    let is_listed = choices.iter().any(|(run, _)| run == current);
    Ok(html! {
        form.filters.board method="get" action="/correlations" data-auto {
            @for name in ["metrics", "pack", "intervals"] {
                @if let Some(value) = address.get(name) {
                    input type="hidden" name=(name) value=(value);
                }
            }
            label {
                "Run"
                select.name name="run" {
                    option value="" { "All runs" }
                    @for (run, name) in &choices {
                        option value=(run) selected[run == current] { (name) }
                    }
                    @if !current.is_empty() && !is_listed {
                        option value=(current) selected { (current) }
                    }
                }
            }
            label {
                "Method"
                input type="text" name="method" value=[address.get("method")] autocomplete="off";
            }
            label {
                "Coefficient"
                select name="coefficient" {
                    @for (word, label) in [
                        ("", "Kendall's tau"),
                        ("spearman", "Spearman's rho"),
                        ("pearson", "Pearson's r"),
                    ] {
                        option value=(word) selected[address.get("coefficient") == Some(word)] {
                            (label)
                        }
                    }
                }
            }
            label {
                "Differences"
                select name="within" {
                    option value="" { "Between all images" }
                    option value="prompt" selected[address.get("within") == Some("prompt")] {
                        "Within prompts"
                    }
                }
            }
            noscript { button.main type="submit" { "Show" } }
        }
        @if board.next.is_some() {
            p.fine {
                "The list has the first " (MOST_RUNS) " runs. For another one, add its id to the address: "
                code { "?run=ID" } "."
            }
        }
    })
}

fn nothing(is_shared: bool) -> Markup {
    html! {
        div.card.empty {
            h2 { "Nothing to correlate yet" }
            p {
                "Two metrics with scores of the same images are needed. Submit the images of a generator; \
                 every metric that the pack has is then computed."
            }
            (show::submit())
            @if !is_shared {
                p { a.button href="/" { "Score an image" } " " a.button href="/runs" { "All runs" } }
            }
        }
    }
}
