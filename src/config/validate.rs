//! Checks the values of a configuration.

use std::net::IpAddr;

use axum::http::{Uri, uri::Authority};

use super::{Config, ConfigError, Traces, adapters};
use crate::store::Question;

/// Upper bound of time limits. Longer ones are mistakes, and could overflow when added to the
/// clock.
const MOST_SECONDS: u64 = 86_400;

/// Upper bound of `traces.queue`.
const MOST_SPANS: usize = 1_000_000;

/// Most entries of `analysis.questions`.
const MOST_QUESTIONS: usize = 64;

impl Config {
    #[expect(clippy::too_many_lines, reason = "a list of requirements, in the order of the file")]
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
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
        if let Some((key, value)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::Value {
                key,
                value: value.to_string(),
                why: "must be at least 1",
            });
        }
        if let Some(host) = self.server.hosts.iter().find(|host| !is_host(host)) {
            return Err(ConfigError::Value {
                key: "server.hosts",
                value: format!("{host:?}"),
                why: "must be names or addresses without scheme, port or path, such \
                    as \"scores.example\", or \"*\" for all: \
                      other entries never match a request",
            });
        }
        check_thumbnails(self.store.thumbnails)?;
        if !(4..=1000).contains(&self.store.connections) {
            return Err(ConfigError::Value {
                key: "store.connections",
                value: self.store.connections.to_string(),
                why: "must be 4 to 1000",
            });
        }
        let wrong = |(key, value, why)| ConfigError::Value { key, value, why };
        self.store.s3.check().map_err(wrong)?;
        self.dispatch.check(&self.store).map_err(wrong)?;
        if self.store.s3.is_used() && self.privacy.face_retention_days == 0 {
            return Err(ConfigError::Value {
                key: "privacy.face_retention_days",
                value: "0".to_owned(),
                why: "must be at least 1 with a bucket (store.s3): another instance than the one that \
                    found the faces may finish the run, and needs them",
            });
        }
        check_questions(&self.analysis.questions)?;
        check_traces(&self.traces)?;
        adapters::check(&self.rewards.adapter)
            .map_err(|(at, why)| ConfigError::Adapter { at, why })?;
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
        if let Some((key, value)) = seconds.into_iter().find(|(_, value)| *value > MOST_SECONDS) {
            return Err(ConfigError::Value {
                key,
                value: value.to_string(),
                why: "must be at most 86400 (one day)",
            });
        }
        let delay = self.server.shutdown_delay_seconds;
        if delay > 0 && delay >= self.server.drain_seconds {
            return Err(ConfigError::Value {
                key: "server.shutdown_delay_seconds",
                value: delay.to_string(),
                why: "must be less than server.drain_seconds, which it is a part of",
            });
        }
        if self.rewards.queue < self.rewards.items {
            return Err(ConfigError::Value {
                key: "rewards.queue",
                value: self.rewards.queue.to_string(),
                why: "must be at least rewards.items, otherwise requests of that size are never \
                    admitted",
            });
        }
        if self.limits.request_mib > self.limits.upload_memory_mib {
            return Err(ConfigError::Value {
                key: "limits.request_mib",
                value: self.limits.request_mib.to_string(),
                why: "must not exceed limits.upload_memory_mib, otherwise requests of that size \
                    are never admitted",
            });
        }
        if self.limits.pixel_bytes() < self.limits.decode().max_memory {
            return Err(ConfigError::Value {
                key: "limits.pixel_memory_mib",
                value: self.limits.pixel_memory_mib.to_string(),
                why: "must be 0, or at least 512, which decoding the largest image needs",
            });
        }
        if self.runs.concurrency > 0 && self.runs.concurrency_under_load > self.runs.concurrency {
            return Err(ConfigError::Value {
                key: "runs.concurrency_under_load",
                value: self.runs.concurrency_under_load.to_string(),
                why: "must not exceed runs.concurrency: it applies while requests need the \
                    capacity",
            });
        }
        if self.store.spool_mib < self.limits.request_mib as u64 {
            return Err(ConfigError::Value {
                key: "store.spool_mib",
                value: self.store.spool_mib.to_string(),
                why: "must be at least limits.request_mib, otherwise requests of that size are \
                    never accepted",
            });
        }
        Ok(())
    }
}

fn check_thumbnails(side: u32) -> Result<(), ConfigError> {
    if matches!(side, 0 | 64..=2048) {
        return Ok(());
    }
    Err(ConfigError::Value {
        key: "store.thumbnails",
        value: side.to_string(),
        why: "must be 0, which keeps none, or the longer side in pixels, from 64 to 2048",
    })
}

/// Checks the questions to annotators.
fn check_questions(own: &[String]) -> Result<(), ConfigError> {
    let wrong = |word: &&String| !matches!(Question::parse(word), Some(Question::Own(_)));
    if own.len() > MOST_QUESTIONS || own.iter().any(|word| wrong(&word)) {
        return Err(ConfigError::Value {
            key: "analysis.questions",
            value: own
                .iter()
                .find(wrong)
                .map_or_else(|| own.len().to_string(), |word| format!("{word:?}")),
            why: "must be at most 64 words of 1 to 32 lower-case letters, digits and \
                underscores, other than the four \
                  built-in ones (overall, object, relation, identity)",
        });
    }
    Ok(())
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
    if !traces.endpoint.is_empty() && !is_collector(&traces.endpoint) {
        return Err(ConfigError::Value {
            key: "traces.endpoint",
            // A URL may contain a password.
            value: "…".to_owned(),
            why: "must be empty or the base URL of a collector, such as \"http://127.0.0.1:4318\", \
                without TLS, password and query: for TLS run a collector beside the service, and \
                set headers in OTEL_EXPORTER_OTLP_HEADERS",
        });
    }
    if !(0.0..=1.0).contains(&traces.sample_ratio) {
        return Err(ConfigError::Value {
            key: "traces.sample_ratio",
            value: traces.sample_ratio.to_string(),
            why: "must be between 0 and 1",
        });
    }
    if traces.service_name.trim().is_empty() {
        return Err(ConfigError::Value {
            key: "traces.service_name",
            value: format!("{:?}", traces.service_name),
            why: "must not be empty: collectors group traces by it",
        });
    }
    if traces.queue > MOST_SPANS {
        return Err(ConfigError::Value {
            key: "traces.queue",
            value: traces.queue.to_string(),
            why: "must be at most 1000000: a span takes about a kilobyte",
        });
    }
    Ok(())
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
