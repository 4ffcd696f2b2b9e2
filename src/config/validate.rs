//! Checks the values of a configuration.

use std::net::IpAddr;

use axum::http::{Uri, uri::Authority};

use super::{Config, ConfigError, Traces, adapters};
use crate::store::Question;

/// Upper bound of time limits. Longer ones are surely mistakes, and adding them to the clock could
/// overflow.
const MOST_SECONDS: u64 = 86_400;

/// Upper bound of `traces.queue`.
const MOST_SPANS: usize = 1_000_000;

/// Most entries of `analysis.questions`.
const MOST_QUESTIONS: usize = 64;

impl Config {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        self.check_ranges()?;
        let is_wrong = |host: &&String| !is_host(host);
        if let Some(host) = self.server.hosts.iter().find(is_wrong) {
            return Err(ConfigError::Value {
                key: "server.hosts",
                value: format!("{host:?}"),
                why: "must be names or addresses without scheme, port or path, such as \
                    \"scores.example\", or \"*\" for all: other entries never match a request",
            });
        }
        let wrong = |(key, value, why)| ConfigError::Value { key, value, why };
        self.store.s3.check().map_err(wrong)?;
        self.dispatch.check(&self.store).map_err(wrong)?;
        check_questions(&self.analysis.questions)?;
        check_traces(&self.traces)?;
        adapters::check(&self.rewards.adapter)
            .map_err(|(at, why)| ConfigError::Adapter { at, why })?;
        self.check_dependencies()
    }

    fn check_ranges(&self) -> Result<(), ConfigError> {
        let positive = [
            ("server.deadline_seconds", self.server.deadline_seconds),
            ("server.connections", self.server.connections as u64),
            ("server.head_seconds", self.server.head_seconds),
            ("server.body_seconds", self.server.body_seconds),
            ("server.body_bytes_per_second", self.server.body_bytes_per_second.into()),
            ("server.write_seconds", self.server.write_seconds),
            ("limits.requests", self.limits.requests as u64),
            ("limits.upload_memory_mib", self.limits.upload_memory_mib as u64),
            ("limits.request_mib", self.limits.request_mib as u64),
            ("limits.image_mib", self.limits.image_mib as u64),
            ("limits.image_megapixels", self.limits.image_megapixels as u64),
            ("limits.image_min_side", u64::from(self.limits.image_min_side)),
            ("limits.prompt_bytes", self.limits.prompt_bytes as u64),
            ("limits.detectables", self.limits.detectables as u64),
            ("limits.metadata_bytes", self.limits.metadata_bytes as u64),
            ("store.spool_mib", self.store.spool_mib),
            ("store.thumbnail_retention_days", self.store.thumbnail_retention_days.into()),
            ("runs.attempts", self.runs.attempts.into()),
            ("runs.pending_samples", self.runs.pending_samples),
            ("runs.import_samples", self.runs.import_samples as u64),
            ("runs.watchers", self.runs.watchers as u64),
            ("rewards.wait_seconds", self.rewards.wait_seconds),
            ("rewards.deadline_seconds", self.rewards.deadline_seconds),
            ("rewards.items", self.rewards.items as u64),
            ("rewards.queue", self.rewards.queue as u64),
            ("rewards.memory_mib", self.rewards.memory_mib as u64),
            ("rewards.pickle_wait_seconds", self.rewards.pickle_wait_seconds),
            ("rewards.unirl_wait_seconds", self.rewards.unirl_wait_seconds),
            ("rewards.flow_factory_wait_seconds", self.rewards.flow_factory_wait_seconds),
            ("generator.concurrency", self.generator.concurrency as u64),
            ("generator.max_batch", self.generator.max_batch as u64),
            ("generator.most_steps", self.generator.most_steps as u64),
            ("generator.largest_side", self.generator.largest_side as u64),
            ("generator.deadline_seconds", self.generator.deadline_seconds),
            ("analysis.queue", self.analysis.queue as u64),
            ("traces.queue", self.traces.queue as u64),
            ("traces.delay_seconds", self.traces.delay_seconds),
        ];
        for (key, value) in positive {
            ensure(value > 0, key, &value, "must be at least 1")?;
        }
        let seconds = [
            ("traces.delay_seconds", self.traces.delay_seconds),
            ("rewards.wait_seconds", self.rewards.wait_seconds),
            ("generator.deadline_seconds", self.generator.deadline_seconds),
            ("rewards.deadline_seconds", self.rewards.deadline_seconds),
            ("rewards.pickle_wait_seconds", self.rewards.pickle_wait_seconds),
            ("rewards.unirl_wait_seconds", self.rewards.unirl_wait_seconds),
            ("rewards.flow_factory_wait_seconds", self.rewards.flow_factory_wait_seconds),
            ("server.deadline_seconds", self.server.deadline_seconds),
            ("server.drain_seconds", self.server.drain_seconds),
            ("server.head_seconds", self.server.head_seconds),
            ("server.body_seconds", self.server.body_seconds),
            ("server.write_seconds", self.server.write_seconds),
        ];
        for (key, value) in seconds {
            ensure(value <= MOST_SECONDS, key, &value, "must be at most 86400 (one day)")?;
        }
        let connections = self.store.connections;
        let is_valid = (4..=1000).contains(&connections);
        ensure(is_valid, "store.connections", &connections, "must be 4 to 1000")?;
        let side = self.store.thumbnails;
        let why =
            "must be 0 (no thumbnails), or the length of the longer side in pixels, 64 to 2048";
        ensure(matches!(side, 0 | 64..=2048), "store.thumbnails", &side, why)
    }

    /// Checks values that depend on others.
    fn check_dependencies(&self) -> Result<(), ConfigError> {
        let Self { server, limits, store, runs, rewards, privacy, .. } = self;
        ensure(
            !store.s3.is_used() || privacy.face_retention_days > 0,
            "privacy.face_retention_days",
            &0,
            "must be at least 1 with a bucket (store.s3): another instance than the one that found \
                the faces may finish the run, and needs them",
        )?;
        ensure(
            server.shutdown_delay_seconds == 0
                || server.shutdown_delay_seconds < server.drain_seconds,
            "server.shutdown_delay_seconds",
            &server.shutdown_delay_seconds,
            "must be less than server.drain_seconds, because the delay is part of that time",
        )?;
        ensure(
            rewards.queue >= rewards.items,
            "rewards.queue",
            &rewards.queue,
            "must be at least rewards.items, otherwise requests of that size are never admitted",
        )?;
        ensure(
            limits.request_mib <= limits.upload_memory_mib,
            "limits.request_mib",
            &limits.request_mib,
            "must not exceed limits.upload_memory_mib, otherwise requests of that size are never \
                admitted",
        )?;
        ensure(
            limits.pixel_bytes() >= limits.decode().max_memory,
            "limits.pixel_memory_mib",
            &limits.pixel_memory_mib,
            "must be 0, or at least 512: decoding the largest image takes that much",
        )?;
        ensure(
            runs.concurrency == 0 || runs.concurrency_under_load <= runs.concurrency,
            "runs.concurrency_under_load",
            &runs.concurrency_under_load,
            "must not exceed runs.concurrency: it applies while requests need the capacity",
        )?;
        ensure(
            store.spool_mib >= limits.request_mib as u64,
            "store.spool_mib",
            &store.spool_mib,
            "must be at least limits.request_mib, otherwise requests of that size are never \
                accepted",
        )
    }
}

/// Refuses the value of a key unless a requirement holds.
fn ensure(
    holds: bool,
    key: &'static str,
    value: &dyn ToString,
    why: &'static str,
) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::Value { key, value: value.to_string(), why }) }
}

/// Checks the questions to annotators.
fn check_questions(own: &[String]) -> Result<(), ConfigError> {
    let wrong = |word: &&String| !matches!(Question::parse(word), Some(Question::Own(_)));
    let found = own.iter().find(wrong);
    ensure(
        own.len() <= MOST_QUESTIONS && found.is_none(),
        "analysis.questions",
        &found.map_or_else(|| own.len().to_string(), |word| format!("{word:?}")),
        "must be at most 64 words of 1 to 32 lower-case letters, digits and underscores, other \
            than the four built-in ones (overall, object, relation, identity)",
    )
}

/// Checks the section `[traces]`.
fn check_traces(traces: &Traces) -> Result<(), ConfigError> {
    let is_collector = |url: &str| {
        url.parse::<Uri>().is_ok_and(|url| {
            let plain = url.query().is_none()
                && url.authority().is_some_and(|of| !of.as_str().contains('@'));
            url.scheme_str() == Some("http") && plain
        })
    };
    ensure(
        traces.endpoint.is_empty() || is_collector(&traces.endpoint),
        "traces.endpoint",
        // A URL may contain a password.
        &"…",
        "must be empty or the base URL of a collector, such as \"http://127.0.0.1:4318\", without \
            TLS, password and query: for TLS run a collector beside the service, and set headers \
            in OTEL_EXPORTER_OTLP_HEADERS",
    )?;
    ensure(
        (0.0..=1.0).contains(&traces.sample_ratio),
        "traces.sample_ratio",
        &traces.sample_ratio,
        "must be between 0 and 1",
    )?;
    ensure(
        !traces.service_name.trim().is_empty(),
        "traces.service_name",
        &format!("{:?}", traces.service_name),
        "must not be empty: collectors group traces by it",
    )?;
    ensure(
        traces.queue <= MOST_SPANS,
        "traces.queue",
        &traces.queue,
        "must be at most 1000000: a span takes about a kilobyte",
    )
}

/// Returns whether an entry of `server.hosts` can match a request.
fn is_host(entry: &str) -> bool {
    if entry == "*" || entry.parse::<IpAddr>().is_ok() {
        return true;
    }
    // `host()` excludes port and user. A star is valid in an authority, but not in a host name
    // here.
    !entry.contains('*')
        && entry.parse::<Authority>().is_ok_and(|authority| authority.host() == entry)
}
