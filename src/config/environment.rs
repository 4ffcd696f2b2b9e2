//! Which `STELLAR_*` variables are keys of the configuration.
//!
//! A variable is a key or it is left alone: Kubernetes sets `STELLAR_SCORE_PORT` and more for a Service called
//! `stellar-score`, and other programs may use the prefix. One that looks like a misspelt key is told.

use super::{DEFAULTS, renamed};

/// The prefix of every variable.
pub(super) const PREFIX: &str = "STELLAR_";

/// Names the configuration file itself, so it is no key.
const CONFIG_FILE: &str = "STELLAR_CONFIG_FILE";

/// Letters that may be wrong for a name to count as misspelt.
const TYPOS: usize = 2;

/// A variable with the prefix that is no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownVariable {
    /// Its name.
    pub name: String,
    /// The key that it may be meant for, as a variable.
    pub nearest: Option<String>,
}

/// Every key as `section.key`, also those that are only commented on in the defaults.
pub(super) fn keys() -> Vec<String> {
    let mut section = "";
    let mut keys = Vec::new();
    for line in DEFAULTS.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
            continue;
        }
        // A commented key is `# key = value`; prose has no single word before an equals sign.
        let line = line.strip_prefix("# ").unwrap_or(line);
        let Some((key, _)) = line.split_once(" = ") else { continue };
        if key.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_') {
            keys.push(if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") });
        }
    }
    keys
}

/// The variable of a key.
fn variable(key: &str) -> String {
    PREFIX.to_owned() + &key.replace('.', "__").to_uppercase()
}

/// Whether the rest of a variable's name, behind the prefix, is a key or the old name of one.
pub(super) fn is_key(rest: &str) -> bool {
    let key = rest.to_lowercase().replace("__", ".");
    keys().contains(&key) || renamed::is_old(&key)
}

/// The key nearest to a name that is none, if it is near enough to be a slip.
pub(super) fn nearest(name: &str, keys: impl Iterator<Item = String>) -> Option<String> {
    keys.map(|key| (strsim::osa_distance(name, &key), key))
        .filter(|(distance, key)| *distance <= TYPOS.min(key.len() / 3))
        .min()
        .map(|(_, key)| key)
}

/// The variables among these that have the prefix and are no key.
pub(super) fn unknown(names: impl Iterator<Item = String>) -> Vec<UnknownVariable> {
    let mut unknown: Vec<_> = names
        .filter(|name| name.starts_with(PREFIX) && name != CONFIG_FILE)
        .filter(|name| !is_key(&name[PREFIX.len()..]))
        .map(|name| UnknownVariable {
            // Between section and key one underscore is a slip as well.
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
    fn every_key_of_the_defaults_is_a_key_and_so_are_those_that_are_commented() {
        let keys = keys();
        for key in ["pack", "server.listen", "engine.library", "store.url", "log.filter"] {
            assert!(keys.contains(&key.to_owned()), "{key} in {keys:?}");
            assert!(is_key(&variable(key)[PREFIX.len()..]), "{key}");
        }
        let table: toml::Table = DEFAULTS.parse().unwrap();
        for (section, value) in &table {
            let Some(of_section) = value.as_table() else { continue };
            for (key, value) in of_section {
                // A table in a section, whose keys have two dots.
                let inner = value.as_table().into_iter().flat_map(toml::Table::keys);
                let mut names: Vec<_> = inner.map(|inner| format!("{section}.{key}.{inner}")).collect();
                if names.is_empty() {
                    names.push(format!("{section}.{key}"));
                }
                assert!(names.iter().all(|name| keys.contains(name)), "{names:?}");
            }
        }
    }

    #[test]
    fn variables_of_a_kubernetes_service_are_no_keys_and_no_slips() {
        for service in ["STELLAR_SCORE", "STELLAR", "STELLAR_PACK", "STELLAR_SERVER", "STELLAR_LOG"] {
            for end in ["PORT", "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT_8080_TCP_ADDR"] {
                let name = format!("{service}_{end}");
                let found = of(&[&name]);
                assert_eq!(found, [UnknownVariable { name, nearest: None }]);
            }
        }
    }

    #[test]
    fn a_slip_is_told_with_the_nearest_key() {
        for (slip, meant) in [
            ("STELLAR_SERVER__LISTN", "STELLAR_SERVER__LISTEN"),
            ("STELLAR_SERVER_LISTEN", "STELLAR_SERVER__LISTEN"),
            ("STELLAR_PAKC", "STELLAR_PACK"),
            ("STELLAR_LIMITS__REQUEST", "STELLAR_LIMITS__REQUESTS"),
        ] {
            assert_eq!(of(&[slip])[0].nearest.as_deref(), Some(meant), "{slip}");
        }
    }

    #[test]
    fn keys_and_the_name_of_the_file_are_not_told() {
        assert_eq!(of(&["STELLAR_PACK", "STELLAR_CONFIG_FILE", "STELLAR_STORE__URL", "HOME"]), []);
    }
}
