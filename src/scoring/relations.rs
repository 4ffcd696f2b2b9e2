//! The relations of a prompt: read or annotated, put into the words of the pack's scene graph, looked for.

use std::{sync::Arc, time::Instant};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    FeatureUse, Sample,
    images::ImageJob,
    texts::{Embedder, EncodedText, Texts},
};
use crate::{
    content::ContentHash,
    engine::{Engine, EngineError, Feature, Origin, Pack, PackError, pack::Labels},
    metrics::{
        Factors, FeatureSet, Mapping, RELATIONS, RelationScore, Relations, Sought, Unmapped, cosine,
        found_relations, reduce,
    },
    text::relations::{
        Relation, RelationKind, RelationSource, Vocabulary, annotated, is_cut, is_person, relations,
        relations_of,
    },
    vision::Geometry,
};

/// The text tower whose features say which predicate an unknown one is near.
const TEXT: &str = "clip.text";

/// Relations that are looked for at most; what else an endless prompt has is left out with a flag. As many may be annotated.
const MOST: usize = 256;

/// How well a relation of the prompt was found in the image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RelationEvidence {
    /// Who: `person` where the relation was read off the prompt.
    #[schema(example = "person")]
    pub subject: String,
    /// A verb, a preposition, or a verb with its preposition.
    #[schema(example = "riding")]
    pub predicate: String,
    /// With what.
    #[schema(example = "skateboard")]
    pub object: String,
    /// Whether a verb is involved.
    pub kind: RelationKind,
    /// Where the relation comes from.
    pub source: RelationSource,
    /// The predicates of the scene graph that it may be seen as.
    #[schema(example = json!(["riding", "on", "using"]))]
    pub seen_as: Vec<String>,
    /// The classes of the scene graph that the object may be seen as; others are found by their words alone.
    #[schema(example = json!(["skateboard"]))]
    pub classes: Vec<String>,
    /// Whether those predicates only come near its own.
    #[serde(default)]
    pub approximate: bool,
    /// The cosine of the text features by which a predicate that no table has was mapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<f64>,
    /// Why it has no score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmapped: Option<Unmapped>,
    /// The product of the factors, in [0, 1]; null where it was not looked for.
    pub score: Option<f64>,
    /// The same for the predicate that the graph calls just so; null where it has none.
    pub strict: Option<f64>,
    /// What the score is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factors: Option<Factors>,
    /// The person of the best pair: left, top, right, bottom in pixels of the upright image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_box: Option<[f64; 4]>,
    /// The object of the best pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_box: Option<[f64; 4]>,
    /// Where OWL-ViT finds the object's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grounding: Option<GroundingEvidence>,
    /// Whether OWL-ViT reads only the beginning of the object's words.
    #[serde(default)]
    pub truncated: bool,
}

/// Where OWL-ViT finds the words of an object.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GroundingEvidence {
    /// In [0, 1]. Unlike the scores of `objects`, without competition between words.
    pub score: f64,
    /// Left, top, right, bottom of the best box.
    #[serde(rename = "box")]
    pub corners: [f64; 4],
}

/// Looks for relations with the scene graph of one pack.
pub(super) struct RelationFinder {
    engine: Arc<Engine>,
    labels: Labels,
    vocabulary: Arc<Vocabulary>,
    nearest: Option<Nearest>,
    grounded: bool,
}

/// What maps predicates that no table has.
struct Nearest {
    embedder: Embedder,
    /// The graph's predicates, as the text tower reads them.
    predicates: Vec<EncodedText>,
}

impl RelationFinder {
    /// What the pack's scene graph can be asked; `None` where it has none. `grounded` says whether objects can be
    /// looked for by their words.
    pub(super) fn of(
        pack: &Pack,
        engine: &Arc<Engine>,
        texts: &Texts,
        grounded: bool,
    ) -> Result<Option<Self>, PackError> {
        if engine.graph(RELATIONS).is_none() {
            return Ok(None);
        }
        let Some(labels) = pack.read_labels(RELATIONS)? else { return Ok(None) };
        let vocabulary = Arc::new(Vocabulary::of(&labels.classes, &labels.predicates));
        let encoded = labels.predicates.iter().map(|predicate| texts.encode(TEXT, predicate)).collect();
        let nearest = engine
            .graph(TEXT)
            .and(encoded)
            .map(|predicates| Nearest { embedder: Embedder::new(Arc::clone(engine), TEXT), predicates });
        Ok(Some(Self { engine: Arc::clone(engine), labels, vocabulary, nearest, grounded }))
    }

    /// The relations of a sample in the words of the graph, and the features that this took.
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

    /// Relations in the words of the graph, and the features that this took.
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
        let seen = vocabulary.predicate(&relation.predicate, &relation.object).ok_or(Unmapped::Predicate)?;
        Ok(Mapping {
            predicates: seen.places,
            exact: vocabulary.exact(&relation.predicate),
            approximate: seen.approximate,
            nearest: None,
            classes: vocabulary.object(&relation.object),
        })
    }

    /// Maps predicates that no table has to the nearest one of the graph, if one is near enough.
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

    /// What the graph says of an image, reduced to what any prompt needs and kept so.
    pub(super) async fn look(
        &self,
        image: ContentHash,
        job: Arc<ImageJob>,
        geometry: Geometry,
    ) -> Result<Feature, EngineError> {
        let vocabulary = Arc::clone(&self.vocabulary);
        let reduced = move |outputs: &_| reduce(outputs, vocabulary.person());
        self.engine.reduced_feature(RELATIONS, image, move || job.tensor(geometry), reduced).await
    }

    /// What the evidence shows of each relation; scores only where the graph was run.
    pub(super) fn evidence(
        &self,
        relations: &Relations,
        features: &FeatureSet,
        ran: bool,
    ) -> Vec<RelationEvidence> {
        let scores = if ran { found_relations(features) } else { vec![None; relations.sought.len()] };
        relations.sought.iter().zip(scores).map(|(sought, score)| self.show(sought, score)).collect()
    }

    fn show(&self, sought: &Sought, found: Option<RelationScore>) -> RelationEvidence {
        let names = |places: &[usize], of: &[String]| places.iter().map(|&at| of[at].clone()).collect();
        let Relation { subject, predicate, object, kind, source } = sought.relation.clone();
        let mapping = sought.mapping.as_ref().ok();
        RelationEvidence {
            subject,
            predicate,
            object,
            kind,
            source,
            seen_as: mapping.map_or_else(Vec::new, |m| names(&m.predicates, &self.labels.predicates)),
            classes: mapping.map_or_else(Vec::new, |m| names(&m.classes, &self.labels.classes)),
            approximate: mapping.is_some_and(|mapping| mapping.approximate),
            nearest: mapping.and_then(|mapping| mapping.nearest),
            unmapped: sought.mapping.as_ref().err().copied(),
            score: found.map(|found| found.score),
            strict: found.and_then(|found| found.strict),
            factors: found.map(|found| found.factors),
            subject_box: found.and_then(|found| found.corners).map(|pair| pair.subject),
            object_box: found.and_then(|found| found.corners).map(|pair| pair.object),
            grounding: found
                .and_then(|found| found.grounding)
                .map(|grounding| GroundingEvidence { score: grounding.score, corners: grounding.corners }),
            truncated: found.is_some_and(|found| found.truncated),
        }
    }
}

/// The place of the feature nearest to a word's, the first of equals, and the cosine of the two.
fn nearest(word: &Feature, known: &[Feature]) -> (usize, f64) {
    let vector = |feature: &Feature| feature.features.values("embedding").unwrap_or_default().to_vec();
    let word = vector(word);
    let mut best = (0, f64::NEG_INFINITY);
    for (place, known) in known.iter().map(vector).enumerate() {
        // Rounding may leave the range.
        let cosine = cosine(&word, &known).clamp(-1.0, 1.0);
        if cosine > best.1 {
            best = (place, cosine);
        }
    }
    best
}
