//! Where two runs differ in one metric: by person, by prompt, and sample by sample.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::compare::{CompareOptions, Finding, penalised};
use super::ranks::more_is_better;
use super::reasons::NoInterval;
use crate::stats::Bootstrap;
use crate::store::RunData;

/// Number of resamples of a group's interval.
const RESAMPLES: usize = 2_000;

/// What pairs are grouped by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// The person. Pairs without an identity are in no group. Intervals resample the pairs.
    #[default]
    Identity,
    /// The text of A's prompt. Pairs without a prompt are in no group. Intervals resample
    /// identities.
    Prompt,
}

/// The pairs of one person or prompt: A minus B.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GroupDifference {
    /// Name of the person, or text of the prompt.
    pub label: String,
    /// Pairs in which both samples have a score.
    pub n: usize,
    /// Resampled units among them: pairs of a person, identities of a prompt.
    pub clusters: usize,
    /// Mean of A over these pairs.
    pub mean_a: f64,
    /// Mean of B over these pairs.
    pub mean_b: f64,
    /// Mean of A − B.
    pub difference: f64,
    /// Lower end of its interval. It is not corrected for the number of groups.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Reason if the difference has no interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_interval: Option<NoInterval>,
    /// Conclusion from the interval.
    pub finding: Finding,
}

/// A pair of samples with the same name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PairDifference {
    /// Name of both samples.
    pub name: String,
    /// Score of A's sample under the policy.
    pub a: f64,
    /// Score of B's sample under the policy.
    pub b: f64,
    /// A − B.
    pub difference: f64,
}

/// Where two runs differ in one metric.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// Pairs in which both samples have a score.
    pub pairs: usize,
    /// Number of groups that are large enough, shown or not.
    pub groups_found: usize,
    /// Groups, from the one in which A is best to the one in which it is worst. If there are many,
    /// those in the middle are left out.
    pub groups: Vec<GroupDifference>,
    /// Pairs in which A is better, largest difference first. For a metric without a direction,
    /// larger counts as better.
    pub gains: Vec<PairDifference>,
    /// Pairs in which A is worse, largest difference first.
    pub losses: Vec<PairDifference>,
}

/// Finds where two runs differ in a metric that both have in the same version; `None` otherwise.
/// `prompts` are the prompts of A by sample name. At most `most` groups and pairs are returned of
/// each end.
#[must_use]
pub fn changes(
    a: &RunData,
    b: &RunData,
    metric: &str,
    by: GroupBy,
    prompts: &BTreeMap<String, String>,
    options: &CompareOptions,
    most: usize,
) -> Option<Changes> {
    let version = |run: &RunData| run.metrics.get(metric).map(|column| column.version);
    if version(a)? != version(b)? {
        return None;
    }
    let (of_a, of_b) = (penalised(a, metric, options.policy), penalised(b, metric, options.policy));
    let pairs: Vec<(usize, f64, f64)> = (0..a.names.len())
        .filter_map(|at| {
            let partner = b.names.binary_search(&a.names[at]).ok()?;
            Some((at, of_a[at]?, of_b[partner]?))
        })
        .collect();
    let sign = if more_is_better(metric) == Some(false) { -1.0 } else { 1.0 };
    let mut groups: BTreeMap<&str, Group<'_>> = BTreeMap::new();
    for &(at, a_value, b_value) in &pairs {
        let identity = a.identities[at].as_deref();
        let (label, unit) = match by {
            GroupBy::Identity => (identity, &*a.names[at]),
            GroupBy::Prompt => {
                (prompts.get(&a.names[at]).map(|text| &**text), identity.unwrap_or(&a.names[at]))
            }
        };
        if let Some(label) = label {
            groups.entry(label).or_default().add(unit, a_value, b_value);
        }
    }
    groups.retain(|_, group| group.n >= options.min_pairs);
    let groups_found = groups.len();
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by(|(_, one), (_, other)| descending(sign * one.mean(), sign * other.mean()));
    if groups.len() > 2 * most {
        groups.drain(most..groups.len() - most);
    }
    let bootstrap =
        Bootstrap { resamples: RESAMPLES, confidence: options.confidence, ..Bootstrap::default() };
    let groups =
        groups.into_iter().map(|(label, group)| group.difference(label, metric, &bootstrap));

    let mut ordered: Vec<PairDifference> = pairs
        .iter()
        .map(|&(at, a_value, b_value)| PairDifference {
            name: a.names[at].clone(),
            a: a_value,
            b: b_value,
            difference: a_value - b_value,
        })
        .collect();
    ordered.sort_by(|one, other| descending(sign * one.difference, sign * other.difference));
    let is_gain = |pair: &&PairDifference| sign * pair.difference > 0.0;
    let is_loss = |pair: &&PairDifference| sign * pair.difference < 0.0;
    Some(Changes {
        pairs: pairs.len(),
        groups_found,
        groups: groups.collect(),
        gains: ordered.iter().take(most).filter(is_gain).cloned().collect(),
        losses: ordered.iter().rev().take(most).filter(is_loss).cloned().collect(),
    })
}

fn descending(one: f64, other: f64) -> Ordering {
    other.total_cmp(&one)
}

/// Sums over the pairs of a group.
#[derive(Default)]
struct Group<'a> {
    n: usize,
    a: f64,
    b: f64,
    /// Sum and count of the differences of each resampled unit.
    units: BTreeMap<&'a str, (f64, usize)>,
}

impl<'a> Group<'a> {
    fn add(&mut self, unit: &'a str, a: f64, b: f64) {
        self.n += 1;
        self.a += a;
        self.b += b;
        let sums = self.units.entry(unit).or_default();
        *sums = (sums.0 + a - b, sums.1 + 1);
    }

    fn mean(&self) -> f64 {
        (self.a - self.b) / self.n as f64
    }

    fn difference(&self, label: &str, metric: &str, bootstrap: &Bootstrap) -> GroupDifference {
        let sums: Vec<(f64, usize)> = self.units.values().copied().collect();
        let interval = bootstrap.mean(&sums);
        let (low, high) = interval.map(|ends| (ends.low, ends.high)).unzip();
        let n = self.n as f64;
        GroupDifference {
            label: label.to_owned(),
            n: self.n,
            clusters: sums.len(),
            mean_a: self.a / n,
            mean_b: self.b / n,
            difference: self.mean(),
            low,
            high,
            no_interval: NoInterval::of_mean(Some(self.mean()), low, sums.len()),
            finding: Finding::of(metric, interval),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::compare::tests::simulated;

    /// Two runs of three people with four prompts each. A is better by 1 for the first person and
    /// worse by 0.5 for the second; the third has no difference.
    fn runs() -> (RunData, RunData) {
        let b = simulated(3, 4, 1, 2, 0.0);
        let mut a = b.clone();
        let column = a.metrics.get_mut("dino").unwrap();
        for (at, value) in column.values.iter_mut().enumerate() {
            let jitter = 0.01 * at as f64;
            let shift = [1.0 + jitter, -0.5 - jitter, 0.0][at / 4];
            *value = value.map(|value| value + shift);
        }
        (a, b)
    }

    fn options() -> CompareOptions {
        CompareOptions { min_pairs: 2, ..CompareOptions::default() }
    }

    #[test]
    fn people_are_ordered_from_the_best_of_a_to_its_worst() {
        let (a, b) = runs();
        let found =
            changes(&a, &b, "dino", GroupBy::Identity, &BTreeMap::new(), &options(), 10).unwrap();
        let labels: Vec<_> =
            found.groups.iter().map(|group| (&*group.label, group.finding)).collect();
        assert_eq!(
            labels,
            [
                ("person 0", Finding::Better),
                ("person 2", Finding::Undecided),
                ("person 1", Finding::Worse)
            ]
        );
        let first = &found.groups[0];
        assert_eq!((first.n, first.clusters), (4, 4));
        assert!((first.difference - 1.015).abs() < 1e-9, "{first:?}");
        assert!(first.low.unwrap() < 1.015 && 1.015 < first.high.unwrap(), "{first:?}");
        assert_eq!((found.pairs, found.groups_found), (12, 3));
        assert_eq!((&*found.gains[0].name, &*found.losses[0].name), ("000003", "000007"));
        assert_eq!((found.gains.len(), found.losses.len()), (4, 4));
    }

    #[test]
    fn prompts_resample_people_and_the_middle_is_left_out() {
        let (a, b) = runs();
        let prompts: BTreeMap<_, _> = a
            .names
            .iter()
            .enumerate()
            .map(|(at, name)| (name.clone(), format!("prompt {}", at % 4)))
            .collect();
        let found = changes(&a, &b, "dino", GroupBy::Prompt, &prompts, &options(), 1).unwrap();
        assert_eq!((found.groups_found, found.groups.len()), (4, 2));
        assert!(found.groups.iter().all(|group| (group.n, group.clusters) == (3, 3)));
        assert_eq!((found.gains.len(), found.losses.len()), (1, 1));
    }

    #[test]
    fn a_distance_that_falls_is_a_gain() {
        let (mut a, mut b) = runs();
        for run in [&mut a, &mut b] {
            let column = run.metrics.remove("dino").unwrap();
            run.metrics.insert("dreamsim".to_owned(), column);
        }
        let none = BTreeMap::new();
        let found = changes(&a, &b, "dreamsim", GroupBy::Identity, &none, &options(), 10).unwrap();
        assert_eq!(found.groups[0].label, "person 1");
        assert_eq!(found.groups[0].finding, Finding::Better);
        assert!(found.gains[0].difference < 0.0);
        assert!(changes(&a, &b, "dino", GroupBy::Identity, &none, &options(), 10).is_none());
    }
}
