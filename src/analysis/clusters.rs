//! Clusters of samples by identity.

use std::collections::HashMap;

use crate::content::ContentHash;

/// Maximum number of clusters. More clusters are pooled into this many groups before resampling:
/// groups are as independent as clusters, and the cost of each resample grows with their number.
const MOST_CLUSTERS: u64 = 1000;

/// Clusters of a run's samples.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Clusters {
    /// For each sample, the index of its cluster in `keys`.
    pub(super) of: Vec<usize>,
    /// Keys that identify clusters across runs, in order of first appearance. If clusters are
    /// pooled, the keys are below [`MOST_CLUSTERS`].
    pub(super) keys: Vec<u64>,
}

impl Clusters {
    /// Builds one cluster per identity. A sample without an identity is its own cluster, keyed by
    /// the name that `anonymous` returns for it.
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

    /// Returns the sum and the count of the numbers in each cluster.
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

/// Clusters of several runs merged: an identity in two runs is one cluster.
#[derive(Debug, Default)]
pub(super) struct Merged {
    /// For each run, the indices of its clusters among the merged clusters.
    places: Vec<Vec<usize>>,
    /// Number of merged clusters.
    clusters: usize,
}

impl Merged {
    /// Merges the keys of each run's clusters. If one run is pooled, all are.
    pub(super) fn new(runs: &[&[u64]]) -> Self {
        let pooled =
            |keys: &&[u64]| !keys.is_empty() && keys.iter().all(|key| *key < MOST_CLUSTERS);
        let pool = runs.iter().any(pooled);
        let mut known: HashMap<u64, usize> = HashMap::new();
        let mut place = |key: u64| {
            let next = known.len();
            *known.entry(if pool { key % MOST_CLUSTERS } else { key }).or_insert(next)
        };
        let places = runs.iter().map(|keys| keys.iter().map(|key| place(*key)).collect()).collect();
        Self { places, clusters: known.len() }
    }

    /// Adds up sums of some of the runs, each given as its index and its sums and counts by
    /// cluster.
    pub(super) fn sums<'a>(
        &self,
        parts: impl Iterator<Item = (usize, &'a [(f64, usize)])>,
    ) -> Vec<(f64, usize)> {
        let mut merged = vec![(0.0, 0); self.clusters];
        for (run, sums) in parts {
            for (&place, (sum, count)) in self.places[run].iter().zip(sums) {
                merged[place].0 += sum;
                merged[place].1 += count;
            }
        }
        merged
    }
}

fn key(kind: &str, name: &str) -> u64 {
    let hash = ContentHash::of_parts([kind.as_bytes(), name.as_bytes()]);
    let (head, _) = hash.as_bytes().split_first_chunk::<8>().expect("a hash has 32 bytes");
    // Keys of pooled clusters are below 1000. A hash is that small with probability of about 10⁻¹⁶,
    // which would do no harm.
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
        let (all, some) = (
            Clusters::new(&names, |_| String::new()),
            Clusters::new(&names[..900], |_| String::new()),
        );
        assert!(all.keys.len() <= 1000 && some.keys.len() == 900);
        // The first 900 people are in both runs, so merging doubles the sums of their groups.
        let ones = |clusters: &Clusters| clusters.sums(clusters.of.iter().map(|_| Some(1.0)));
        let (of_all, of_some) = (ones(&all), ones(&some));
        let merged = Merged::new(&[&all.keys, &some.keys])
            .sums([(0, &of_all[..]), (1, &of_some[..])].into_iter());
        assert_eq!(
            merged.len(),
            all.keys.len(),
            "every group of the small run is one of the large"
        );
        assert_eq!(merged.iter().map(|(_, count)| count).sum::<usize>(), 3900);
    }

    #[test]
    fn runs_are_merged_by_person_and_other_people_stay_separate() {
        let one = Clusters::new(&named(&["a", "b"]), |_| String::new());
        let two = Clusters::new(&named(&["b", "c"]), |_| String::new());
        let sums = [(1.0, 1), (2.0, 1)];
        let merged = Merged::new(&[&one.keys, &two.keys]);
        let both = merged.sums([(0, &sums[..]), (1, &sums[..])].into_iter());
        assert_eq!(both, [(1.0, 1), (3.0, 2), (2.0, 1)]);
        assert_eq!(merged.sums([(1, &sums[..])].into_iter()), [(0.0, 0), (1.0, 1), (2.0, 1)]);
    }
}
