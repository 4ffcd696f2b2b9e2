use std::sync::Arc;

use super::*;
use crate::{
    metrics::{Label, Objects, Phrase, Relations, Unmapped},
    stats::Rng,
    tensor::Features,
    text::relations::annotated,
};

/// Outputs of a scene graph and OWL-ViT for one image, and the prompt's relations.
struct TestImage {
    outputs: Features,
    person: Vec<usize>,
    sought: Vec<Sought>,
    /// Logits and boxes, and the phrases in their columns.
    grounding: Option<(Output, Output, Vec<&'static str>)>,
}

impl TestImage {
    fn features(&self) -> FeatureSet {
        let relations = Relations {
            sought: self.sought.clone(),
            grounded: self.grounding.is_some(),
            truncated: false,
            size: (100, 200),
        };
        let phrase = |(column, text): (usize, &&str)| Phrase {
            text: (*text).into(),
            truncated: false,
            column,
        };
        let mut objects = Objects::default();
        if let Some((.., phrases)) = &self.grounding {
            objects.phrases = phrases.iter().enumerate().map(phrase).collect();
        }
        let mut set =
            FeatureSet::new(0).with_relations(Arc::new(relations)).with_objects(Arc::new(objects));
        set.insert(
            FeatureSource::Relations,
            Input::Image,
            Arc::new(reduce(&self.outputs, &self.person)),
        );
        if let Some((logits, boxes, _)) = &self.grounding {
            let found = vec![("logits".into(), logits.clone()), ("boxes".into(), boxes.clone())];
            set.insert(FeatureSource::Objects, Input::Objects, Arc::new(Features::new(found)));
        }
        set
    }
}

fn tensor(shape: &[usize], data: &[f32]) -> Output {
    assert_eq!(shape.iter().product::<usize>(), data.len());
    Output { shape: shape.to_vec(), data: data.to_vec() }
}

fn sought(predicate: &str, object: &str, mapping: Mapping) -> Sought {
    let relation = annotated(&[["person".into(), predicate.into(), object.into()]]).remove(0);
    Sought { relation, mapping: Ok(mapping) }
}

fn mapping(predicates: &[usize], classes: &[usize]) -> Mapping {
    Mapping { predicates: predicates.to_vec(), classes: classes.to_vec(), ..Mapping::default() }
}

/// Three queries, classes man, woman, dog and "nothing", predicates on and near.
fn pairs(sought: Vec<Sought>) -> TestImage {
    #[rustfmt::skip]
    let outputs = Features::new(vec![
        ("classes".into(), tensor(&[3, 4], &[
            0.6, 0.2, 0.1, 0.1,
            0.1, 0.0, 0.8, 0.1,
            0.3, 0.3, 0.3, 0.1,
        ])),
        ("boxes".into(), tensor(&[3, 4], &[0.5, 0.5, 0.2, 0.4, 0.25, 0.5, 0.5, 1.0, 0.75, 0.5, 0.5,
            1.0])),
        ("relation".into(), tensor(&[3, 3, 2], &[
            1.0, 1.0,  0.5, 0.2,  0.1, 0.9,
            0.9, 0.9,  1.0, 1.0,  0.4, 0.4,
            0.7, 0.7,  0.8, 0.1,  1.0, 1.0,
        ])),
        ("connectivity".into(), tensor(&[3, 3], &[1.0, 0.5, 1.0, 0.9, 1.0, 0.2, 0.3, 0.5, 1.0])),
    ]);
    TestImage { outputs, person: vec![0, 1], sought, grounding: None }
}

#[test]
fn the_best_pair_of_different_boxes_is_the_score() {
    let image = pairs(vec![sought("on", "dog", mapping(&[0], &[2]))]);
    let found =
        look(&image.features(), &image.sought[0], image.sought[0].mapping.as_ref().unwrap());
    // From query 2 (0.6 a person) to query 1 (0.8 a dog): 0.6 · 0.5 · 0.8 · 0.8.
    // From query 0 to query 1: 0.8 · 0.5 · 0.5 · 0.8.
    assert!((found.score - 0.192).abs() < 1e-6, "{found:?}");
    assert!((found.factors.person - 0.6).abs() < 1e-6);
    assert!((found.factors.predicate - 0.4).abs() < 1e-6);
    assert!((found.factors.object - 0.8).abs() < 1e-6);
    let Pair { subject, object } = found.corners.unwrap();
    let (subject, object) = (subject.map(|side| side as i32), object.map(|side| side as i32));
    assert_eq!((subject, object), ([50, 0, 100, 200], [0, 0, 50, 200]));
}

#[test]
fn the_most_probable_of_several_predicates_counts() {
    let score = |predicates: &[usize]| {
        let image = pairs(vec![sought("on", "dog", mapping(predicates, &[2]))]);
        rfs(&image.features()).unwrap().value
    };
    // near, from query 0 to query 2: 0.8 · 1.0 · 0.9 · 0.3.
    assert!((score(&[1]) - 0.216).abs() < 1e-6);
    assert!((score(&[0, 1]) - 0.216).abs() < 1e-6);
    assert!((score(&[0]) - 0.192).abs() < 1e-6);
}

#[test]
fn objects_without_a_class_are_found_by_their_box() {
    let mut image = pairs(vec![sought("on", "Saturn", mapping(&[0], &[]))]);
    assert!(rfs(&image.features()).unwrap().value.abs() < 1e-12, "nothing is Saturn");
    assert_eq!(rfs(&image.features()).unwrap().flags, [Flag::Ungrounded]);
    // The second box fits best, with a sigmoid of 0.5; it is a quarter of query 1's box.
    let logits = tensor(&[2, 1], &[-1.0, 0.0]);
    let boxes = tensor(&[2, 4], &[0.5, 0.5, 1.0, 1.0, 0.25, 0.25, 0.25, 0.5]);
    image.grounding = Some((logits, boxes, vec!["Saturn"]));
    let score = rfs(&image.features()).unwrap();
    assert!((score.value - 0.6 * 0.5 * 0.8 * (0.5 * 0.25)).abs() < 1e-6, "{score:?}");
    assert_eq!(score.flags, []);
    let found = found(&image.features())[0].unwrap();
    let grounding = found.grounding.unwrap();
    assert!((grounding.score - 0.5).abs() < 1e-12);
    for (side, expected) in grounding.corners.iter().zip([12.5, 0.0, 37.5, 100.0]) {
        assert!((side - expected).abs() < 1e-9, "{grounding:?}");
    }
}

#[test]
fn a_class_that_is_more_probable_than_the_box_wins() {
    let mut image = pairs(vec![sought("on", "dog", mapping(&[0], &[2]))]);
    let alone = rfs(&image.features()).unwrap().value;
    image.grounding =
        Some((tensor(&[1, 1], &[-9.0]), tensor(&[1, 4], &[0.25, 0.5, 0.5, 1.0]), vec!["dog"]));
    assert!((rfs(&image.features()).unwrap().value - alone).abs() < 1e-15);
}

/// Two triplets; classes man and dog, predicates on and near.
fn triplets(sought: Vec<Sought>) -> TestImage {
    let outputs = Features::new(vec![
        ("subject".into(), tensor(&[2, 2], &[0.9, 0.1, 0.5, 0.5])),
        ("object".into(), tensor(&[2, 2], &[0.3, 0.7, 0.1, 0.9])),
        ("predicate".into(), tensor(&[2, 3], &[0.2, 0.3, 0.5, 0.6, 0.3, 0.1])),
        ("subject_boxes".into(), tensor(&[2, 4], &[0.5; 8])),
        ("object_boxes".into(), tensor(&[2, 4], &[0.5; 8])),
    ]);
    TestImage { outputs, person: vec![0], sought, grounding: None }
}

#[test]
fn predicate_probabilities_of_a_triplet_are_summed() {
    let score = |predicates: &[usize]| {
        rfs(&triplets(vec![sought("on", "dog", mapping(predicates, &[1]))]).features())
            .unwrap()
            .value
    };
    assert!((score(&[0]) - 0.5 * 0.6 * 0.9).abs() < 1e-6);
    assert!((score(&[0, 1]) - 0.5 * 0.9 * 0.9).abs() < 1e-6);
    // 0.9 · 0.3 · 0.7 of the first triplet.
    assert!((score(&[1]) - 0.189).abs() < 1e-6);
}

#[test]
fn the_four_metrics_are_means_over_their_relations() {
    let exact = Mapping { exact: Some(0), ..mapping(&[0], &[2]) };
    let relations = vec![
        sought("riding", "dog", exact),
        sought("hugging", "dog", Mapping { approximate: true, ..mapping(&[1], &[2]) }),
        sought("on", "dog", mapping(&[0, 1], &[2])),
        Sought {
            mapping: Err(Unmapped::Predicate),
            ..sought("whistling", "song", Mapping::default())
        },
    ];
    let features = pairs(relations).features();
    let [on, near] = [0.192, 0.216];
    let is = |score: MetricResult, value: f64, flags: &[Flag]| {
        let score = score.unwrap();
        assert!((score.value - value).abs() < 1e-6, "{score:?}");
        assert_eq!(score.flags, flags);
    };
    is(rfs(&features), (on + near + near) / 3.0, &[Flag::Ungrounded, Flag::ApproximatePredicate]);
    is(rfs_strict(&features), on, &[Flag::Ungrounded]);
    is(
        rfs_interaction(&features),
        f64::midpoint(on, near),
        &[Flag::Ungrounded, Flag::ApproximatePredicate],
    );
    is(rfs_location(&features), near, &[Flag::Ungrounded]);
    assert_eq!(
        found(&features).iter().map(Option::is_some).collect::<Vec<_>>(),
        [true, true, true, false]
    );
}

#[test]
fn nothing_to_measure_is_null_and_never_0() {
    assert_eq!(rfs(&pairs(Vec::new()).features()).unwrap_err(), NullReason::NoRelations);
    let unmapped = |predicate: &str| Sought {
        mapping: Err(Unmapped::Predicate),
        ..sought(predicate, "song", Mapping::default())
    };
    let features = pairs(vec![unmapped("whistling")]).features();
    assert_eq!(rfs(&features).unwrap_err(), NullReason::NoMappedRelations);
    assert_eq!(rfs_interaction(&features).unwrap_err(), NullReason::NoMappedRelations);
    assert_eq!(rfs_location(&features).unwrap_err(), NullReason::NoRelations);
    let features = pairs(vec![sought("surfing", "dog", mapping(&[0], &[2]))]).features();
    assert_eq!(rfs_strict(&features).unwrap_err(), NullReason::NoMappedRelations);
}

#[test]
fn an_image_with_a_single_query_has_no_pair() {
    let outputs = Features::new(vec![
        ("classes".into(), tensor(&[1, 1], &[1.0])),
        ("boxes".into(), tensor(&[1, 4], &[0.5; 4])),
        ("relation".into(), tensor(&[1, 1, 1], &[1.0])),
        ("connectivity".into(), tensor(&[1, 1], &[1.0])),
    ]);
    let relations = vec![sought("on", "dog", mapping(&[0], &[0]))];
    let image = TestImage { outputs, person: vec![0], sought: relations, grounding: None };
    let found = found(&image.features())[0].unwrap();
    assert_eq!((found.score, found.corners), (0.0, None));
}

/// Compares the score after the reduction with the definition, over every pair and every predicate.
#[test]
fn the_reduction_changes_no_score() {
    let mut rng = Rng::new(7);
    for queries in [2, 3, 9] {
        let (classes, predicates) = (5, 4);
        let mut random = |shape: &[usize]| {
            let length = shape.iter().product();
            let data: Vec<f32> = (0..length).map(|_| rng.unit() as f32).collect();
            tensor(shape, &data)
        };
        let (class, boxes) = (random(&[queries, classes]), random(&[queries, 4]));
        let (relation, tie) =
            (random(&[queries, queries, predicates]), random(&[queries, queries]));
        let (logits, places) = (random(&[6, 1]), random(&[6, 4]));
        let outputs = Features::new(vec![
            ("classes".into(), class.clone()),
            ("boxes".into(), boxes.clone()),
            ("relation".into(), relation.clone()),
            ("connectivity".into(), tie.clone()),
        ]);
        for wanted in [&[0_usize][..], &[1, 3], &[0, 1, 2, 3]] {
            let image = TestImage {
                outputs: outputs.clone(),
                person: vec![1, 2],
                sought: vec![sought("on", "dog", mapping(wanted, &[3, 4]))],
                grounding: Some((logits.clone(), places.clone(), vec!["dog"])),
            };
            let top = (0..6).max_by(|&a, &b| logits.data[a].total_cmp(&logits.data[b])).unwrap();
            let at =
                |data: &[f32], row: usize| <[f32; 4]>::try_from(&data[row * 4..][..4]).unwrap();
            let mut expected = 0.0_f64;
            for i in 0..queries {
                for j in (0..queries).filter(|&j| j != i) {
                    let p =
                        |row: usize, column: usize| f64::from(class.data[row * classes + column]);
                    let person = (p(i, 1) + p(i, 2)).min(1.0);
                    let share = overlap(at(&boxes.data, j), at(&places.data, top));
                    let object =
                        (p(j, 3) + p(j, 4)).min(1.0).max(sigmoid(logits.data[top]) * share);
                    for &c in wanted {
                        let held = f64::from(tie.data[i * queries + j])
                            * f64::from(relation.data[(i * queries + j) * predicates + c]);
                        expected = expected.max(person * held * object);
                    }
                }
            }
            let score = rfs(&image.features()).unwrap().value;
            assert!((score - expected).abs() < 1e-6, "{queries} queries: {score}, not {expected}");
        }
    }
}

#[test]
fn the_overlap_is_intersection_over_union() {
    let unit = [0.5, 0.5, 1.0, 1.0];
    assert!((overlap(unit, unit) - 1.0).abs() < 1e-12);
    assert!((overlap(unit, [0.25, 0.5, 0.5, 1.0]) - 0.5).abs() < 1e-12);
    assert!(overlap([0.1, 0.1, 0.2, 0.2], [0.8, 0.8, 0.2, 0.2]).abs() < 1e-12);
    assert!(overlap([0.5; 4].map(|_| 0.0), [0.0; 4]).abs() < 1e-12, "boxes without area");
}

#[test]
fn words_of_relations_do_not_compete_with_the_labels_of_goa() {
    let label = |text: &str| Label { text: text.into(), truncated: false };
    let goa = |phrases: &[(&str, usize)], columns: usize, logits: &[f32]| {
        let phrases = phrases
            .iter()
            .map(|&(text, column)| Phrase { text: text.into(), truncated: false, column })
            .collect();
        let objects = Objects {
            labels: vec![label("dog"), label("cat")],
            phrases,
            size: (1, 1),
            ..Objects::default()
        };
        let mut set = FeatureSet::new(0).with_objects(Arc::new(objects));
        let boxes = tensor(&[2, 4], &[0.5; 8]);
        let found = vec![("logits".into(), tensor(&[2, columns], logits)), ("boxes".into(), boxes)];
        set.insert(FeatureSource::Objects, Input::Objects, Arc::new(Features::new(found)));
        (crate::metrics::find("goa").unwrap().compute)(&set).unwrap()
    };
    let alone = goa(&[], 2, &[1.0, 0.5, -1.0, 0.0]);
    let joined = goa(&[("horse", 2), ("dog", 0)], 3, &[1.0, 0.5, 9.0, -1.0, 0.0, 9.0]);
    assert_eq!(alone, joined);
}
