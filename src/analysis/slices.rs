//! Summaries of a run, read by leaderboards: every metric under every policy over every slice.

use std::collections::BTreeMap;

use super::clusters::Clusters;
use super::penalty::{Policy, Verdict, verdicts};
use crate::content::ContentHash;
use crate::metrics::Flag;
use crate::stats::{Bootstrap, Interval, quantiles, summarize};
use crate::store::{MetricColumn, Quantiles, RunData, RunSummary, Slice, SliceSummary};

/// Minimum number of samples of a slice. A smaller slice has no summary: its mean would be
/// unreliable and could disclose data about single people.
const FEWEST_SAMPLES: usize = 5;

/// Maximum number of labels of one kind (categories, attributes); those with most samples are used.
const MOST_LABELS: usize = 500;

/// Number of resamples for slices; the whole run uses that of the report.
const SLICE_RESAMPLES: usize = 2_000;

/// Number of quantiles stored for a metric's distribution: half a percent apart.
const QUANTILES: usize = 201;

/// Summary of a slice under one policy, before its interval is computed.
struct Pending {
    summary: SliceSummary,
    sums: Vec<(f64, usize)>,
}

/// Summarises a run.
///
/// Every metric has one row per slice if policies do not affect it, under the policy `none`;
/// otherwise one row per slice and policy. A penalised metric of a run without `clip_t` or `clip_n`
/// cannot be judged and has a row without a number.
#[must_use]
pub fn summarise(data: &RunData) -> RunSummary {
    let slices = summaries(data, slices_of(data), &Policy::ALL);
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
    let sample_set = sample_set(&data.names);
    let cluster_keys = clusters(data).keys;
    RunSummary { samples: data.names.len() as u64, sample_set, cluster_keys, slices, quantiles }
}

/// Summarises one slice under one policy; metrics that policies do not affect are under `none`.
/// Returns the summaries with their sums by cluster, and the clusters' keys. There are no summaries
/// if the run has too few samples in the slice.
pub(super) fn summarise_slice(
    data: &RunData,
    slice: &Slice,
    policy: Policy,
) -> (Vec<SliceSummary>, Vec<u64>) {
    let slices = slices_of(data).into_iter().filter(|(of, _)| of == slice).collect();
    let mut policies = vec![Policy::None, policy];
    policies.dedup();
    let mut rows = summaries(data, slices, &policies);
    rows.retain(|row| !Policy::concerns(&row.metric) || row.policy == policy.as_str());
    (rows, clusters(data).keys)
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
    let judged = match (data.metrics.get("clip_t"), data.metrics.get("clip_n")) {
        (Some(with_prompt), Some(baseline)) => verdicts(&with_prompt.values, &baseline.values),
        _ => vec![Verdict::Undecided; samples],
    };
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
        let intervals = Bootstrap { resamples, ..Bootstrap::default() }
            .means(&rows.iter().map(|row| row.sums.as_slice()).collect::<Vec<_>>());
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
        let mut labels: Vec<_> = labels
            .into_iter()
            .filter(|(label, members)| members.len() >= FEWEST_SAMPLES && Slice::can_store(label))
            .collect();
        labels.sort_by_key(|(_, members)| std::cmp::Reverse(members.len()));
        labels.truncate(MOST_LABELS);
        slices
            .extend(labels.into_iter().map(|(label, members)| (Slice::new(kind, label), members)));
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

#[cfg(test)]
mod tests {
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
        let summary = summarise(&data());
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
        let summary = summarise(&data());
        assert!(summary.slices.iter().all(|row| row.slice.label != "rare"));
        assert!(summary.slices.iter().all(|row| row.metric == "ips" || row.policy == "none"));
    }

    #[test]
    fn the_penalty_is_that_of_the_whole_run_in_every_slice() {
        let summary = summarise(&data());
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
        let summary = summarise(&data);
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
        let summary = summarise(&data);
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
