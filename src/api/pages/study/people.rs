//! The annotators of one study, and who is left out.

use maud::{Markup, html};

use crate::api::pages::{
    number,
    table::{Cell, Column, Table},
    view::View,
};
use crate::api::studies::{AnnotatorProgress, ProgressResponse};

/// Maximum number of annotators that are shown.
const MOST: usize = 40;

pub(super) fn section(view: &mut View, of: &ProgressResponse) -> Markup {
    let mut named: Vec<&AnnotatorProgress> = of.annotators.iter().collect();
    named.sort_by(|a, b| b.answers.cmp(&a.answers).then_with(|| a.annotator.cmp(&b.annotator)));
    let all = named.len();
    named.truncate(view.most(MOST));
    let has_gold = of.study.plan.gold.is_some();
    let can_change = !view.is_shared();
    let row = |each: &&AnnotatorProgress| {
        let count = |count: u64| Cell::number(Some(count as f64), number::count(count));
        let reason = each.excluded.as_deref();
        let mut cells = vec![
            Cell::text(&*each.annotator).shown(html! { bdi { (each.annotator) } }).head(),
            count(each.answers),
        ];
        if has_gold {
            cells.extend([count(each.gold), count(each.gold_right)]);
        }
        cells.extend([
            Cell::text(match (reason, each.by_operator) {
                (None, _) => "counted",
                (Some(_), true) => "left out",
                (Some(_), false) => "left out by gold items",
            }),
            Cell::text(reason.unwrap_or_default()).shown(html! {
                bdi { (reason.unwrap_or_default()) }
                @if can_change { (change(of, each)) }
            }),
        ]);
        cells.into()
    };
    let mut columns = vec![Column::text("annotator"), Column::number("answers")];
    if has_gold {
        columns.extend([Column::number("about gold items"), Column::number("of them right")]);
    }
    columns.extend([Column::text("state"), Column::text("reason")]);
    let table = Table {
        name: "annotators",
        caption: "Annotators".to_owned(),
        columns,
        rows: named.iter().map(row).collect(),
    };
    let gold: u64 = of.annotators.iter().map(|each| each.gold).sum();
    html! {
        h2 #annotators { "The annotators" }
        @if named.is_empty() {
            p { "Nobody has answered yet." }
        } @else {
            p {
                "These are all answers, to all questions, with “cannot tell”. "
                @if gold > 0 {
                    (number::count(gold)) " of them "
                    @if gold == 1 { "is about a gold item" } @else { "are about gold items" }
                    " and count in no result. "
                }
                "Answers of annotators who are left out stay, and no analysis counts them."
            }
            (view.table(&table))
            @if all > named.len() {
                p.fine { "The " (named.len()) " with the most answers, of " (all) "." }
            }
        }
    }
}

/// Renders the form that leaves an annotator out, or counts one again.
fn change(of: &ProgressResponse, each: &AnnotatorProgress) -> Markup {
    let name = &each.annotator;
    let (path, label) = if each.by_operator {
        ("/study/include", "Count again")
    } else {
        ("/study/exclude", "Leave out")
    };
    html! {
        form.row method="post" action=(path) {
            input type="hidden" name="study" value=(of.study.id);
            input type="hidden" name="annotator" value=(name);
            @if !each.by_operator {
                input type="text" name="reason" required maxlength="256" placeholder="Reason"
                    aria-label=(format!("Reason to leave out {name}"));
            }
            button aria-label=(format!("{label}: {name}")) { (label) }
        }
    }
}
