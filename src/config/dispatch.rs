//! The section `[dispatch]`: how samples come to those who score them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use axum::http::Uri;
use serde::Deserialize;

use super::{Store, s3::Wrong, sections::given};

/// Most copies of a stream that NATS keeps.
const MOST_REPLICAS: usize = 5;

/// How samples come to those who score them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DispatchKind {
    /// From the database, to one instance.
    Local,
    /// Through NATS `JetStream`, to any number of workers.
    Nats,
}

/// The `[dispatch]` section: how samples come to those who score them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dispatch {
    /// The kind of dispatch.
    pub kind: DispatchKind,
    /// Whether `serve` loads models and scores.
    pub score_here: bool,
    /// URL under which other instances reach this worker. Empty: from `server.listen`.
    pub advertise: String,
    /// The broker.
    pub nats: Nats,
}

/// A NATS server or cluster with `JetStream`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nats {
    /// URLs of servers.
    pub servers: Vec<String>,
    /// File with credentials (`.creds`). Empty: none.
    pub credentials: PathBuf,
    /// Name of a user. Empty: none.
    pub user: String,
    /// File with the user's password.
    pub password_file: PathBuf,
    /// PEM file with an additional root certificate. Empty: none.
    pub ca: PathBuf,
    /// PEM file with the client's certificate. Empty: none.
    pub certificate: PathBuf,
    /// PEM file with the key of `certificate`.
    pub key: PathBuf,
    /// What subjects and the name of the stream begin with.
    pub prefix: String,
    /// Copies of the stream in a cluster.
    pub replicas: usize,
    /// A sample whose worker says nothing for this long goes to another one, in seconds.
    pub ack_seconds: u64,
    /// Most samples of a pack that all workers have at the same time.
    pub max_ack_pending: u32,
}

impl std::fmt::Debug for Nats {
    /// Shows no URL, which may contain a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nats")
            .field("servers", &self.servers.len())
            .field("prefix", &self.prefix)
            .field("replicas", &self.replicas)
            .field("ack_seconds", &self.ack_seconds)
            .field("max_ack_pending", &self.max_ack_pending)
            .finish_non_exhaustive()
    }
}

impl Nats {
    /// Returns the time after which a silent worker loses its samples.
    #[must_use]
    pub fn ack_wait(&self) -> Duration {
        Duration::from_secs(self.ack_seconds)
    }

    fn check(&self) -> Result<(), Wrong> {
        let wrong = |key, value: String, why| Err((key, value, why));
        if self.servers.is_empty() {
            let why = "must have the URL of at least one server";
            return wrong("dispatch.nats.servers", "[]".to_owned(), why);
        }
        for server in &self.servers {
            let url = server.parse::<Uri>().ok();
            let scheme = url.as_ref().and_then(Uri::scheme_str);
            if !matches!(scheme, Some("nats" | "tls")) {
                // A URL may contain a password.
                let why = "must be nats://HOST:PORT, or tls://HOST:PORT for TLS";
                return wrong("dispatch.nats.servers", "…".to_owned(), why);
            }
        }
        let word = |each: char| each.is_ascii_alphanumeric() || each == '-' || each == '_';
        if self.prefix.is_empty() || !self.prefix.chars().all(word) {
            let why = "must be a word of letters, digits, hyphens and underscores";
            return wrong("dispatch.nats.prefix", self.prefix.clone(), why);
        }
        if !(1..=MOST_REPLICAS).contains(&self.replicas) {
            let why = "must be 1 to 5, and at most the number of servers of the cluster";
            return wrong("dispatch.nats.replicas", self.replicas.to_string(), why);
        }
        if !(2..=3600).contains(&self.ack_seconds) {
            let why = "must be 2 to 3600";
            return wrong("dispatch.nats.ack_seconds", self.ack_seconds.to_string(), why);
        }
        if self.max_ack_pending == 0 {
            let why = "must be at least 1";
            return wrong("dispatch.nats.max_ack_pending", "0".to_owned(), why);
        }
        let both = |a: &Path, b: &Path| given(a).is_some() == given(b).is_some();
        if !both(&self.certificate, &self.key) {
            let why = "needs dispatch.nats.key, and the other way round";
            return wrong("dispatch.nats.certificate", self.certificate.display().to_string(), why);
        }
        if self.user.is_empty() != given(&self.password_file).is_none() {
            let why = "needs dispatch.nats.password_file, and the other way round";
            return wrong("dispatch.nats.user", self.user.clone(), why);
        }
        Ok(())
    }
}

impl Dispatch {
    /// Returns whether samples go through NATS.
    #[must_use]
    pub fn is_nats(&self) -> bool {
        self.kind == DispatchKind::Nats
    }

    pub(super) fn check(&self, store: &Store) -> Result<(), Wrong> {
        let wrong = |key, value: &str, why| Err((key, value.to_owned(), why));
        if !self.is_nats() {
            if !self.score_here {
                let why = "needs dispatch.kind = \"nats\": without it there are no workers";
                return wrong("dispatch.score_here", "false", why);
            }
            return Ok(());
        }
        if !store.s3.is_used() || !store.url.starts_with("postgres") {
            let why = "needs what all workers reach: a bucket (store.s3.bucket) and PostgreSQL \
                (store.url)";
            return wrong("dispatch.kind", "nats", why);
        }
        let is_url = |url: &Uri| {
            url.scheme_str() == Some("http")
                && url.port().is_some()
                && url.path() == "/"
                && url.query().is_none()
        };
        if !self.advertise.is_empty() && !self.advertise.parse().is_ok_and(|url| is_url(&url)) {
            let why = "must be empty or http://HOST:PORT, under which other instances reach this \
                one";
            return wrong("dispatch.advertise", &self.advertise, why);
        }
        self.nats.check()
    }
}
