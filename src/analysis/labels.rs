//! Slices of a run: which samples have which label.

use std::collections::BTreeMap;

use crate::store::{RunData, Slice};

/// Minimum number of samples of a slice. A smaller slice has no summary: its mean would be
/// unreliable and could disclose data about single people.
const FEWEST_SAMPLES: usize = 5;

/// Maximum number of labels of one kind (categories, attributes); those with most samples are used.
const MOST_LABELS: usize = 500;

/// Maximum number of labels of one fine kind (objects, predicates, templates): a dataset has
/// hundreds of them, and each has a row for every metric and policy.
const MOST_FINE_LABELS: usize = 40;

/// Maximum number of benchmarks of a run: each costs as much as a run of its own.
const MOST_BENCHMARKS: usize = 16;

/// Returns the slices of a run that have enough samples, each with the indices of its samples. The
/// slice of all samples comes first.
pub(super) fn slices_of(data: &RunData) -> Vec<(Slice, Vec<usize>)> {
    let mut kinds: BTreeMap<&'static str, BTreeMap<String, Vec<usize>>> = BTreeMap::new();
    let mut put = |kind: &'static str, label: String, at: usize| {
        let members = kinds.entry(kind).or_default().entry(label).or_default();
        // A category listed twice counts once.
        if members.last() != Some(&at) {
            members.push(at);
        }
    };
    for at in 0..data.names.len() {
        if let Some(kind) = &data.prompt_kinds[at] {
            put(Slice::PROMPT_KIND, kind.clone(), at);
        }
        for category in &data.categories[at] {
            put(Slice::CATEGORY, category.clone(), at);
        }
        let relations = data.relations[at];
        for (has, label) in [
            (relations.interaction, "interaction"),
            (relations.location, "location"),
            (!relations.interaction && !relations.location, "none"),
        ] {
            if has {
                put(Slice::RELATION, label.to_owned(), at);
            }
        }
        if let Some((width, height)) = data.sizes[at] {
            put(Slice::SIZE, size_class(width.min(height)).to_owned(), at);
        }
    }
    let attributes = data.attributes.iter().flat_map(|(name, places)| {
        [(name.clone(), &places.present), (format!("!{name}"), &places.absent)]
    });
    let attributes = attributes.filter(|(_, places)| places.len() >= FEWEST_SAMPLES);
    let attributes =
        attributes.map(|(label, places)| (label, places.iter().map(|at| *at as usize).collect()));
    kinds.entry(Slice::ATTRIBUTE).or_default().extend(attributes);
    let mut slices = vec![(Slice::all(), (0..data.names.len()).collect())];
    for (kind, labels) in kinds {
        slices.extend(largest(kind, labels, MOST_LABELS));
    }
    slices
}

/// Returns the size class of an image by its shorter side in pixels.
pub(super) fn size_class(side: u32) -> &'static str {
    match side {
        0..512 => "under_512",
        512..1024 => "512_to_1023",
        _ => "1024_and_more",
    }
}

/// Returns the slices by object, predicate, template and level of a fine-grained attribute that
/// have enough samples.
pub(super) fn fine_slices_of(data: &RunData) -> Vec<(Slice, Vec<usize>)> {
    let mut slices = Vec::new();
    for (kind, labels) in &data.labels {
        let members = |places: &Vec<u32>| places.iter().map(|at| *at as usize).collect();
        let labels = labels.iter().map(|(label, places)| (label.clone(), members(places)));
        slices.extend(largest(kind, labels.collect(), MOST_FINE_LABELS));
    }
    slices
}

/// Returns the kinds of prompt that are benchmarks of their own: those with enough samples, at most
/// 16 with most.
pub(super) fn benchmarks_of(data: &RunData) -> Vec<String> {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for kind in data.prompt_kinds.iter().flatten() {
        *kinds.entry(kind).or_default() += 1;
    }
    let mut kinds: Vec<_> = kinds
        .into_iter()
        .filter(|(label, samples)| *samples >= FEWEST_SAMPLES && Slice::can_store(label))
        .collect();
    kinds.sort_by_key(|(_, samples)| std::cmp::Reverse(*samples));
    kinds.truncate(MOST_BENCHMARKS);
    kinds.into_iter().map(|(label, _)| label.to_owned()).collect()
}

/// Returns the labels of a kind that have enough samples, at most `most` with most samples.
fn largest(
    kind: &str,
    labels: BTreeMap<String, Vec<usize>>,
    most: usize,
) -> Vec<(Slice, Vec<usize>)> {
    let mut labels: Vec<_> = labels
        .into_iter()
        .filter(|(label, members)| members.len() >= FEWEST_SAMPLES && Slice::can_store(label))
        .collect();
    labels.sort_by_key(|(_, members)| std::cmp::Reverse(members.len()));
    labels.truncate(most);
    labels.into_iter().map(|(label, members)| (Slice::new(kind, label), members)).collect()
}
