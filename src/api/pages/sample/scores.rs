//! The table of all scores of a sample.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::super::{
    number,
    table::{Cell, Column, Row, Table},
    view::View,
};
use super::words;
use crate::analysis::Place;
use crate::api::samples::{SampleResponse, StoredScore};
use crate::api::state::App;
use crate::metrics::{self, Direction, Metric, REGISTRY, Subject};

/// Renders the table, the loaded pack's scores first, and what its flags and columns mean.
pub(super) fn table(view: &mut View, sample: &SampleResponse, loaded: &str) -> Markup {
    if sample.scores.is_empty() {
        return html! {
            div.card.empty {
                p { "This sample has no scores: the pack could compute none of its metrics." }
                p { a href="/metrics-guide" { "What each metric needs" } }
            }
        };
    }
    let mut scores: Vec<&StoredScore> = sample.scores.iter().collect();
    let place = |code: &str| REGISTRY.iter().position(|metric| metric.code == code);
    scores.sort_by_key(|score| {
        let at = place(&score.metric).unwrap_or(usize::MAX);
        (score.pack.digest != loaded, score.pack.digest.clone(), at)
    });
    let has_packs = scores.iter().any(|score| score.pack.digest != scores[0].pack.digest);
    let has_places = scores.iter().any(|score| score.place.is_some());
    let mut columns = vec![Column::text("Metric"), Column::number("Score")];
    if has_places {
        columns.push(Column::number("Better than"));
    }
    columns.push(Column::text("Notes"));
    if has_packs {
        columns.push(Column::text("Pack"));
    }
    let rows = scores.iter().map(|score| row(score, has_places, has_packs)).collect();
    let population = scores.iter().filter_map(|score| score.place).map(|of| of.population).max();
    let table = Table { name: "scores", caption: "Scores".to_owned(), columns, rows };
    html! {
        (view.table(&table))
        p.fine {
            @match population {
                Some(population) => {
                    "“Better than” compares with up to " (number::count(population))
                    " scores of all finished runs with the same pack, within about half a percent. \
                        One image says little about a method: "
                    a href="/leaderboard" { "leaderboards" } " are means over many."
                }
                None => {
                    "Once a run is finished, each score also says how many of that run's it beats. "
                    a href="/runs" { "Runs" }
                }
            }
        }
        (flags(&scores))
    }
}

fn row(score: &StoredScore, has_places: bool, has_packs: bool) -> Row {
    let metric = metrics::find(&score.metric);
    let mut cells = vec![
        Cell::text(score.metric.clone()).shown(name(score, metric)).head(),
        Cell::number(score.value, score.value.map_or_else(|| "none".to_owned(), number::plain)),
    ];
    if has_places {
        cells.push(better(score));
    }
    cells.push(notes(score));
    if has_packs {
        let pack = &score.pack;
        let digest: String = pack.digest.chars().take(8).collect();
        cells.push(
            Cell::text(pack.digest.clone()).shown(html! { (pack.name) " " code.fine { (digest) } }),
        );
    }
    Row { class: if score.value.is_none() { "null" } else { "" }, cells }
}

fn name(score: &StoredScore, metric: Option<&Metric>) -> Markup {
    let code = &score.metric;
    let Some(metric) = metric else { return html! { code { (code) } } };
    html! {
        a href=(format!("/metrics-guide#{code}")) { (metric.title) } " " code.fine { (code) }
        details.meaning {
            summary { "What it means" }
            p { (metric.definition) }
            p { (metric.interpretation) }
        }
    }
}

/// The share of scores that this one beats, with a bar.
fn better(score: &StoredScore) -> Cell {
    let Some(Place { percentile, better_than, population }) = score.place else {
        let is_supporting = metrics::find(&score.metric)
            .is_some_and(|metric| metric.direction == Direction::Support);
        let shown = if is_supporting { "not ranked" } else { "—" };
        return Cell::text("").shown(html! { span.fine { (shown) } });
    };
    let share = better_than.unwrap_or(percentile);
    let label = match better_than {
        Some(share) => format!("{share:.0} %"),
        None => format!("above {percentile:.0} %"),
    };
    Cell::text(share.to_string()).shown(html! {
        span title=(format!("of {} scores", number::count(population))) { (label) }
        @if better_than.is_some() {
            svg.place viewBox="0 0 60 8" width="60" height="8" aria-hidden="true" {
                rect.track width="60" height="8" rx="2" {}
                rect.share width=(format!("{:.1}", share * 0.6)) height="8" rx="2" {}
            }
        }
    })
}

fn notes(score: &StoredScore) -> Cell {
    if let Some(code) = &score.reason {
        let (why, help) = words::reason(code);
        return Cell::text(code.clone()).shown(html! {
            span { "No number: " (why) "." }
            @if let Some(help) = help { br; span.fine { "To get one: " (help) "." } }
        });
    }
    Cell::text(score.flags.join(" ")).shown(html! {
        @for code in &score.flags { span.tag.warn { (words::flag(code).0) } " " }
    })
}

/// Lists the metrics without a score, and says why.
pub(super) fn unmeasured(app: &App, sample: &SampleResponse) -> Markup {
    let missing: Vec<_> = REGISTRY
        .iter()
        .filter(|metric| sample.scores.iter().all(|score| score.metric != metric.code))
        .collect();
    if missing.is_empty() || sample.image.is_none() {
        return html! {};
    }
    let why = |metric: &Metric| {
        let graphs = app.scoring.missing_graphs(metric);
        if !graphs.is_empty() {
            format!("the loaded pack lacks {}", graphs.join(", "))
        } else if metric.needs.iter().any(|need| need.of == Subject::Dataset) {
            "no dataset with labelled photos was named in the metadata".to_owned()
        } else {
            "it was not requested".to_owned()
        }
    };
    html! {
        details.unmeasured {
            summary {
                (missing.len()) @if missing.len() == 1 { " metric was" } @else { " metrics were" }
                " not measured"
            }
            dl.facts {
                @for metric in missing {
                    dt {
                        a href=(format!("/metrics-guide#{}", metric.code)) { (metric.title) }
                        " " code.fine { (metric.code) }
                    }
                    dd { (why(metric)) }
                }
            }
        }
    }
}

/// Explains the flags that occur.
fn flags(scores: &[&StoredScore]) -> Markup {
    let known: BTreeMap<String, &'static str> =
        scores.iter().flat_map(|score| &score.flags).map(|code| words::flag(code)).collect();
    html! {
        @if !known.is_empty() {
            dl.facts.flags {
                @for (short, long) in &known {
                    dt { span.tag.warn { (short) } } dd { (long) }
                }
            }
        }
    }
}
