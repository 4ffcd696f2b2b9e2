//! The annotators one by one.

use maud::{Markup, html};

use crate::analysis::{AnnotatorVoting, Proportion};
use crate::api::analysis::alignment::PreferencesResponse;
use crate::api::pages::{
    address::Address,
    number,
    table::{Cell, Column, Table},
    view::View,
};

/// Maximum number of annotators that are shown.
const MOST: usize = 40;

pub(super) fn section(view: &mut View, of: &PreferencesResponse, address: &Address) -> Markup {
    let mut annotators: Vec<&AnnotatorVoting> = of.voting.annotators.iter().collect();
    annotators.sort_by(|a, b| b.votes.cmp(&a.votes).then_with(|| a.annotator.cmp(&b.annotator)));
    let all = annotators.len();
    annotators.truncate(view.most(MOST));
    let row = |of: &&AnnotatorVoting| {
        let count = |count: usize| Cell::number(Some(count as f64), count.to_string());
        let name = address.with("annotator", &of.annotator);
        vec![
            Cell::text(&*of.annotator)
                .shown(html! { a href=(name) { bdi { (of.annotator) } } })
                .head(),
            count(of.votes),
            count(of.ties),
            count(of.cannot_tell),
            share(&of.consistency, "no repeats"),
            count(of.consistency.of),
            share(&of.first, "sides not known"),
        ]
        .into()
    };
    let table = Table {
        name: "annotators",
        caption: "Annotators".to_owned(),
        columns: vec![
            Column::text("annotator"),
            Column::number("votes"),
            Column::number("ties"),
            Column::number("cannot tell"),
            Column::number("same answer again"),
            Column::number("repeated pairs"),
            Column::number("preferences for the left"),
        ],
        rows: annotators.iter().map(row).collect(),
    };
    html! {
        h2 #annotators { "The annotators" }
        @if annotators.is_empty() {
            p { "There are ratings only. Consistency and position are about votes." }
        } @else {
            p { "Few repeats say little about one person: read the brackets. Somebody who answers left \
                or right at random gives the same answer again half of the time." }
            (view.table(&table))
            @if all > annotators.len() {
                p.fine { "The " (annotators.len()) " with the most votes, of " (all) ". The \
                downloads have all of them." }
            }
        }
    }
}

fn share(of: &Proportion, missing: &str) -> Cell {
    let shown = match (of.share, of.low.zip(of.high)) {
        (Some(share), Some((low, high))) => {
            let of = |share| number::rounded(share * 100.0, 0);
            format!("{} % [{}, {}]", of(share), of(low), of(high))
        }
        _ => missing.to_owned(),
    };
    Cell::number(of.share, shown)
}
