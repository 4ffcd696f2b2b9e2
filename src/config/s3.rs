//! The table `[store.s3]`: a bucket for the images of accepted samples.

use axum::http::Uri;
use serde::Deserialize;

/// A key with a wrong value, and what it must be.
pub(super) type Wrong = (&'static str, String, &'static str);

/// A bucket with the S3 protocol. Its credentials come from the environment or from the machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    /// Name of the bucket. Empty: images are in the folder `store.spool`.
    pub bucket: String,
    /// What the names of all objects begin with.
    pub prefix: String,
    /// Region of the bucket.
    pub region: String,
    /// Base URL of the object store. Empty: that of AWS in the region.
    pub endpoint: String,
    /// Whether the endpoint may have no TLS.
    pub allow_http: bool,
}

impl S3 {
    /// Returns whether images are in a bucket.
    #[must_use]
    pub fn is_used(&self) -> bool {
        !self.bucket.is_empty()
    }

    /// Returns bucket and prefix, for messages.
    #[must_use]
    pub fn name(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.prefix)
    }

    pub(super) fn check(&self) -> Result<(), Wrong> {
        let wrong = |key, value: &str, why| (key, value.to_owned(), why);
        if !self.is_used() {
            return Ok(());
        }
        let letter = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
        let plain = |text: &str, also: &str| {
            text.chars().all(|each| letter(each) || also.contains(each.to_ascii_lowercase()))
        };
        if !(3..=63).contains(&self.bucket.len()) || !plain(&self.bucket, "-.") {
            let why = "must be the name of a bucket: 3 to 63 lower-case letters, digits, hyphens \
                and dots, without s3:// and a path";
            return Err(wrong("store.s3.bucket", &self.bucket, why));
        }
        let part = |part: &str| {
            let is_part = |each: char| each.is_ascii_alphanumeric() || "-_.".contains(each);
            !part.is_empty() && part.chars().any(|each| each != '.') && part.chars().all(is_part)
        };
        if !self.prefix.split('/').all(part) {
            let why = "must be one or more words of letters, digits, hyphens, underscores and \
                dots, with / between them";
            return Err(wrong("store.s3.prefix", &self.prefix, why));
        }
        if self.region.is_empty() || !plain(&self.region, "-") {
            let why = "must be the region of the bucket, such as eu-central-1; other object \
                stores than AWS mostly accept us-east-1";
            return Err(wrong("store.s3.region", &self.region, why));
        }
        self.check_endpoint()
    }

    fn check_endpoint(&self) -> Result<(), Wrong> {
        if self.endpoint.is_empty() {
            return Ok(());
        }
        let wrong = |value: &str, why| Err(("store.s3.endpoint", value.to_owned(), why));
        let plain = self.endpoint.parse::<Uri>().ok().filter(|url| {
            url.query().is_none()
                && matches!(url.scheme_str(), Some("http" | "https"))
                && url.authority().is_some_and(|of| !of.as_str().contains('@'))
        });
        match plain {
            // A URL may contain a password.
            None => wrong(
                "…",
                "must be empty or the base URL of an object store, such as \
                    \"https://s3.example.org\", without user, password and query",
            ),
            Some(url) if url.scheme_str() == Some("http") && !self.allow_http => wrong(
                &self.endpoint,
                "must begin with https://, or store.s3.allow_http must be true: images and \
                    signatures then travel in clear",
            ),
            Some(_) => Ok(()),
        }
    }
}
