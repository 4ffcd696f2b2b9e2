//! The table of the leaderboard, its legend, and what each column means.

use maud::{Markup, PreEscaped, html};

use super::cells::{self, Measure};
use super::page::{Page, group_name, in_groups};
use super::{area, published};
use crate::api::analysis::leaderboard::{LeaderboardResponse, Row as BoardRow};
use crate::api::analysis::published::PublishedCell;
use crate::api::pages::address::Address;
use crate::api::pages::table::{Cell, Column, Order, Row, Table};
use crate::api::pages::{number, show};
use crate::metrics::{Direction, Metric};
use crate::pack_id::{PackId, Weights};
use crate::store::APS_AREA;

/// Returns the table of a page.
pub(super) fn table(page: &Page, response: &LeaderboardResponse, metrics: &[&Metric]) -> Table {
    let has_ends = page.address.get("intervals").is_some();
    let measures: Vec<Measure> =
        metrics.iter().map(|metric| Measure::of(metric, response, has_ends)).collect();
    let marks: Vec<bool> =
        metrics.iter().map(|metric| cells::marks_first(metric, response)).collect();
    let rows = in_groups(response);
    let has_groups = rows.iter().any(|(group, _)| *group > 0);
    let has_packs = response.rows.iter().any(|row| row.pack != response.rows[0].pack);
    let mut last = 0;
    let mut all: Vec<Row> = rows
        .into_iter()
        .map(|(group, row)| {
            let begins = std::mem::replace(&mut last, group) != group;
            let class = match (begins, group) {
                (true, _) => "begins apart",
                (false, 0) => "",
                (false, _) => "apart",
            };
            let mut cells = vec![name_cell(page, row, has_packs)];
            if has_groups {
                cells.push(group_cell(row, group));
            }
            cells.extend(facts(row));
            for ((metric, measure), is_marked) in metrics.iter().zip(&measures).zip(&marks) {
                let of = row.metrics.get(metric.code);
                cells.push(measure.cell(of));
                if metric.direction != Direction::Support {
                    cells.push(cells::rank_cell(of, *is_marked));
                }
                if area::is_shown(metric, response) {
                    cells.push(area::cell(of));
                }
            }
            Row { class, cells }
        })
        .collect();
    all.extend(published_rows(response, metrics, &measures, has_groups));
    Table {
        name: "leaderboard",
        caption: "Leaderboard".to_owned(),
        columns: columns(page, response, metrics, has_groups),
        rows: all,
    }
}

fn columns(
    page: &Page,
    response: &LeaderboardResponse,
    metrics: &[&Metric],
    has_groups: bool,
) -> Vec<Column> {
    let by_name = head(page, "name", "Method");
    let mut columns = vec![sorted(Column::text("Method").head(by_name), page, "name", false)];
    if has_groups {
        columns.push(Column::text("Group"));
    }
    columns.push(Column::text("Images"));
    columns.push(Column::text("Penalised"));
    let by_mean_rank = html! {
        (head(page, "mean_rank", "Mean rank"))
        br; span.fine { "lower is better" }
    };
    columns.push(sorted(Column::text("Mean rank").head(by_mean_rank), page, "mean_rank", false));
    for metric in metrics {
        let label = metric.guide.label();
        let descending = metric.direction != Direction::LowerIsBetter;
        let shown = html! {
            (head(page, metric.code, &label))
            @if !page.is_shared {
                " " button.about type="button" popovertarget=(about(metric))
                    aria-label=(format!("About {label}")) { "?" }
            }
            small { (cells::better(metric)) }
        };
        columns.push(sorted(Column::text(&label).head(shown), page, metric.code, descending));
        if metric.direction != Direction::Support {
            let rank = format!("{} rank", metric.guide.short);
            let shown = html! { "Rank" span.hidden { " in " (label) } };
            columns.push(Column::text(rank).head(shown));
        }
        if area::is_shown(metric, response) {
            columns.push(area::column(metric));
        }
    }
    columns
}

/// Renders the head of a column as a link that sorts by it.
fn head(page: &Page, sort: &str, label: &str) -> Markup {
    html! {
        @if page.is_shared { (label) } @else {
            a href=(page.address.with("sort", sort)) { (label) }
        }
    }
}

fn sorted(column: Column, page: &Page, sort: &str, descending: bool) -> Column {
    let order = if descending { Order::Descending } else { Order::Ascending };
    Column { sorted: (page.sort == sort).then_some(order), ..column }
}

fn about(metric: &Metric) -> String {
    format!("about-{}", metric.code)
}

fn name_cell(page: &Page, row: &BoardRow, has_packs: bool) -> Cell {
    let to = match &row.runs[..] {
        [run] => Address::new(format!("/runs/{run}")),
        _ if row.method.len() <= show::LINKED => show::method_page(&row.method),
        _ => Address::new("/runs").with("method", &row.method),
    };
    let name = html! { bdi { (row.method) } };
    let tags = html! { (tags(row)) @if has_packs { (pack_tag(&row.pack)) } };
    let is_as_shown = tags.0.is_empty();
    let shown = html! {
        @if page.is_shared { (name) } @else { a href=(to) { (name) } }
        @if let Some(run) = &row.run { " / " bdi { (run) } }
        (tags)
    };
    let value = match &row.run {
        Some(run) => format!("{} / {run}", row.method),
        None => row.method.clone(),
    };
    Cell { is_as_shown, ..Cell::text(value).shown(shown).head() }
}

/// Renders what a reader must know before comparing a row with others.
fn tags(row: &BoardRow) -> Markup {
    let few = row.metrics.values().any(|of| of.few_clusters == Some(true));
    html! {
        @if row.runs.len() > 1 && row.run.is_none() {
            " " span.tag { (number::count(row.runs.len() as u64)) " runs" }
        }
        @for (flag, _) in row.flags.iter().filter(|(_, is_set)| **is_set) {
            " " span.tag.warn { (flag.replace('_', " ")) }
        }
        @if few { " " span.tag.warn { "few people" } }
    }
}

fn pack_tag(pack: &PackId) -> Markup {
    html! {
        @match pack.weights {
            Weights::Official => { " " span.tag { "pack " bdi { (pack.name) } } }
            Weights::Demo => { " " span.tag.warn { "demo weights" } }
            Weights::Imported => { " " span.tag { "imported: " bdi { (pack.name) } } }
        }
    }
}

fn group_cell(row: &BoardRow, group: usize) -> Cell {
    match row.sample_set {
        Some(_) => Cell::text(group_name(group)),
        None => Cell::text("pending"),
    }
}

fn facts(row: &BoardRow) -> [Cell; 3] {
    let percent = |rate| if rate == 0.0 { "0 %".to_owned() } else { number::percent(rate) };
    let penalised = cells::penalty_rate(row).map(percent);
    let mean_rank = row.mean_rank.map(|mean| number::rounded(mean, 1));
    let as_shown =
        |text: Option<String>| Cell { is_as_shown: true, ..Cell::text(text.unwrap_or_default()) };
    let samples = cells::samples(row);
    // Sorted by its digits, which the text separates.
    let samples = Cell::number(Some(samples as f64), number::count(samples));
    [samples, as_shown(penalised), as_shown(mean_rank)]
}

/// Returns the rows that others published: without intervals and ranks, and marked.
fn published_rows(
    response: &LeaderboardResponse,
    metrics: &[&Metric],
    measures: &[Measure],
    has_groups: bool,
) -> Vec<Row> {
    let rows = response.published.iter().flat_map(|published| &published.rows);
    rows.enumerate()
        .map(|(at, row)| {
            let shown = html! {
                bdi { (row.method) } " "
                span.tag.warn { "published, not measured here: " bdi { (row.dataset) } }
                @for (flag, _) in row.flags.iter().filter(|(_, is_set)| **is_set) {
                    " " span.tag.warn { (flag.replace('_', " ")) }
                }
            };
            let value = format!("{} (published, {})", row.method, row.dataset);
            let mut cells = vec![Cell::text(value).shown(shown).head()];
            cells.extend((0..3 + usize::from(has_groups)).map(|_| Cell::default()));
            for (metric, measure) in metrics.iter().zip(measures) {
                let number = |of: &PublishedCell| measure.published(of.mean);
                cells.push(published::cell(row.metrics.get(metric.code), number));
                if metric.direction != Direction::Support {
                    cells.push(Cell::default());
                }
                if area::is_shown(metric, response) {
                    let number = |of: &PublishedCell| number::rounded(of.mean, 3);
                    cells.push(published::cell(row.metrics.get(APS_AREA), number));
                }
            }
            Row { class: if at == 0 { "begins published" } else { "published" }, cells }
        })
        .collect()
}

/// Renders the meaning of the words and marks in the table, as far as they occur.
pub(super) fn legend(page: &Page, response: &LeaderboardResponse, metrics: &[&Metric]) -> Markup {
    let all = || response.rows.iter().flat_map(|row| row.metrics.values());
    let has = |word: &str| {
        all().any(|of| {
            cells::no_interval(of) == Some(word)
                || of.numbers.mean.is_none() && cells::no_number(of) == word
        })
    };
    let codes = response.rows.iter().flat_map(|row| row.metrics.keys());
    let codes: std::collections::BTreeSet<_> = codes.collect();
    let is_missing = response.rows.iter().any(|row| row.metrics.len() < codes.len());
    let entries = [
        (
            is_missing,
            "not measured",
            "The row has no score of this metric, or too few for the chosen \
            part of the images.",
        ),
        (
            has("no scores"),
            "no scores",
            "Every image was measured, and none has a number: see the \
            reasons on the page of the run.",
        ),
        (
            has("undecided"),
            "undecided",
            "Without the scores clip_t and clip_n the penalty cannot be \
            decided. Choose the policy none to see the scores as measured.",
        ),
        (
            has("pending"),
            "pending",
            "The run changed within the last seconds. Reload the page for its \
            interval, rank and penalty.",
        ),
        (
            has("one person"),
            "one person",
            "Images of one person tell nothing about others, so that \
            there is no interval and no rank.",
        ),
        (
            has("no spread"),
            "no spread",
            "All people have the same number, so that there is no \
            interval and no rank.",
        ),
        (
            all().any(cells::is_partial),
            "80 %",
            "A percentage beside a number is the share of the \
            images that have one. The mean leaves the others out.",
        ),
    ];
    let area = metrics.iter().any(|metric| area::is_shown(metric, response));
    let few = all().any(|of| of.few_clusters == Some(true));
    let ends = page.address.get("intervals").is_some();
    html! {
        @if !page.is_shared {
            p.fine {
                "Select and paste the table into a spreadsheet, or use its buttons. "
                @if ends {
                    a href=(page.address.without("intervals")) { "Show intervals as bars" }
                } @else {
                    a href=(page.address.with("intervals", "numbers")) { "Show intervals as numbers" }
                }
            }
        }
            dl.legend {
                dt { "Mean rank" }
                dd {
                    "The average of a row's places in all ranked metrics, 1 for the best. A missing metric \
                     counts as the last place. Small differences mean little."
                }
                @for (_, word, meaning) in entries.iter().filter(|(occurs, ..)| *occurs) {
                    dt { (word) } dd { (meaning) }
                }
                @if area {
                    dt { (area::NAME) }
                    dd { (area::MEANING) }
                }
                (published::legend(response))
                @if few {
                    dt { "few people" }
                    dd { "Fewer than 8 people are behind a number: its interval may be too narrow." }
                }
            }
        // The mark of the mean in all bars.
        svg.defs aria-hidden="true" width="0" height="0" {
            defs { (PreEscaped(MARK)) }
        }
    }
}

const MARK: &str = "<marker id=\"mean\" markerUnits=\"userSpaceOnUse\" markerWidth=\"2\" \
    markerHeight=\"10\" refX=\"1\" refY=\"5\"><path d=\"M1 0v10\"/></marker>";

/// Renders the explanations of the columns, which open at the heads.
pub(super) fn popovers(page: &Page, metrics: &[&Metric]) -> Markup {
    let codes: Vec<&str> = metrics.iter().map(|metric| metric.code).collect();
    html! {
        @for (at, metric) in metrics.iter().enumerate() {
            div.about popover id=(about(metric)) {
                p { strong { (metric.guide.label()) } " " small { (cells::better(metric)) } }
                p { (metric.guide.question) }
                p.fine {
                    a href=(format!("/metrics-guide#{}", metric.code)) { "Meaning and limits" }
                    // Without a choice these links would name every metric.
                    @if at > 0 && page.chosen.is_some() {
                        @let moved = swapped(&codes, at);
                        " · " a href=(page.address.with("metrics", moved)) { "Move left" }
                    }
                    @if codes.len() > 1 && page.chosen.is_some() && page.sort != metric.code {
                        @let others = without(&codes, at);
                        " · " a href=(page.address.with("metrics", others)) { "Hide" }
                    }
                }
            }
        }
    }
}

fn swapped(codes: &[&str], at: usize) -> String {
    let mut codes = codes.to_vec();
    codes.swap(at - 1, at);
    codes.join(",")
}

fn without(codes: &[&str], at: usize) -> String {
    let mut codes = codes.to_vec();
    codes.remove(at);
    codes.join(",")
}
