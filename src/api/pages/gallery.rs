//! `GET /gallery`: the same prompts and people across runs, side by side.

use axum::{extract::State, response::Response};
use maud::{Markup, html};

use super::{
    address::Address,
    charts::clip,
    images, number, portable, show,
    table::{Cell, Column, Row, Table},
    view::{Section, View},
};
use crate::analysis::GallerySort;
use crate::api::analysis::gallery::{
    self, GalleryImage, GalleryQuery, GalleryResponse, GalleryRowEntry, MOST_RUNS,
};
use crate::api::http::filters::SLICES;
use crate::api::http::{ApiError, Code};
use crate::api::state::{App, Shared};

/// Kinds of slices of images: all but the last one, which is of a metric.
const KINDS: &[&str] = SLICES.split_at(SLICES.len() - 1).0;

/// Rows of a page, whatever is requested: each has up to six images.
const ROWS: u32 = 20;

/// Runs to choose from.
const CHOICES: u32 = 40;

/// Relations and sizes that the form offers.
const RELATIONS: [&str; 3] = ["interaction", "location", "none"];
const SIZES: [&str; 3] = ["under_512", "512_to_1023", "1024_and_more"];

/// Responds with the page.
pub(super) async fn read(State(app): Shared, address: Address) -> Result<Response, ApiError> {
    let mut address = address;
    address.join("runs");
    address.join("metrics");
    let query = query(&address)?;
    let sort = query.sort;
    let found = gallery::respond(&app, query).await?;
    let choices = choices(&app, &address, &found).await?;
    let mut view = View::new(Section::Gallery, "Gallery", &address).style("runs.css");
    let table = table(&found);
    // The table is a file only: beside the images it would double the page.
    let _ = view.table(&table);
    let content = html! {
        div.title { h1 { "Gallery" } (view.share()) }
        p.lead { "The same prompts and people, side by side." }
        (choices)
        @if found.runs.is_empty() {
            div.card.empty {
                p { "There is no finished run with scores yet. Send one, and it is finished when all its images are scored:" }
                (show::submit())
                p { a href="/runs" { "All runs" } }
            }
        } @else {
            (filters(&address, &found))
            (legend(&found, sort))
            @if found.rows.is_empty() {
                div.card.empty {
                    p {
                        "No row matches. A row needs samples of the same name in at least two of the runs. "
                        a href=(Address::new("/gallery")) { "Start anew" } "."
                    }
                }
            }
            @for row in &found.rows { (self::row(&found, row)) }
            (pager(&address, &found))
            @let csv = address.with(super::address::DOWNLOAD, "csv:gallery");
            p.fine {
                a download href=(csv) { "The scores of this page as CSV" } " · "
                a href=(first_places(&found)) { "How often each of these runs is first" }
            }
        }
    };
    let runs: Vec<_> = found.runs.iter().map(|run| run.id).collect();
    let content = portable::content(view.is_shared(), &app, content, runs).await?;
    view.respond(&app, &content)
}

/// Returns the address of the first places of the same runs.
fn first_places(found: &GalleryResponse) -> Address {
    let runs: Vec<String> = found.runs.iter().map(|run| run.id.to_string()).collect();
    Address::new("/first-places").with("runs", runs.join(","))
}

/// Parses the parameters. `slice` is `KIND:LABEL`, in place of the API's parameter of that kind.
fn query(address: &Address) -> Result<GalleryQuery, ApiError> {
    let mut of_api = address.without("slice");
    if let Some(slice) = address.get("slice") {
        let (kind, label) =
            slice.split_once(':').filter(|(kind, _)| KINDS.contains(kind)).ok_or_else(|| {
                let problem = format!(
                    "`slice` is `{}`: send KIND:LABEL, as in category:sport; the kinds are {}",
                    clip(slice, 80),
                    KINDS.join(", ")
                );
                ApiError::new(Code::MalformedRequest, problem)
            })?;
        of_api = of_api.with(kind, label);
    }
    let mut query: GalleryQuery = of_api.query(&[])?;
    query.limit = Some(query.limit.unwrap_or(ROWS).min(ROWS));
    Ok(query)
}

/// Renders the choice of runs.
async fn choices(
    app: &App,
    address: &Address,
    found: &GalleryResponse,
) -> Result<Markup, ApiError> {
    let listed = show::scored_runs(app, None, CHOICES).await?;
    let is_shown = |id| found.runs.iter().any(|run| run.id == id);
    Ok(html! {
        @if !listed.is_empty() {
            details.choose {
                summary { "Choose runs (at most " (MOST_RUNS) ")" }
                form method="get" action="/gallery" {
                    (show::hidden(address, &["runs", "offset"]))
                    ul.checks {
                        @for run in &listed {
                            li {
                                label {
                                    input type="checkbox" name="runs" value=(run.run_id) checked[is_shown(run.run_id)];
                                    " " bdi { (clip(&run.method, 40)) } " / " bdi { (clip(&run.run, 40)) }
                                    @if let Some(dataset) = &run.dataset {
                                        " " span.fine { bdi { (clip(dataset, 30)) } }
                                    }
                                }
                            }
                        }
                    }
                    button { "Show these runs" }
                }
            }
        }
    })
}

fn filters(address: &Address, found: &GalleryResponse) -> Markup {
    let slice = address.get("slice").unwrap_or_default();
    let option = |kind: &str, label: &str| {
        let value = format!("{kind}:{label}");
        html! {
            option value=(value) selected[value == slice] {
                (clip(&show::slice_label(kind, label), 60))
            }
        }
    };
    html! {
        form.filters data-auto method="get" action="/gallery" {
            (show::hidden(address, &["slice", "identity", "sort", "question", "offset"]))
            label {
                "Order of the rows"
                select name="sort" {
                    @for (word, label) in [
                        ("name", "By name"),
                        ("disagreement", "Metrics disagree most"),
                        ("people", "Metrics disagree with people"),
                    ] {
                        option value=(word) selected[address.get("sort") == Some(word)] { (label) }
                    }
                }
            }
            label {
                "Slice"
                select name="slice" {
                    option value="" { "All samples" }
                    optgroup label="Category" {
                        @for label in found.categories.iter().take(100) { (option("category", label)) }
                    }
                    optgroup label="Kind of prompt" {
                        @for label in found.prompt_kinds.iter().take(50) { (option("prompt_kind", label)) }
                    }
                    optgroup label="Relation in the prompt" {
                        @for label in RELATIONS { (option("relation", label)) }
                    }
                    optgroup label="Attribute of the person" {
                        @for name in found.attributes.iter().take(60) {
                            (option("attribute", name))
                            (option("attribute", &format!("!{name}")))
                        }
                    }
                    optgroup label="Size of the image" {
                        @for label in SIZES { (option("size", label)) }
                    }
                }
            }
            label {
                "Person"
                input type="search" name="identity" list="people" autocomplete="off"
                    value=(address.get("identity").unwrap_or_default());
                (show::names("people", found.identities.iter().map(|name| &**name)))
            }
            @if address.get("sort") == Some("people") {
                label {
                    "Question to people"
                    input name="question" value=(address.get("question").unwrap_or("overall"));
                }
            }
            button { "Apply" }
        }
    }
}

fn legend(found: &GalleryResponse, sort: GallerySort) -> Markup {
    html! {
        p {
            (number::count(found.total as u64)) " rows of samples with the same name"
            @if let Some(dataset) = &found.dataset { " over " bdi { (clip(dataset, 60)) } }
            ". Under each image there is a dot for each metric: "
            strong { "filled where this metric ranks the image first in its row" }
            ", by the scores as measured."
        }
        ul.metrics.dots {
            @for code in &found.metrics { li { b {} " " (show::metric(code)) } }
        }
        @match sort {
            GallerySort::Name => {}
            GallerySort::Disagreement => p.fine {
                "Disagreement: for each pair of images in a row, every metric prefers one. 0 means that all \
                    metrics prefer the same image in each pair; 1 means that they are divided as evenly as \
                    possible. Metrics that measure different things may disagree and both be right."
            },
            GallerySort::People => p.fine {
                "Disagreement with people: the share of metrics that prefer the image that a person did \
                    not prefer, over all judgements of the row; a metric without a preference counts half. \
                    Rows without judgements come last."
            },
        }
        @let without: Vec<_> = found.runs.iter().filter(|run| !run.has_scores).collect();
        @if let Some(pack) = &found.pack && !without.is_empty() {
            p.note.warn {
                "Without dots, because they have no scores of the pack " (pack.name) ": "
                @for run in without { (show::run_name(&run.method, &run.run)) " " }
            }
        }
    }
}

fn row(found: &GalleryResponse, row: &GalleryRowEntry) -> Markup {
    html! {
        section.row.card {
            h2 {
                @match &row.prompt {
                    Some(prompt) => bdi { (clip(prompt, 200)) },
                    None => bdi { (clip(&row.name, 120)) },
                }
            }
            p.fine {
                @if let Some(identity) = &row.identity { "Person " bdi { (clip(identity, 60)) } " · " }
                "sample " bdi { (clip(&row.name, 60)) }
                @if let Some(share) = row.disagreement { " · disagreement " (number::rounded(share, 2)) }
                @if let Some(share) = row.against_people {
                    " · disagreement with people " (number::rounded(share, 2)) " (" (row.votes) " judgements)"
                }
            }
            @if row.prompts_differ {
                p.warn { "The images of this row have different prompts, so the row does not compare like with like." }
            }
            div class=(format!("images n{}", found.runs.len() + usize::from(row.reference.is_some()))) {
                @if let Some(hash) = &row.reference {
                    figure.sample.person {
                        (images::image(hash, "The person, as given to the generators"))
                        figcaption { "The person" }
                    }
                }
                @for (run, image) in found.runs.iter().zip(&row.images) {
                    @let caption = html! {
                        bdi { (clip(&run.method, 30)) }
                        @if found.runs.iter().filter(|each| each.method == run.method).count() > 1 {
                            " / " bdi { (clip(&run.run, 30)) }
                        }
                        @if let Some(image) = image { (dots(&found.metrics, image)) }
                    };
                    @let alt = format!("Image by {}", clip(&run.method, 30));
                    (show::sample(&alt, image.as_ref().map(|image| &image.brief), &caption))
                }
            }
        }
    }
}

/// Renders a dot for each metric: `b` is filled, `i` is not, and `s` stands for no score.
fn dots(metrics: &[String], image: &GalleryImage) -> Markup {
    let words = match &image.first[..] {
        [] => "First in no metric".to_owned(),
        first => format!("First in {}", first.join(", ")),
    };
    html! {
        span.dots role="img" aria-label=(words) title=(words) {
            @for code in metrics {
                @if image.first.contains(code) { b {} }
                @else if image.scores.contains_key(code) { i {} }
                @else { s {} }
            }
        }
    }
}

fn pager(address: &Address, found: &GalleryResponse) -> Markup {
    let offset: usize = address.get("offset").and_then(|at| at.parse().ok()).unwrap_or_default();
    html! {
        nav.pager aria-label="Pages of rows" {
            @if offset > 0 {
                @let before = offset.saturating_sub(ROWS as usize);
                a.button href=(address.with("offset", before)) { "Previous rows" }
            }
            @if !found.rows.is_empty() {
                span.fine { "Rows " (offset + 1) " to " (offset + found.rows.len()) " of " (found.total) }
            }
            @if let Some(next) = found.next { a.button href=(address.with("offset", next)) { "Next rows" } }
        }
    }
}

fn table(found: &GalleryResponse) -> Table {
    let mut columns = vec![Column::text("name"), Column::text("method"), Column::text("run")];
    columns.extend(found.metrics.iter().map(Column::number));
    let mut rows: Vec<Row> = Vec::new();
    for row in &found.rows {
        for (run, image) in found.runs.iter().zip(&row.images) {
            let Some(image) = image else { continue };
            let mut cells =
                vec![Cell::text(&row.name), Cell::text(&run.method), Cell::text(&run.run)];
            cells.extend(found.metrics.iter().map(|code| {
                let score = image.scores.get(code).copied();
                Cell::number(score, score.map(number::plain).unwrap_or_default())
            }));
            rows.push(cells.into());
        }
    }
    Table { name: "gallery", caption: "Scores of the gallery".to_owned(), columns, rows }
}
