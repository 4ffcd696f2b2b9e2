//! Matches `STELLAR_*` variables to keys of the configuration.
//!
//! Variables that are not keys are ignored: Kubernetes sets `STELLAR_SCORE_PORT` and others for a
//! Service named `stellar-score`, and other programs may use the prefix. Likely typos of keys are
//! reported.

use super::renamed;

/// The documented defaults, also a template for configuration files.
pub const DEFAULTS: &str = include_str!("../../config.toml");

/// The prefix of every variable.
pub(super) const PREFIX: &str = "STELLAR_";

/// Variables of commands: the path of the configuration file, and the API key of the client.
const OF_COMMANDS: [&str; 3] = ["STELLAR_CONFIG_FILE", "STELLAR_KEY", "STELLAR_KEY_FILE"];

/// Maximum edit distance of a typo.
const TYPOS: usize = 2;

/// A variable with the prefix that is not a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownVariable {
    /// Name of the variable.
    pub name: String,
    /// Variable of the nearest key, if it may be a typo.
    pub nearest: Option<String>,
}

/// Returns all keys as `section.key`, including those commented out in the defaults.
pub(super) fn keys() -> Vec<String> {
    let mut section = "";
    let mut keys = Vec::new();
    for line in DEFAULTS.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
            continue;
        }
        // A key that is commented out is `# key = value`. Prose never has one word before an equals
        // sign.
        let line = line.strip_prefix("# ").unwrap_or(line);
        let Some((key, _)) = line.split_once(" = ") else { continue };
        if key
            .chars()
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
        {
            keys.push(if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") });
        }
    }
    keys
}

/// Returns the variable of a key.
pub(super) fn variable(key: &str) -> String {
    PREFIX.to_owned() + &key.replace('.', "__").to_uppercase()
}

/// Returns whether a variable's name without the prefix is a key or the old name of one.
pub(super) fn is_key(rest: &str) -> bool {
    let key = rest.to_lowercase().replace("__", ".");
    keys().contains(&key) || renamed::is_old(&key)
}

/// Returns the key nearest to an unknown name, if it is near enough for a typo.
pub(super) fn nearest(name: &str, keys: impl Iterator<Item = String>) -> Option<String> {
    keys.map(|key| (strsim::osa_distance(name, &key), key))
        .filter(|(distance, key)| *distance <= TYPOS.min(key.len() / 3))
        .min()
        .map(|(_, key)| key)
}

/// Returns the variables that have the prefix and are not keys, sorted by name.
pub(super) fn unknown(names: impl Iterator<Item = String>) -> Vec<UnknownVariable> {
    let mut unknown: Vec<_> = names
        .filter(|name| name.starts_with(PREFIX) && !OF_COMMANDS.contains(&name.as_str()))
        .filter(|name| !is_key(&name[PREFIX.len()..]))
        .map(|name| UnknownVariable {
            // A single underscore between section and key is a typo too.
            nearest: nearest(&name, keys().iter().map(|key| variable(key))),
            name,
        })
        .collect();
    unknown.sort_by(|a, b| a.name.cmp(&b.name));
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Vec<UnknownVariable> {
        unknown(names.iter().map(|name| (*name).to_owned()))
    }

    #[test]
    fn all_keys_of_the_defaults_are_found_including_commented_ones() {
        let keys = keys();
        for key in ["pack", "server.listen", "engine.library", "store.url", "log.filter"] {
            assert!(keys.contains(&key.to_owned()), "{key} in {keys:?}");
            assert!(is_key(&variable(key)[PREFIX.len()..]), "{key}");
        }
        let table: toml::Table = DEFAULTS.parse().unwrap();
        for (section, value) in &table {
            let Some(of_section) = value.as_table() else { continue };
            for (key, value) in of_section {
                // Keys of a table within a section have two dots.
                let inner = value.as_table().into_iter().flat_map(toml::Table::keys);
                let mut names: Vec<_> =
                    inner.map(|inner| format!("{section}.{key}.{inner}")).collect();
                if names.is_empty() {
                    names.push(format!("{section}.{key}"));
                }
                assert!(names.iter().all(|name| keys.contains(name)), "{names:?}");
            }
        }
    }

    #[test]
    fn variables_of_a_kubernetes_service_are_neither_keys_nor_typos() {
        for service in ["STELLAR_SCORE", "STELLAR", "STELLAR_PACK", "STELLAR_SERVER", "STELLAR_LOG"]
        {
            for end in
                ["PORT", "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT_8080_TCP_ADDR"]
            {
                let name = format!("{service}_{end}");
                let found = of(&[&name]);
                assert_eq!(found, [UnknownVariable { name, nearest: None }]);
            }
        }
    }

    #[test]
    fn a_typo_is_reported_with_the_nearest_key() {
        for (typo, meant) in [
            ("STELLAR_SERVER__LISTN", "STELLAR_SERVER__LISTEN"),
            ("STELLAR_SERVER_LISTEN", "STELLAR_SERVER__LISTEN"),
            ("STELLAR_PAKC", "STELLAR_PACK"),
            ("STELLAR_LIMITS__REQUEST", "STELLAR_LIMITS__REQUESTS"),
        ] {
            assert_eq!(of(&[typo])[0].nearest.as_deref(), Some(meant), "{typo}");
        }
    }

    #[test]
    fn keys_and_the_file_variable_are_not_reported() {
        assert_eq!(of(&["STELLAR_PACK", "STELLAR_STORE__URL", "HOME"]), []);
        assert_eq!(of(&OF_COMMANDS), []);
    }
}
