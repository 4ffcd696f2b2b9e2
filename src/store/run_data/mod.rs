//! A run as columns: the samples and scores that analysis needs, with one entry per sample in every
//! column.

mod read;
mod template;

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};
use std::sync::Arc;

use uuid::Uuid;

use crate::cache::{Cache, Caches};
use crate::pack_id::PackId;
use crate::store::run_name::RunName;

/// Limit of the cached runs in bytes: some 300,000 samples.
pub const RUN_DATA_BYTES: u64 = 128 << 20;

/// Maximum number of attributes per run; further names are ignored.
const MOST_ATTRIBUTES: usize = 10_000;

/// Maximum number of labels per fine kind of slice and run; further ones are ignored.
const MOST_LABELS: usize = 10_000;

/// Cached runs, by id, revision and digest of the pack.
pub(super) type RunDataCache = Cache<(Uuid, u64, Option<String>), RunData>;

pub(super) fn run_data_cache(caches: &Caches) -> Arc<RunDataCache> {
    caches.add("runs", RUN_DATA_BYTES, None, |_, data| data.bytes())
}

/// Samples of a run in order of name, with the scores of one pack. All lists have the same length.
///
/// A run of 100,000 samples with 15 metrics takes about 40 MB: 24 MB of scores, the rest names and
/// labels.
#[derive(Clone, Debug, PartialEq)]
pub struct RunData {
    /// Id of the run.
    pub run: Uuid,
    /// Method and name of the run.
    pub name: RunName,
    /// Pack of the scores; `None` if there are none.
    pub pack: Option<PackId>,
    /// Names of the samples, in ascending order of their bytes.
    pub names: Vec<String>,
    /// Identity that each sample shows, if it was given.
    pub identities: Vec<Option<String>>,
    /// Kind of each prompt, if it was given (`T` and `H` in Stellar).
    pub prompt_kinds: Vec<Option<String>>,
    /// Categories of each prompt.
    pub categories: Vec<Vec<String>>,
    /// Facial attributes of the subjects by name. An attribute is unknown for a sample that is in
    /// neither of its lists.
    pub attributes: BTreeMap<String, AttributePlaces>,
    /// Kinds of relation that each prompt asks for.
    pub relations: Vec<RelationKinds>,
    /// Samples by label, for each fine kind of slice: objects and predicates of the prompt, its
    /// template, and levels of the subject's fine-grained attributes. Positions are ascending.
    pub labels: BTreeMap<&'static str, BTreeMap<String, Vec<u32>>>,
    /// Width and height of each generated image in pixels; `None` if only scores were imported.
    pub sizes: Vec<Option<(u32, u32)>>,
    /// Scores by code of the metric.
    pub metrics: BTreeMap<String, MetricColumn>,
}

/// Positions of the samples for which an attribute is given, ascending. Samples without it take no
/// memory, because there can be any number of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttributePlaces {
    /// Samples in which it is present.
    pub present: Vec<u32>,
    /// Samples in which it is absent.
    pub absent: Vec<u32>,
}

/// Kinds of relation that a prompt asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelationKinds {
    /// The person does something.
    pub interaction: bool,
    /// The person is somewhere.
    pub location: bool,
}

/// One metric over a run's samples. A sample without a value and without a reason was not measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricColumn {
    /// Newest version of the metric's definition that the run has; scores of older versions are
    /// left out.
    pub version: u32,
    /// Number of each sample that has one.
    pub values: Vec<Option<f64>>,
    /// Reasons for null scores: by reason, the positions of the samples, ascending.
    pub reasons: BTreeMap<String, Vec<usize>>,
    /// Flags of scores (`no_face_in_image`, …): by flag, the positions of the samples, ascending.
    pub flags: BTreeMap<String, Vec<usize>>,
}

impl MetricColumn {
    /// Returns the number of samples that were measured and have no number.
    #[must_use]
    pub fn nulls(&self) -> usize {
        self.reasons.values().map(Vec::len).sum()
    }

    /// Returns the positions of the samples with a number, smallest first or largest first. Equal
    /// numbers are in the order of the samples.
    #[must_use]
    pub fn ranked(&self, descending: bool) -> Vec<usize> {
        let mut ranked: Vec<(usize, f64)> = self
            .values
            .iter()
            .enumerate()
            .filter_map(|(at, value)| Some((at, (*value)?)))
            .collect();
        ranked.sort_by(|(_, one), (_, other)| {
            let order = one.total_cmp(other);
            if descending { order.reverse() } else { order }
        });
        ranked.into_iter().map(|(at, _)| at).collect()
    }

    /// Returns true if any sample was measured.
    fn is_measured(&self) -> bool {
        !self.reasons.is_empty() || self.values.iter().any(Option::is_some)
    }
}

fn keep<T>(list: &mut Vec<T>, kept: &[bool]) {
    let mut kept = kept.iter();
    list.retain(|_| kept.next().is_some_and(|kept| *kept));
}

impl RunData {
    /// Returns its approximate memory in bytes.
    fn bytes(&self) -> usize {
        let text = |text: &String| 24 + text.len();
        let optional = |of: &Option<String>| 24 + of.as_ref().map_or(0, String::len);
        let names: usize = self.names.iter().map(text).sum();
        let labels: usize = self.identities.iter().chain(&self.prompt_kinds).map(optional).sum();
        let categories: usize =
            self.categories.iter().map(|all| 24 + all.iter().map(text).sum::<usize>()).sum();
        let attributes = self.attributes.iter().map(|(name, places)| {
            100 + name.len() + 4 * (places.present.len() + places.absent.len())
        });
        let metrics = self.metrics.values().map(|column| {
            let marked = column.reasons.values().chain(column.flags.values());
            200 + 16 * column.values.len() + marked.map(|at| 100 + 8 * at.len()).sum::<usize>()
        });
        let sized = self.sizes.len() * 12 + self.relations.len() * 2;
        let fine = self.labels.values().flatten();
        let fine: usize = fine.map(|(name, at)| 100 + name.len() + 4 * at.len()).sum();
        names + labels + fine + categories + sized + attributes.chain(metrics).sum::<usize>()
    }

    /// Keeps only the samples with these names.
    pub fn restrict(&mut self, names: &BTreeSet<String>) {
        let kept: Vec<bool> = self.names.iter().map(|name| names.contains(name)).collect();
        self.keep(&kept);
    }

    /// Keeps only the samples with this kind of prompt, and the metrics that were measured for any
    /// of them: what remains is like a run of only these samples.
    pub fn restrict_to_kind(&mut self, kind: &str) {
        let kept: Vec<bool> =
            self.prompt_kinds.iter().map(|of| of.as_deref() == Some(kind)).collect();
        self.keep(&kept);
        self.metrics.retain(|_, of| of.is_measured());
    }

    fn keep(&mut self, kept: &[bool]) {
        // New position of each sample that stays.
        let places: Vec<Option<usize>> = kept
            .iter()
            .scan(0, |next, &kept| {
                let place = *next;
                *next += usize::from(kept);
                Some(kept.then_some(place))
            })
            .collect();
        keep(&mut self.names, kept);
        keep(&mut self.identities, kept);
        keep(&mut self.prompt_kinds, kept);
        keep(&mut self.categories, kept);
        keep(&mut self.relations, kept);
        keep(&mut self.sizes, kept);
        for AttributePlaces { present, absent } in self.attributes.values_mut() {
            for list in [present, absent] {
                *list = list.iter().filter_map(|&at| Some(places[at as usize]? as u32)).collect();
            }
        }
        self.attributes.retain(|_, of| !of.present.is_empty() || !of.absent.is_empty());
        for labels in self.labels.values_mut() {
            for list in labels.values_mut() {
                *list = list.iter().filter_map(|&at| Some(places[at as usize]? as u32)).collect();
            }
            labels.retain(|_, list| !list.is_empty());
        }
        for column in self.metrics.values_mut() {
            keep(&mut column.values, kept);
            for list in column.reasons.values_mut().chain(column.flags.values_mut()) {
                *list = list.iter().filter_map(|&at| places[at]).collect();
            }
            column.reasons.retain(|_, list| !list.is_empty());
            column.flags.retain(|_, list| !list.is_empty());
        }
    }

    /// Appends the samples of another run, each named `RUN_ID/NAME`. Of each metric, only the
    /// scores of the newest version stay.
    fn append(&mut self, of: Self) {
        let first = self.names.len();
        let Self { run, names, attributes, labels, metrics, .. } = of;
        self.names.extend(names.into_iter().map(|name| format!("{run}/{name}")));
        self.identities.extend(of.identities);
        self.prompt_kinds.extend(of.prompt_kinds);
        self.categories.extend(of.categories);
        self.relations.extend(of.relations);
        self.sizes.extend(of.sizes);
        for (name, places) in attributes {
            let Some(all) = self.attribute(name) else { continue };
            let moved = |at: u32| at + first as u32;
            all.present.extend(places.present.into_iter().map(moved));
            all.absent.extend(places.absent.into_iter().map(moved));
        }
        for (kind, labels) in labels {
            for (label, places) in labels {
                for place in places {
                    self.add_label(kind, label.clone(), place + first as u32);
                }
            }
        }
        for (code, column) in metrics {
            let all = self.metrics.entry(code).or_default();
            if column.version < all.version {
                continue;
            }
            if column.version > all.version {
                *all = MetricColumn { version: column.version, ..MetricColumn::default() };
            }
            all.values.resize(first, None);
            all.values.extend(column.values);
            for (lists, of) in [(&mut all.reasons, column.reasons), (&mut all.flags, column.flags)]
            {
                for (name, places) in of {
                    let places = places.into_iter().map(|at| at + first);
                    lists.entry(name).or_default().extend(places);
                }
            }
        }
    }

    /// Adds a sample to those with a label.
    fn add_label(&mut self, kind: &'static str, label: String, place: u32) {
        let labels = self.labels.entry(kind).or_default();
        if label.is_empty() || labels.len() >= MOST_LABELS && !labels.contains_key(&label) {
            return;
        }
        let places = labels.entry(label).or_default();
        // A label that a sample has twice counts once.
        if places.last() != Some(&place) {
            places.push(place);
        }
    }

    /// Returns the places of an attribute; `None` if it is new and there are too many already.
    fn attribute(&mut self, name: String) -> Option<&mut AttributePlaces> {
        let is_full = self.attributes.len() >= MOST_ATTRIBUTES;
        match self.attributes.entry(name) {
            Entry::Vacant(_) if is_full => None,
            entry => Some(entry.or_default()),
        }
    }

    fn empty(run: Uuid, name: RunName, pack: Option<PackId>) -> Self {
        Self {
            run,
            name,
            pack,
            names: Vec::new(),
            identities: Vec::new(),
            prompt_kinds: Vec::new(),
            categories: Vec::new(),
            attributes: BTreeMap::new(),
            relations: Vec::new(),
            labels: BTreeMap::new(),
            sizes: Vec::new(),
            metrics: BTreeMap::new(),
        }
    }

    /// Extends all columns to the number of samples, and sorts positions.
    fn fill(&mut self) {
        let samples = self.names.len();
        for column in self.metrics.values_mut() {
            column.values.resize(samples, None);
            for places in column.reasons.values_mut().chain(column.flags.values_mut()) {
                places.sort_unstable();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restricting_a_run_restricts_all_its_columns() {
        let mut data = RunData::empty(Uuid::nil(), RunName::new("m", None), None);
        data.names = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        data.identities = ["p", "q", "r", "s"].map(|name| Some(name.to_owned())).to_vec();
        data.prompt_kinds = vec![None; 4];
        data.categories = vec![vec![]; 4];
        data.relations = vec![RelationKinds::default(); 4];
        data.sizes = (0..4).map(|at| Some((at, at))).collect();
        let places = AttributePlaces { present: vec![1, 3], absent: vec![0, 2] };
        data.attributes.insert("Young".to_owned(), places);
        let column = MetricColumn {
            version: 1,
            values: vec![Some(0.0), None, None, Some(3.0)],
            reasons: BTreeMap::from([
                ("first".to_owned(), vec![1]),
                ("second".to_owned(), vec![2]),
            ]),
            flags: BTreeMap::from([("flag".to_owned(), vec![0, 3])]),
        };
        data.metrics.insert("ips".to_owned(), column);
        data.restrict(&["b", "d", "of another run"].map(str::to_owned).into());
        assert_eq!(data.names, ["b", "d"]);
        assert_eq!(data.identities, [Some("q".to_owned()), Some("s".to_owned())]);
        assert_eq!(data.sizes, [Some((1, 1)), Some((3, 3))]);
        assert_eq!(
            data.attributes["Young"],
            AttributePlaces { present: vec![0, 1], absent: vec![] }
        );
        let column = &data.metrics["ips"];
        assert_eq!(column.values, [None, Some(3.0)]);
        assert_eq!(column.reasons, BTreeMap::from([("first".to_owned(), vec![0])]));
        assert_eq!(column.flags, BTreeMap::from([("flag".to_owned(), vec![1])]));
        assert_eq!(
            (data.prompt_kinds.len(), data.categories.len(), data.relations.len()),
            (2, 2, 2)
        );
    }
}
