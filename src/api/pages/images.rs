//! Images on pages: thumbnails, if the service keeps them.

use axum::{
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use maud::{Markup, html};

use super::view;
use crate::api::http::{ApiError, InPath, not_found};
use crate::api::state::Shared;
use crate::content::ContentHash;

/// Renders a thumbnail of an image by the hash of its file. Where none is kept, the address itself
/// responds with a placeholder that says how to keep them.
pub(super) fn image(hash: &str, alt: &str) -> Markup {
    html! {
        img.thumbnail src=(address(hash)) alt=(alt) width="256" height="256" loading="lazy"
            decoding="async";
    }
}

/// Returns the address of an image's thumbnail.
pub(super) fn address(hash: &str) -> String {
    format!("/images/{hash}")
}

/// `GET /images/{hash}`: the thumbnail of an image, or a placeholder.
pub(super) async fn read(State(app): Shared, hash: InPath<String>) -> Result<Response, ApiError> {
    let hash = hash.ok().and_then(|Path(hash)| ContentHash::from_hex(&hash));
    let hash = hash.ok_or_else(|| not_found("image with this hash"))?;
    if let Some(webp) = app.store.thumbnail(hash).await? {
        return Ok(respond(StatusCode::OK, "image/webp", "private, max-age=3600", webp));
    }
    let lines = if app.keeping.has_thumbnails() {
        ["No image stored", "expired, deleted or", "recorded before"]
    } else {
        ["No image stored", "thumbnails are off:", "store.thumbnails"]
    };
    let svg = placeholder(lines).into_string().into_bytes();
    // The image may be scored again in a moment.
    Ok(respond(StatusCode::NOT_FOUND, "image/svg+xml", "private, no-cache", svg))
}

/// Responds with an image. Nobody but the reader's browser may keep it.
fn respond(status: StatusCode, kind: &'static str, keep: &'static str, body: Vec<u8>) -> Response {
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    view::protect(headers);
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, keep),
        // An image of its own: the style of the placeholder, and nothing else.
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Draws what is shown in place of an image.
fn placeholder(lines: [&str; 3]) -> Markup {
    html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 256 256" width="256" height="256" {
            style {
                ".b{fill:#e6e9f0}.l{stroke:#9aa0b0}text{fill:#3f4454;font:15px system-ui,sans-serif;text-anchor:middle}"
                "@media(prefers-color-scheme:dark){.b{fill:#242732}text{fill:#c3c8d4}}"
            }
            rect.b width="256" height="256" {}
            g.l fill="none" stroke-width="4" stroke-linejoin="round" {
                rect x="84" y="52" width="88" height="68" rx="8" {}
                path d="M88 112l26-28 18 18 14-12 22 22" {}
            }
            text x="128" y="158" font-weight="600" { (lines[0]) }
            text x="128" y="182" { (lines[1]) }
            text x="128" y="204" { (lines[2]) }
        }
    }
}
