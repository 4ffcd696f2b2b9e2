//! The input of scoring: an image, its prompt, images of the person, and metadata.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use utoipa::ToSchema;

use super::DatasetProbes;
use crate::{
    card::GeneratorSettings,
    content::ContentHash,
    label::{self, LabelError},
    metrics::Input,
    vision::Header,
};

/// A generated image with everything that it is scored against.
#[derive(Debug)]
pub struct Sample {
    /// The generated image.
    pub image: EncodedImage,
    /// The prompt that the image was generated from.
    pub prompt: Option<String>,
    /// Reference images: images of the person that the generator was given.
    pub references: Vec<EncodedImage>,
    /// Auxiliary images: further images of the same person, which the generator was not given.
    pub auxiliary: Vec<EncodedImage>,
    /// Metadata of the prompt and the person.
    pub metadata: Metadata,
    /// Linear probes of the dataset that the metadata names, if any.
    pub dataset: Option<Arc<DatasetProbes>>,
}

/// An uploaded image: the bytes of the file, their content hash, and the data of the header.
#[derive(Debug, Clone)]
pub struct EncodedImage {
    /// The file as received.
    pub bytes: Bytes,
    /// Content hash of the bytes.
    pub hash: ContentHash,
    /// Format and size after orientation, read from the header.
    pub header: Header,
}

/// Further facts about a sample, in addition to its images and prompt. All of them are stored with
/// the sample.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metadata {
    /// Facial attributes of the person by CelebA name; `true` if present.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "attribute_labels")]
    #[schema(example = json!({"Young": true, "Male": false}))]
    pub attributes: BTreeMap<String, bool>,
    /// Levels of fine-grained attributes of the person, such as CelebA-Dialog's from 0 to 5. They
    /// are stored for slices, and no metric uses them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(example = json!({"Smiling": 3}))]
    pub finegrained_attributes: BTreeMap<String, i16>,
    /// Objects that the prompt names, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["skateboard"]))]
    pub detectables: Vec<String>,
    /// Relations that the prompt names, as subject, predicate, object. They replace those parsed
    /// from the prompt.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!([["person", "riding", "skateboard"]]))]
    pub relations: Vec<[String; 3]>,
    /// Categories of the prompt, for slices of the leaderboard.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["action"]))]
    pub categories: Vec<String>,
    /// The dataset on whose photos the linear probes of `aps` are fitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "celebrities")]
    pub dataset: Option<String>,
    /// The person that the sample is about. Samples of one identity are resampled together for
    /// confidence intervals.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "000")]
    pub identity: Option<String>,
    /// Kind of the prompt, a free-form label for slices; Stellar uses `T` and `H`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "T")]
    pub prompt_kind: Option<String>,
    /// Settings that the image was generated with. They are counted when the run is finished, and
    /// no metric uses them.
    #[serde(skip_serializing_if = "GeneratorSettings::is_empty")]
    pub settings: GeneratorSettings,
}

/// Upper limit on attributes per sample; CelebA has 40.
const MOST_ATTRIBUTES: usize = 64;
/// Upper limit on categories per prompt.
const MOST_CATEGORIES: usize = 64;

impl Metadata {
    /// Returns the metadata with every text in the form that is stored ([`label::clean`]).
    ///
    /// # Errors
    /// Fails with the entry that is not a valid label, or with the list that is too long.
    pub fn clean(self, most_words: usize) -> Result<Self, String> {
        let of = |entry: &str, text: String| {
            label::clean(&text).map_err(|problem| format!("metadata.{entry} {problem}"))
        };
        let few = |entry: &str, count: usize, most: usize, why: &str| {
            if count <= most {
                return Ok(());
            }
            Err(format!("metadata has {count} {entry}, at most {most} {why}: send fewer"))
        };
        few("attributes", self.attributes.len(), MOST_ATTRIBUTES, "are stored per sample")?;
        let levels = self.finegrained_attributes.len();
        few("finegrained_attributes", levels, MOST_ATTRIBUTES, "are stored per sample")?;
        few("categories", self.categories.len(), MOST_CATEGORIES, "are stored per prompt")?;
        few("detectables", self.detectables.len(), most_words, "are scored")?;
        few("relations", self.relations.len(), most_words, "are scored")?;
        let mut attributes = BTreeMap::new();
        for (name, present) in self.attributes {
            let name = label::clean_within(&name, label::ATTRIBUTE_BYTES)
                .map_err(|problem| format!("a name in metadata.attributes {problem}"))?;
            if attributes.insert(name.clone(), present).is_some_and(|before| before != present) {
                return Err(format!(
                    "metadata.attributes has `{name}` twice, once present and once absent"
                ));
            }
        }
        let mut finegrained_attributes = BTreeMap::new();
        for (name, level) in self.finegrained_attributes {
            let name = label::clean_within(&name, label::ATTRIBUTE_BYTES).map_err(|problem| {
                format!("a name in metadata.finegrained_attributes {problem}")
            })?;
            if finegrained_attributes.insert(name.clone(), level).is_some_and(|old| old != level) {
                return Err(format!(
                    "metadata.finegrained_attributes has `{name}` twice, with different levels"
                ));
            }
        }
        let all = |entry: &str, texts: Vec<String>| {
            texts.into_iter().map(|text| of(entry, text)).collect::<Result<Vec<_>, _>>()
        };
        // Detectables and relations are stored as received: an empty one is reported as skipped.
        let seen = |entry: &str, text: String| match label::check_visible(&text) {
            _ if text.len() > label::MAX_BYTES => {
                Err(format!("metadata.{entry} {}", LabelError::TooLong(label::MAX_BYTES)))
            }
            Err(problem) => Err(format!("metadata.{entry} {problem}")),
            Ok(()) => Ok(text),
        };
        let words = |text: String| seen("relations", text);
        Ok(Self {
            attributes,
            finegrained_attributes,
            detectables: self
                .detectables
                .into_iter()
                .map(|text| seen("detectables", text))
                .collect::<Result<_, _>>()?,
            relations: self
                .relations
                .into_iter()
                .map(|[subject, predicate, object]| {
                    Ok([words(subject)?, words(predicate)?, words(object)?])
                })
                .collect::<Result<_, String>>()?,
            categories: all("categories", self.categories)?,
            dataset: self.dataset.map(|text| of("dataset", text)).transpose()?,
            identity: self.identity.map(|text| of("identity", text)).transpose()?,
            prompt_kind: self.prompt_kind.map(|text| of("prompt_kind", text)).transpose()?,
            settings: self.settings.clean().map_err(|problem| format!("metadata.{problem}"))?,
        })
    }
}

/// Deserialises attributes given as booleans, or as 1 and -1 like in the toolkit.
///
/// # Errors
/// Fails with the name of the attribute that has any other value.
pub fn attribute_labels<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, bool>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Label {
        Bool(bool),
        Number(serde_json::Number),
        Other(serde::de::IgnoredAny),
    }
    let labels = BTreeMap::<String, Label>::deserialize(deserializer)?;
    let label = |(name, given): (String, Label)| {
        let present = match &given {
            Label::Bool(present) => Some(*present),
            Label::Number(number) if number.as_f64() == Some(1.0) => Some(true),
            Label::Number(number) if number.as_f64() == Some(-1.0) => Some(false),
            Label::Number(_) | Label::Other(_) => None,
        };
        let shown: String = label::visible(&name).chars().take(80).collect();
        present.map(|present| (name, present)).ok_or_else(|| {
            D::Error::custom(format!(
                "attribute `{shown}`: expected a boolean, or 1 if present and -1 if absent"
            ))
        })
    };
    labels.into_iter().map(label).collect()
}

impl Sample {
    /// Returns the image that an input names, if it names one.
    #[must_use]
    pub fn at(&self, input: Input) -> Option<&EncodedImage> {
        match input {
            Input::Image | Input::ImageWithPrompt | Input::Objects => Some(&self.image),
            Input::Reference(at) => self.references.get(at),
            Input::Auxiliary(at) => self.auxiliary.get(at),
            Input::Prompt => None,
        }
    }

    /// Content hash of everything that a score can depend on: samples with equal hashes get equal
    /// scores.
    #[must_use]
    pub fn content(&self) -> ContentHash {
        let hashes =
            |images: &[EncodedImage]| images.iter().map(|image| image.hash).collect::<Vec<_>>();
        let (references, auxiliary) = (hashes(&self.references), hashes(&self.auxiliary));
        content(self.image.hash, self.prompt.as_deref(), &references, &auxiliary, &self.metadata)
    }
}

/// Computes [`Sample::content`] from the hashes of the images.
#[must_use]
pub fn content(
    image: ContentHash,
    prompt: Option<&str>,
    references: &[ContentHash],
    auxiliary: &[ContentHash],
    metadata: &Metadata,
) -> ContentHash {
    let list = |hashes: &[ContentHash]| {
        hashes.iter().flat_map(|hash| *hash.as_bytes()).collect::<Vec<u8>>()
    };
    // No score depends on these, and samples that were sent without them stay the same.
    let metadata = Metadata {
        finegrained_attributes: BTreeMap::new(),
        settings: GeneratorSettings::default(),
        ..metadata.clone()
    };
    let metadata = serde_json::to_vec(&metadata).expect("plain data always serialises");
    // Absent and empty prompts differ: an empty one is scored, an absent one is not.
    let prompt = prompt.map_or_else(Vec::new, |prompt| [b"=", prompt.as_bytes()].concat());
    ContentHash::of_parts([
        image.as_bytes().as_slice(),
        &prompt,
        &list(references),
        &list(auxiliary),
        &metadata,
    ])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::vision::Format;

    pub(in crate::scoring) fn encoded(bytes: &'static [u8]) -> EncodedImage {
        EncodedImage {
            bytes: Bytes::from_static(bytes),
            hash: ContentHash::of(bytes),
            header: Header { format: Format::Png, width: 2, height: 2, decode_memory: 12 },
        }
    }

    pub(in crate::scoring) fn sample(prompt: Option<&str>, references: usize) -> Sample {
        Sample {
            image: encoded(b"image"),
            prompt: prompt.map(str::to_owned),
            references: vec![encoded(b"reference"); references],
            auxiliary: Vec::new(),
            metadata: Metadata::default(),
            dataset: None,
        }
    }

    #[test]
    fn content_distinguishes_an_absent_prompt_from_an_empty_one() {
        assert_ne!(sample(None, 0).content(), sample(Some(""), 0).content());
    }

    #[test]
    fn content_distinguishes_a_reference_from_an_auxiliary_image() {
        let reference = sample(None, 1);
        let auxiliary = Sample { auxiliary: vec![encoded(b"reference")], ..sample(None, 0) };
        assert_ne!(reference.content(), auxiliary.content());
    }

    #[test]
    fn content_covers_the_metadata() {
        let mut other = sample(None, 0);
        other.metadata.detectables.push("dog".to_owned());
        assert_ne!(sample(None, 0).content(), other.content());
    }

    #[test]
    fn absent_metadata_is_not_serialised() {
        assert_eq!(serde_json::to_string(&Metadata::default()).unwrap(), "{}");
    }

    #[test]
    fn unknown_metadata_is_refused_by_name() {
        let error = serde_json::from_str::<Metadata>(r#"{"detectable": ["dog"]}"#).unwrap_err();
        assert!(error.to_string().contains("detectable"), "{error}");
    }
}
