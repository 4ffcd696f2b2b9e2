//! Settings of the generator for single images, and what the images of a run have in common.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::label;

/// Largest guidance scale: generators use up to some dozens.
const MOST_GUIDANCE: f64 = 1e6;

/// Values of a setting that are listed, the most frequent ones.
const LISTED: usize = 16;

/// Settings that an image was generated with. No score depends on them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GeneratorSettings {
    /// The model.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    pub model: Option<String>,
    /// Number of denoising steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 100)]
    pub steps: Option<u32>,
    /// Guidance scale.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 5.0)]
    pub guidance: Option<f64>,
    /// Seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 42)]
    pub seed: Option<i64>,
}

impl GeneratorSettings {
    /// Returns whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes the settings from the JSON file of a generated image, by the toolkit's keys or by
    /// those that other programs use. Values of another type are no settings.
    #[must_use]
    pub fn of_json(keys: &Map<String, Value>) -> Self {
        let first = |names: &[&str]| names.iter().find_map(|name| keys.get(*name));
        Self {
            model: first(&["model_name", "model"])
                .and_then(|value| label::clean(value.as_str()?).ok()),
            steps: first(&["steps", "num_inference_steps"])
                .and_then(|value| u32::try_from(value.as_u64()?).ok()),
            guidance: first(&["guidance_scale", "guidance", "cfg_scale"])
                .and_then(Value::as_f64)
                .filter(|scale| scale.abs() <= MOST_GUIDANCE),
            seed: first(&["model_seed", "seed"]).and_then(Value::as_i64),
        }
    }

    /// Returns the settings with the model in the form that is stored.
    ///
    /// # Errors
    /// The setting that is invalid.
    pub fn clean(self) -> Result<Self, String> {
        let model = self.model.map(|model| label::clean(&model)).transpose();
        let model = model.map_err(|problem| format!("settings.model {problem}"))?;
        if let Some(scale) = self.guidance.filter(|scale| scale.abs() > MOST_GUIDANCE) {
            return Err(format!(
                "settings.guidance is {scale}, at most {MOST_GUIDANCE} is allowed"
            ));
        }
        Ok(Self { model, ..self })
    }

    /// Returns the settings by name, as text.
    fn texts(&self) -> impl Iterator<Item = (&'static str, String)> {
        [
            ("model", self.model.clone()),
            ("steps", self.steps.map(|steps| steps.to_string())),
            ("guidance", self.guidance.map(|scale| scale.to_string())),
            ("seed", self.seed.map(|seed| seed.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

/// Settings of the images of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CollectedSettings {
    /// Number of images.
    pub samples: u64,
    /// Settings that at least one image has, by name: `model`, `steps`, `guidance`, `seed`.
    pub settings: BTreeMap<String, CollectedSetting>,
}

/// Values of one setting in the images of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CollectedSetting {
    /// Whether images have different values, or only some of them have one.
    pub mixed: bool,
    /// The values, most frequent first; at most 16.
    pub values: Vec<SettingValue>,
    /// Number of different values, listed or not.
    pub distinct: u64,
    /// Number of images without the setting.
    pub missing: u64,
}

/// A value of a setting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SettingValue {
    /// The value as text.
    pub value: String,
    /// Number of images with it.
    pub samples: u64,
}

impl CollectedSettings {
    /// Counts the settings of images.
    #[must_use]
    pub fn of<'a>(images: impl IntoIterator<Item = &'a GeneratorSettings>) -> Self {
        let mut samples = 0;
        let mut found: BTreeMap<&'static str, BTreeMap<String, u64>> = BTreeMap::new();
        for image in images {
            samples += 1;
            for (name, value) in image.texts() {
                *found.entry(name).or_default().entry(value).or_default() += 1;
            }
        }
        let collected = |counts: BTreeMap<String, u64>| {
            let (distinct, with) = (counts.len() as u64, counts.values().sum::<u64>());
            let mut values: Vec<SettingValue> = counts
                .into_iter()
                .map(|(value, samples)| SettingValue { value, samples })
                .collect();
            values.sort_by_key(|value| std::cmp::Reverse(value.samples));
            values.truncate(LISTED);
            let missing = samples - with;
            CollectedSetting { mixed: distinct > 1 || missing > 0, values, distinct, missing }
        };
        let settings =
            found.into_iter().map(|(name, counts)| (name.to_owned(), collected(counts))).collect();
        Self { samples, settings }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: Value) -> GeneratorSettings {
        let Value::Object(keys) = json else { panic!("an object") };
        GeneratorSettings::of_json(&keys)
    }

    #[test]
    fn the_toolkits_keys_and_others_are_read_and_wrong_types_are_not() {
        let all = GeneratorSettings {
            model: Some("stellar".to_owned()),
            steps: Some(100),
            guidance: Some(5.0),
            seed: Some(42),
        };
        let toolkit =
            json!({"model_name": "stellar", "steps": 100, "guidance_scale": 5, "model_seed": 42});
        assert_eq!(read(toolkit), all);
        let other =
            json!({"model": "stellar", "num_inference_steps": 100, "cfg_scale": 5.0, "seed": 42});
        assert_eq!(read(other), all);
        let wrong = json!({"model": 3, "steps": -1, "guidance": "5", "seed": 1.5});
        assert!(read(wrong).is_empty());
    }

    #[test]
    fn mixed_settings_list_their_values_with_counts() {
        let of = |steps, seed| GeneratorSettings { steps, seed, ..GeneratorSettings::default() };
        let images = [of(Some(50), Some(1)), of(Some(20), Some(2)), of(Some(50), None)];
        let found = CollectedSettings::of(&images);
        assert_eq!(found.samples, 3);
        let steps = &found.settings["steps"];
        assert!(steps.mixed && steps.distinct == 2 && steps.missing == 0);
        assert_eq!(steps.values[0], SettingValue { value: "50".to_owned(), samples: 2 });
        assert_eq!(found.settings["seed"].missing, 1);
        assert!(!found.settings.contains_key("model"));
        let many: Vec<_> = (0..40).map(|seed| of(Some(50), Some(seed))).collect();
        let found = CollectedSettings::of(&many);
        assert!(!found.settings["steps"].mixed);
        assert_eq!(
            (found.settings["seed"].values.len(), found.settings["seed"].distinct),
            (16, 40)
        );
    }
}
