//! Relations of the prompt in the image: a scene graph detects who does what to what, and OWL-ViT
//! locates objects for which the graph has no class.
//!
//! The score of a relation is the probability of its best pair of boxes: that one is the person,
//! that the other is the object, and that the predicate holds between them. Relations do not
//! compete: a further relation does not change the score of another.

mod scene;
#[cfg(test)]
mod tests;

use super::{
    FeatureSet, FeatureSource, Flag, Input, Mapping, MetricResult, NullReason, Score, Sought,
    objects::{corners, sigmoid},
};
use crate::{tensor::Output, text::relations::RelationKind};

pub use scene::reduce;

use self::scene::{
    BOXES, CLASSES, OBJECT, OBJECT_BOXES, PERSON, PREDICATE, SUBJECT, SUBJECT_BOXES, TIE, sum,
};

/// Score of a relation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RelationScore {
    /// Product of the factors, in [0, 1].
    pub score: f64,
    /// Score with the predicate of exactly this name, if there is one.
    pub strict: Option<f64>,
    /// Factors of the score.
    pub factors: Factors,
    /// Boxes of the best pair as left, top, right, bottom in pixels; `None` if the graph has no
    /// pair.
    pub corners: Option<Pair>,
    /// Best OWL-ViT box for the object's words, independent of the graph; `None` without OWL-ViT.
    pub grounding: Option<Grounding>,
    /// True if OWL-ViT truncated the object's words.
    pub truncated: bool,
}

/// Factors of a relation's score for its best pair of boxes, each in [0, 1].
#[derive(
    Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
pub struct Factors {
    /// Probability that the subject is a person.
    pub person: f64,
    /// Probability of the predicate. For graphs that score pairs, it is multiplied by the
    /// probability of any relation.
    pub predicate: f64,
    /// Probability that the object is the one of the relation.
    pub object: f64,
}

/// Two boxes as left, top, right, bottom in pixels of the upright image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Box of the person.
    pub subject: [f64; 4],
    /// Box of the object.
    pub object: [f64; 4],
}

/// Best OWL-ViT box for the words of an object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grounding {
    /// Sigmoid of the largest logit of these words over all boxes.
    pub score: f64,
    /// Centre, width and height of that box as shares of the image.
    pub place: [f32; 4],
    /// Left, top, right, bottom of that box in pixels.
    pub corners: [f64; 4],
}

/// Mean over all relations.
pub(super) fn rfs(features: &FeatureSet) -> MetricResult {
    mean(features, None, |relation| Some(relation.score))
}

/// Mean over the relations whose predicate the graph has under exactly its name.
pub(super) fn rfs_strict(features: &FeatureSet) -> MetricResult {
    let mut score = mean(features, None, |relation| relation.strict)?;
    // An exact match is not approximate.
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

/// Returns the score of each relation, in order; `None` for those that cannot be mapped to the
/// graph.
#[must_use]
pub fn found(features: &FeatureSet) -> Vec<Option<RelationScore>> {
    let sought = &features.relations().sought;
    sought
        .iter()
        .map(|sought| sought.mapping.as_ref().ok().map(|mapping| look(features, sought, mapping)))
        .collect()
}

/// Finds the best pair of boxes for one relation.
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
        corners: best.map(|best| Pair {
            subject: corners(best.boxes.0, size),
            object: corners(best.boxes.1, size),
        }),
        grounding,
        truncated: phrase.is_some_and(|phrase| phrase.truncated),
    }
}

/// Returns the box that fits the words in a column best, the first of equals. Other words do not
/// compete.
fn ground(features: &FeatureSet, column: usize, size: (u32, u32)) -> Option<Grounding> {
    let logits = features.find(FeatureSource::Objects, Input::Objects, "logits")?;
    let boxes =
        features.find(FeatureSource::Objects, Input::Objects, "boxes")?.data.as_chunks::<4>().0;
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

/// Reduced outputs of a scene graph.
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
        let get = |name| features.get(FeatureSource::Relations, Input::Image, name);
        let boxes = |name| get(name).data.as_chunks::<4>().0;
        let persons = get(PERSON).data.as_slice();
        match features.find(FeatureSource::Relations, Input::Image, TIE) {
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

    /// Returns the probability that each query's object is the relation's: by its class, or by the
    /// overlap with OWL-ViT's box for its words.
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

    /// Returns the pair with the largest product, the first of equals; `None` if no query has a
    /// partner.
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
                        let (person, predicate) =
                            (f64::from(persons[from]), f64::from(tie.data[place]));
                        offer(Factors { person, predicate, object }, (boxes[from], boxes[to]));
                    }
                }
            }
            Self::Triplets { persons, predicate, boxes, .. } => {
                let rows = predicate.data.chunks_exact(predicate.shape[1]);
                for (at, (row, &object)) in rows.zip(objects).enumerate() {
                    let factors = Factors {
                        person: f64::from(persons[at]),
                        predicate: sum(row, predicates),
                        object,
                    };
                    offer(factors, (boxes.0[at], boxes.1[at]));
                }
            }
        }
        best.map(|(_, best)| best)
    }
}

/// Intersection over union of two boxes, given as centre, width and height.
fn overlap(a: [f32; 4], b: [f32; 4]) -> f64 {
    let [a, b] = [a, b].map(|sides| corners(sides, (1, 1)));
    let side = |low: usize| (a[low + 2].min(b[low + 2]) - a[low].max(b[low])).max(0.0);
    let area = |sides: [f64; 4]| (sides[2] - sides[0]) * (sides[3] - sides[1]);
    let both = side(0) * side(1);
    let either = area(a) + area(b) - both;
    if either > 0.0 { both / either } else { 0.0 }
}
