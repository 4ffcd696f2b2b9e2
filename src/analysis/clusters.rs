//! Samples of one identity belong together.

use std::collections::HashMap;

use crate::content::ContentHash;

/// More clusters than this are pooled, each to one of so many groups, before they are resampled: groups are as
/// independent as clusters, and every group costs in every resample.
const MOST_CLUSTERS: u64 = 1000;

/// The clusters of a run's samples.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Clusters {
    /// The place in `keys` of each sample's cluster.
    pub(super) of: Vec<usize>,
    /// What each cluster is known by in other runs too, in the order in which they first appear. Where clusters are pooled,
    /// the keys are below [`MOST_CLUSTERS`].
    pub(super) keys: Vec<u64>,
}

impl Clusters {
    /// One cluster an identity; a sample without one is a cluster of its own, known by what `anonymous` calls it.
    pub(super) fn new(identities: &[Option<String>], anonymous: impl Fn(usize) -> String) -> Self {
        let keys = identities.iter().enumerate().map(|(at, identity)| match identity {
            Some(name) => key("identity", name),
            None => key("sample", &anonymous(at)),
        });
        let keys: Vec<u64> = keys.collect();
        let clusters = Self::of_keys(keys.iter().copied());
        if clusters.keys.len() as u64 <= MOST_CLUSTERS {
            return clusters;
        }
        Self::of_keys(keys.into_iter().map(|key| key % MOST_CLUSTERS))
    }

    fn of_keys(keys: impl Iterator<Item = u64>) -> Self {
        let mut known = HashMap::new();
        let mut clusters = Self { of: Vec::new(), keys: Vec::new() };
        for key in keys {
            let place = *known.entry(key).or_insert_with(|| {
                clusters.keys.push(key);
                clusters.keys.len() - 1
            });
            clusters.of.push(place);
        }
        clusters
    }

    /// The sum and the count of the numbers in each cluster.
    pub(super) fn sums(&self, values: impl Iterator<Item = Option<f64>>) -> Vec<(f64, usize)> {
        let mut sums = vec![(0.0, 0); self.keys.len()];
        for (&cluster, value) in self.of.iter().zip(values) {
            if let Some(value) = value {
                sums[cluster].0 += value;
                sums[cluster].1 += 1;
            }
        }
        sums
    }
}

/// The keys of a run's clusters, and sum and count of each.
type Part<'a> = (&'a [u64], &'a [(f64, usize)]);

/// Sums over the clusters of several runs, added up where they are the same clusters.
///
/// Each part has its clusters' keys and their sums and counts, both in one order. Where one part is pooled, all are.
pub(super) fn merge_sums(parts: &[Part<'_>]) -> Vec<(f64, usize)> {
    let pooled = |keys: &[u64]| !keys.is_empty() && keys.iter().all(|key| *key < MOST_CLUSTERS);
    let pool = parts.iter().any(|(keys, _)| pooled(keys));
    let mut merged: HashMap<u64, (f64, usize)> = HashMap::new();
    for (keys, sums) in parts {
        for (key, (sum, count)) in keys.iter().zip(*sums) {
            let entry = merged.entry(if pool { key % MOST_CLUSTERS } else { *key }).or_default();
            entry.0 += sum;
            entry.1 += count;
        }
    }
    merged.into_values().collect()
}

fn key(kind: &str, name: &str) -> u64 {
    let hash = ContentHash::of_parts([kind.as_bytes(), name.as_bytes()]);
    let (head, _) = hash.as_bytes().split_first_chunk::<8>().expect("a hash has 32 bytes");
    // Keys of pooled clusters are small numbers; a hash is one by chance once in 10¹⁶ times, and no harm then.
    u64::from_le_bytes(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Vec<Option<String>> {
        names.iter().map(|name| (!name.is_empty()).then(|| (*name).to_owned())).collect()
    }

    #[test]
    fn samples_of_one_identity_are_one_cluster_and_others_their_own() {
        let clusters = Clusters::new(&named(&["a", "", "b", "a", ""]), |at| at.to_string());
        assert_eq!(clusters.of, [0, 1, 2, 0, 3]);
        let sums = clusters.sums([1.0, 2.0, 3.0, 4.0].into_iter().map(Some).chain([None]));
        assert_eq!(sums, [(5.0, 2), (2.0, 1), (3.0, 1), (0.0, 0)]);
    }

    #[test]
    fn many_clusters_are_pooled_alike_in_every_run() {
        let names: Vec<Option<String>> = (0..3000).map(|at| Some(format!("person {at}"))).collect();
        let (all, some) =
            (Clusters::new(&names, |_| String::new()), Clusters::new(&names[..900], |_| String::new()));
        assert!(all.keys.len() <= 1000 && some.keys.len() == 900);
        // The first 900 people twice: merged they double the sums of their groups.
        let ones = |clusters: &Clusters| clusters.sums(clusters.of.iter().map(|_| Some(1.0)));
        let (of_all, of_some) = (ones(&all), ones(&some));
        let merged = merge_sums(&[(&all.keys, &of_all), (&some.keys, &of_some)]);
        assert_eq!(merged.len(), all.keys.len(), "every group of the small run is one of the large");
        assert_eq!(merged.iter().map(|(_, count)| count).sum::<usize>(), 3900);
    }

    #[test]
    fn runs_of_the_same_people_merge_by_person_and_of_others_stand_apart() {
        let one = Clusters::new(&named(&["a", "b"]), |_| String::new());
        let two = Clusters::new(&named(&["b", "c"]), |_| String::new());
        let sums = [(1.0, 1), (2.0, 1)];
        let mut merged = merge_sums(&[(&one.keys, &sums), (&two.keys, &sums)]);
        merged.sort_by(|a, b| a.partial_cmp(b).unwrap());
        assert_eq!(merged, [(1.0, 1), (2.0, 1), (3.0, 2)]);
    }
}
