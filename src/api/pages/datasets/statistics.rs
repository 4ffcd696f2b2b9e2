//! Words, tokens, parts of speech and objects of the prompts of a dataset.

use maud::{Markup, html};

use crate::api::datasets::statistics::StatisticsResponse;
use crate::api::http::encode;
use crate::api::pages::{address::Address, number, view::View};
use crate::figures::statistics::table;

/// Renders the section, or else a link to it: all prompts are read for it.
pub(super) fn section(
    view: &mut View,
    address: &Address,
    of: Option<&StatisticsResponse>,
) -> Markup {
    let Some(of) = of else {
        let to = format!("{}#statistics", address.with("statistics", "true"));
        return html! {
            @if !view.is_shared() { p { a href=(to) { "How long are the prompts?" } } }
        };
    };
    if of.statistics.is_empty() {
        return html! { h2 #statistics { "How long the prompts are" } p { "There are no prompts." } };
    }
    let path = format!("/v1/datasets/{}/statistics", encode(&of.dataset));
    html! {
        h2 #statistics { "How long the prompts are" }
        p {
            "Sums, means, medians and maxima over prompts, and over people of the sum over each \
             person's prompts. Words and tokens have “a person” for the person. Tokens are those of \
             CLIP without start and end. Verbs and prepositions are those that the parser of \
             relations finds. "
            a href=(path) { "All numbers as JSON" }
        }
        (view.table(&table(&of.statistics)))
        @if !of.published.is_empty() {
            h3 { "Beside the published figures" }
            ul {
                @for figure in &of.published {
                    li {
                        "Different " (figure.quantity.word()) " of kind " bdi { (figure.kind) } ": "
                        @match figure.found {
                            Some(found) => {
                                (number::count(found as u64)) " found, "
                                (number::count(figure.published as u64)) " published"
                                @if found == figure.published { ", the same" } @else { ", which differs" }
                            }
                            None => {
                                "no prompt of this kind, " (number::count(figure.published as u64))
                                " published"
                            }
                        }
                        "."
                    }
                }
            }
            p.fine { "The authors may have counted with another tagger." }
        }
    }
}
