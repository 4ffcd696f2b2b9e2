//! Keys that were renamed in 0.2. Their old names are accepted with a warning until 0.3.

use figment::{
    Error, Metadata, Profile, Provider,
    value::{Dict, Map, Tag, Value},
};

/// Old and new path of each renamed key.
const RENAMED: [(&str, &str); 14] = [
    ("limits.picture_mib", "limits.image_mib"),
    ("limits.picture_megapixels", "limits.image_megapixels"),
    ("limits.picture_min_side", "limits.image_min_side"),
    ("engine.lanes_at_once", "engine.concurrent_batches"),
    ("engine.cuda.on_processor", "engine.cuda.cpu_graphs"),
    ("privacy.face_days", "privacy.face_retention_days"),
    ("store.files", "store.spool"),
    ("store.files_mib", "store.spool_mib"),
    ("store.trash_days", "store.trash_retention_days"),
    ("runs.at_once", "runs.concurrency"),
    ("runs.at_once_beside_requests", "runs.concurrency_under_load"),
    ("runs.waiting_samples", "runs.pending_samples"),
    ("analysis.at_once", "analysis.concurrency"),
    ("analysis.waiting", "analysis.queue"),
];

/// A key that was set under its old name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenamedKey {
    /// The old name, which was used.
    pub old: &'static str,
    /// The name that replaces it.
    pub new: &'static str,
}

/// Returns whether `key` is the old name of a key.
pub(super) fn is_old(key: &str) -> bool {
    RENAMED.iter().any(|(old, _)| *old == key)
}

/// A source of configuration with the old names replaced.
pub(super) struct Current {
    metadata: Metadata,
    data: Map<Profile, Dict>,
    /// The old names that were replaced.
    pub(super) renamed: Vec<RenamedKey>,
}

impl Current {
    /// Reads a source and replaces old names.
    ///
    /// # Errors
    /// The source cannot be read, or sets a key under both names.
    pub(super) fn of(source: &impl Provider) -> Result<Self, Box<Error>> {
        let metadata = source.metadata();
        let named = |mut error: Error| {
            error.metadata = Some(metadata.clone());
            error
        };
        let data = source.data().map_err(named).map_err(Box::new)?;
        let mut current = Self { metadata, data, renamed: Vec::new() };
        for dict in current.data.values_mut() {
            for (old, new) in RENAMED {
                let Some(value) = take(dict, old) else { continue };
                if !put(dict, new, value) {
                    let problem = format!("`{old}` is the old name of `{new}`: remove it");
                    return Err(Box::new(problem.into()));
                }
                current.renamed.push(RenamedKey { old, new });
            }
        }
        Ok(current)
    }
}

impl Provider for Current {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(self.data.clone())
    }
}

/// Removes and returns the value at a dotted path.
fn take(dict: &mut Dict, path: &str) -> Option<Value> {
    match path.split_once('.') {
        None => dict.remove(path),
        Some((section, rest)) => match dict.get_mut(section) {
            Some(Value::Dict(_, inner)) => take(inner, rest),
            _ => None,
        },
    }
}

/// Inserts a value at a dotted path. Returns false if the path is taken.
fn put(dict: &mut Dict, path: &str, value: Value) -> bool {
    match path.split_once('.') {
        None => !dict.contains_key(path) && dict.insert(path.to_owned(), value).is_none(),
        Some((section, rest)) => {
            let section = dict
                .entry(section.to_owned())
                .or_insert_with(|| Value::Dict(Tag::Default, Dict::new()));
            match section {
                Value::Dict(_, inner) => put(inner, rest, value),
                _ => false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, environment};

    fn load(text: &str) -> Result<Config, crate::config::ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(Some(file.path()))
    }

    #[test]
    fn every_new_name_is_a_key_and_no_old_name_is() {
        let keys = environment::keys();
        for (old, new) in RENAMED {
            assert!(keys.iter().any(|key| key == new), "{new}");
            assert!(!keys.iter().any(|key| key == old), "{old}");
        }
    }

    #[test]
    fn old_names_set_the_renamed_keys_and_are_reported() {
        let config = load(
            "[limits]\npicture_mib = 7\n[store]\nfiles = \"here\"\n[engine.cuda]\non_processor = \
                []\n\
             [analysis]\nat_once = 2\nwaiting = 3\n[runs]\nat_once = 5",
        )
        .unwrap();
        assert_eq!(config.limits.image_mib, 7);
        assert_eq!(config.store.spool, std::path::Path::new("here"));
        assert!(config.engine.cuda.cpu_graphs.is_empty());
        assert_eq!(
            (config.analysis.concurrency, config.analysis.queue, config.runs.concurrency),
            (2, 3, 5)
        );
        let old: Vec<_> = config.renamed.iter().map(|key| key.old).collect();
        let expected = [
            "limits.picture_mib",
            "engine.cuda.on_processor",
            "store.files",
            "runs.at_once",
            "analysis.at_once",
            "analysis.waiting",
        ];
        assert_eq!(old, expected);
        assert!(load("[limits]\nimage_mib = 7").unwrap().renamed.is_empty());
    }

    #[test]
    fn both_names_of_a_key_are_refused() {
        let message = load("[limits]\npicture_mib = 7\nimage_mib = 8").unwrap_err().to_string();
        assert!(
            message.contains("`limits.picture_mib` is the old name of `limits.image_mib`"),
            "{message}"
        );
    }

    #[test]
    fn a_wrong_value_under_an_old_name_is_an_error() {
        let message = load("[limits]\npicture_mib = \"many\"").unwrap_err().to_string();
        assert!(message.contains("image_mib"), "{message}");
    }
}
