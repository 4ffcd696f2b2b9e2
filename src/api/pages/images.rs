//! Images of samples on pages.

use maud::{Markup, html};

/// Renders an image by its hash; `alt` says what it shows.
pub(super) fn image(hash: &str, alt: &str) -> Markup {
    html! { img src=(format!("/images/{hash}")) alt=(alt) loading="lazy"; }
}
