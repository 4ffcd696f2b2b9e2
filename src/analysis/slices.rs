//! Summaries of a run, read by leaderboards: every metric under every policy over every slice.
//!
//! The samples of one kind of prompt are a *benchmark*: they are summarised as if the run had no
//! others, with their own penalty, clusters, resamples and sample set. All other slices have the
//! penalty of the whole run.

use super::clusters::Clusters;
use super::labels::{benchmarks_of, fine_slices_of, slices_of};
use super::penalty::{Policy, Verdict, verdicts};
use super::report::area_row;
use crate::content::ContentHash;
use crate::metrics::Flag;
use crate::stats::{Bootstrap, ClusterMean, Interval, quantiles, summarize};
use crate::store::{
    APS_AREA, BenchmarkSet, MetricColumn, Outcomes, Quantiles, RunData, RunSummary, Slice,
    SliceSummary,
};

/// Number of resamples for slices; the whole run uses that of the report.
const SLICE_RESAMPLES: usize = 2_000;

/// Maximum number of attributes by which `aps` is summarised; `CelebA` has 40.
const MOST_ATTRIBUTES: usize = 64;

/// Number of quantiles stored for a metric's distribution: half a percent apart.
const QUANTILES: usize = 201;

/// Summary of a slice under one policy, before its interval is computed.
struct Pending {
    summary: SliceSummary,
    sums: Vec<(f64, usize)>,
}

/// Summarises a run, given the predictions of attributes that its `aps` is based on.
///
/// Every metric has one row per slice if policies do not affect it, under the policy `none`;
/// otherwise one row per slice and policy. A penalised metric of a run without `clip_t` or `clip_n`
/// cannot be judged and has a row without a number.
#[must_use]
pub fn summarise(data: &RunData, outcomes: &Outcomes) -> RunSummary {
    let mut wanted = slices_of(data);
    wanted.retain(|(slice, _)| slice.kind != Slice::PROMPT_KIND);
    wanted.extend(fine_slices_of(data));
    let mut slices = summaries(data, wanted, &Policy::ALL);
    slices.extend(areas(data, outcomes, &Policy::ALL));
    slices.extend(by_attribute(data, outcomes, &Policy::ALL));
    let mut benchmarks = Vec::new();
    for label in benchmarks_of(data) {
        let (part, outcomes) = benchmark(data, outcomes, &label);
        if part.names.len() == data.names.len() {
            // The benchmark is the whole run.
            let whole: Vec<_> = slices.iter().filter(|row| row.slice.is_all()).cloned().collect();
            let slice = Slice::new(Slice::PROMPT_KIND, label.clone());
            slices
                .extend(whole.into_iter().map(|row| SliceSummary { slice: slice.clone(), ..row }));
        } else {
            slices.extend(summaries_of_benchmark(&part, &outcomes, &label, &Policy::ALL));
        }
        benchmarks.push(BenchmarkSet {
            samples: part.names.len() as u64,
            sample_set: sample_set(&part.names),
            cluster_keys: clusters(&part).keys,
            label,
        });
    }
    let quantiles = data
        .metrics
        .iter()
        .filter_map(|(code, column)| {
            let mut numbers: Vec<f64> = column.values.iter().flatten().copied().collect();
            let places = quantiles(&mut numbers, QUANTILES)?;
            let n = numbers.len() as u64;
            Some(Quantiles { metric: code.clone(), version: column.version, n, places })
        })
        .collect();
    RunSummary {
        samples: data.names.len() as u64,
        sample_set: sample_set(&data.names),
        cluster_keys: clusters(data).keys,
        benchmarks,
        slices,
        quantiles,
    }
}

/// Returns the samples of one kind of prompt as a run of their own, with their predictions.
pub(super) fn benchmark(data: &RunData, outcomes: &Outcomes, kind: &str) -> (RunData, Outcomes) {
    let is_kept = |at: usize| data.prompt_kinds[at].as_deref() == Some(kind);
    let part = |column: &Vec<Option<(bool, bool)>>| -> Vec<_> {
        column.iter().enumerate().filter(|(at, _)| is_kept(*at)).map(|(_, of)| *of).collect()
    };
    let parts = outcomes.iter().map(|(name, column)| (name.clone(), part(column)));
    let parts = parts.filter(|(_, column)| column.iter().any(Option::is_some)).collect();
    let mut data = data.clone();
    data.restrict_to_kind(kind);
    (data, parts)
}

fn summaries_of_benchmark(
    part: &RunData,
    outcomes: &Outcomes,
    label: &str,
    policies: &[Policy],
) -> Vec<SliceSummary> {
    let everything = vec![(Slice::all(), (0..part.names.len()).collect())];
    let mut rows = summaries(part, everything, policies);
    rows.extend(areas(part, outcomes, policies));
    for row in &mut rows {
        row.slice = Slice::new(Slice::PROMPT_KIND, label);
    }
    rows
}

/// Summaries of a part of a run, with what leaderboards need to merge and rank them.
pub(super) struct PartSummary {
    /// The summaries with their sums by cluster; none if the run has too few samples in the slice.
    pub(super) rows: Vec<SliceSummary>,
    /// Keys of the clusters.
    pub(super) keys: Vec<u64>,
    /// The samples that a benchmark has; `None` for other slices.
    pub(super) sample_set: Option<String>,
}

/// Summarises one slice under one policy; metrics that policies do not affect are under `none`.
pub(super) fn summarise_slice(
    data: &RunData,
    outcomes: &Outcomes,
    slice: &Slice,
    policy: Policy,
) -> PartSummary {
    let mut policies = vec![Policy::None, policy];
    policies.dedup();
    let (mut rows, keys, set) = if slice.kind == Slice::PROMPT_KIND {
        let (part, outcomes) = benchmark(data, outcomes, &slice.label);
        let rows = summaries_of_benchmark(&part, &outcomes, &slice.label, &policies);
        (rows, clusters(&part).keys, Some(sample_set(&part.names)))
    } else {
        let all = slices_of(data).into_iter().chain(fine_slices_of(data));
        let wanted = all.filter(|(of, _)| of == slice).collect();
        let mut rows = summaries(data, wanted, &policies);
        if slice.is_all() {
            rows.extend(areas(data, outcomes, &policies));
        }
        if slice.kind == Slice::APS_ATTRIBUTE {
            rows.extend(by_attribute(data, outcomes, &policies));
            rows.retain(|row| row.slice == *slice);
        }
        (rows, clusters(data).keys, None)
    };
    rows.retain(|row| {
        !(Policy::concerns(&row.metric) || row.metric == APS_AREA) || row.policy == policy.as_str()
    });
    PartSummary { rows, keys, sample_set: set }
}

/// Returns `aps` as the area under the ROC curve, one row per policy; none without predictions.
/// The numbers are those of the report.
fn areas(data: &RunData, outcomes: &Outcomes, policies: &[Policy]) -> Vec<SliceSummary> {
    let Some(column) = data.metrics.get("aps").filter(|_| !outcomes.is_empty()) else {
        return Vec::new();
    };
    let judged = judged(data);
    let samples = data.names.len() as u64;
    let of_policy = |policy: &Policy| {
        let settled = |at: usize| policy.settle(judged[at]);
        let row = area_row(&data.identities, outcomes, *policy, settled, &Bootstrap::default());
        let count = |wanted| (0..judged.len()).filter(|at| settled(*at) == wanted).count() as u64;
        SliceSummary {
            slice: Slice::all(),
            policy: policy.as_str().to_owned(),
            metric: APS_AREA.to_owned(),
            version: column.version,
            samples,
            n: row.n as u64,
            nulls: samples - row.n as u64,
            penalised: count(Verdict::Failed),
            undecided: count(Verdict::Undecided),
            faceless: 0,
            mean: row.mean,
            std: None,
            low: row.low,
            high: row.high,
            clusters: row.clusters as u64,
            sums: Vec::new(),
        }
    };
    policies.iter().map(of_policy).collect()
}

/// Returns `aps` over single attributes: for each, the share of samples in which it is predicted
/// correctly.
fn by_attribute(data: &RunData, outcomes: &Outcomes, policies: &[Policy]) -> Vec<SliceSummary> {
    let Some(version) = data.metrics.get("aps").map(|column| column.version) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut part = data.clone();
    part.metrics.retain(|code, _| matches!(code.as_str(), "clip_t" | "clip_n"));
    let named = outcomes.iter().filter(|(name, _)| Slice::can_store(name));
    for (name, column) in named.take(MOST_ATTRIBUTES) {
        let right = |of: &Option<(bool, bool)>| {
            of.map(|(target, predicted)| f64::from(target == predicted))
        };
        let values: Vec<Option<f64>> = column.iter().map(right).collect();
        let members: Vec<usize> = (0..values.len()).filter(|at| values[*at].is_some()).collect();
        let column = MetricColumn { version, values, ..MetricColumn::default() };
        part.metrics.insert("aps".to_owned(), column);
        let slice = Slice::new(Slice::APS_ATTRIBUTE, name.clone());
        let rows = summaries(&part, vec![(slice, members)], policies);
        found.extend(rows.into_iter().filter(|row| row.metric == "aps"));
    }
    found
}

/// Decides which samples of a run pass.
pub(super) fn judged(data: &RunData) -> Vec<Verdict> {
    match (data.metrics.get("clip_t"), data.metrics.get("clip_n")) {
        (Some(with_prompt), Some(baseline)) => verdicts(&with_prompt.values, &baseline.values),
        _ => vec![Verdict::Undecided; data.names.len()],
    }
}

fn clusters(data: &RunData) -> Clusters {
    Clusters::new(&data.identities, |at| data.names[at].clone())
}

/// Returns one row per slice, metric and policy; metrics that policies do not affect have one under
/// `none`.
fn summaries(
    data: &RunData,
    slices_of_run: Vec<(Slice, Vec<usize>)>,
    policies: &[Policy],
) -> Vec<SliceSummary> {
    let samples = data.names.len();
    let clusters = clusters(data);
    let judged = judged(data);
    let policies: Vec<(Policy, Vec<Verdict>)> = policies
        .iter()
        .map(|&policy| (policy, judged.iter().map(|verdict| policy.settle(*verdict)).collect()))
        .collect();

    let mut slices = Vec::new();
    for (slice, members) in slices_of_run {
        let resamples =
            if slice.is_all() { Bootstrap::default().resamples } else { SLICE_RESAMPLES };
        let mut rows = Vec::new();
        for (code, column) in &data.metrics {
            let measured = measured(column, samples);
            for (policy, verdicts) in &policies {
                if !Policy::concerns(code) && *policy != Policy::None {
                    continue;
                }
                rows.push(row(
                    &slice, &members, code, column, &measured, *policy, verdicts, &judged,
                    &clusters,
                ));
            }
        }
        let sums: Vec<_> = rows.iter().map(|row| row.sums.as_slice()).collect();
        let intervals = if data.labels.contains_key(&*slice.kind) {
            // There are hundreds of these: resampling each would take longer than all others.
            let student = |sums: &&[_]| Some(ClusterMean::new(sums)?.interval(0.95));
            sums.iter().map(student).collect()
        } else {
            Bootstrap { resamples, ..Bootstrap::default() }.means(&sums)
        };
        for (Pending { mut summary, sums }, interval) in rows.into_iter().zip(intervals) {
            (summary.low, summary.high) =
                interval.map(|Interval { low, high }| (low, high)).unzip();
            summary.sums = sums;
            slices.push(summary);
        }
    }
    slices
}

/// Returns the identifier of a sorted set of names: 64 bits of a hash, for which collisions within
/// a leaderboard do not occur in practice.
#[must_use]
pub fn sample_set<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let address = ContentHash::of_parts(names.into_iter().map(String::as_bytes));
    address.to_hex()[..16].to_owned()
}

/// Returns which samples were measured, with or without a number.
fn measured(column: &MetricColumn, samples: usize) -> Vec<bool> {
    let mut measured: Vec<bool> = column.values.iter().map(Option::is_some).collect();
    measured.resize(samples, false);
    for place in column.reasons.values().flatten() {
        measured[*place] = true;
    }
    measured
}

#[expect(clippy::too_many_arguments, reason = "the dimensions of a table")]
fn row(
    slice: &Slice,
    members: &[usize],
    code: &str,
    column: &MetricColumn,
    measured: &[bool],
    policy: Policy,
    verdicts: &[Verdict],
    judged: &[Verdict],
    clusters: &Clusters,
) -> Pending {
    let mut sums = vec![(0.0, 0); clusters.keys.len()];
    let mut numbers = Vec::new();
    let mut nulls = 0;
    for &at in members.iter().filter(|&&at| measured[at]) {
        match policy.apply(code, verdicts[at], column.values[at]) {
            Some(value) => {
                sums[clusters.of[at]].0 += value;
                sums[clusters.of[at]].1 += 1;
                numbers.push(value);
            }
            None => nulls += 1,
        }
    }
    let count =
        |list: &[Verdict], wanted| members.iter().filter(|&&at| list[at] == wanted).count() as u64;
    let faceless = column.flags.get(Flag::NoFaceInImage.code()).map_or(&[][..], Vec::as_slice);
    let summary = summarize(&numbers);
    let clusters = sums.iter().filter(|(_, count)| *count > 0).count() as u64;
    Pending {
        sums,
        summary: SliceSummary {
            slice: slice.clone(),
            policy: policy.as_str().to_owned(),
            metric: code.to_owned(),
            version: column.version,
            samples: members.len() as u64,
            n: summary.n as u64,
            nulls,
            penalised: count(verdicts, Verdict::Failed),
            undecided: count(judged, Verdict::Undecided),
            faceless: members.iter().filter(|at| faceless.binary_search(at).is_ok()).count() as u64,
            mean: summary.mean,
            std: summary.std,
            low: None,
            high: None,
            clusters,
            sums: Vec::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::store::{AttributePlaces, RelationKinds, RunName};

    /// 40 samples of 8 people; the person's number is their score, and odd samples of the second
    /// half fail the penalty.
    fn data() -> RunData {
        let samples = 40;
        let column = |value: &dyn Fn(usize) -> Option<f64>| MetricColumn {
            version: 1,
            values: (0..samples).map(value).collect(),
            ..MetricColumn::default()
        };
        let mut ips = column(&|at| (at != 3).then_some((at % 8) as f64));
        ips.reasons.insert("no_face_in_reference".to_owned(), vec![3]);
        ips.flags.insert("no_face_in_image".to_owned(), vec![0, 8]);
        RunData {
            run: uuid::Uuid::nil(),
            name: RunName::new("A", None),
            pack: None,
            names: (0..samples).map(|at| format!("{at:02}")).collect(),
            identities: (0..samples).map(|at| Some(format!("person {}", at % 8))).collect(),
            prompt_kinds: (0..samples)
                .map(|at| Some(if at < 20 { "T" } else { "H" }.to_owned()))
                .collect(),
            categories: (0..samples)
                .map(|at| if at < 4 { vec!["rare".to_owned()] } else { vec![] })
                .collect(),
            attributes: BTreeMap::from([(
                "Young".to_owned(),
                AttributePlaces {
                    present: (0..samples as u32).filter(|at| at % 2 == 0).collect(),
                    absent: (0..samples as u32).filter(|at| at % 2 == 1).collect(),
                },
            )]),
            relations: vec![RelationKinds { interaction: true, location: false }; samples],
            labels: BTreeMap::new(),
            sizes: (0..samples).map(|at| Some((512 + at as u32, 2000))).collect(),
            metrics: BTreeMap::from([
                (
                    "clip_t".to_owned(),
                    column(&|at| Some(if at >= 20 && at % 2 == 1 { 0.1 } else { 0.4 })),
                ),
                ("clip_n".to_owned(), column(&|_| Some(0.2))),
                ("ips".to_owned(), ips),
            ]),
        }
    }

    fn find<'a>(
        summary: &'a RunSummary,
        slice: &Slice,
        metric: &str,
        policy: Policy,
    ) -> &'a SliceSummary {
        let matches = |row: &&SliceSummary| {
            row.slice == *slice && row.metric == metric && row.policy == policy.as_str()
        };
        summary.slices.iter().find(matches).unwrap()
    }

    #[test]
    fn every_slice_has_its_mean_counts_and_interval() {
        let summary = summarise(&data(), &Outcomes::new());
        let all = find(&summary, &Slice::all(), "ips", Policy::None);
        assert_eq!((all.samples, all.n, all.nulls, all.penalised, all.faceless), (40, 39, 1, 0, 2));
        let mean = (5.0 * 28.0 - 3.0) / 39.0;
        assert!((all.mean.unwrap() - mean).abs() < 1e-12);
        assert!(all.low.unwrap() < mean && mean < all.high.unwrap());

        let of_h = find(&summary, &Slice::new(Slice::PROMPT_KIND, "H"), "ips", Policy::None);
        assert_eq!((of_h.samples, of_h.n, of_h.faceless), (20, 20, 0));
        let absent =
            find(&summary, &Slice::new(Slice::ATTRIBUTE, "!Young"), "clip_t", Policy::None);
        assert_eq!(absent.samples, 20);
        let size = find(&summary, &Slice::new(Slice::SIZE, "512_to_1023"), "clip_t", Policy::None);
        assert_eq!(size.samples, 40);
    }

    #[test]
    fn rare_labels_and_policies_that_change_nothing_have_no_rows() {
        let summary = summarise(&data(), &Outcomes::new());
        assert!(summary.slices.iter().all(|row| row.slice.label != "rare"));
        assert!(summary.slices.iter().all(|row| row.metric == "ips" || row.policy == "none"));
    }

    #[test]
    fn the_penalty_is_that_of_the_whole_run_in_every_slice() {
        let summary = summarise(&data(), &Outcomes::new());
        let all = find(&summary, &Slice::all(), "ips", Policy::Stellar);
        assert_eq!((all.penalised, all.undecided), (10, 0));
        let passed = find(&summary, &Slice::new(Slice::PROMPT_KIND, "T"), "ips", Policy::Stellar);
        assert_eq!(passed.penalised, 0);
        let of_h = find(&summary, &Slice::new(Slice::PROMPT_KIND, "H"), "ips", Policy::Stellar);
        let plain = find(&summary, &Slice::new(Slice::PROMPT_KIND, "H"), "ips", Policy::None);
        assert_eq!(of_h.penalised, 10);
        assert!(of_h.mean.unwrap() < plain.mean.unwrap());
    }

    #[test]
    fn without_clip_scores_no_sample_is_judged_and_there_are_no_numbers() {
        let mut data = data();
        data.metrics.remove("clip_n");
        let summary = summarise(&data, &Outcomes::new());
        let all = find(&summary, &Slice::all(), "ips", Policy::Stellar);
        assert_eq!((all.n, all.undecided, all.mean), (0, 40, None));
        assert_eq!(find(&summary, &Slice::all(), "ips", Policy::None).n, 39);
    }

    #[test]
    fn the_slice_of_all_samples_has_the_intervals_of_the_report() {
        let data = data();
        let scores = super::super::RunScores {
            identities: data.identities.clone(),
            scores: data
                .metrics
                .iter()
                .map(|(code, column)| (code.clone(), column.values.clone()))
                .collect(),
            attributes: Vec::new(),
        };
        let report = super::super::report(&scores, Policy::Stellar, &Bootstrap::default()).unwrap();
        let summary = summarise(&data, &Outcomes::new());
        for line in report.rows {
            let policy = if line.metric == "ips" { Policy::Stellar } else { Policy::None };
            let row = find(&summary, &Slice::all(), &line.metric, policy);
            assert_eq!(
                (row.mean, row.low, row.high),
                (line.mean, line.low, line.high),
                "{}",
                line.metric
            );
        }
    }
}
