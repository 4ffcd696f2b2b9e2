//! Configuration: embedded defaults (`config.toml`), then the user's file, then `STELLAR_*`
//! variables.

mod adapters;
mod dispatch;
mod environment;
mod password;
mod renamed;
mod s3;
mod sections;
mod settings;
mod validate;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    providers::{Env, Format, Toml},
};
use serde::Deserialize;

pub use adapters::{Adapter, AdapterReward, Protocol};
pub use dispatch::{Dispatch, DispatchKind, Nats};
pub use environment::{DEFAULTS, UnknownVariable};
pub(crate) use password::read_password;
pub use renamed::RenamedKey;
pub use s3::S3;
pub(crate) use sections::given;
pub use sections::{
    Analysis, ConnectionLimits, Generator, Keys, Limits, Log, LogFormat, Privacy, Rewards, Runs,
    Server, Store, Traces,
};
pub use settings::{Setting, SettingSource};

use renamed::Current;

use crate::{engine::EngineConfig, installed};

/// The configuration. `config.toml` documents each key with its default.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder of the model pack. If it is not set: `packs/demo` beside the program or in its
    /// checkout.
    pub pack: PathBuf,
    /// Address, hosts, connections and time limits.
    pub server: Server,
    /// What needs an API key.
    pub keys: Keys,
    /// Bounds on requests, images and memory.
    pub limits: Limits,
    /// Provider, parallelism, queues and the feature cache.
    pub engine: EngineConfig,
    /// Storage and disclosure of data that identifies people.
    pub privacy: Privacy,
    /// Database and spool.
    pub store: Store,
    /// How samples come to those who score them.
    pub dispatch: Dispatch,
    /// Background scoring of runs.
    pub runs: Runs,
    /// Rewards for training.
    pub rewards: Rewards,
    /// Images that are generated on request.
    pub generator: Generator,
    /// Reports, comparisons and other long analyses.
    pub analysis: Analysis,
    /// Logging to standard error.
    pub log: Log,
    /// Export of traces.
    pub traces: Traces,
    /// Keys that were set under their old names.
    #[serde(skip)]
    pub renamed: Vec<RenamedKey>,
}

/// A configuration error. The message names the file, or the key and its source.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file does not exist or cannot be read.
    #[error(
        "cannot read the configuration file {path} (--config or STELLAR_CONFIG_FILE): {source}; \
            without one, the defaults and the environment are used"
    )]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
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
    /// An adapter of `[rewards]` is invalid.
    #[error("configuration: rewards.adapter[{at}]: {why}")]
    Adapter {
        /// Its position in the list.
        at: usize,
        /// What is wrong and what to do.
        why: String,
    },
}

impl Config {
    /// Reads the defaults, then `file` if given, then the environment, and validates the result.
    ///
    /// # Errors
    /// A key is unknown, or a value has the wrong type or is invalid.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let (given, renamed) = layers(file)?;
        let own_pack = given.contains("pack");
        let mut config: Self =
            Figment::from(Toml::string(DEFAULTS)).merge(given).extract().map_err(Box::new)?;
        config.renamed = renamed;
        if !own_pack && let Some(installed) = installed::find(&config.pack) {
            config.pack = installed;
        }
        config.validate()?;
        config.store.insert_password()?;
        Ok(config)
    }

    /// Makes it the configuration of a process that shares nothing with others.
    pub(crate) fn alone(&mut self) {
        self.store.s3.bucket.clear();
        self.dispatch.kind = DispatchKind::Local;
        self.dispatch.score_here = true;
    }

    /// Returns the value and source of every key that is set, without secrets.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn settings(file: Option<&Path>) -> Result<Vec<Setting>, ConfigError> {
        let (given, _) = layers(file)?;
        let all = Figment::from(Toml::string(DEFAULTS)).merge(given);
        Ok(environment::keys().into_iter().filter_map(|key| Setting::of(&all, key)).collect())
    }

    /// Returns the variables with the prefix `STELLAR_` that are not keys: typos, or other
    /// programs' variables.
    #[must_use]
    pub fn unknown_variables() -> Vec<UnknownVariable> {
        environment::unknown(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))
    }
}

/// Returns what the file and the environment set, and the keys that they set under old names.
fn layers(file: Option<&Path>) -> Result<(Figment, Vec<RenamedKey>), ConfigError> {
    let mut sources = Vec::new();
    if let Some(file) = file {
        check_file(file)?;
        sources.push(Current::of(&Toml::file_exact(file))?);
    }
    // Section and key are separated by two underscores, since keys contain single ones.
    let environment = Env::prefixed(environment::PREFIX);
    let environment = environment.filter(|name| environment::is_key(name.as_str())).split("__");
    sources.push(Current::of(&environment)?);
    let renamed = sources.iter().flat_map(|source| source.renamed.clone()).collect();
    Ok((sources.into_iter().fold(Figment::new(), Figment::merge), renamed))
}

/// Refuses a file that cannot be opened: the error of the parser does not say what the file is for.
fn check_file(path: &Path) -> Result<(), ConfigError> {
    let opened = File::open(path).and_then(|file| file.metadata());
    let is_folder = || io::Error::from(io::ErrorKind::IsADirectory);
    match opened.and_then(|of| if of.is_dir() { Err(is_folder()) } else { Ok(()) }) {
        Ok(()) => Ok(()),
        Err(source) => Err(ConfigError::File { path: path.to_owned(), source }),
    }
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
        for (path, why) in [("/nowhere/stellar.toml", "No such file"), ("/", "directory")] {
            let error = Config::load(Some(Path::new(path))).unwrap_err().to_string();
            for word in ["configuration file", path, "--config", why] {
                assert!(error.contains(word), "{error}");
            }
        }
    }

    #[test]
    fn a_limit_of_zero_is_refused_by_name() {
        let message = load("[limits]\nrequests = 0").unwrap_err().to_string();
        assert!(message.contains("limits.requests"), "{message}");
    }

    #[test]
    fn thumbnails_of_an_odd_size_are_refused_by_name() {
        for side in [0, 64, 384, 2048] {
            let text = format!("[store]\nthumbnails = {side}");
            assert_eq!(load(&text).unwrap().store.thumbnails, side);
        }
        for side in [1, 63, 2049] {
            let text = format!("[store]\nthumbnails = {side}");
            let message = load(&text).unwrap_err().to_string();
            assert!(message.contains("store.thumbnails"), "{message}");
        }
    }

    #[test]
    fn a_bucket_that_cannot_be_one_is_refused_by_name() {
        let bucket = |more: &str| load(&format!("[store.s3]\nbucket = \"images\"\n{more}"));
        assert!(!load("").unwrap().store.s3.is_used());
        for good in ["", "prefix = \"a/b-c.d\"", "endpoint = \"https://s3.example.org:9000\""] {
            assert!(bucket(good).unwrap().store.s3.is_used(), "{good}");
        }
        let plain = "endpoint = \"http://127.0.0.1:9000\"";
        assert!(bucket(&format!("{plain}\nallow_http = true")).is_ok());
        for (wrong, key) in [
            (plain, "store.s3.endpoint"),
            ("endpoint = \"https://me:secret@s3.example.org\"", "store.s3.endpoint"),
            ("endpoint = \"s3.example.org\"", "store.s3.endpoint"),
            ("prefix = \"\"", "store.s3.prefix"),
            ("prefix = \"a//b\"", "store.s3.prefix"),
            ("prefix = \"../a\"", "store.s3.prefix"),
            ("region = \"\"", "store.s3.region"),
        ] {
            let message = bucket(wrong).unwrap_err().to_string();
            assert!(message.contains(key) && !message.contains("secret"), "{wrong}: {message}");
        }
        for wrong in ["ab", "s3://images", "images/a", "Images"] {
            let message = load(&format!("[store.s3]\nbucket = {wrong:?}")).unwrap_err().to_string();
            assert!(message.contains("store.s3.bucket"), "{wrong}: {message}");
        }
    }

    #[test]
    fn a_dispatch_that_cannot_work_is_refused_by_name() {
        let nats = |more: &str| {
            load(&format!(
                "[store]\nurl = \"postgres://me@host/db\"\n[store.s3]\nbucket = \"images\"\n\
                 [dispatch]\nkind = \"nats\"\n{more}"
            ))
        };
        assert!(!load("").unwrap().dispatch.is_nats());
        for good in [
            "",
            "score_here = false",
            "advertise = \"http://10.0.0.7:8080\"",
            "[dispatch.nats]\nservers = [\"tls://nats.example:4222\"]",
            "[dispatch.nats]\nuser = \"me\"\npassword_file = \"/run/secrets/nats\"",
        ] {
            assert!(nats(good).unwrap().dispatch.is_nats(), "{good}");
        }
        let of_nats = |more: &str| nats(&format!("[dispatch.nats]\n{more}"));
        for (wrong, key) in vec![
            (load("[dispatch]\nkind = \"nats\""), "dispatch.kind"),
            (load("[dispatch]\nscore_here = false"), "dispatch.score_here"),
            (nats("advertise = \"10.0.0.7:8080\""), "dispatch.advertise"),
            (nats("advertise = \"http://10.0.0.7:8080/path\""), "dispatch.advertise"),
            (nats("[privacy]\nface_retention_days = 0"), "privacy.face_retention_days"),
            (of_nats("servers = []"), "dispatch.nats.servers"),
            (of_nats("servers = [\"http://me:secret@host\"]"), "dispatch.nats.servers"),
            (of_nats("prefix = \"a.b\""), "dispatch.nats.prefix"),
            (of_nats("replicas = 6"), "dispatch.nats.replicas"),
            (of_nats("ack_seconds = 1"), "dispatch.nats.ack_seconds"),
            (of_nats("max_ack_pending = 0"), "dispatch.nats.max_ack_pending"),
            (of_nats("certificate = \"a.pem\""), "dispatch.nats.certificate"),
            (of_nats("user = \"me\""), "dispatch.nats.user"),
        ] {
            let message = wrong.unwrap_err().to_string();
            assert!(message.contains(key) && !message.contains("secret"), "{key}: {message}");
        }
    }

    #[test]
    fn hosts_that_never_match_are_refused_by_name() {
        for host in ["scores.example", "Scores.Example.", "10.0.0.7", "fd00::7", "[fd00::7]", "*"] {
            load(&format!("[server]\nhosts = [{host:?}]"))
                .unwrap_or_else(|error| panic!("{host}: {error}"));
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
            assert!(
                message.contains("server.hosts") && message.contains(wrong),
                "{wrong}: {message}"
            );
        }
    }

    #[test]
    fn invalid_questions_are_refused_by_name() {
        assert_eq!(
            load("[analysis]\nquestions = [\"style\", \"q_2\"]").unwrap().analysis.questions.len(),
            2
        );
        for wrong in ["", "Style", "2nd", "a b", "é", "overall", "identity", &"a".repeat(33)] {
            let message = load(&format!("[analysis]\nquestions = [\"fine\", {wrong:?}]"))
                .unwrap_err()
                .to_string();
            assert!(
                message.contains("analysis.questions") && message.contains(&format!("{wrong:?}")),
                "{message}"
            );
        }
    }

    #[test]
    fn a_collector_that_cannot_work_is_refused_by_name_without_its_password() {
        for good in ["", "http://127.0.0.1:4318", "http://collector.example/otlp/"] {
            load(&format!("[traces]\nendpoint = {good:?}"))
                .unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for wrong in [
            "collector:4318",
            "https://collector.example",
            "http://",
            "http://me:secret@collector.example",
            "http://collector.example?key=secret",
        ] {
            let message = load(&format!("[traces]\nendpoint = {wrong:?}")).unwrap_err().to_string();
            assert!(message.contains("traces.endpoint"), "{wrong}: {message}");
            assert!(!message.contains("secret"), "{message}");
        }
        for wrong in ["sample_ratio = 1.5", "sample_ratio = -0.1", "service_name = \" \""] {
            let message = load(&format!("[traces]\n{wrong}")).unwrap_err().to_string();
            assert!(message.contains(wrong.split(' ').next().unwrap()), "{message}");
        }
    }

    #[test]
    fn a_shutdown_delay_beyond_the_drain_is_refused_by_name() {
        assert!(load("[server]\nshutdown_delay_seconds = 24").is_ok());
        let message = load("[server]\nshutdown_delay_seconds = 25").unwrap_err().to_string();
        assert!(message.contains("server.shutdown_delay_seconds"), "{message}");
    }

    #[test]
    fn only_a_database_file_has_a_folder() {
        for (url, folder) in [
            ("sqlite:data/stellar.db", Some("data")),
            ("sqlite:///var/lib/stellar.db?mode=rwc", Some("/var/lib")),
            ("sqlite:stellar.db", Some(".")),
            ("sqlite::memory:", None),
            ("postgres://me@host/db", None),
        ] {
            let store = load(&format!("[store]\nurl = {url:?}")).unwrap().store;
            assert_eq!(store.database_folder().as_deref(), folder.map(Path::new), "{url}");
        }
    }

    #[test]
    fn debug_output_hides_the_password() {
        let config = load("[store]\nurl = \"postgres://me:secret@host/db\"").unwrap();
        assert!(!format!("{config:?}").contains("secret"));
    }
}
