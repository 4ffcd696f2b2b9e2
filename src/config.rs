//! Configuration: embedded defaults (`config.toml`), then the user's file, then `STELLAR_*`
//! variables.

mod environment;
mod renamed;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use axum::http::uri::Authority;
use figment::{
    Figment,
    providers::{Env, Format, Toml},
};
use serde::Deserialize;

pub use environment::UnknownVariable;
pub use renamed::RenamedKey;

use renamed::Current;

use crate::{
    engine::EngineConfig, installed, machine, server::ConnectionLimits, store::Question, vision::DecodeLimits,
};

/// The documented defaults, also a template for configuration files.
pub const DEFAULTS: &str = include_str!("../config.toml");

/// The configuration. `config.toml` documents each key with its default.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder of the model pack. If it is not set: `packs/demo` beside the program or in its
    /// checkout.
    pub pack: PathBuf,
    /// Address, hosts, connections and time limits.
    pub server: Server,
    /// Bounds on requests, images and memory.
    pub limits: Limits,
    /// Provider, parallelism, queues and the feature cache.
    pub engine: EngineConfig,
    /// Storage and disclosure of data that identifies people.
    pub privacy: Privacy,
    /// Database and spool.
    pub store: Store,
    /// Background scoring of runs.
    pub runs: Runs,
    /// Reports, comparisons and other long analyses.
    pub analysis: Analysis,
    /// Logging to standard error.
    pub log: Log,
    /// Keys that were set under their old names.
    #[serde(skip)]
    pub renamed: Vec<RenamedKey>,
}

/// The `[server]` section: address, hosts, connections and time limits.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Deadline of a request, in seconds. After it the response is 504.
    pub deadline_seconds: u64,
    /// Grace period after SIGTERM, in seconds. In-flight requests are answered or cut off within
    /// it.
    pub drain_seconds: u64,
    /// Names and addresses under which clients reach the service, in addition to localhost,
    /// loopback addresses and `listen`. `*` accepts every host.
    pub hosts: Vec<String>,
    /// Most open connections. Above it, the connection that has been silent longest is closed: an
    /// idle one first, then one whose request body is awaited.
    pub connections: usize,
    /// How long a connection may be silent before the head of a request is complete, in seconds.
    pub head_seconds: u64,
    /// How long the service waits in total for missing bytes of a request body, in seconds.
    pub body_seconds: u64,
    /// Minimum rate of a request body: this many bytes received add one second to `body_seconds`.
    pub body_bytes_per_second: u32,
    /// How long a client may read nothing of its response, in seconds.
    pub write_seconds: u64,
}

impl Server {
    /// Returns the deadline of a request.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline_seconds)
    }

    /// Returns the limits of connections.
    #[must_use]
    pub fn connection_limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            connections: self.connections,
            head: Duration::from_secs(self.head_seconds),
            write: Duration::from_secs(self.write_seconds),
        }
    }
}

/// The `[limits]` section: bounds on requests, images and memory.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Most requests being read or scored. Further ones get 429 before their body is read.
    pub requests: usize,
    /// Memory for uploads over all requests, in MiB.
    pub upload_memory_mib: usize,
    /// Largest request body, in MiB.
    pub request_mib: usize,
    /// Largest image file, in MiB.
    pub image_mib: usize,
    /// Largest decoded image, in millions of pixels.
    pub image_megapixels: usize,
    /// Smallest width and height of an image, in pixels.
    pub image_min_side: u32,
    /// Most reference images in one request.
    pub references: usize,
    /// Most auxiliary images in one request.
    pub auxiliary: usize,
    /// Longest prompt, in bytes.
    pub prompt_bytes: usize,
    /// Memory that the service may use, in MiB. 0 sets no limit.
    pub memory_mib: u64,
    /// Memory for decoded pixels over all requests and runs, in MiB. 0 chooses an eighth of the
    /// memory.
    pub pixel_memory_mib: u64,
    /// Most objects to look for in one image.
    pub detectables: usize,
    /// Largest metadata document, in bytes.
    pub metadata_bytes: usize,
}

const MIB: usize = 1 << 20;

/// Upper bound of time limits. Longer ones are mistakes, and could overflow when added to the
/// clock.
const MOST_SECONDS: u64 = 86_400;

/// Most entries of `analysis.questions`.
const MOST_QUESTIONS: usize = 64;

/// The default pixel budget has room for this many largest images, since images that await the face
/// search hold a part of it.
const LARGEST_IMAGES: u64 = 2;

impl Limits {
    /// Returns the size limit of a request body, in bytes.
    #[must_use]
    pub fn request_bytes(&self) -> usize {
        self.request_mib * MIB
    }

    /// Returns the size limit of an image file, in bytes.
    #[must_use]
    pub fn image_bytes(&self) -> usize {
        self.image_mib * MIB
    }

    /// Returns the memory limit of uploads, in bytes.
    #[must_use]
    pub fn upload_memory_bytes(&self) -> usize {
        self.upload_memory_mib * MIB
    }

    /// Returns the memory limit of the service, in bytes, if there is one.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        (self.memory_mib > 0).then(|| self.memory_mib.saturating_mul(MIB as u64))
    }

    /// Returns the memory limit of decoded pixels, in bytes.
    ///
    /// If none is set, it is an eighth of the memory, and enough for two of the largest images.
    #[must_use]
    pub fn pixel_bytes(&self) -> u64 {
        let largest = LARGEST_IMAGES * self.decode().max_memory;
        match self.pixel_memory_mib {
            0 => {
                let memory = [machine::memory_bytes(), self.memory_bytes()].into_iter().flatten().min();
                (memory.unwrap_or_default() / 8).max(largest)
            }
            mib => mib.saturating_mul(MIB as u64),
        }
    }

    /// Returns the limits for decoding an image.
    #[must_use]
    pub fn decode(&self) -> DecodeLimits {
        DecodeLimits {
            max_bytes: self.image_bytes(),
            max_pixels: self.image_megapixels as u64 * 1_000_000,
            ..DecodeLimits::default()
        }
    }
}

/// The `[privacy]` section: storage and disclosure of data that identifies people.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Privacy {
    /// Retention of faces found in images, in days. 0 stores none and disables enrolment.
    pub face_retention_days: u32,
    /// Whether `evidence=true` also returns face embeddings.
    pub return_embeddings: bool,
}

/// The `[store]` section: database and spool.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Database: `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`.
    pub url: String,
    /// The spool: folder for the images of accepted samples.
    pub spool: PathBuf,
    /// Size limit of the spool, in MiB.
    pub spool_mib: u64,
    /// Retention of unreferenced files in the trash, in days.
    pub trash_retention_days: u32,
}

impl Store {
    /// Returns the retention of files in the trash.
    #[must_use]
    pub fn trash(&self) -> Duration {
        Duration::from_hours(24 * u64::from(self.trash_retention_days))
    }

    /// Returns the size limit of the spool, in bytes.
    #[must_use]
    pub fn spool_bytes(&self) -> u64 {
        self.spool_mib.saturating_mul(MIB as u64)
    }
}

impl std::fmt::Debug for Store {
    /// Shows only the scheme of the URL, which may contain a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("url", &self.url.split(':').next())
            .field("spool", &self.spool)
            .field("spool_mib", &self.spool_mib)
            .field("trash_retention_days", &self.trash_retention_days)
            .finish()
    }
}

/// The `[runs]` section: background scoring of runs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runs {
    /// Concurrency of background scoring, in samples. 0 chooses, see [`Self::samples_at_once`].
    pub concurrency: usize,
    /// The same while scoring requests wait. 0 pauses background scoring meanwhile.
    pub concurrency_under_load: usize,
    /// Most attempts to score a sample before it fails.
    pub attempts: u32,
    /// Most pending samples of a run.
    pub pending_samples: u64,
    /// Most samples in an imported file.
    pub import_samples: usize,
    /// Most clients that watch the progress of runs.
    pub watchers: usize,
}

impl Runs {
    /// Returns the concurrency of background scoring, given the largest batch of graphs on a GPU,
    /// if any.
    ///
    /// The default is 8 on a CPU, which fills its batches. On a GPU it is four of the largest
    /// batches, at least 64, so that images are decoded while the GPU runs.
    #[must_use]
    pub fn samples_at_once(&self, batch_on_card: Option<usize>) -> usize {
        match (self.concurrency, batch_on_card) {
            (0, None) => 8,
            (0, Some(batch)) => (4 * batch).max(64),
            (given, _) => given,
        }
    }
}

/// The `[analysis]` section: reports, comparisons and other long analyses.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Analysis {
    /// Concurrency of analyses. 0 chooses one for every four cores.
    pub concurrency: usize,
    /// Most analyses that are running or queued. Further ones get 429.
    pub queue: usize,
    /// Questions to annotators in addition to overall, object, relation and identity.
    pub questions: Vec<String>,
}

/// The `[log]` section: logging to standard error.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Format of log lines.
    pub format: LogFormat,
    /// A `tracing` filter, such as `info,stellar_score=debug`.
    pub filter: String,
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line, for machines.
    Json,
}

/// A configuration error. The message names the key and its source.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or variable has an unknown key or a value of the wrong type.
    #[error("configuration: {0}{hint}", hint = suggestion(.0))]
    Schema(#[from] Box<figment::Error>),
    /// A value is out of range or inconsistent with another.
    #[error("configuration: {key} = {value}: {why}")]
    Value {
        /// Path of the key, such as `limits.requests`.
        key: &'static str,
        /// The configured value.
        value: String,
        /// The requirement, such as `must be at least 1`.
        why: &'static str,
    },
}

impl Config {
    /// Reads the defaults, then `file` if given, then the environment, and validates the result.
    ///
    /// # Errors
    /// A key is unknown, or a value has the wrong type or is invalid.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut sources = Vec::new();
        if let Some(file) = file {
            sources.push(Current::of(&Toml::file_exact(file))?);
        }
        // Section and key are separated by two underscores, since keys contain single ones.
        let environment = Env::prefixed(environment::PREFIX);
        let environment = environment.filter(|name| environment::is_key(name.as_str())).split("__");
        sources.push(Current::of(&environment)?);
        let renamed = sources.iter().flat_map(|source| source.renamed.clone()).collect();
        let given = sources.into_iter().fold(Figment::new(), Figment::merge);
        let own_pack = given.contains("pack");
        let mut config: Self =
            Figment::from(Toml::string(DEFAULTS)).merge(given).extract().map_err(Box::new)?;
        config.renamed = renamed;
        if !own_pack && let Some(installed) = installed::find(&config.pack) {
            config.pack = installed;
        }
        config.validate()?;
        Ok(config)
    }

    /// Returns the variables with the prefix `STELLAR_` that are not keys: typos, or other
    /// programs' variables.
    #[must_use]
    pub fn unknown_variables() -> Vec<UnknownVariable> {
        environment::unknown(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))
    }

    fn validate(&self) -> Result<(), ConfigError> {
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
            ("runs.attempts", self.runs.attempts.into()),
            ("runs.pending_samples", self.runs.pending_samples),
            ("runs.import_samples", self.runs.import_samples as u64),
            ("runs.watchers", self.runs.watchers as u64),
            ("analysis.queue", self.analysis.queue as u64),
        ];
        if let Some((key, value)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::Value { key, value: value.to_string(), why: "must be at least 1" });
        }
        if let Some(host) = self.server.hosts.iter().find(|host| !is_host(host)) {
            return Err(ConfigError::Value {
                key: "server.hosts",
                value: format!("{host:?}"),
                why: "must be names or addresses without scheme, port or path, such as \"scores.example\", or \"*\" for all: \
                      other entries never match a request",
            });
        }
        let own = &self.analysis.questions;
        let wrong = |word: &&String| !matches!(Question::parse(word), Some(Question::Own(_)));
        if own.len() > MOST_QUESTIONS || own.iter().any(|word| wrong(&word)) {
            return Err(ConfigError::Value {
                key: "analysis.questions",
                value: own
                    .iter()
                    .find(wrong)
                    .map_or_else(|| own.len().to_string(), |word| format!("{word:?}")),
                why: "must be at most 64 words of 1 to 32 lower-case letters, digits and underscores, other than the four \
                      built-in ones (overall, object, relation, identity)",
            });
        }
        let seconds = [
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
        if self.limits.request_mib > self.limits.upload_memory_mib {
            return Err(ConfigError::Value {
                key: "limits.request_mib",
                value: self.limits.request_mib.to_string(),
                why: "must not exceed limits.upload_memory_mib, otherwise requests of that size are never admitted",
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
                why: "must not exceed runs.concurrency: it applies while requests need the capacity",
            });
        }
        if self.store.spool_mib < self.limits.request_mib as u64 {
            return Err(ConfigError::Value {
                key: "store.spool_mib",
                value: self.store.spool_mib.to_string(),
                why: "must be at least limits.request_mib, otherwise requests of that size are never accepted",
            });
        }
        Ok(())
    }
}

/// Returns whether an entry of `server.hosts` can match a request.
fn is_host(entry: &str) -> bool {
    if entry == "*" || entry.parse::<IpAddr>().is_ok() {
        return true;
    }
    // `host()` excludes port and user. A star is valid in an authority, but not in a host name
    // here.
    !entry.contains('*') && entry.parse::<Authority>().is_ok_and(|authority| authority.host() == entry)
}

/// Suggests the nearest key for an unknown one.
fn suggestion(error: &figment::Error) -> String {
    let figment::error::Kind::UnknownField(name, _) = &error.kind else { return String::new() };
    let mut path: Vec<&str> = error.path.iter().map(String::as_str).collect();
    if path.last() != Some(&name.as_str()) {
        path.push(name);
    }
    environment::nearest(&path.join("."), environment::keys().into_iter())
        .map(|key| format!("; did you mean `{key}`?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Config::load(Some(file.path()))
    }

    #[test]
    fn the_embedded_defaults_are_valid() {
        let config = Config::load(None).unwrap();
        assert!(config.pack.join("pack.toml").is_file(), "{}", config.pack.display());
        assert!(config.server.listen.ip().is_loopback());
    }

    #[test]
    fn a_file_overrides_single_keys() {
        let config = load("[limits]\nprompt_bytes = 10").unwrap();
        assert_eq!(config.limits.prompt_bytes, 10);
        assert_eq!(config.limits.references, 16);
    }

    #[test]
    fn a_gpu_gets_several_batches_of_samples() {
        let mut runs = Config::load(None).unwrap().runs;
        assert_eq!(runs.samples_at_once(None), 8);
        assert_eq!((runs.samples_at_once(Some(8)), runs.samples_at_once(Some(32))), (64, 128));
        runs.concurrency = 3;
        assert_eq!((runs.samples_at_once(None), runs.samples_at_once(Some(32))), (3, 3));
    }

    #[test]
    fn an_unknown_key_is_named_with_the_nearest_key() {
        let message = load("[limits]\nprompt_byte = 10").unwrap_err().to_string();
        assert!(message.contains("prompt_byte"), "{message}");
        assert!(message.contains("did you mean `limits.prompt_bytes`?"), "{message}");
        let far = load("nothing_of_ours = 1").unwrap_err().to_string();
        assert!(far.contains("nothing_of_ours") && !far.contains("did you mean"), "{far}");
    }

    #[test]
    fn a_configured_pack_is_used_as_given() {
        assert_eq!(load("pack = \"packs/demo\"").unwrap().pack, Path::new("packs/demo"));
    }

    #[test]
    fn a_missing_file_is_an_error() {
        assert!(Config::load(Some(Path::new("/nowhere/stellar.toml"))).is_err());
    }

    #[test]
    fn a_limit_of_zero_is_refused_by_name() {
        let message = load("[limits]\nrequests = 0").unwrap_err().to_string();
        assert!(message.contains("limits.requests"), "{message}");
    }

    #[test]
    fn hosts_that_never_match_are_refused_by_name() {
        for host in ["scores.example", "Scores.Example.", "10.0.0.7", "fd00::7", "[fd00::7]", "*"] {
            load(&format!("[server]\nhosts = [{host:?}]")).unwrap_or_else(|error| panic!("{host}: {error}"));
        }
        for wrong in [
            "",
            " ",
            "scores.example:8080",
            "https://scores.example",
            "scores.example/",
            "*.example",
            "me@scores.example",
            "[fd00::7]:8080",
            "a,b c",
        ] {
            let message = load(&format!("[server]\nhosts = [{wrong:?}]")).unwrap_err().to_string();
            assert!(message.contains("server.hosts") && message.contains(wrong), "{wrong}: {message}");
        }
    }

    #[test]
    fn invalid_questions_are_refused_by_name() {
        assert_eq!(load("[analysis]\nquestions = [\"style\", \"q_2\"]").unwrap().analysis.questions.len(), 2);
        for wrong in ["", "Style", "2nd", "a b", "é", "overall", "identity", &"a".repeat(33)] {
            let message =
                load(&format!("[analysis]\nquestions = [\"fine\", {wrong:?}]")).unwrap_err().to_string();
            assert!(
                message.contains("analysis.questions") && message.contains(&format!("{wrong:?}")),
                "{message}"
            );
        }
    }

    #[test]
    fn debug_output_hides_the_password() {
        let config = load("[store]\nurl = \"postgres://me:secret@host/db\"").unwrap();
        assert!(!format!("{config:?}").contains("secret"));
    }
}
