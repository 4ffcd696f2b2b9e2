//! Images on pages: thumbnails, if the service keeps them.

use maud::{Markup, html};

/// Renders a thumbnail of an image by the hash of its file. Where none is kept, the address itself
/// responds with a placeholder that says how to keep them.
pub(super) fn image(hash: &str, alt: &str) -> Markup {
    html! {
        img.thumbnail src=(format!("/images/{hash}")) alt=(alt) width="256" height="256"
            loading="lazy" decoding="async";
    }
}
