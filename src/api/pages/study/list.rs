//! The studies of the service.

use maud::{Markup, html};

use crate::api::pages::{
    address::Address,
    table::{Cell, Column, Table},
    view::View,
};
use crate::api::studies::StudyResponse;
use crate::store::StudyForm;

pub(super) fn section(view: &mut View, studies: &[StudyResponse], more: bool) -> Markup {
    let row = |of: &StudyResponse| {
        let count = |count: usize| Cell::number(Some(count as f64), count.to_string());
        let to = Address::new("/study").with("study", of.id);
        vec![
            Cell::text(&*of.plan.title)
                .shown(html! { a href=(to) { bdi { (of.plan.title) } } })
                .head(),
            Cell::text(of.state.as_str()),
            Cell::text(form(of)),
            count(of.plan.runs.len()),
            Cell::text(of.plan.questions.join(", ")),
            Cell::text(of.created.date().to_string()),
        ]
        .into()
    };
    let table = Table {
        name: "studies",
        caption: "Studies".to_owned(),
        columns: vec![
            Column::text("study"),
            Column::text("state"),
            Column::text("form"),
            Column::number("methods"),
            Column::text("questions"),
            Column::text("created"),
        ],
        rows: studies.iter().map(row).collect(),
    };
    let new = Address::new("/study").with("new", "true");
    html! {
        h2 #studies { "Studies" }
        @if studies.is_empty() {
            p { "A study asks chosen questions about chosen prompts and methods, with a quota, known \
                answers and exclusions. There is none yet." }
        } @else {
            p { "The result of a study is on its page. What is below is about all votes together, in \
                studies and outside." }
            (view.table(&table))
            @if more { p.fine { "The newest ones. GET /v1/studies lists all." } }
        }
        @if !view.is_shared() { p { a.button href=(new) { "New study, or: how many answers?" } } }
    }
}

/// Returns the form of a study in words.
pub(super) fn form(of: &StudyResponse) -> String {
    match of.plan.form {
        StudyForm::Pairs => "pairs".to_owned(),
        StudyForm::BestOf => format!("best of {}", of.images),
    }
}
