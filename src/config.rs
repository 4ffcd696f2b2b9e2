//! Configuration: `config.toml` (embedded defaults), a file of the user's, then `STELLAR_*` variables.

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

/// The documented defaults, also the file that users start from.
pub const DEFAULTS: &str = include_str!("../config.toml");

/// Everything that can be configured; `config.toml` documents each key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder of the model pack.
    pub pack: PathBuf,
    /// Listening and time limits.
    pub server: Server,
    /// What a request may cost.
    pub limits: Limits,
    /// Devices, threads, queues and the feature cache.
    pub engine: EngineConfig,
    /// How long what identifies people is kept.
    pub privacy: Privacy,
    /// Where samples and scores are kept.
    pub store: Store,
    /// Scoring in the background.
    pub runs: Runs,
    /// Reports, comparisons and the like.
    pub analysis: Analysis,
    /// What is written to standard error.
    pub log: Log,
    /// Keys that were given under their old names.
    #[serde(skip)]
    pub renamed: Vec<RenamedKey>,
}

/// Listening and time limits.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Address and port.
    pub listen: SocketAddr,
    /// A request that is not answered by then gets 504.
    pub deadline_seconds: u64,
    /// How long the whole stop may take after the signal to.
    pub drain_seconds: u64,
    /// Hosts that the service answers to, besides those of this machine.
    pub hosts: Vec<String>,
    /// Connections at once.
    pub connections: usize,
    /// How long a connection may be silent before a request's head is there.
    pub head_seconds: u64,
    /// How long the service waits in all for a body that does not come.
    pub body_seconds: u64,
    /// Bytes a second that a body must bring beyond that.
    pub body_bytes_per_second: u32,
    /// How long a client may read nothing of its answer.
    pub write_seconds: u64,
}

impl Server {
    /// The deadline of a request.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline_seconds)
    }

    /// What connections may cost.
    #[must_use]
    pub fn connection_limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            connections: self.connections,
            head: Duration::from_secs(self.head_seconds),
            write: Duration::from_secs(self.write_seconds),
        }
    }
}

/// What a request may cost.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Requests being read or scored at once.
    pub requests: usize,
    /// MiB of uploads in memory at once, over all requests.
    pub upload_memory_mib: usize,
    /// MiB of one request's body.
    pub request_mib: usize,
    /// MiB of one image's file.
    pub image_mib: usize,
    /// Millions of pixels of one image.
    pub image_megapixels: usize,
    /// Smallest accepted width and height in pixels.
    pub image_min_side: u32,
    /// Reference photos in one request.
    pub references: usize,
    /// Auxiliary photos in one request.
    pub auxiliary: usize,
    /// Bytes of the prompt.
    pub prompt_bytes: usize,
    /// MiB that the service may need; 0 sets no limit.
    pub memory_mib: u64,
    /// MiB of decoded pixels at once; 0 chooses by the memory there is.
    pub pixel_memory_mib: u64,
    /// Objects to look for in one image.
    pub detectables: usize,
    /// Bytes of the metadata document.
    pub metadata_bytes: usize,
}

const MIB: usize = 1 << 20;

/// Times that are longer are slips, and cannot be added to the clock.
const MOST_SECONDS: u64 = 86_400;

/// Questions of the operator's own.
const MOST_QUESTIONS: usize = 64;

/// The largest image is to have room in the budget beside what images hold that wait for a face search.
const LARGEST_IMAGES: u64 = 2;

impl Limits {
    /// Bytes of one request's body.
    #[must_use]
    pub fn request_bytes(&self) -> usize {
        self.request_mib * MIB
    }

    /// Bytes of one image's file.
    #[must_use]
    pub fn image_bytes(&self) -> usize {
        self.image_mib * MIB
    }

    /// Bytes of uploads in memory at once.
    #[must_use]
    pub fn upload_memory_bytes(&self) -> usize {
        self.upload_memory_mib * MIB
    }

    /// Bytes that the service may need, where there is a limit.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        (self.memory_mib > 0).then(|| self.memory_mib.saturating_mul(MIB as u64))
    }

    /// Bytes of decoded pixels at once: an eighth of the memory where nothing is set, and enough for the largest image.
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

    /// The limits that decoding an image keeps.
    #[must_use]
    pub fn decode(&self) -> DecodeLimits {
        DecodeLimits {
            max_bytes: self.image_bytes(),
            max_pixels: self.image_megapixels as u64 * 1_000_000,
            ..DecodeLimits::default()
        }
    }
}

/// How long what identifies people is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Privacy {
    /// Days that faces found in images are stored; 0 stores none.
    pub face_retention_days: u32,
    /// Whether evidence shows embeddings of faces.
    pub return_embeddings: bool,
}

/// Where samples and scores are kept.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// `sqlite:PATH` or `postgres://…`.
    pub url: String,
    /// Folder of the images of accepted samples.
    pub spool: PathBuf,
    /// MiB that these may take.
    pub spool_mib: u64,
    /// Days that files which the database does not name stay in the trash.
    pub trash_retention_days: u32,
}

impl Store {
    /// How long files stay in the trash.
    #[must_use]
    pub fn trash(&self) -> Duration {
        Duration::from_hours(24 * u64::from(self.trash_retention_days))
    }

    /// Bytes that kept files may take.
    #[must_use]
    pub fn spool_bytes(&self) -> u64 {
        self.spool_mib.saturating_mul(MIB as u64)
    }
}

impl std::fmt::Debug for Store {
    /// The address may hold a password, so only its scheme is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("url", &self.url.split(':').next())
            .field("spool", &self.spool)
            .field("spool_mib", &self.spool_mib)
            .field("trash_retention_days", &self.trash_retention_days)
            .finish()
    }
}

/// Scoring in the background.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runs {
    /// Samples of runs that are scored at once; 0 chooses, see [`Self::samples_at_once`].
    pub concurrency: usize,
    /// The same while requests wait for scores.
    pub concurrency_under_load: usize,
    /// How often scoring a sample is tried before it counts as failed.
    pub attempts: u32,
    /// Samples of one run that may wait.
    pub pending_samples: u64,
    /// Samples in one imported file.
    pub import_samples: usize,
    /// Clients that may watch runs at once.
    pub watchers: usize,
}

impl Runs {
    /// Samples of runs that are scored at once, given the largest batch of the graphs on a card, if there is one.
    ///
    /// By itself 8 on the processor, which fill its batches. On a card four of its batches, at least 64 samples: while it runs one,
    /// images of the next ones are decoded and resized.
    #[must_use]
    pub fn samples_at_once(&self, batch_on_card: Option<usize>) -> usize {
        match (self.concurrency, batch_on_card) {
            (0, None) => 8,
            (0, Some(batch)) => (4 * batch).max(64),
            (given, _) => given,
        }
    }
}

/// Reports, comparisons and the like.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Analysis {
    /// Long ones that are computed at once; 0 chooses by the number of cores.
    pub concurrency: usize,
    /// Those that are computed or wait.
    pub queue: usize,
    /// What annotators may be asked, besides what every service knows.
    pub questions: Vec<String>,
}

/// What is written to standard error.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Lines for people or for machines.
    pub format: LogFormat,
    /// A `tracing` filter.
    pub filter: String,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why the configuration cannot be used; the message names the key and its source.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or variable does not fit the schema.
    #[error("configuration: {0}{hint}", hint = suggestion(.0))]
    Schema(#[from] Box<figment::Error>),
    /// A value of the right type that cannot work.
    #[error("configuration: {key} = {value}: {why}")]
    Value {
        /// The key's path.
        key: &'static str,
        /// What was found.
        value: String,
        /// What is expected.
        why: &'static str,
    },
}

impl Config {
    /// Reads the defaults, then `file` where given, then the environment, and validates the result.
    ///
    /// # Errors
    /// An unknown key, a value of the wrong type, or a value that cannot work.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut sources = Vec::new();
        if let Some(file) = file {
            sources.push(Current::of(&Toml::file_exact(file)).map_err(Box::new)?);
        }
        // Two underscores between section and key, since keys have single ones in them.
        let environment = Env::prefixed(environment::PREFIX);
        let environment = environment.filter(|name| environment::is_key(name.as_str())).split("__");
        sources.push(Current::of(&environment).map_err(Box::new)?);
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

    /// Variables with our prefix that are no key: slips, or somebody else's.
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
                      any other entry matches no request",
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
                why: "must be at most 64 words of 1 to 32 lower-case letters, digits and underscores, other than the four that \
                      are always asked (overall, object, relation, identity)",
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
                why: "must be at most 86400, a day",
            });
        }
        if self.limits.request_mib > self.limits.upload_memory_mib {
            return Err(ConfigError::Value {
                key: "limits.request_mib",
                value: self.limits.request_mib.to_string(),
                why: "must not exceed limits.upload_memory_mib, or no such request is ever admitted",
            });
        }
        if self.limits.pixel_bytes() < self.limits.decode().max_memory {
            return Err(ConfigError::Value {
                key: "limits.pixel_memory_mib",
                value: self.limits.pixel_memory_mib.to_string(),
                why: "must be at least 512, which decoding the largest image takes, or 0",
            });
        }
        if self.runs.concurrency > 0 && self.runs.concurrency_under_load > self.runs.concurrency {
            return Err(ConfigError::Value {
                key: "runs.concurrency_under_load",
                value: self.runs.concurrency_under_load.to_string(),
                why: "must not exceed runs.concurrency: beside requests there is less room, not more",
            });
        }
        if self.store.spool_mib < self.limits.request_mib as u64 {
            return Err(ConfigError::Value {
                key: "store.spool_mib",
                value: self.store.spool_mib.to_string(),
                why: "must be at least limits.request_mib, or a request of that size is never accepted",
            });
        }
        Ok(())
    }
}

/// Whether an entry of `server.hosts` can be the host of a request.
fn is_host(entry: &str) -> bool {
    if entry == "*" || entry.parse::<IpAddr>().is_ok() {
        return true;
    }
    // The host of an authority leaves out its port and user; a star is a character of names, but none here.
    !entry.contains('*') && entry.parse::<Authority>().is_ok_and(|authority| authority.host() == entry)
}

/// What an unknown key may have been meant for.
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
    fn a_card_is_given_several_batches_of_samples() {
        let mut runs = Config::load(None).unwrap().runs;
        assert_eq!(runs.samples_at_once(None), 8);
        assert_eq!((runs.samples_at_once(Some(8)), runs.samples_at_once(Some(32))), (64, 128));
        runs.concurrency = 3;
        assert_eq!((runs.samples_at_once(None), runs.samples_at_once(Some(32))), (3, 3));
    }

    #[test]
    fn an_unknown_key_is_named() {
        let message = load("[limits]\nprompt_byte = 10").unwrap_err().to_string();
        assert!(message.contains("prompt_byte"), "{message}");
        assert!(message.contains("did you mean `limits.prompt_bytes`?"), "{message}");
        let far = load("nothing_of_ours = 1").unwrap_err().to_string();
        assert!(far.contains("nothing_of_ours") && !far.contains("did you mean"), "{far}");
    }

    #[test]
    fn a_pack_that_was_named_is_taken_as_it_was_named() {
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
    fn hosts_that_no_request_can_have_are_refused_by_name() {
        for fine in ["scores.example", "Scores.Example.", "10.0.0.7", "fd00::7", "[fd00::7]", "*"] {
            load(&format!("[server]\nhosts = [{fine:?}]")).unwrap_or_else(|error| panic!("{fine}: {error}"));
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
    fn questions_that_nobody_could_ask_are_refused_by_name() {
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
