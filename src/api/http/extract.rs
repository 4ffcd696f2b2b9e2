//! Readers of paths and query strings; errors are problem documents.

use std::marker::PhantomData;

use axum::{
    extract::{FromRequestParts, Path, rejection::PathRejection},
    http::{Uri, request::Parts},
};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::error::{ApiError, Code};
use crate::label;

/// Limit of a query string, in bytes: long lists of names fit, and no valid query needs more.
const MOST_QUERY_BYTES: usize = 8 << 10;

/// Parameters in a path, or the reason why they cannot be read.
pub(crate) type InPath<T> = Result<Path<T>, PathRejection>;

/// A resource with an id.
pub(crate) trait Resource {
    /// Name of the resource in errors.
    const NAME: &'static str;
}

/// The id of a resource, the only parameter of its path. Malformed ids are reported as not found.
pub(crate) struct Id<R>(pub(crate) Uuid, PhantomData<R>);

impl<R: Resource> Id<R> {
    pub(crate) fn new(id: Uuid) -> Self {
        Self(id, PhantomData)
    }

    pub(crate) fn parse(id: &str) -> Result<Self, ApiError> {
        let malformed =
            |_| not_found(&format!("{} with this id: it may have been deleted already", R::NAME));
        id.parse().map(|id| Self(id, PhantomData)).map_err(malformed)
    }
}

impl<R: Resource, S: Send + Sync> FromRequestParts<S> for Id<R> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let id = Path::<String>::from_request_parts(parts, state).await;
        Self::parse(&id.map(|Path(id)| id).unwrap_or_default())
    }
}

/// Creates the error for something that does not exist; `what` also says what to do.
pub(crate) fn not_found(what: &str) -> ApiError {
    ApiError::new(Code::NotFound, format!("there is no {what}"))
}

/// The parameters of a query string.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        query_of(&pairs(&parts.uri)?).map(Self)
    }
}

/// Returns the names and values of a query string, values in the form in which names are stored.
pub(crate) fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, ApiError> {
    let query = uri.query().unwrap_or_default();
    if query.len() > MOST_QUERY_BYTES {
        let problem =
            format!("the query is longer than {MOST_QUERY_BYTES} bytes: request less at once");
        return Err(ApiError::new(Code::MalformedRequest, problem));
    }
    checked(query.as_bytes(), "query", &[])
}

/// Returns the names and values of the fields of a form. Those in `texts` may have any characters.
pub(crate) fn fields_of(body: &[u8], texts: &[&str]) -> Result<Vec<(String, String)>, ApiError> {
    checked(body, "form", texts)
}

/// Returns names and values, values in the form in which names are stored; errors call it `what`.
fn checked(encoded: &[u8], what: &str, texts: &[&str]) -> Result<Vec<(String, String)>, ApiError> {
    let mut pairs = Vec::new();
    for (name, value) in form_urlencoded::parse(encoded) {
        let is_text = texts.contains(&&*name);
        let problem = label::check_visible(&name)
            .and_then(|()| if is_text { Ok(()) } else { label::check_visible(&value) });
        if let Err(problem) = problem {
            let name: String = label::visible(&name).chars().take(80).collect();
            return Err(ApiError::new(
                Code::MalformedRequest,
                format!("`{name}` in the {what} {problem}"),
            ));
        }
        let value = label::normal(&value);
        // Browsers end the lines of a text by both characters.
        let value = if is_text { value.replace("\r\n", "\n") } else { value.into_owned() };
        pairs.push((name.into_owned(), value));
    }
    Ok(pairs)
}

/// Parses the names and values of a query string.
pub(crate) fn query_of<T: DeserializeOwned>(pairs: &[(String, String)]) -> Result<T, ApiError> {
    parsed(pairs).map_err(|problem| ApiError::new(Code::MalformedRequest, problem))
}

/// Parses the names and values of a form that was sent.
pub(crate) fn form_of<T: DeserializeOwned>(pairs: &[(String, String)]) -> Result<T, ApiError> {
    parsed(pairs).map_err(|problem| {
        let problem = problem.replacen("query string", "form", 1);
        ApiError::new(Code::MalformedRequest, problem)
    })
}

fn parsed<T: DeserializeOwned>(pairs: &[(String, String)]) -> Result<T, String> {
    let pairs = pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    let query = pairs.collect::<Vec<_>>().join("&");
    // Names in their stored form, percent-encoded, can be longer than an address may be.
    let Ok(uri) = format!("/?{query}").parse() else {
        return Err("the query string is too long: request less at once".to_owned());
    };
    axum::extract::Query::<T>::try_from_uri(&uri)
        .map(|query| query.0)
        .map_err(|rejection| rejection.body_text())
}

/// Returns a text percent-encoded for a query string or a segment of a path (RFC 3986).
pub(crate) fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        use std::fmt::Write as _;
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}
