//! The value of every key and where it comes from, for people who look for a mistake.

use figment::{Figment, Source, value::Value};
use serde::Serialize;

use super::environment::variable;
use crate::store::without_password;

/// Parts of the names of keys whose values are secrets.
const SECRETS: [&str; 4] = ["secret", "token", "password", "headers"];

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    /// Path of the key, such as `limits.requests`.
    pub key: String,
    /// The value. Secrets are replaced by `***`.
    pub value: serde_json::Value,
    /// Where it was set.
    pub source: SettingSource,
}

/// Where a key was set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SettingSource {
    /// Nowhere: it is the default.
    Default,
    /// In this file.
    File(String),
    /// In this environment variable.
    Environment(String),
}

impl std::fmt::Display for SettingSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(name) | Self::Environment(name) => f.write_str(name),
        }
    }
}

impl Setting {
    /// Reads a key; `None` if it has no value.
    pub(super) fn of(all: &Figment, key: String) -> Option<Self> {
        let value = all.find_value(&key).ok()?;
        let metadata = all.get_metadata(value.tag());
        let source = match metadata.and_then(|metadata| metadata.source.as_ref()) {
            Some(Source::File(path)) => SettingSource::File(path.display().to_string()),
            _ if metadata.is_some_and(|of| of.name.contains("environment")) => {
                SettingSource::Environment(variable(&key))
            }
            _ => SettingSource::Default,
        };
        let value = shown(&key, &value);
        Some(Self { key, value, source })
    }
}

fn shown(key: &str, value: &Value) -> serde_json::Value {
    let name = key.rsplit('.').next().unwrap_or(key);
    if SECRETS.iter().any(|secret| name.contains(secret)) {
        return "***".into();
    }
    match value.as_str() {
        // A URL may have a password.
        Some(text) if text.contains("://") || name == "url" => without_password(text).into(),
        _ => serde_json::to_value(value).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use crate::config::{Config, SettingSource};

    #[test]
    fn settings_name_their_source_and_hide_passwords() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"[store]\nurl = \"postgres://me:secret@db/scores?password=secret\"\n")
            .unwrap();
        let settings = Config::settings(Some(file.path())).unwrap();
        let find = |key: &str| settings.iter().find(|setting| setting.key == key).unwrap();
        let url = find("store.url");
        assert_eq!(url.value, "postgres://me:***@db/scores");
        let named = matches!(&url.source, SettingSource::File(name)
            if name.ends_with(file.path().file_name().unwrap().to_str().unwrap()));
        assert!(named, "{url:?}");
        let listen = find("server.listen");
        assert_eq!(
            (&listen.value, &listen.source),
            (&"127.0.0.1:8080".into(), &SettingSource::Default)
        );
        assert!(find("engine.cuda.cpu_graphs").value.is_array());
    }
}
