//! Relations of a prompt: parsed or annotated, mapped to the labels of the pack's scene graph, and
//! scored.

use std::{sync::Arc, time::Instant};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    FeatureUse, Sample,
    texts::{Embedder, EncodedText, Texts},
};
use crate::{
    content::ContentHash,
    engine::{Engine, EngineError, Feature, FeatureRequest, Origin, Pack, PackError, pack::Labels},
    metrics::{
        Factors, FeatureSet, FeatureSource, Mapping, RelationScore, Relations, Role, Sought,
        Unmapped, cosine, found_relations, reduce,
    },
    tensor::Tensor,
    text::relations::{
        Relation, RelationKind, RelationSource, Vocabulary, annotated, is_cut, is_person,
        relations, relations_of,
    },
    vision::DecodeError,
};

/// Text tower whose embeddings map an unknown predicate to the nearest known one.
pub(super) const TEXT: Role = "clip.text";

/// Upper limit on relations per prompt. A prompt with more loses the rest, and its scores are
/// flagged. The same number may be annotated.
const MOST: usize = 256;

/// A relation of the prompt and its score in the image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RelationEvidence {
    /// Subject of the relation; always `person` if it was parsed from the prompt.
    #[schema(example = "person")]
    pub subject: String,
    /// A verb, a preposition, or a verb with its preposition.
    #[schema(example = "riding")]
    pub predicate: String,
    /// Object of the relation.
    #[schema(example = "skateboard")]
    pub object: String,
    /// `interaction` if a verb is involved, else `location`.
    pub kind: RelationKind,
    /// Source of the relation.
    pub source: RelationSource,
    /// Predicates of the scene graph that count as this predicate.
    #[schema(example = json!(["riding", "on", "using"]))]
    pub seen_as: Vec<String>,
    /// Classes of the scene graph that count as the object. If empty, the object is found by its
    /// words alone.
    #[schema(example = json!(["skateboard"]))]
    pub classes: Vec<String>,
    /// True if these predicates only approximate the one in the prompt.
    #[serde(default)]
    pub approximate: bool,
    /// Cosine similarity of the text embeddings by which the predicate was mapped, if no table
    /// lists it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<f64>,
    /// Reason why the relation has no score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmapped: Option<Unmapped>,
    /// Product of the factors, in [0, 1]; null if the relation was not scored.
    pub score: Option<f64>,
    /// Score with the predicate that the graph has under exactly this name; null if it has none.
    pub strict: Option<f64>,
    /// Factors of the score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factors: Option<Factors>,
    /// Box of the person in the best pair: left, top, right, bottom in pixels of the upright image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_box: Option<[f64; 4]>,
    /// Box of the object in the best pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_box: Option<[f64; 4]>,
    /// Best OWL-ViT box for the object's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grounding: Option<GroundingEvidence>,
    /// True if OWL-ViT truncated the object's words.
    #[serde(default)]
    pub truncated: bool,
}

/// Best OWL-ViT box for the words of an object.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GroundingEvidence {
    /// In [0, 1]. Unlike the scores in `objects`, words do not compete for boxes.
    pub score: f64,
    /// Left, top, right, bottom of the best box in pixels of the upright image.
    #[serde(rename = "box")]
    pub corners: [f64; 4],
}

/// Finds relations with the scene graph of one pack.
pub(super) struct RelationFinder {
    labels: Labels,
    vocabulary: Arc<Vocabulary>,
    nearest: Option<Nearest>,
    grounded: bool,
}

/// Maps predicates that no table lists.
struct Nearest {
    embedder: Embedder,
    /// Predicates of the graph, tokenised for the text tower.
    predicates: Vec<EncodedText>,
}

impl RelationFinder {
    /// Creates the finder for the pack's scene graph, or returns `None` if the pack has none.
    /// `grounded` is true if the pack can locate objects by their words.
    pub(super) fn of(
        pack: &Pack,
        engine: &Arc<Engine>,
        texts: &Texts,
        grounded: bool,
    ) -> Result<Option<Self>, PackError> {
        if engine.graph(FeatureSource::SCENE_GRAPH).is_none() {
            return Ok(None);
        }
        let Some(labels) = pack.read_labels(FeatureSource::SCENE_GRAPH)? else { return Ok(None) };
        let vocabulary = Arc::new(Vocabulary::of(&labels.classes, &labels.predicates));
        let encoded =
            labels.predicates.iter().map(|predicate| texts.encode(TEXT, predicate)).collect();
        let nearest = engine.graph(TEXT).and(encoded).map(|predicates| Nearest {
            embedder: Embedder::new(Arc::clone(engine), TEXT),
            predicates,
        });
        Ok(Some(Self { labels, vocabulary, nearest, grounded }))
    }

    /// Maps the relations of a sample to labels of the graph. Also returns the features that this
    /// used.
    pub(super) async fn seek(
        &self,
        sample: &Sample,
        texts: &Texts,
    ) -> Result<(Relations, Option<FeatureUse>), EngineError> {
        let metadata = &sample.metadata;
        let prompt = sample.prompt.as_deref().unwrap_or_default();
        let (relations, truncated) = if !metadata.relations.is_empty() {
            (annotated(&metadata.relations), false)
        } else if metadata.detectables.is_empty() {
            (relations(prompt), is_cut(prompt))
        } else {
            (relations_of(prompt, &metadata.detectables), is_cut(prompt))
        };
        let truncated = truncated || relations.len() > MOST;
        let relations = relations.into_iter().take(MOST).collect();
        let (sought, used) = self.words(relations, texts).await?;
        let size = (sample.image.header.width, sample.image.header.height);
        Ok((Relations { sought, grounded: self.grounded, truncated, size }, used))
    }

    /// Maps relations to labels of the graph. Also returns the features that this used.
    pub(super) async fn words(
        &self,
        relations: Vec<Relation>,
        texts: &Texts,
    ) -> Result<(Vec<Sought>, Option<FeatureUse>), EngineError> {
        let map = |relation: Relation| Sought { mapping: self.map(&relation), relation };
        let mut sought: Vec<Sought> = relations.into_iter().map(map).collect();
        let used = self.map_unknown(&mut sought, texts).await?;
        Ok((sought, used))
    }

    /// Maps a relation by the tables.
    fn map(&self, relation: &Relation) -> Result<Mapping, Unmapped> {
        if !is_person(&relation.subject) {
            return Err(Unmapped::Subject);
        }
        let vocabulary = &self.vocabulary;
        let seen = vocabulary
            .predicate(&relation.predicate, &relation.object)
            .ok_or(Unmapped::Predicate)?;
        Ok(Mapping {
            predicates: seen.places,
            exact: vocabulary.exact(&relation.predicate),
            approximate: seen.approximate,
            nearest: None,
            classes: vocabulary.object(&relation.object),
        })
    }

    /// Maps predicates that no table lists to the nearest one of the graph, if it is near enough.
    async fn map_unknown(
        &self,
        sought: &mut [Sought],
        texts: &Texts,
    ) -> Result<Option<FeatureUse>, EngineError> {
        let Some(Nearest { embedder, predicates }) = &self.nearest else { return Ok(None) };
        let mut unknown: Vec<(&mut Sought, EncodedText)> = sought
            .iter_mut()
            .filter(|sought| sought.mapping == Err(Unmapped::Predicate))
            .filter(|sought| !sought.relation.predicate.trim().is_empty())
            .filter_map(|sought| {
                let text = texts.encode(TEXT, &sought.relation.predicate)?;
                Some((sought, text))
            })
            .collect();
        if unknown.is_empty() {
            return Ok(None);
        }
        let started = Instant::now();
        let words = unknown.iter().map(|(_, text)| text.clone());
        let found = embedder.embed(predicates.iter().cloned().chain(words).collect()).await?;
        let (known, words) = found.split_at(predicates.len());
        for ((sought, _), word) in unknown.iter_mut().zip(words) {
            let (place, cosine) = nearest(word, known);
            if cosine >= self.vocabulary.least_cosine() {
                sought.mapping = Ok(Mapping {
                    predicates: vec![place],
                    exact: None,
                    approximate: false,
                    nearest: Some(cosine),
                    classes: self.vocabulary.object(&sought.relation.object),
                });
            }
        }
        let origins = || found.iter().map(|feature| feature.origin);
        let origin = if origins().all(|origin| origin == Origin::Cached) {
            Origin::Cached
        } else if origins().any(|origin| origin == Origin::Computed) {
            Origin::Computed
        } else {
            Origin::Shared
        };
        Ok(Some(FeatureUse {
            graph: TEXT.to_owned(),
            of: "predicates".to_owned(),
            origin,
            milliseconds: started.elapsed().as_secs_f64() * 1e3,
            batch: found.iter().map(|feature| feature.timing.batch).max().unwrap_or(0),
        }))
    }

    /// Requests the graph's outputs for an image, reduced to what any prompt needs.
    pub(super) fn request(
        &self,
        image: ContentHash,
        pixels: impl Future<Output = Result<Vec<Tensor>, DecodeError>> + Send + 'static,
    ) -> FeatureRequest<'static> {
        let vocabulary = Arc::clone(&self.vocabulary);
        FeatureRequest::new(FeatureSource::SCENE_GRAPH, image, pixels)
            .reduced(move |outputs| reduce(outputs, vocabulary.person()))
    }

    /// Returns the evidence for each relation. It has scores only if the graph was run (`ran`).
    pub(super) fn evidence(
        &self,
        relations: &Relations,
        features: &FeatureSet,
        ran: bool,
    ) -> Vec<RelationEvidence> {
        let scores =
            if ran { found_relations(features) } else { vec![None; relations.sought.len()] };
        relations
            .sought
            .iter()
            .zip(scores)
            .map(|(sought, score)| self.show(sought, score))
            .collect()
    }

    fn show(&self, sought: &Sought, found: Option<RelationScore>) -> RelationEvidence {
        let names =
            |places: &[usize], of: &[String]| places.iter().map(|&at| of[at].clone()).collect();
        let Relation { subject, predicate, object, kind, source } = sought.relation.clone();
        let mapping = sought.mapping.as_ref().ok();
        RelationEvidence {
            subject,
            predicate,
            object,
            kind,
            source,
            seen_as: mapping
                .map_or_else(Vec::new, |m| names(&m.predicates, &self.labels.predicates)),
            classes: mapping.map_or_else(Vec::new, |m| names(&m.classes, &self.labels.classes)),
            approximate: mapping.is_some_and(|mapping| mapping.approximate),
            nearest: mapping.and_then(|mapping| mapping.nearest),
            unmapped: sought.mapping.as_ref().err().copied(),
            score: found.map(|found| found.score),
            strict: found.and_then(|found| found.strict),
            factors: found.map(|found| found.factors),
            subject_box: found.and_then(|found| found.corners).map(|pair| pair.subject),
            object_box: found.and_then(|found| found.corners).map(|pair| pair.object),
            grounding: found.and_then(|found| found.grounding).map(|grounding| GroundingEvidence {
                score: grounding.score,
                corners: grounding.corners,
            }),
            truncated: found.is_some_and(|found| found.truncated),
        }
    }
}

/// Returns the index of the known feature nearest to a word's, the first of equals, and their
/// cosine.
fn nearest(word: &Feature, known: &[Feature]) -> (usize, f64) {
    let vector =
        |feature: &Feature| feature.features.values("embedding").unwrap_or_default().to_vec();
    let word = vector(word);
    let mut best = (0, f64::NEG_INFINITY);
    for (place, known) in known.iter().map(vector).enumerate() {
        // Rounding may exceed [-1, 1].
        let cosine = cosine(&word, &known).clamp(-1.0, 1.0);
        if cosine > best.1 {
            best = (place, cosine);
        }
    }
    best
}
