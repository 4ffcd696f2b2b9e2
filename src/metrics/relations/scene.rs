//! Reduces the outputs of a scene graph to what relations need: the best subject of every object,
//! computed once per image.

use crate::tensor::{Features, Output};

/// Probability of the person in each query, `[Q]`.
pub(super) const PERSON: &str = "person";
/// Pairs: probability of each class in each query, `[Q, C]`.
pub(super) const CLASSES: &str = "classes";
/// Pairs: centre, width and height of each query's box, `[Q, 4]`.
pub(super) const BOXES: &str = "boxes";
/// Pairs: connectivity times relation between each query and its best subject, for each predicate,
/// `[Q, P]`.
pub(super) const TIE: &str = "tie";
/// Pairs: query of that subject, `[Q, P]`; -1 if there is no other query.
pub(super) const SUBJECT: &str = "subject";
/// Triplets: probability of each predicate, `[Q, P]`.
pub(super) const PREDICATE: &str = "predicate";
/// Triplets: probability of each class of the object, `[Q, C]`.
pub(super) const OBJECT: &str = "object";
/// Triplets: boxes of the subjects, `[Q, 4]`.
pub(super) const SUBJECT_BOXES: &str = "subject_boxes";
/// Triplets: boxes of the objects, `[Q, 4]`.
pub(super) const OBJECT_BOXES: &str = "object_boxes";

/// Reduces the outputs of a scene graph to what the relations of any prompt need. The subject of
/// these relations is one of the classes in `person`.
///
/// The score of a relation is the maximum over subjects and objects. Only the probability of the
/// person and the tie depend on the subject, so the maximum over the subjects can be taken before
/// the prompt is known. Of 200 · 200 pairs with 50 predicates, 8 MB per image, 80 KB remain.
#[must_use]
pub fn reduce(outputs: &Features, person: &[usize]) -> Features {
    if outputs.get("relation").is_some() {
        reduce_pairs(outputs, person)
    } else {
        reduce_triplets(outputs, person)
    }
}

fn reduce_pairs(outputs: &Features, person: &[usize]) -> Features {
    let (classes, relation) = (named(outputs, CLASSES), named(outputs, "relation"));
    let connectivity = &named(outputs, "connectivity").data;
    let queries = classes.shape[0];
    let predicates = relation.shape[2];
    let persons = sums(classes, person);
    let mut best = vec![f64::NEG_INFINITY; queries * predicates];
    let mut tie = vec![0.0; queries * predicates];
    let mut subject = vec![-1.0; queries * predicates];
    for (from, &probability) in persons.iter().enumerate() {
        for to in (0..queries).filter(|&to| to != from) {
            let pair = from * queries + to;
            let connected = f64::from(connectivity[pair]);
            let row = &relation.data[pair * predicates..][..predicates];
            for (at, &related) in row.iter().enumerate() {
                let tied = connected * f64::from(related);
                let product = f64::from(probability) * tied;
                let place = to * predicates + at;
                if product > best[place] {
                    best[place] = product;
                    tie[place] = tied as f32;
                    subject[place] = from as f32;
                }
            }
        }
    }
    let of_predicates = |data| Output { shape: vec![queries, predicates], data };
    Features::new(vec![
        (PERSON.into(), Output { shape: vec![queries], data: persons }),
        (CLASSES.into(), classes.clone()),
        (BOXES.into(), named(outputs, BOXES).clone()),
        (TIE.into(), of_predicates(tie)),
        (SUBJECT.into(), of_predicates(subject)),
    ])
}

/// Keeps the objects and predicates of triplets. A triplet has one subject, for which only the
/// probability of being the person counts.
fn reduce_triplets(outputs: &Features, person: &[usize]) -> Features {
    let subjects = named(outputs, SUBJECT);
    let persons = Output { shape: vec![subjects.shape[0]], data: sums(subjects, person) };
    let kept = [PREDICATE, OBJECT, SUBJECT_BOXES, OBJECT_BOXES];
    let kept = kept.into_iter().map(|name| (name.into(), named(outputs, name).clone()));
    Features::new(std::iter::once((PERSON.into(), persons)).chain(kept).collect())
}

fn named<'a>(outputs: &'a Features, name: &str) -> &'a Output {
    outputs.get(name).expect("a pack's scene graphs have the outputs of one of the two forms")
}

/// Sums some columns of each row, at most 1: single-precision probabilities may sum to slightly
/// more.
fn sums(table: &Output, columns: &[usize]) -> Vec<f32> {
    let width = table.shape[1];
    table.data.chunks_exact(width).map(|row| sum(row, columns) as f32).collect()
}

/// Sums some of the probabilities in a row, at most 1.
pub(super) fn sum(row: &[f32], columns: &[usize]) -> f64 {
    columns.iter().map(|&column| f64::from(row[column])).sum::<f64>().min(1.0)
}
