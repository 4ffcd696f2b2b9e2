//! Published numbers on the leaderboard: whether they compare with the measured ones, in words.

use std::collections::BTreeMap;

use maud::{Markup, html};

use crate::api::analysis::leaderboard::LeaderboardResponse;
use crate::api::analysis::published::{PublishedCell, Reference};
use crate::api::pages::number;
use crate::api::pages::table::Cell;
use crate::metrics;
use crate::store::APS_AREA;

/// Returns the cell of a published number.
pub(super) fn cell(of: Option<&PublishedCell>, text: impl Fn(&PublishedCell) -> String) -> Cell {
    let Some(of) = of else { return Cell::default() };
    let value = text(of);
    let shown = html! {
        (value)
        @if of.comparable { small { "compares" } } @else { small { "does not compare" } }
    };
    Cell { value, shown: Some(shown), ..Cell::default() }
}

/// Renders why published numbers do not compare, once for each metric.
pub(super) fn legend(response: &LeaderboardResponse) -> Markup {
    let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (code, cell) in response.published.iter().flat_map(|of| &of.rows).flat_map(|of| &of.metrics)
    {
        let Some(explanation) = &cell.explanation else { continue };
        let name = match metrics::find(code) {
            Some(metric) => metric.guide.short.to_owned(),
            None if code == APS_AREA => super::area::NAME.to_owned(),
            None => code.to_uppercase(),
        };
        let names = reasons.entry(explanation).or_default();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let has_published = response.published.as_ref().is_some_and(|of| !of.rows.is_empty());
    html! {
        @if has_published {
            dt { "compares" }
            dd {
                "The published number is defined as the measured ones above it, over the same \
                 benchmark. The paper does not say which checkpoints stand behind it."
            }
        }
        @for (explanation, names) in reasons {
            dt { "does not compare: " (names.join(", ")) }
            dd { (capital(explanation)) "." }
        }
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Renders the user study of the source.
pub(super) fn user_study(reference: &Reference) -> Markup {
    let study = &reference.user_study;
    html! {
        p.note role="note" {
            strong { "The paper's user study, not measured here. " }
            "Of " (number::count(u64::from(study.answers))) " answers, "
            @for (at, of) in study.shares.iter().enumerate() {
                @if at > 0 { " and " }
                (number::rounded(100.0 * of.share, 1)) " % preferred "
                @match &of.method {
                    Some(method) => { bdi { (method) } }
                    None => "the next best method",
                }
            }
            ". " (study.note)
        }
    }
}
