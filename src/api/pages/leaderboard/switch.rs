//! The switch between the benchmarks of a run: Stellar-T, Stellar-H, or both together.

use maud::{Markup, html};

use super::page::Page;
use crate::store::Slice;

/// Parameters of the other slices: at most one may be set.
const OTHER_SLICES: [&str; 9] = [
    "category",
    "relation",
    "attribute",
    "size",
    "detectable",
    "predicate",
    "template",
    "fine_attribute",
    "aps_attribute",
];

/// Renders the switch, and what it means.
pub(super) fn benchmarks(page: &Page) -> Markup {
    let current = page.address.get(Slice::PROMPT_KIND);
    let without = OTHER_SLICES.iter().fold(page.address.clone(), |of, name| of.without(name));
    let choices = [(Some("T"), "Stellar-T"), (Some("H"), "Stellar-H"), (None, "both")];
    let is_known = choices.iter().any(|(kind, _)| *kind == current);
    html! {
        @if !page.is_shared {
            nav.tabs aria-label="Benchmark" {
                @for (kind, label) in choices {
                    @let to = match kind {
                        Some(kind) => without.with(Slice::PROMPT_KIND, kind),
                        None => page.address.without(Slice::PROMPT_KIND),
                    };
                    a href=(to) aria-current=[(kind == current).then_some("true")] { (label) }
                }
                @if let Some(kind) = current.filter(|_| !is_known) {
                    a href=(page.address) aria-current="true" { "kind " bdi { (kind) } }
                }
            }
        }
        @if let Some(kind) = current {
            p.fine {
                "Only prompts of the kind " bdi { (kind) } ", as if the runs had no others: penalty, \
                 intervals and ranks are those of this benchmark."
            }
        }
    }
}
