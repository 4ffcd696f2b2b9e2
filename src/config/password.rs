//! `store.password_file`: container engines hand over secrets as files.

use std::{fs, io, path::Path};

use reqwest::Url;

use super::{ConfigError, Store};

const KEY: &str = "store.password_file";

impl Store {
    /// Inserts the password of `password_file`, if one is configured, into the URL.
    pub(super) fn insert_password(&mut self) -> Result<(), ConfigError> {
        let Some(file) = &self.password_file else { return Ok(()) };
        let wrong = |why| ConfigError::Value { key: KEY, value: file.display().to_string(), why };
        let mut url = Url::parse(&self.url)
            .ok()
            .filter(|url| matches!(url.scheme(), "postgres" | "postgresql"))
            .ok_or_else(|| wrong("only a store.url that begins with postgres:// has a password"))?;
        if url.password().is_some() {
            return Err(wrong("store.url has a password too: set only one of them"));
        }
        let password = read_password(file).map_err(wrong)?;
        // Only a URL without a host cannot have a password.
        url.set_password(Some(&password))
            .map_err(|()| wrong("store.url has no host, as in postgres://USER@HOST/DATABASE"))?;
        self.url = url.into();
        Ok(())
    }
}

/// Reads a password from a file.
pub(crate) fn read_password(file: &Path) -> Result<String, &'static str> {
    let text = fs::read_to_string(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "there is no such file",
        io::ErrorKind::PermissionDenied => "the user of this process may not read it",
        _ => "it cannot be read as text",
    })?;
    // Editors and `echo` end a file with a line break.
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() { Err("the file is empty") } else { Ok(password.to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::Config;

    fn store(url: &str, file: Option<PathBuf>) -> Store {
        let mut store = Config::load(None).unwrap().store;
        url.clone_into(&mut store.url);
        store.password_file = file;
        store
    }

    #[test]
    fn the_password_of_the_file_is_inserted_and_escaped() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        fs::write(&file, "a b/c@d:é\n").unwrap();
        let mut store = store("postgres://stellar@db:5433/stellar?sslmode=disable", Some(file));
        store.insert_password().unwrap();
        let escaped = "postgres://stellar:a%20b%2Fc%40d%3A%C3%A9@db:5433/stellar?sslmode=disable";
        assert_eq!(store.url, escaped);
        assert!(!format!("{store:?}").contains("a%20b"), "{store:?}");
    }

    #[test]
    fn without_a_file_the_url_stays_as_it_is() {
        let mut store = store("postgres://stellar:secret@db/stellar", None);
        store.insert_password().unwrap();
        assert_eq!(store.url, "postgres://stellar:secret@db/stellar");
    }

    #[test]
    fn a_password_that_cannot_be_used_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let (file, empty) = (folder.path().join("password"), folder.path().join("empty"));
        fs::write(&file, "secret").unwrap();
        fs::write(&empty, "\n").unwrap();
        for (url, file, why) in [
            ("sqlite:data/stellar.db", &file, "postgres://"),
            ("postgres://me:other@db/stellar", &file, "only one of them"),
            ("postgres://me@db/stellar", &folder.path().join("missing"), "no such file"),
            ("postgres://me@db/stellar", &empty, "is empty"),
            ("postgres:///stellar", &file, "no host"),
        ] {
            let error = store(url, Some(file.clone())).insert_password().unwrap_err().to_string();
            assert!(error.contains(KEY) && error.contains(why), "{error}");
            assert!(!error.contains("secret") && !error.contains("other"), "{error}");
        }
    }
}
