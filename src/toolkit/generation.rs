//! The toolkit's JSON file next to each generated image.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::card::GeneratorSettings;

/// The description of a generated image, written by the method: the keys that scoring needs, and
/// the settings of the generator among the others.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Generation {
    /// Name of the sample, by which results are paired.
    pub save_name: String,
    /// The prompt; `{}` stands for the person.
    pub prompt: String,
    /// Path of the photo that the method was given. Only its last two parts count: the identity's
    /// folder and the file in it.
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
    /// True if the prompt is from Stellar-T, false if it is from Stellar-H.
    #[serde(default)]
    pub is_stellar_t: Option<bool>,
    /// All other keys of the file.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// Reason why a file does not describe an image.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// The file is not JSON, or does not have these keys.
    #[error("it is not the expected JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A key has an invalid value.
    #[error("`{key}` {problem}")]
    Value {
        /// Name of the key.
        key: &'static str,
        /// Description of the problem.
        problem: String,
    },
}

impl Generation {
    /// Parses a file's text.
    ///
    /// # Errors
    /// The problem and the key that has it.
    pub fn parse(text: &str) -> Result<Self, GenerationError> {
        let read: Self = serde_json::from_str(text)?;
        let wrong =
            |key, problem: &str| GenerationError::Value { key, problem: problem.to_owned() };
        if read.save_name.trim().is_empty() {
            return Err(wrong("save_name", "is empty"));
        }
        if read.photo().is_none() {
            return Err(wrong("image_path", "does not end in a folder and a file, like 000/0.jpg"));
        }
        labels(&read.attributes)
            .map_err(|problem| GenerationError::Value { key: "attributes", problem })?;
        format_prompt(&read.prompt)
            .map_err(|problem| GenerationError::Value { key: "prompt", problem })?;
        Ok(read)
    }

    /// Returns the settings of the generator.
    #[must_use]
    pub fn settings(&self) -> GeneratorSettings {
        GeneratorSettings::of_json(&self.others)
    }

    /// Returns the identity's folder and the photo in it: the last two parts of the path,
    /// regardless of the system that wrote it.
    #[must_use]
    pub fn photo(&self) -> Option<(&str, &str)> {
        let mut parts = self.image_path.rsplit(['/', '\\']);
        let (file, folder) = (parts.next()?, parts.next()?);
        let is_name = |part: &str| !matches!(part, "" | "." | "..");
        (is_name(file) && is_name(folder)).then_some((folder, file))
    }
}

/// Converts attributes to truth values.
///
/// # Errors
/// Names the attribute that is neither 1 nor -1.
pub fn labels(attributes: &BTreeMap<String, i64>) -> Result<BTreeMap<String, bool>, String> {
    let label = |(name, value): (&String, &i64)| match value {
        1 => Ok((name.clone(), true)),
        -1 => Ok((name.clone(), false)),
        other => Err(format!("{name} is {other}: 1 means present, -1 absent")),
    };
    attributes.iter().map(label).collect()
}

/// Returns the prompt as models read it: Python's `prompt.format("a person")`, in which `{}`
/// becomes the person and doubled braces become single braces.
///
/// # Errors
/// If Python's `format` would fail because of the braces; the toolkit fails there too.
pub fn format_prompt(prompt: &str) -> Result<String, String> {
    const PERSON: &str = "a person";
    let mut text = String::with_capacity(prompt.len() + PERSON.len());
    let mut rest = prompt;
    // The previous placeholder: Python allows `{}` once here, and not together with `{0}`.
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
            let problem = "has a brace that is not the one `{}`: only the person can be inserted \
                (in several places, \
                           write `{0}` in each), and literal braces must be doubled";
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
    fn a_file_of_the_toolkit_is_read_with_its_settings() {
        let read = Generation::parse(FILE).unwrap();
        assert_eq!(read.save_name, "000-0-00");
        assert_eq!(read.photo(), Some(("000", "0.jpg")));
        assert_eq!(read.detectables, ["clown", "skis"]);
        assert!(!labels(&read.attributes).unwrap()["Male"]);
        assert_eq!((read.settings().steps, read.settings().seed), (Some(100), None));
    }

    #[test]
    fn the_photo_is_the_last_two_parts_of_any_path() {
        let photo = |path: &str| {
            let read =
                Generation { image_path: path.to_owned(), ..Generation::parse(FILE).unwrap() };
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
    fn problems_are_reported_with_their_key() {
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
