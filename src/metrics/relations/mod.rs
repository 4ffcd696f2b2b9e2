//! Relations of the prompt in the image: a scene graph says who does what to whom, OWL-ViT where a thing is that
//! the graph has no class for.
//!
//! The score of a relation is the probability of its best pair of boxes: that the one is the person, that the other
//! is the object, and that the predicate holds between them. Relations do not compete: a further one changes nothing.

mod scene;
#[cfg(test)]
mod tests;

use std::fmt;

use super::{
    FeatureSet, Flag, Input, MetricResult, NullReason, OBJECTS, Score,
    objects::{corners, sigmoid},
};
use crate::{
    tensor::Output,
    text::relations::{Relation, RelationKind},
};

pub use scene::reduce;

use self::scene::{
    BOXES, CLASSES, OBJECT, OBJECT_BOXES, PERSON, PREDICATE, SUBJECT, SUBJECT_BOXES, TIE, sum,
};

/// The scene graph, reduced to what relations need ([`reduce`]).
pub const RELATIONS: &str = "relations";

/// What is asked of a scene graph for one prompt.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Relations {
    /// Every relation of the prompt, also those that the graph has no words for.
    pub sought: Vec<Sought>,
    /// Whether the pack can look for objects by their words.
    pub grounded: bool,
    /// Whether the prompt is longer than what was read of it.
    pub truncated: bool,
    /// Width and height of the upright image in pixels.
    pub size: (u32, u32),
}

/// A relation in the words of the prompt and in those of the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Sought {
    /// As the prompt or its annotation has it.
    pub relation: Relation,
    /// What it is to the graph, or why it is nothing.
    pub mapping: Result<Mapping, Unmapped>,
}

/// A relation in the words of a scene graph, by places in its labels.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mapping {
    /// What the predicate may be seen as, at least one.
    pub predicates: Vec<usize>,
    /// The predicate that is called just so.
    pub exact: Option<usize>,
    /// Whether nothing in the graph is close to the predicate.
    pub approximate: bool,
    /// The cosine by which the predicate was mapped, where no table has it.
    pub nearest: Option<f64>,
    /// What the object may be seen as; may be empty.
    pub classes: Vec<usize>,
}

/// Why a relation has no score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unmapped {
    /// Its subject is not the person of the prompt.
    Subject,
    /// The graph has no word that is near its predicate.
    Predicate,
}

/// How well a relation was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RelationScore {
    /// The product of the factors, in [0, 1].
    pub score: f64,
    /// The same for the predicate that is called just so, where there is one.
    pub strict: Option<f64>,
    /// What the score is made of.
    pub factors: Factors,
    /// The best pair's boxes as left, top, right, bottom in pixels; none where the graph saw no pair at all.
    pub corners: Option<Pair>,
    /// Where the object's words fit best, whatever the graph saw there; none without OWL-ViT.
    pub grounding: Option<Grounding>,
    /// Whether OWL-ViT reads only the beginning of the object's words.
    pub truncated: bool,
}

/// The factors of a relation's score at its best pair of boxes, each in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Factors {
    /// The probability that the subject is a person.
    pub person: f64,
    /// The probability of the predicate, with pairs times that of any relation.
    pub predicate: f64,
    /// The probability that the object is the object.
    pub object: f64,
}

/// Two boxes as left, top, right, bottom in pixels of the upright image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// The person's.
    pub subject: [f64; 4],
    /// The object's.
    pub object: [f64; 4],
}

/// Where OWL-ViT finds the words of an object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grounding {
    /// The sigmoid of the largest logit of these words, over all boxes.
    pub score: f64,
    /// Centre, width and height of that box as shares of the image.
    pub place: [f32; 4],
    /// Left, top, right, bottom of that box in pixels.
    pub corners: [f64; 4],
}

impl Relations {
    /// Whether any relation can be looked for.
    #[must_use]
    pub fn any_mapped(&self) -> bool {
        self.sought.iter().any(|sought| sought.mapping.is_ok())
    }
}

impl fmt::Display for Unmapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Subject => "its subject is not the person",
            Self::Predicate => "the scene graph has no predicate near its own",
        })
    }
}

/// Mean over all relations.
pub(super) fn rfs(features: &FeatureSet) -> MetricResult {
    mean(features, None, |relation| Some(relation.score))
}

/// Mean over the relations whose predicate the graph calls just so.
pub(super) fn rfs_strict(features: &FeatureSet) -> MetricResult {
    let mut score = mean(features, None, |relation| relation.strict)?;
    // Nothing is near here: the words are equal.
    score.flags.retain(|flag| *flag != Flag::ApproximatePredicate);
    Ok(score)
}

/// Mean over the relations with a verb.
pub(super) fn rfs_interaction(features: &FeatureSet) -> MetricResult {
    mean(features, Some(RelationKind::Interaction), |relation| Some(relation.score))
}

/// Mean over the relations without a verb.
pub(super) fn rfs_location(features: &FeatureSet) -> MetricResult {
    mean(features, Some(RelationKind::Location), |relation| Some(relation.score))
}

fn mean(
    features: &FeatureSet,
    kind: Option<RelationKind>,
    value: impl Fn(&RelationScore) -> Option<f64>,
) -> MetricResult {
    let relations = features.relations();
    let wanted = |sought: &&Sought| kind.is_none_or(|kind| sought.relation.kind == kind);
    if relations.sought.iter().filter(wanted).count() == 0 {
        return Err(NullReason::NoRelations);
    }
    let mut flags = Vec::new();
    let mut values = Vec::new();
    for sought in relations.sought.iter().filter(wanted) {
        let Ok(mapping) = &sought.mapping else { continue };
        let found = look(features, sought, mapping);
        let Some(value) = value(&found) else { continue };
        values.push(value);
        if mapping.approximate || mapping.nearest.is_some() {
            flags.push(Flag::ApproximatePredicate);
        }
        if found.truncated {
            flags.push(Flag::Truncated);
        }
    }
    if values.is_empty() {
        return Err(NullReason::NoMappedRelations);
    }
    if relations.truncated {
        flags.push(Flag::Truncated);
    }
    if !relations.grounded {
        flags.push(Flag::Ungrounded);
    }
    flags.sort_unstable();
    flags.dedup();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    Ok(Score { flags, ..mean.into() })
}

/// How well each relation was found, in their order; none for those that the graph has no words for.
#[must_use]
pub fn found(features: &FeatureSet) -> Vec<Option<RelationScore>> {
    let sought = &features.relations().sought;
    sought
        .iter()
        .map(|sought| sought.mapping.as_ref().ok().map(|mapping| look(features, sought, mapping)))
        .collect()
}

/// Looks for the best pair of boxes of one relation.
fn look(features: &FeatureSet, sought: &Sought, mapping: &Mapping) -> RelationScore {
    let size = features.relations().size;
    let phrase = features.objects().phrase(&sought.relation.object);
    let grounding = phrase.and_then(|phrase| ground(features, phrase.column, size));
    let scene = Scene::of(features);
    let objects = scene.objects(mapping, grounding.as_ref());
    let best = scene.best(&objects, &mapping.predicates);
    let score = |best: Option<Best>| best.map_or(0.0, |best| best.factors.product());
    RelationScore {
        score: score(best),
        strict: mapping.exact.map(|exact| score(scene.best(&objects, &[exact]))),
        factors: best.map_or_else(Factors::default, |best| best.factors),
        corners: best
            .map(|best| Pair { subject: corners(best.boxes.0, size), object: corners(best.boxes.1, size) }),
        grounding,
        truncated: phrase.is_some_and(|phrase| phrase.truncated),
    }
}

/// The box that fits the words in a column best, whatever other words fit it better: the first of equals.
fn ground(features: &FeatureSet, column: usize, size: (u32, u32)) -> Option<Grounding> {
    let logits = features.find(OBJECTS, Input::Objects, "logits")?;
    let boxes = features.find(OBJECTS, Input::Objects, "boxes")?.data.as_chunks::<4>().0;
    let of_words = logits.data.chunks_exact(logits.shape[1]).map(|row| row[column]);
    let mut best: Option<(usize, f32)> = None;
    for (at, logit) in of_words.enumerate() {
        if best.is_none_or(|(_, most)| logit > most) {
            best = Some((at, logit));
        }
    }
    let (at, logit) = best?;
    let place = *boxes.get(at)?;
    Some(Grounding { score: sigmoid(logit), place, corners: corners(place, size) })
}

impl Factors {
    fn product(self) -> f64 {
        self.person * self.predicate * self.object
    }
}

/// The best pair of boxes, as shares of the image, and its factors.
#[derive(Debug, Clone, Copy)]
struct Best {
    factors: Factors,
    boxes: ([f32; 4], [f32; 4]),
}

/// The reduced outputs of a scene graph.
enum Scene<'a> {
    Pairs {
        persons: &'a [f32],
        classes: &'a Output,
        boxes: &'a [[f32; 4]],
        tie: &'a Output,
        subject: &'a [f32],
    },
    Triplets {
        persons: &'a [f32],
        object: &'a Output,
        predicate: &'a Output,
        boxes: (&'a [[f32; 4]], &'a [[f32; 4]]),
    },
}

impl<'a> Scene<'a> {
    fn of(features: &'a FeatureSet) -> Self {
        let get = |name| features.get(RELATIONS, Input::Image, name);
        let boxes = |name| get(name).data.as_chunks::<4>().0;
        let persons = get(PERSON).data.as_slice();
        match features.find(RELATIONS, Input::Image, TIE) {
            Some(tie) => Self::Pairs {
                persons,
                classes: get(CLASSES),
                boxes: boxes(BOXES),
                tie,
                subject: get(SUBJECT).data.as_slice(),
            },
            None => Self::Triplets {
                persons,
                object: get(OBJECT),
                predicate: get(PREDICATE),
                boxes: (boxes(SUBJECT_BOXES), boxes(OBJECT_BOXES)),
            },
        }
    }

    /// The probability that each query's object is the relation's: by its class, or by OWL-ViT's box for its words.
    fn objects(&self, mapping: &Mapping, grounding: Option<&Grounding>) -> Vec<f64> {
        let (classes, boxes) = match self {
            Self::Pairs { classes, boxes, .. } => (classes, *boxes),
            Self::Triplets { object, boxes, .. } => (object, boxes.1),
        };
        let rows = classes.data.chunks_exact(classes.shape[1]);
        rows.zip(boxes)
            .map(|(row, &at)| {
                let seen = sum(row, &mapping.classes);
                let read = grounding.map_or(0.0, |found| found.score * overlap(at, found.place));
                seen.max(read)
            })
            .collect()
    }

    /// The pair with the largest product, the first of equals; none where no query has a partner.
    fn best(&self, objects: &[f64], predicates: &[usize]) -> Option<Best> {
        let mut best: Option<(f64, Best)> = None;
        let mut offer = |factors: Factors, boxes| {
            let product = factors.product();
            if best.is_none_or(|(most, _)| product > most) {
                best = Some((product, Best { factors, boxes }));
            }
        };
        match self {
            Self::Pairs { persons, boxes, tie, subject, .. } => {
                let width = tie.shape[1];
                for (to, &object) in objects.iter().enumerate() {
                    for place in predicates.iter().map(|predicate| to * width + predicate) {
                        let from = subject[place];
                        if from < 0.0 {
                            continue;
                        }
                        let from = from as usize;
                        let (person, predicate) = (f64::from(persons[from]), f64::from(tie.data[place]));
                        offer(Factors { person, predicate, object }, (boxes[from], boxes[to]));
                    }
                }
            }
            Self::Triplets { persons, predicate, boxes, .. } => {
                let rows = predicate.data.chunks_exact(predicate.shape[1]);
                for (at, (row, &object)) in rows.zip(objects).enumerate() {
                    let factors =
                        Factors { person: f64::from(persons[at]), predicate: sum(row, predicates), object };
                    offer(factors, (boxes.0[at], boxes.1[at]));
                }
            }
        }
        best.map(|(_, best)| best)
    }
}

/// The share of two boxes, given as centre, width and height, that both have: intersection over union.
fn overlap(a: [f32; 4], b: [f32; 4]) -> f64 {
    let [a, b] = [a, b].map(|sides| corners(sides, (1, 1)));
    let side = |low: usize| (a[low + 2].min(b[low + 2]) - a[low].max(b[low])).max(0.0);
    let area = |sides: [f64; 4]| (sides[2] - sides[0]) * (sides[3] - sides[1]);
    let both = side(0) * side(1);
    let either = area(a) + area(b) - both;
    if either > 0.0 { both / either } else { 0.0 }
}
