//! What the prompts of a dataset ask for.

use maud::{Markup, html};

use crate::api::datasets::composition::{CompositionResponse, LabelCount};
use crate::api::http::encode;
use crate::api::pages::{
    number,
    table::{Cell, Column, Table},
    view::View,
};

/// Maximum number of labels of a list that are shown.
const MOST: usize = 25;

pub(super) fn section(view: &mut View, dataset: &str, of: &CompositionResponse) -> Markup {
    if of.prompts == 0 {
        return html! {
            h2 #prompts { "Prompts" }
            p { "No prompt is registered. " code { "stellar-score dataset register FOLDER" } " sends \
                the prompts of a folder with its photos." }
        };
    }
    let most = view.most(MOST);
    let mut list = |name, label: &'static str, labels: &[LabelCount], without: usize| {
        if labels.is_empty() {
            return html! { div { h3 { (label) } p.fine { "No prompt has any." } } };
        }
        let hidden = labels.len().saturating_sub(most);
        html! {
            div {
                h3 { (label) }
                (view.table(&table(name, label, &labels[..labels.len().min(most)], of.prompts)))
                p.fine {
                    @if hidden > 0 { (number::count(hidden as u64)) " more are in the downloads. " }
                    @if without > 0 { (number::count(without as u64)) " prompts have none." }
                }
            }
        }
    };
    html! {
        h2 #prompts { "What the prompts ask for" }
        p {
            "A prompt counts once for each of its labels, so columns may add up to more than "
            (number::count(of.prompts as u64)) ". "
            a href=(format!("/v1/datasets/{}/composition", encode(dataset))) { "All counts as JSON" }
            " · "
            a href=(format!("/v1/datasets/{}/prompts", encode(dataset))) { "The prompts" }
        }
        div.columns {
            (list("kinds", "Kind", &of.kinds, of.without_kind))
            (list("categories", "Category", &of.categories, of.without_category))
            (list("objects", "Object", &of.objects, of.without_objects))
            (list("relations", "Relation", &of.relations, of.without_relations))
        }
    }
}

fn table(name: &'static str, label: &str, labels: &[LabelCount], prompts: usize) -> Table {
    let row = |of: &LabelCount| {
        let share = of.prompts as f64 / prompts as f64;
        vec![
            Cell::text(&*of.label).shown(html! { bdi { (of.label) } }).head(),
            Cell::number(Some(of.prompts as f64), number::count(of.prompts as u64)),
            Cell::number(Some(share), number::percent(share)).shown(html! {
                svg.share viewBox="0 0 100 8" width="100" height="8" aria-hidden="true" {
                    rect.whole width="100" height="8" rx="4" {}
                    rect.part width=(number::rounded(share * 100.0, 1)) height="8" rx="4" {}
                }
                " " (number::percent(share))
            }),
        ]
        .into()
    };
    Table {
        name,
        caption: format!("Prompts by {}", label.to_lowercase()),
        columns: vec![
            Column::text(label.to_lowercase()),
            Column::number("prompts"),
            Column::number("share"),
        ],
        rows: labels.iter().map(row).collect(),
    }
}
