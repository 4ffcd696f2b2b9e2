//! Style sheets and scripts of the pages, embedded in the program.

use std::fmt::Write as _;

use axum::{
    extract::Path,
    http::{HeaderValue, Uri, header},
    response::{IntoResponse as _, Response},
};

use crate::api::http::{ApiError, not_found};

/// The files. A debug build reads them from the disk at each request, so that a change needs no
/// compilation.
#[derive(rust_embed::Embed)]
#[folder = "assets/pages/"]
struct Files;

/// Returns the address of a file. It changes with the content, so that browsers keep each version
/// for ever.
pub(super) fn address(name: &str) -> String {
    format!("/assets/{name}?v={}", version(&Files::get(name).expect("an embedded file")))
}

/// Returns the text of a file, for documents that must not refer to others.
pub(super) fn text(name: &str) -> String {
    let file = Files::get(name).expect("an embedded file");
    String::from_utf8(file.data.into_owned()).expect("a text")
}

/// Returns the bytes of a file.
pub(super) fn bytes(name: &str) -> Vec<u8> {
    Files::get(name).expect("an embedded file").data.into_owned()
}

fn version(file: &rust_embed::EmbeddedFile) -> String {
    file.metadata.sha256_hash()[..6].iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `GET /assets/{name}`.
pub(super) async fn serve(Path(name): Path<String>, uri: Uri) -> Result<Response, ApiError> {
    let file = Files::get(&name).ok_or_else(|| not_found("file of this name"))?;
    let kind = match name.rsplit_once('.').map(|(_, kind)| kind) {
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("jpg") => "image/jpeg",
        _ => "application/octet-stream",
    };
    let is_current = uri.query() == Some(&*format!("v={}", version(&file)));
    let mut response = file.data.into_owned().into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let keep = if is_current { "public, max-age=31536000, immutable" } else { "no-cache" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}
