//! The toolkit's JSON file beside each generated image.

use std::collections::BTreeMap;

use serde::Deserialize;

/// What a generator wrote about an image: the keys that scoring needs. Whatever else stands in the file (seed, steps,
/// date) is the generator's own and ignored.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Generation {
    /// The sample's name, by which results are paired.
    pub save_name: String,
    /// The prompt; `{}` stands for the person.
    pub prompt: String,
    /// The photo that the generator was given: of this path only the last two parts count, the identity's folder and
    /// the file in it.
    pub image_path: String,
    /// Facial attributes by CelebA's name, 1 where present and -1 where not.
    #[serde(default)]
    pub attributes: BTreeMap<String, i64>,
    /// Objects that the prompt names.
    #[serde(default)]
    pub detectables: Vec<String>,
    /// Categories of the prompt.
    #[serde(default)]
    pub categories: Vec<String>,
    /// Relations that the prompt names, as subject, predicate, object.
    #[serde(default)]
    pub relations: Vec<[String; 3]>,
    /// Whether the prompt is of Stellar-T, `false` for Stellar-H.
    #[serde(default)]
    pub is_stellar_t: Option<bool>,
}

/// Why a file does not describe an image.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// Not JSON, or not with these keys.
    #[error("it is not the JSON expected: {0}")]
    Json(#[from] serde_json::Error),
    /// A value that cannot be.
    #[error("`{key}` {problem}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl Generation {
    /// Reads a file's text.
    ///
    /// # Errors
    /// What is wrong, and with which key.
    pub fn parse(text: &str) -> Result<Self, GenerationError> {
        let read: Self = serde_json::from_str(text)?;
        let wrong = |key, problem: &str| GenerationError::Value { key, problem: problem.to_owned() };
        if read.save_name.trim().is_empty() {
            return Err(wrong("save_name", "is empty"));
        }
        if read.photo().is_none() {
            return Err(wrong("image_path", "does not end in a folder and a file, like 000/0.jpg"));
        }
        labels(&read.attributes).map_err(|problem| GenerationError::Value { key: "attributes", problem })?;
        format_prompt(&read.prompt).map_err(|problem| GenerationError::Value { key: "prompt", problem })?;
        Ok(read)
    }

    /// The identity's folder and the photo in it: the last two parts of the path, whichever system wrote it.
    #[must_use]
    pub fn photo(&self) -> Option<(&str, &str)> {
        let mut parts = self.image_path.rsplit(['/', '\\']);
        let (file, folder) = (parts.next()?, parts.next()?);
        let is_name = |part: &str| !matches!(part, "" | "." | "..");
        (is_name(file) && is_name(folder)).then_some((folder, file))
    }
}

/// Attributes as truth values.
///
/// # Errors
/// The attribute that is neither 1 nor -1.
pub fn labels(attributes: &BTreeMap<String, i64>) -> Result<BTreeMap<String, bool>, String> {
    let label = |(name, value): (&String, &i64)| match value {
        1 => Ok((name.clone(), true)),
        -1 => Ok((name.clone(), false)),
        other => Err(format!("{name} is {other}: 1 means present, -1 absent")),
    };
    attributes.iter().map(label).collect()
}

/// The prompt as models read it: Python's `prompt.format("a person")`, in which `{}` is the person and doubled braces
/// are braces.
///
/// # Errors
/// Braces on which Python's `format` would fail; the toolkit stops there too.
pub fn format_prompt(prompt: &str) -> Result<String, String> {
    const PERSON: &str = "a person";
    let mut text = String::with_capacity(prompt.len() + PERSON.len());
    let mut rest = prompt;
    // How the person was put in before: Python lets `{}` stand once, and not beside `{0}`.
    let mut before = "";
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let (put, taken) = if rest.starts_with("{{") {
            ("{", 2)
        } else if rest.starts_with("}}") {
            ("}", 2)
        } else if rest.starts_with("{0}") && before != "{}" {
            before = "{0}";
            (PERSON, 3)
        } else if rest.starts_with("{}") && before.is_empty() {
            before = "{}";
            (PERSON, 2)
        } else {
            let problem = "has a brace that is not the one `{}`: only the person is put in (in several places, write \
                           `{0}` in each), and a brace as such is doubled";
            return Err(problem.to_owned());
        };
        text.push_str(put);
        rest = &rest[taken..];
    }
    Ok(text + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"index": 0, "prompt": "{} as a clown skiing", "attributes": {"Young": 1, "Male": -1},
        "detectables": ["clown", "skis"], "image_path": "/home/someone/data/000/0.jpg", "save_name": "000-0-00",
        "steps": 100, "aux_metadata": {"revision": null}}"#;

    #[test]
    fn a_file_of_the_toolkit_is_read_and_its_other_keys_ignored() {
        let read = Generation::parse(FILE).unwrap();
        assert_eq!(read.save_name, "000-0-00");
        assert_eq!(read.photo(), Some(("000", "0.jpg")));
        assert_eq!(read.detectables, ["clown", "skis"]);
        assert!(!labels(&read.attributes).unwrap()["Male"]);
    }

    #[test]
    fn the_photo_is_the_last_two_parts_of_any_path() {
        let photo = |path: &str| {
            let read = Generation { image_path: path.to_owned(), ..Generation::parse(FILE).unwrap() };
            read.photo().map(|(folder, file)| format!("{folder}|{file}"))
        };
        assert_eq!(photo("199/1.jpg").unwrap(), "199|1.jpg");
        assert_eq!(photo(r"C:\data\199\1.jpg").unwrap(), "199|1.jpg");
        for wrong in ["1.jpg", "", "199/", "../1.jpg", "/1.jpg"] {
            assert_eq!(photo(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn prompts_are_formatted_as_python_does() {
        for (prompt, text) in [
            ("{} as a clown", "a person as a clown"),
            ("no person", "no person"),
            ("{0} and {0}", "a person and a person"),
            ("{{}} for {}", "{} for a person"),
            ("é {} 字", "é a person 字"),
            ("", ""),
        ] {
            assert_eq!(format_prompt(prompt).unwrap(), text);
        }
        for wrong in [
            "{style} of {}",
            "{} and {}",
            "{} and {0}",
            "{0} and {}",
            "an open {",
            "a closed }",
            "{:>10}",
            "{1}",
        ] {
            assert!(format_prompt(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        for (from, to, words) in [
            (r#""Male": -1"#, r#""Male": 0"#, ["attributes", "Male is 0"]),
            ("{} as", "{style} as", ["prompt", "brace"]),
            ("/home/someone/data/000/0.jpg", "0.jpg", ["image_path", "000/0.jpg"]),
            (r#""save_name": "000-0-00""#, r#""save_name": " ""#, ["save_name", "empty"]),
            (r#""save_name": "000-0-00","#, "", ["save_name", "missing"]),
            ("}}", "}", ["JSON", "EOF"]),
        ] {
            let error = Generation::parse(&FILE.replace(from, to)).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }
}
