//! CSV responses (RFC 4180).

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::spreadsheet;

/// Format of a response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    /// A JSON document.
    #[default]
    Json,
    /// Comma-separated values with a header line.
    Csv,
}

/// Returns the cell of a value that may be missing.
pub(crate) fn optional(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// Builds a CSV file to download. The cursor of the next page does not fit into the rows, so it is
/// sent in the header `X-Next-Page`.
pub(crate) fn answer(
    file: &'static str,
    header: &[&str],
    lines: Vec<Vec<String>>,
    next: Option<&str>,
) -> Response {
    let mut text = header.join(",") + "\r\n";
    for line in lines {
        let fields: Vec<String> = line.iter().map(|field| spreadsheet::cell(field)).collect();
        text.push_str(&fields.join(","));
        text.push_str("\r\n");
    }
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{file}\""));
    headers.insert(header::CONTENT_DISPOSITION, disposition.expect("a plain file name"));
    if let Some(next) = next.and_then(|next| HeaderValue::from_str(next).ok()) {
        headers.insert("x-next-page", next);
    }
    response
}
