//! The switch between the benchmarks of a run: Stellar-T, Stellar-H, or both together.

use maud::{Markup, html};

use super::page::Page;
use crate::api::http::filters::SLICES;
use crate::store::Slice;

/// Renders the switch, and what it means.
pub(super) fn benchmarks(page: &Page) -> Markup {
    let current = page.address.get(Slice::PROMPT_KIND);
    // At most one slice may be set.
    let others = SLICES.iter().filter(|kind| **kind != Slice::PROMPT_KIND);
    let without = others.fold(page.address.clone(), |of, kind| of.without(kind));
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
