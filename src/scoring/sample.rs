//! What is scored: a picture, its prompt, the photos of its subject, and what is known about them.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::attributes::DatasetProbes;
use crate::{content::ContentHash, vision::Header};

/// One generated picture with everything it is judged against.
#[derive(Debug)]
pub struct Sample {
    /// The generated picture.
    pub image: Picture,
    /// The prompt that it was generated for.
    pub prompt: Option<String>,
    /// Photos of the subject that the generator was given.
    pub references: Vec<Picture>,
    /// Further photos of the same person, which the generator did not see.
    pub auxiliary: Vec<Picture>,
    /// What is known about prompt and subject.
    pub metadata: Metadata,
    /// What the dataset of its metadata teaches, where it names one.
    pub dataset: Option<DatasetProbes>,
}

/// An uploaded picture: the file's bytes, their address, and what the header says.
#[derive(Debug, Clone)]
pub struct Picture {
    /// The file as it came.
    pub bytes: Bytes,
    /// Address of the bytes.
    pub hash: ContentHash,
    /// Format and size after orientation, read from the header.
    pub header: Header,
}

/// What is known about a sample beside its pictures and prompt. All of it is stored with the sample.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metadata {
    /// Facial attributes of the subject by CelebA name; `true` where present.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(example = json!({"Young": true, "Male": false}))]
    pub attributes: BTreeMap<String, bool>,
    /// Objects that the prompt names, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["skateboard"]))]
    pub detectables: Vec<String>,
    /// Relations that the prompt names, as subject, predicate, object: they win over those read off the prompt.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!([["person", "riding", "skateboard"]]))]
    pub relations: Vec<[String; 3]>,
    /// Categories of the prompt, for slices of the leaderboard.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["action"]))]
    pub categories: Vec<String>,
    /// The dataset whose enrolled photos teach what attributes look like, for `aps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "celebrities")]
    pub dataset: Option<String>,
    /// Whose photo the subject's is: samples of one identity are resampled together for intervals.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "000")]
    pub identity: Option<String>,
    /// The kind of the prompt, a free label for slices; Stellar has `T` and `H`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "T")]
    pub prompt_kind: Option<String>,
}

impl Sample {
    /// The address of everything that a score can depend on: two samples of equal address get equal scores.
    #[must_use]
    pub fn content(&self) -> ContentHash {
        let hashes = |pictures: &[Picture]| pictures.iter().map(|picture| picture.hash).collect::<Vec<_>>();
        let (references, auxiliary) = (hashes(&self.references), hashes(&self.auxiliary));
        content(self.image.hash, self.prompt.as_deref(), &references, &auxiliary, &self.metadata)
    }
}

/// [`Sample::content`] of a sample whose photos are not at hand.
#[must_use]
pub fn content(
    image: ContentHash,
    prompt: Option<&str>,
    references: &[ContentHash],
    auxiliary: &[ContentHash],
    metadata: &Metadata,
) -> ContentHash {
    let list = |hashes: &[ContentHash]| hashes.iter().flat_map(|hash| *hash.as_bytes()).collect::<Vec<u8>>();
    let metadata = serde_json::to_vec(metadata).expect("plain data always serialises");
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

    pub(in crate::scoring) fn picture(bytes: &'static [u8]) -> Picture {
        Picture {
            bytes: Bytes::from_static(bytes),
            hash: ContentHash::of(bytes),
            header: Header { format: Format::Png, width: 2, height: 2, decode_memory: 12 },
        }
    }

    pub(in crate::scoring) fn sample(prompt: Option<&str>, references: usize) -> Sample {
        Sample {
            image: picture(b"image"),
            prompt: prompt.map(str::to_owned),
            references: vec![picture(b"reference"); references],
            auxiliary: Vec::new(),
            metadata: Metadata::default(),
            dataset: None,
        }
    }

    #[test]
    fn content_tells_an_absent_prompt_from_an_empty_one() {
        assert_ne!(sample(None, 0).content(), sample(Some(""), 0).content());
    }

    #[test]
    fn content_tells_a_reference_from_an_auxiliary_photo() {
        let reference = sample(None, 1);
        let auxiliary = Sample { auxiliary: vec![picture(b"reference")], ..sample(None, 0) };
        assert_ne!(reference.content(), auxiliary.content());
    }

    #[test]
    fn content_covers_the_metadata() {
        let mut other = sample(None, 0);
        other.metadata.detectables.push("dog".to_owned());
        assert_ne!(sample(None, 0).content(), other.content());
    }

    #[test]
    fn what_is_not_said_leaves_no_trace_in_the_content() {
        assert_eq!(serde_json::to_string(&Metadata::default()).unwrap(), "{}");
    }

    #[test]
    fn unknown_metadata_is_refused_by_name() {
        let error = serde_json::from_str::<Metadata>(r#"{"detectable": ["dog"]}"#).unwrap_err();
        assert!(error.to_string().contains("detectable"), "{error}");
    }
}
