//! The form that takes back an answer.

use maud::{Markup, html};

use crate::api::pages::address::Address;

/// Renders the form that withdraws the last answer of a session, whose address this is.
pub(super) fn form(action: &str, session: &Address, id: Option<&str>) -> Markup {
    html! {
        @if let Some(id) = id {
            form.undo method="post" action=(action) {
                @for (name, value) in session.parameters() {
                    input type="hidden" name=(name) value=(value);
                }
                input type="hidden" name="id" value=(id);
                span role="status" { "Your answer is saved." }
                button data-key="u" aria-keyshortcuts="u" { "Undo" }
            }
        }
    }
}
