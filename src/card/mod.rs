//! Cards of methods: what the authors of a method declare, and the settings of its images.

mod settings;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use settings::{CollectedSetting, CollectedSettings, GeneratorSettings, SettingValue};

use crate::label;

/// Maximum length of an address, in bytes.
pub const URL_BYTES: usize = 2_048;

/// Largest number of seconds of a cost: three years.
pub const MOST_SECONDS: f64 = 1e8;

/// Largest number of photos of a subject, and of steps of tuning.
pub const MOST_PHOTOS: u32 = 10_000;
/// See [`MOST_PHOTOS`].
pub const MOST_STEPS: u32 = 100_000_000;

/// What the authors of a method declare about it. Nothing of it is measured here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MethodCard {
    /// The paper that describes the method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paper: Option<Paper>,
    /// Address of the code, `http` or `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 2048, example = "https://example.org/code")]
    pub code_url: Option<String>,
    /// Licence of code and weights, such as an SPDX expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256, example = "MIT")]
    pub licence: Option<String>,
    /// The model that the method builds on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256, example = "stable-diffusion-xl-base-1.0")]
    pub base_model: Option<String>,
    /// Number of photos of a subject that the method is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 10_000, example = 1)]
    pub photos_per_subject: Option<u32>,
    /// Whether the method is tuned for each subject before it generates images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_tuning: Option<bool>,
    /// Steps of tuning for a subject; only with `subject_tuning`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 100_000_000)]
    pub tuning_steps: Option<u32>,
    /// Time that a subject costs before its first image, such as tuning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_subject: Option<Cost>,
    /// Time that an image costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_image: Option<Cost>,
    /// What the method was trained on.
    #[serde(skip_serializing_if = "TrainingData::is_empty")]
    pub training: TrainingData,
}

/// A paper. At least one of the two is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Paper {
    /// Title.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    pub title: Option<String>,
    /// Address, `http` or `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 2048, example = "https://arxiv.org/abs/2312.06116")]
    pub url: Option<String>,
}

/// Time on a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Seconds, above 0.
    #[schema(exclusive_minimum = 0, maximum = 100_000_000, example = 3.5)]
    pub seconds: f64,
    /// The GPU, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256, example = "A100 80 GB")]
    pub gpu: Option<String>,
}

/// What a method was trained on, in its authors' own terms. What is not declared is absent: it is
/// unknown, and not false.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingData {
    /// Whether the photos that the method is evaluated with were excluded from its training, also
    /// by cross-validation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluation_photos_excluded: Option<bool>,
    /// Whether the method was trained on prompts that it is evaluated with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_on_prompts: Option<bool>,
}

impl TrainingData {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The flags of runs in the terms of [`TrainingData`].
///
/// A flag that is not set says nothing, because it is false by default.
#[must_use]
pub fn excluded_by_flags(cross_validated: bool, on_evaluation_photos: bool) -> Option<bool> {
    match (on_evaluation_photos, cross_validated) {
        (true, _) => Some(false),
        (false, true) => Some(true),
        (false, false) => None,
    }
}

impl MethodCard {
    /// Returns the card with every text in the form that is stored.
    ///
    /// # Errors
    /// The field that is invalid, with what to do.
    pub fn clean(self) -> Result<Self, String> {
        let text = |field: &str, text: Option<String>| {
            text.map(|text| label::clean(&text).map_err(|problem| format!("`{field}` {problem}")))
                .transpose()
        };
        let most = |field: &str, value: Option<u32>, most: u32| match value {
            Some(value) if value > most => {
                Err(format!("`{field}` is {value}, at most {most} is allowed"))
            }
            value => Ok(value),
        };
        let cost = |field: &str, cost: Option<Cost>| {
            let Some(Cost { seconds, gpu }) = cost else { return Ok(None) };
            if !(seconds > 0.0 && seconds <= MOST_SECONDS) {
                return Err(format!(
                    "`{field}.seconds` is {seconds}: send seconds above 0 and at most \
                     {MOST_SECONDS}, or leave it out"
                ));
            }
            Ok(Some(Cost { seconds, gpu: text(&format!("{field}.gpu"), gpu)? }))
        };
        if self.tuning_steps.is_some() && self.subject_tuning != Some(true) {
            return Err("`card.tuning_steps` needs `card.subject_tuning`: true".to_owned());
        }
        let paper = match self.paper {
            None => None,
            Some(Paper { title: None, url: None }) => {
                return Err("`card.paper` has neither `title` nor `url`: leave it out".to_owned());
            }
            Some(paper) => Some(Paper {
                title: text("card.paper.title", paper.title)?,
                url: address("card.paper.url", paper.url)?,
            }),
        };
        Ok(Self {
            paper,
            code_url: address("card.code_url", self.code_url)?,
            licence: text("card.licence", self.licence)?,
            base_model: text("card.base_model", self.base_model)?,
            photos_per_subject: most(
                "card.photos_per_subject",
                self.photos_per_subject,
                MOST_PHOTOS,
            )?,
            subject_tuning: self.subject_tuning,
            tuning_steps: most("card.tuning_steps", self.tuning_steps, MOST_STEPS)?,
            per_subject: cost("card.per_subject", self.per_subject)?,
            per_image: cost("card.per_image", self.per_image)?,
            training: self.training,
        })
    }
}

/// Returns an address as browsers write it. Only web addresses are allowed: pages link to them.
fn address(field: &str, text: Option<String>) -> Result<Option<String>, String> {
    let Some(text) = text else { return Ok(None) };
    let wrong = |why: &str| format!("`{field}` {why}: send an address like https://example.org/");
    let too_long = || wrong(&format!("is longer than {URL_BYTES} bytes"));
    if text.len() > URL_BYTES {
        return Err(too_long());
    }
    let text = text.trim();
    if label::check_visible(text).is_err() || text.contains(char::is_whitespace) {
        return Err(wrong("has white space or invisible characters"));
    }
    let url = reqwest::Url::parse(text).map_err(|_| wrong("is not an address"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong("does not begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("has a user name or password"));
    }
    let url = String::from(url);
    if url.len() > URL_BYTES { Err(too_long()) } else { Ok(Some(url)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(json: serde_json::Value) -> Result<MethodCard, String> {
        serde_json::from_value::<MethodCard>(json).map_err(|error| error.to_string())?.clean()
    }

    #[test]
    fn only_web_addresses_are_taken() {
        for good in ["https://arxiv.org/abs/2312.06116", "http://example.org/a?b=c#d"] {
            let read = card(serde_json::json!({"code_url": good})).unwrap();
            assert_eq!(read.code_url.as_deref(), Some(good));
        }
        let long = format!("https://example.org/{}", "x".repeat(URL_BYTES));
        // Percent-encoded, the address is three times as long.
        let grows = format!("https://example.org/{}", "é".repeat(URL_BYTES / 3));
        for bad in [
            "javascript:alert(1)",
            "data:text/html,x",
            "ftp://example.org/",
            "//example.org",
            "example.org",
            "https://user:pass@example.org/",
            "https://exa mple.org/",
            "https://example.org/\u{202e}gpj",
            "http://",
            "",
            &long,
            &grows,
        ] {
            let problem = card(serde_json::json!({"paper": {"url": bad}})).unwrap_err();
            assert!(problem.contains("card.paper.url"), "{bad}: {problem}");
        }
    }

    #[test]
    fn numbers_are_bounded_and_steps_need_tuning() {
        for (json, word) in [
            (r#"{"per_image": {"seconds": 0}}"#, "per_image.seconds"),
            (r#"{"per_subject": {"seconds": 1e9}}"#, "per_subject.seconds"),
            (r#"{"photos_per_subject": 10001}"#, "photos_per_subject"),
            (r#"{"tuning_steps": 5}"#, "subject_tuning"),
            (r#"{"tuning_steps": 5, "subject_tuning": false}"#, "subject_tuning"),
            (r#"{"paper": {}}"#, "card.paper"),
            (r#"{"licence": " "}"#, "card.licence"),
            (r#"{"per_image": {"seconds": 1, "gpu": "\u0007"}}"#, "card.per_image.gpu"),
        ] {
            let problem = card(serde_json::from_str(json).unwrap()).unwrap_err();
            assert!(problem.contains(word), "{json}: {problem}");
        }
        let json = serde_json::json!({"tuning_steps": 5, "subject_tuning": true});
        assert_eq!(card(json).unwrap().tuning_steps, Some(5));
    }

    #[test]
    fn flags_of_runs_say_nothing_unless_they_are_set() {
        assert_eq!(excluded_by_flags(false, false), None);
        assert_eq!(excluded_by_flags(true, false), Some(true));
        assert_eq!(excluded_by_flags(true, true), Some(false));
    }
}
