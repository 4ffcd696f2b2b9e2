//! Objects to find in an image: embeds their words and runs the detector once for all of them.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Sample,
    texts::{Embedder, EncodedText, Texts},
};
use crate::{
    content::ContentHash,
    engine::{Engine, EngineError, Feature, FeatureRequest},
    metrics::{
        FeatureSource, Label, ObjectScore, Objects, Phrase, Relations, SkipReason, Skipped, choose,
    },
    tensor::Tensor,
    vision::DecodeError,
};

const TEXT: &str = FeatureSource::OBJECT_GRAPHS[0];

/// Numbers of queries to which an image's queries are padded, so that images share a batch. The
/// logits of a query do not depend on the other queries, and those of the padding are ignored.
const COUNTS: [usize; 6] = [4, 8, 16, 32, 64, 128];

/// An object of the prompt and its score in the image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ObjectEvidence {
    /// The label as given.
    #[schema(example = "skateboard")]
    pub label: String,
    /// In [0, 1]; 0 if every box fits another label better; null if the label was skipped.
    pub score: Option<f64>,
    /// Left, top, right, bottom of the best box in pixels of the upright image.
    #[serde(rename = "box", default, skip_serializing_if = "Option::is_none")]
    #[schema(example = json!([102.1, 340.5, 421.9, 520.2]))]
    pub corners: Option<[f64; 4]>,
    /// True if the text model truncated the label.
    #[serde(default)]
    pub truncated: bool,
    /// Reason why the label was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<SkipReason>,
}

/// Returns the evidence for the objects that were found and those that were skipped.
pub(super) fn evidence<'a>(
    found: impl Iterator<Item = &'a ObjectScore>,
    skipped: &[Skipped],
) -> Vec<ObjectEvidence> {
    let found = found.map(|object| ObjectEvidence {
        label: object.label.clone(),
        score: Some(object.score),
        corners: object.corners,
        truncated: object.truncated,
        skipped: None,
    });
    let skipped = skipped.iter().map(|label| ObjectEvidence {
        label: label.text.clone(),
        score: None,
        corners: None,
        truncated: false,
        skipped: Some(label.why),
    });
    found.chain(skipped).collect()
}

/// The objects to find in one image.
pub(super) struct Wanted {
    pub(super) objects: Arc<Objects>,
    texts: Vec<EncodedText>,
}

impl Wanted {
    /// Collects the labels of `goa`, if `labelled`, and then the objects of relations. Each group
    /// is sorted, so that the order in the request has no effect. Texts with equal tokens share a
    /// column.
    pub(super) fn of(
        sample: &Sample,
        labelled: bool,
        relations: &Relations,
        texts: &Texts,
    ) -> Self {
        let encode = |text| texts.encode(TEXT, text).expect("a pack's text graphs have tokenizers");
        let detectables = if labelled { sample.metadata.detectables.as_slice() } else { &[] };
        let (chosen, mut skipped) = choose(detectables);
        let mut by_ids: BTreeMap<Vec<i64>, (&String, EncodedText)> = BTreeMap::new();
        for text in chosen {
            let encoded = encode(text);
            match by_ids.entry(encoded.tokens.ids.clone()) {
                Entry::Vacant(place) => {
                    place.insert((text, encoded));
                }
                Entry::Occupied(_) => {
                    skipped.push(Skipped { text: text.clone(), why: SkipReason::Duplicate });
                }
            }
        }
        let label = |(text, encoded): &(&String, EncodedText)| Label {
            text: (*text).clone(),
            truncated: encoded.tokens.truncated,
        };
        let labels = by_ids.values().map(label).collect();
        let mapped = relations.sought.iter().filter(|sought| sought.mapping.is_ok());
        let words: BTreeSet<&String> = mapped.map(|sought| &sought.relation.object).collect();
        let words: Vec<(&String, EncodedText)> =
            words.into_iter().map(|text| (text, encode(text))).collect();
        let further: BTreeMap<&[i64], &EncodedText> = words
            .iter()
            .filter(|(_, encoded)| !by_ids.contains_key(&encoded.tokens.ids))
            .map(|(_, encoded)| (encoded.tokens.ids.as_slice(), encoded))
            .collect();
        let all: Vec<EncodedText> = by_ids
            .values()
            .map(|(_, encoded)| encoded)
            .chain(further.into_values())
            .cloned()
            .collect();
        let column = |encoded: &EncodedText| {
            all.iter().position(|text| text.tokens.ids == encoded.tokens.ids)
        };
        let phrases = words
            .iter()
            .filter_map(|(text, encoded)| {
                let column = column(encoded)?;
                Some(Phrase { text: (*text).clone(), truncated: encoded.tokens.truncated, column })
            })
            .collect();
        let size = (sample.image.header.width, sample.image.header.height);
        Self { objects: Arc::new(Objects { labels, phrases, skipped, size }), texts: all }
    }
}

/// Finds objects with the lanes of one engine.
pub(super) struct ObjectFinder(Embedder);

impl ObjectFinder {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self(Embedder::new(engine, TEXT))
    }

    /// Requests the logits of every label in every box, cached by the image and the labels' tokens.
    pub(super) fn request(
        &self,
        image: ContentHash,
        pixels: impl Future<Output = Result<Vec<Tensor>, DecodeError>> + Send + 'static,
        wanted: &Wanted,
    ) -> FeatureRequest<'static> {
        let hashes: Vec<ContentHash> = wanted.texts.iter().map(EncodedText::hash).collect();
        let parts = hashes.iter().map(|hash| hash.as_bytes().as_slice());
        let labels = ContentHash::of_parts(parts);
        let (embedder, texts) = (self.0.clone(), wanted.texts.clone());
        let prepare = async move {
            let embeddings = embedder.embed(texts).await?;
            let mut tensors =
                pixels.await.map_err(|error| EngineError::Prepare(Arc::new(error)))?;
            tensors.push(queries(&embeddings));
            Ok::<_, EngineError>(tensors)
        };
        FeatureRequest::new(FeatureSource::Objects.name(), image, prepare).with(labels)
    }
}

/// Stacks the embeddings as rows and pads them with the first one to one of the common counts.
fn queries(embeddings: &[Feature]) -> Tensor {
    let rows: Vec<&[f32]> = embeddings
        .iter()
        .map(|found| found.features.values("embedding").unwrap_or_default())
        .collect();
    let count = rows.len();
    let filled =
        COUNTS.into_iter().find(|&common| common >= count).unwrap_or(count.next_multiple_of(128));
    let width = rows.first().map_or(0, |row| row.len());
    let data: Vec<f32> =
        (0..filled).flat_map(|at| rows[if at < count { at } else { 0 }]).copied().collect();
    Tensor::F32 { shape: vec![filled, width], data: data.into() }
}
