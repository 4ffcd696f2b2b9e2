//! Comparison of two runs on the same prompts.
//!
//! Samples are paired by name and differences are taken within pairs, so that the difficulty of a
//! prompt or an identity cancels out. Pairs of one identity form a cluster, both in intervals and
//! in tests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::clusters::Clusters;
use super::labels::{benchmarks_of, slices_of};
use super::penalty::Policy;
use super::ranks::more_is_better;
use super::reasons::NoInterval;
use super::slices::judged;
use crate::stats::{Bootstrap, FEW_CLUSTERS, Interval, benjamini_hochberg, holm, sign_flip_test};
use crate::store::{RunData, Slice};

/// Number of random draws of a test with too many assignments to enumerate. P-values are multiples
/// of 1/10,000.
const DRAWS: usize = 9_999;

/// Options of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct CompareOptions {
    /// The penalty policy, applied to each run separately.
    pub policy: Policy,
    /// Coverage of the intervals, between 0 and 1.
    pub confidence: f64,
    /// Minimum number of pairs; smaller slices are left out.
    pub min_pairs: usize,
    /// Whether to compare slices too.
    pub slices: bool,
    /// Number of resamples of an interval; slices use a fifth.
    pub resamples: usize,
}

impl Default for CompareOptions {
    /// Policy `stellar`, 95 % coverage, slices of at least 20 pairs.
    fn default() -> Self {
        Self {
            policy: Policy::Stellar,
            confidence: 0.95,
            min_pairs: 20,
            slices: true,
            resamples: 10_000,
        }
    }
}

/// Conclusion from the interval of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The whole interval lies on the side where A is better.
    Better,
    /// The whole interval lies on the side where A is worse.
    Worse,
    /// The interval contains 0 or is missing, or the metric has no direction.
    Undecided,
}

impl Finding {
    /// Concludes from the interval of A − B in a metric.
    pub(super) fn of(metric: &str, interval: Option<Interval>) -> Self {
        match (interval, more_is_better(metric)) {
            (Some(ends), Some(more)) if ends.low > 0.0 || ends.high < 0.0 => {
                if (ends.low > 0.0) == more { Self::Better } else { Self::Worse }
            }
            _ => Self::Undecided,
        }
    }
}

/// One metric over the pairs of a slice: A minus B.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// Code of the metric.
    #[schema(example = "ips")]
    pub metric: String,
    /// Version of the metric's definition in both runs.
    pub version: u32,
    /// Pairs in which both samples have a score.
    pub n: usize,
    /// Identities among them; a sample without an identity counts as one.
    pub clusters: usize,
    /// Whether there are fewer than 8 clusters, so that the interval is based on little data.
    pub few_clusters: bool,
    /// Mean of A over these pairs.
    pub mean_a: f64,
    /// Mean of B over these pairs.
    pub mean_b: f64,
    /// Mean of A − B.
    pub difference: f64,
    /// Lower end of its confidence interval: studentised bootstrap, clustered by identity. Null for
    /// fewer than two identities.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Reason if the difference has no interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_interval: Option<NoInterval>,
    /// Share of the pairs in which A is better; ties count half. Null for metrics without a
    /// direction.
    pub win_rate: Option<f64>,
    /// Two-sided p-value of the sign-flip permutation test over identities.
    pub p: Option<f64>,
    /// P-value with Holm's correction over the slice's metrics that have a direction; null for the
    /// others.
    pub p_holm: Option<f64>,
    /// P-value with Benjamini and Hochberg's correction over the same metrics.
    pub p_bh: Option<f64>,
    /// Conclusion from the interval.
    pub finding: Finding,
}

/// The comparison over one slice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SliceComparison {
    /// Kind of the slice; empty for all pairs.
    #[schema(example = "prompt_kind")]
    pub kind: String,
    /// Label within the kind.
    #[schema(example = "T")]
    pub label: String,
    /// Pairs in the slice.
    pub pairs: usize,
    /// One entry per metric.
    pub metrics: Vec<Difference>,
}

/// Comparison of two runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Comparison {
    /// The penalty policy.
    pub policy: Policy,
    /// Coverage of the intervals.
    pub confidence: f64,
    /// Pairs of samples with the same name.
    pub pairs: usize,
    /// Samples of A without a partner.
    pub only_a: usize,
    /// Samples of B without a partner.
    pub only_b: usize,
    /// Metrics that only one run has, or that the runs have in different versions.
    pub not_compared: Vec<String>,
    /// All pairs first, then slices of A's samples.
    pub slices: Vec<SliceComparison>,
}

impl Comparison {
    /// Removes the metrics that were not requested, and corrects p-values over the remaining ones.
    pub fn keep_metrics(&mut self, asked: impl Fn(&str) -> bool) {
        self.not_compared.retain(|code| asked(code));
        for slice in &mut self.slices {
            slice.metrics.retain(|of| asked(&of.metric));
            correct(&mut slice.metrics);
        }
    }
}

/// Pairs two runs by sample name and compares them. Their scores should be of the same pack, since
/// scores of different packs are not comparable.
#[must_use]
pub fn compare(a: &RunData, b: &RunData, options: &CompareOptions) -> Comparison {
    let partners: Vec<Option<usize>> =
        a.names.iter().map(|name| b.names.binary_search(name).ok()).collect();
    let pairs = partners.iter().flatten().count();
    let clusters = Clusters::new(&a.identities, |at| a.names[at].clone());
    let mut columns = BTreeMap::new();
    let mut not_compared = Vec::new();
    for code in
        a.metrics.keys().chain(b.metrics.keys().filter(|code| !a.metrics.contains_key(*code)))
    {
        let versions = [a, b].map(|run| run.metrics.get(code).map(|column| column.version));
        match versions {
            [Some(one), Some(other)] if one == other => {
                let b = penalised(b, code, options.policy);
                let b: Vec<Option<f64>> = partners.iter().map(|partner| b[(*partner)?]).collect();
                columns.insert(code.clone(), (one, penalised(a, code, options.policy), b));
            }
            _ => not_compared.push(code.clone()),
        }
    }
    let mut slices = if options.slices {
        slices_of(a)
    } else {
        vec![(Slice::all(), (0..a.names.len()).collect())]
    };
    for (_, members) in &mut slices {
        members.retain(|at| partners[*at].is_some());
    }
    slices.retain(|(slice, members)| slice.is_all() || members.len() >= options.min_pairs);
    slices.retain(|(slice, _)| slice.kind != Slice::PROMPT_KIND);
    let slices = slices.into_iter().map(|(slice, members)| {
        let resamples = if slice.is_all() { options.resamples } else { options.resamples / 5 };
        let bootstrap =
            Bootstrap { resamples, confidence: options.confidence, ..Bootstrap::default() };
        let metrics = differences(&columns, &members, &clusters, bootstrap);
        SliceComparison { kind: slice.kind, label: slice.label, pairs: members.len(), metrics }
    });
    let mut slices: Vec<SliceComparison> = slices.collect();
    if options.slices {
        slices.extend(benchmarks_of(a).into_iter().filter_map(|kind| {
            let found = compare_benchmark(
                a,
                b,
                &kind,
                &CompareOptions { slices: false, ..options.clone() },
            );
            let whole = found.slices.into_iter().next()?;
            let is_large = whole.pairs >= options.min_pairs.max(1);
            let kind = Slice::new(Slice::PROMPT_KIND, kind);
            is_large.then_some(SliceComparison { kind: kind.kind, label: kind.label, ..whole })
        }));
    }
    Comparison {
        policy: options.policy,
        confidence: options.confidence,
        pairs,
        only_a: a.names.len() - pairs,
        only_b: b.names.len() - pairs,
        not_compared,
        slices,
    }
}

/// Compares two runs on the samples of one kind of prompt, as if they had no others.
#[must_use]
pub fn compare_benchmark(
    a: &RunData,
    b: &RunData,
    kind: &str,
    options: &CompareOptions,
) -> Comparison {
    let [a, b] = [a, b].map(|run| {
        let mut run = run.clone();
        run.restrict_to_kind(kind);
        run
    });
    compare(&a, &b, options)
}

/// Returns a metric's scores under the policy.
pub(super) fn penalised(run: &RunData, code: &str, policy: Policy) -> Vec<Option<f64>> {
    let column = &run.metrics[code];
    if policy == Policy::None || !Policy::concerns(code) {
        return column.values.clone();
    }
    let values = column.values.iter().zip(judged(run));
    values.map(|(value, verdict)| policy.apply(code, policy.settle(verdict), *value)).collect()
}

type Columns = BTreeMap<String, (u32, Vec<Option<f64>>, Vec<Option<f64>>)>;

fn differences(
    columns: &Columns,
    members: &[usize],
    clusters: &Clusters,
    bootstrap: Bootstrap,
) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut sums = Vec::new();
    for (code, (version, a, b)) in columns {
        let both: Vec<(usize, f64, f64)> =
            members.iter().filter_map(|&at| Some((clusters.of[at], a[at]?, b[at]?))).collect();
        if both.is_empty() {
            continue;
        }
        let n = both.len() as f64;
        let mut by_cluster = vec![(0.0, 0); clusters.keys.len()];
        for (cluster, a, b) in &both {
            by_cluster[*cluster].0 += a - b;
            by_cluster[*cluster].1 += 1;
        }
        by_cluster.retain(|(_, count)| *count > 0);
        let better = more_is_better(code);
        let wins = |more: bool| {
            let win = |(_, a, b): &(usize, f64, f64)| match a.total_cmp(b) {
                _ if (a - b).abs() == 0.0 => 0.5,
                order => f64::from(order.is_gt() == more),
            };
            both.iter().map(win).sum::<f64>() / n
        };
        let flips: Vec<f64> = by_cluster.iter().map(|(sum, _)| *sum).collect();
        found.push(Difference {
            metric: code.clone(),
            version: *version,
            n: both.len(),
            clusters: by_cluster.len(),
            few_clusters: by_cluster.len() < FEW_CLUSTERS,
            mean_a: both.iter().map(|(_, a, _)| a).sum::<f64>() / n,
            mean_b: both.iter().map(|(_, _, b)| b).sum::<f64>() / n,
            difference: flips.iter().sum::<f64>() / n,
            low: None,
            high: None,
            no_interval: None,
            win_rate: better.map(wins),
            p: sign_flip_test(&flips, DRAWS, bootstrap.seed),
            p_holm: None,
            p_bh: None,
            finding: Finding::Undecided,
        });
        sums.push(by_cluster);
    }
    for (of, interval) in found.iter_mut().zip(bootstrap.means(&sums)) {
        (of.low, of.high) = interval.map(|ends| (ends.low, ends.high)).unzip();
        of.no_interval = NoInterval::of_mean(Some(of.difference), of.low, of.clusters);
        of.finding = Finding::of(&of.metric, interval);
    }
    correct(&mut found);
    found
}

/// Corrects the p-values over all metrics that have a direction.
fn correct(found: &mut [Difference]) {
    let ranking: Vec<usize> = (0..found.len())
        .filter(|&at| more_is_better(&found[at].metric).is_some() && found[at].p.is_some())
        .collect();
    let p: Vec<f64> = ranking.iter().filter_map(|&at| found[at].p).collect();
    for ((at, holm), bh) in ranking.into_iter().zip(holm(&p)).zip(benjamini_hochberg(&p)) {
        (found[at].p_holm, found[at].p_bh) = (Some(holm), Some(bh));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::stats::{Rng, normal_quantile, student_cdf, student_quantile};
    use crate::store::{MetricColumn, RelationKinds, RunName};

    /// Simulates a run over `identities` people with `prompts` prompts each. The score of a sample
    /// is the sum of an effect of the person, which all runs share, and noise of its own.
    pub(in super::super) fn simulated(
        identities: usize,
        prompts: usize,
        shared: u64,
        own: u64,
        truth: f64,
    ) -> RunData {
        let (mut of_people, mut of_samples) = (Rng::new(shared), Rng::new(own));
        let normal = |rng: &mut Rng| normal_quantile(rng.unit().max(1e-12));
        let samples = identities * prompts;
        let mut values = Vec::new();
        for _ in 0..identities {
            let person = normal(&mut of_people);
            // Interaction of person and method.
            let suits = 0.5 * normal(&mut of_samples);
            values.extend(
                (0..prompts).map(|_| Some(truth + person + suits + normal(&mut of_samples))),
            );
        }
        RunData {
            run: uuid::Uuid::nil(),
            name: RunName::new("simulated", None),
            pack: None,
            names: (0..samples).map(|at| format!("{at:06}")).collect(),
            identities: (0..samples).map(|at| Some(format!("person {}", at / prompts))).collect(),
            prompt_kinds: vec![None; samples],
            categories: vec![Vec::new(); samples],
            attributes: BTreeMap::new(),
            relations: vec![RelationKinds::default(); samples],
            labels: BTreeMap::new(),
            sizes: vec![None; samples],
            metrics: BTreeMap::from([(
                "dino".to_owned(),
                MetricColumn { version: 1, values, ..MetricColumn::default() },
            )]),
        }
    }

    fn whole(comparison: &Comparison) -> &Difference {
        &comparison.slices[0].metrics[0]
    }

    #[test]
    fn a_shift_of_every_sample_is_found_exactly() {
        let a = simulated(10, 4, 1, 2, 0.0);
        let mut b = a.clone();
        for value in b.metrics.get_mut("dino").unwrap().values.iter_mut().flatten() {
            *value += 0.25;
        }
        let comparison = compare(&a, &b, &CompareOptions::default());
        let found = whole(&comparison);
        assert_eq!((comparison.pairs, comparison.only_a, comparison.only_b), (40, 0, 0));
        assert_eq!(
            (found.n, found.clusters, found.win_rate, found.finding),
            (40, 10, Some(0.0), Finding::Worse)
        );
        assert!((found.difference + 0.25).abs() < 1e-12);
        // Of all 2^10 assignments, only the two with equal signs are as extreme.
        assert!((found.p.unwrap() - 2.0 / 1024.0).abs() < 1e-12);
        let (low, high) = (found.low.unwrap(), found.high.unwrap());
        assert!((low + 0.25).abs() < 1e-9 && (high + 0.25).abs() < 1e-9);
        assert_eq!(whole(&compare(&b, &a, &CompareOptions::default())).finding, Finding::Better);
    }

    #[test]
    fn samples_without_a_partner_or_a_number_are_left_out_and_counted() {
        let mut a = simulated(10, 4, 1, 2, 0.0);
        let b = simulated(10, 3, 1, 3, 0.0);
        a.metrics.get_mut("dino").unwrap().values[0] = None;
        let comparison = compare(&a, &b, &CompareOptions::default());
        assert_eq!((comparison.pairs, comparison.only_a, comparison.only_b), (30, 10, 0));
        assert_eq!(whole(&comparison).n, 29);
    }

    #[test]
    fn metrics_of_different_versions_are_listed_and_not_compared() {
        let a = simulated(10, 4, 1, 2, 0.0);
        let mut b = a.clone();
        b.metrics.get_mut("dino").unwrap().version = 2;
        b.metrics.insert(
            "goa".to_owned(),
            MetricColumn { version: 1, values: vec![None; 40], ..Default::default() },
        );
        let comparison = compare(&a, &b, &CompareOptions::default());
        assert_eq!(comparison.not_compared, ["dino", "goa"]);
        assert!(comparison.slices[0].metrics.is_empty());
    }

    #[test]
    fn a_lower_distance_is_better() {
        let mut a = simulated(10, 4, 1, 2, 0.0);
        let column = a.metrics.remove("dino").unwrap();
        a.metrics.insert("dreamsim".to_owned(), column);
        let mut b = a.clone();
        for value in b.metrics.get_mut("dreamsim").unwrap().values.iter_mut().flatten() {
            *value += 0.25;
        }
        let found = compare(&a, &b, &CompareOptions::default());
        assert_eq!((whole(&found).finding, whole(&found).win_rate), (Finding::Better, Some(1.0)));
    }

    #[test]
    fn p_values_are_corrected_over_metrics_with_a_direction() {
        let mut a = simulated(12, 3, 1, 2, 0.3);
        let mut b = simulated(12, 3, 1, 3, 0.0);
        for run in [&mut a, &mut b] {
            let column = run.metrics["dino"].clone();
            run.metrics.insert("clip_n".to_owned(), column.clone());
            run.metrics.insert("goa".to_owned(), column);
        }
        let comparison =
            compare(&a, &b, &CompareOptions { policy: Policy::None, ..CompareOptions::default() });
        let of =
            |code: &str| comparison.slices[0].metrics.iter().find(|of| of.metric == code).unwrap();
        assert_eq!((of("clip_n").p_holm, of("clip_n").win_rate), (None, None));
        let (p, holm) = (of("dino").p.unwrap(), of("dino").p_holm.unwrap());
        assert!((holm - (2.0 * p).min(1.0)).abs() < 1e-12, "{p} {holm}");
    }

    /// Range of expected counts for trials with this probability: four standard deviations to each
    /// side.
    fn expected(trials: f64, probability: f64) -> std::ops::RangeInclusive<f64> {
        let (mean, deviation) =
            (trials * probability, (trials * probability * (1.0 - probability)).sqrt());
        mean - 4.0 * deviation..=mean + 4.0 * deviation
    }

    #[test]
    fn the_gate_has_its_nominal_type_i_error_and_power() {
        let (trials, prompts) = (400_u32, 5);
        for people in [10, 20, 40] {
            let (mut alarms, mut detected) = (0_u32, 0_u32);
            for trial in 0..u64::from(trials) {
                let options =
                    CompareOptions { slices: false, resamples: 1000, ..CompareOptions::default() };
                let run = |own, truth| simulated(people, prompts, trial, own, truth);
                let (equal, worse) = (run(1000 + trial, 0.0), run(1000 + trial, -0.6));
                let before = run(500_000 + trial, 0.0);
                alarms +=
                    u32::from(whole(&compare(&equal, &before, &options)).finding == Finding::Worse);
                detected +=
                    u32::from(whole(&compare(&worse, &before, &options)).finding == Finding::Worse);
            }
            // The gate is one side of a 95 % interval.
            let level = expected(f64::from(trials), 0.025);
            assert!(
                level.contains(&f64::from(alarms)),
                "{people}: {alarms} false alarms, expected {level:?}"
            );
            // A person's difference has the variance 2·0.5² from the interaction with each method,
            // plus 2/5 from five prompts. This is the power of Student's test with that noise,
            // except for the small share of its other tail.
            let error = (2.0 * (0.25 + 1.0 / prompts as f64) / people as f64).sqrt();
            let power = student_cdf(0.6 / error - student_quantile(0.975, people - 1), people - 1);
            let range = expected(f64::from(trials), power);
            assert!(
                range.contains(&f64::from(detected)),
                "{people}: {detected} real differences detected, expected {range:?}"
            );
        }
    }
}
