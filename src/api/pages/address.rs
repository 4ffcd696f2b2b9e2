//! The address of a page: its path and parameters, which are the whole state of a view.

use std::fmt;

use axum::{
    extract::{FromRequestParts, Request},
    http::request::Parts,
};
use serde::de::DeserializeOwned;

use crate::api::http::{ApiError, body, encode, form_of, pairs, query_of};

/// The parameter of downloads: `csv:NAME`, `latex:NAME` or `svg:NAME`.
pub(super) const DOWNLOAD: &str = "download";

/// Limit of a form in bytes.
const MOST_BYTES: usize = 16 << 10;

/// The parameter of a page as one file to share: `html`.
pub(super) const SHARE: &str = "share";

/// Path and parameters of a page. Parameters without a value are left out: browsers send every
/// field of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    path: String,
    pairs: Vec<(String, String)>,
    /// Whether the parameters are the fields of a form that was sent.
    is_form: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Address {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let mut pairs = pairs(&parts.uri)?;
        pairs.retain(|(_, value)| !value.trim().is_empty());
        Ok(Self { path: parts.uri.path().to_owned(), pairs, is_form: false })
    }
}

impl Address {
    /// Creates the address of a page without parameters.
    pub(super) fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), pairs: Vec::new(), is_form: false }
    }

    /// Reads the fields of a form that was sent.
    pub(super) async fn read_form(path: &str, request: Request) -> Result<Self, ApiError> {
        Self::read_texts(path, request, MOST_BYTES, &[]).await
    }

    /// Reads the fields of a form of at most `most` bytes that was sent. What reads the fields in
    /// `texts` checks their characters.
    pub(super) async fn read_texts(
        path: &str,
        request: Request,
        most: usize,
        texts: &[&str],
    ) -> Result<Self, ApiError> {
        Ok(Self::of_form(path, body::form(request, most, texts).await?))
    }

    /// Takes the fields of a form that was sent, without those that have no value.
    fn of_form(path: &str, mut pairs: Vec<(String, String)>) -> Self {
        pairs.retain(|(_, value)| !value.trim().is_empty());
        Self { path: path.to_owned(), pairs, is_form: true }
    }

    /// Returns the value of a parameter, the last one if there are several.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().rfind(|(each, _)| each == name).map(|(_, value)| &**value)
    }

    /// Returns the values of a parameter that a form may send several times.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(each, _)| each == name).map(|(_, value)| &**value)
    }

    /// Joins the values of a parameter that a form sent several times by commas, as the API takes
    /// them.
    pub(super) fn join(&mut self, name: &str) {
        let joined = self.all(name).collect::<Vec<_>>().join(",");
        if !joined.is_empty() {
            *self = self.with(name, &joined);
        }
    }

    /// Parses the parameters as those of a route of the API, without those that are the page's own.
    pub(super) fn query<T: DeserializeOwned>(&self, own: &[&str]) -> Result<T, ApiError> {
        let is_own = |name: &str| own.contains(&name) || [DOWNLOAD, SHARE].contains(&name);
        let pairs = self.pairs.iter().filter(|(name, _)| !is_own(name)).cloned();
        let pairs = pairs.collect::<Vec<_>>();
        if self.is_form { form_of(&pairs) } else { query_of(&pairs) }
    }

    /// Returns the same address with this value of a parameter, in place of others.
    pub(super) fn with(&self, name: &str, value: impl fmt::Display) -> Self {
        let mut changed = self.clone();
        let pair = (name.to_owned(), value.to_string());
        match changed.pairs.iter().position(|(each, _)| each == name) {
            Some(at) => {
                changed.pairs[at] = pair;
                let mut seen = 0;
                changed.pairs.retain(|(each, _)| {
                    seen += usize::from(each == name);
                    each != name || seen == 1
                });
            }
            None => changed.pairs.push(pair),
        }
        changed
    }

    /// Returns the same address without a parameter.
    pub(super) fn without(&self, name: &str) -> Self {
        let pairs = self.pairs.iter().filter(|(each, _)| each != name).cloned().collect();
        Self { path: self.path.clone(), pairs, is_form: self.is_form }
    }

    /// Returns the parameters, for the hidden fields of a form.
    pub(super) fn parameters(&self) -> &[(String, String)] {
        &self.pairs
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        for (at, (name, value)) in self.pairs.iter().enumerate() {
            let separator = if at == 0 { '?' } else { '&' };
            write!(f, "{separator}{}={}", encode(name), encode(value))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_changed_one_parameter_at_a_time() {
        let address = Address::new("/leaderboard").with("by", "run").with("dataset", "a & b");
        assert_eq!(address.to_string(), "/leaderboard?by=run&dataset=a%20%26%20b");
        assert_eq!(
            address.with("by", "method").to_string(),
            "/leaderboard?by=method&dataset=a%20%26%20b"
        );
        assert_eq!(address.without("dataset").to_string(), "/leaderboard?by=run");
    }

    #[test]
    fn values_that_a_form_repeats_are_joined() {
        let pair = |value: &str| ("metrics".to_owned(), value.to_owned());
        let mut address = Address::of_form("/", vec![pair("ips"), pair("goa")]);
        address.join("metrics");
        assert_eq!(address.to_string(), "/?metrics=ips%2Cgoa");
        assert_eq!(address.get("metrics"), Some("ips,goa"));
    }
}
