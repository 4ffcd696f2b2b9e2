//! The report of one run under a penalty policy.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::clusters::Clusters;
use super::penalty::{Policy, Verdict, verdicts};
use super::reasons::NoInterval;
use crate::stats::{Bootstrap, FEWEST_CLUSTERS, summarize};
use crate::store::Outcomes;

/// Predictions of one attribute by sample; `None` if there is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AttributeOutcomes {
    /// The attribute's name in CelebA.
    pub name: String,
    /// Whether the person has the attribute, and whether it was predicted for the generated face.
    pub outcomes: Vec<Option<(bool, bool)>>,
}

/// Scores of a run; every list is in the order of its samples.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunScores {
    /// Identity of each sample; a sample without one is its own cluster.
    pub identities: Vec<Option<String>>,
    /// Scores by metric code; `None` is a null score. `aps` of a sample is its share of correct
    /// predictions.
    pub scores: BTreeMap<String, Vec<Option<f64>>>,
    /// Predictions that `aps` is based on. Without any, the report has no `aps`.
    pub attributes: Vec<AttributeOutcomes>,
}

/// Errors of computing a report.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The penalty cannot be decided.
    #[error(
        "the penalty needs clip_t and clip_n of the run, and {missing} is missing: compute or \
            import it, or use the \
         policy `none`"
    )]
    NeedsClip {
        /// The metric that is missing.
        missing: &'static str,
    },
    /// A list is not as long as the list of samples.
    #[error(
        "{what} has {have} values for {samples} samples: every list needs one entry for each sample"
    )]
    Length {
        /// The metric or attribute.
        what: String,
        /// Number of its entries.
        have: usize,
        /// Number of samples.
        samples: usize,
    },
}

/// Definition of a row's `mean`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// The mean of the samples' scores.
    SampleMean,
    /// The mean over attributes of the area under the ROC curve over all samples, which is not a
    /// mean of samples' scores: `aps` as reported by the reference toolkit.
    AttributeAuc,
}

/// A row of the report.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ReportRow {
    /// Code of the metric.
    #[schema(example = "ips")]
    pub metric: String,
    /// Definition of `mean`: the mean over the samples with a score, for all metrics except `aps`.
    pub statistic: Statistic,
    /// The statistic; null if it cannot be computed.
    pub mean: Option<f64>,
    /// Mean of the samples' scores, if `mean` is another statistic: for `aps` the mean share of
    /// correct predictions, as in leaderboards and slices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_mean: Option<f64>,
    /// Standard deviation (ddof 1); null for `aps` and below two samples.
    pub std: Option<f64>,
    /// Lower end of the 95 % interval, resampled by identity.
    pub low: Option<f64>,
    /// Upper end of the interval.
    pub high: Option<f64>,
    /// Number of identities among the samples with a score; a sample without an identity counts as
    /// one.
    pub clusters: usize,
    /// Number of samples with a score.
    pub n: usize,
    /// Share of the samples that have a score.
    pub coverage: f64,
}

impl ReportRow {
    /// Returns the reason if there is a number without an interval.
    #[must_use]
    pub fn no_interval(&self) -> Option<NoInterval> {
        let fewest = if self.statistic == Statistic::SampleMean { 2 } else { FEWEST_CLUSTERS };
        NoInterval::of(self.mean, self.low, self.clusters, fewest, NoInterval::TooFewPeople)
    }
}

/// The report of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The penalty policy.
    pub policy: Policy,
    /// Number of samples in the run.
    pub samples: usize,
    /// Penalised samples; `None` under the policy `none`.
    pub penalised: Option<usize>,
    /// Samples without `clip_t` or `clip_n`, which cannot be judged.
    pub undecided: usize,
    /// One row per metric, in order of metric codes.
    pub rows: Vec<ReportRow>,
}

/// Computes the report of a run.
pub fn report(
    run: &RunScores,
    policy: Policy,
    bootstrap: &Bootstrap,
) -> Result<Report, ReportError> {
    let samples = run.identities.len();
    let lengths = run.scores.iter().map(|(code, values)| (code, values.len()));
    let lengths =
        lengths.chain(run.attributes.iter().map(|each| (&each.name, each.outcomes.len())));
    for (what, have) in lengths {
        if have != samples {
            return Err(ReportError::Length { what: what.clone(), have, samples });
        }
    }
    let concerned = !run.attributes.is_empty()
        || ["ips", "sis"].iter().any(|code| run.scores.contains_key(*code));
    let judged = if policy == Policy::None { None } else { judge(run, concerned)? };
    let verdict =
        |at: usize| judged.as_ref().map_or(Verdict::Passed, |list| policy.settle(list[at]));
    let clusters = Clusters::new(&run.identities, |at| at.to_string());

    let mut rows = Vec::new();
    let (mut shares, mut columns, mut sums) = (None, Vec::new(), Vec::new());
    for (code, values) in &run.scores {
        let apply = |(at, value): (usize, &Option<f64>)| policy.apply(code, verdict(at), *value);
        let numbers: Vec<f64> = values.iter().enumerate().filter_map(apply).collect();
        let summary = summarize(&numbers);
        if code == "aps" {
            shares = summary.mean;
            continue;
        }
        columns.push((code, summary));
        sums.push(clusters.sums(values.iter().enumerate().map(apply)));
    }
    // Computed together, since metrics of the same samples share their resamples.
    let intervals = bootstrap.means(&sums);
    for (((code, summary), interval), sums) in columns.into_iter().zip(intervals).zip(&sums) {
        rows.push(ReportRow {
            metric: code.clone(),
            statistic: Statistic::SampleMean,
            mean: summary.mean,
            sample_mean: summary.mean,
            std: summary.std,
            low: interval.map(|ends| ends.low),
            high: interval.map(|ends| ends.high),
            clusters: sums.iter().filter(|(_, count)| *count > 0).count(),
            n: summary.n,
            coverage: share(summary.n, samples),
        });
    }
    if !run.attributes.is_empty() {
        let columns: Vec<_> = run.attributes.iter().map(|each| &each.outcomes[..]).collect();
        let row = attribute_row(samples, &columns, policy, verdict, &clusters, bootstrap);
        rows.push(ReportRow { sample_mean: shares, ..row });
    }
    rows.sort_by(|a, b| a.metric.cmp(&b.metric));
    let count = |wanted| (0..samples).filter(|&at| verdict(at) == wanted).count();
    Ok(Report {
        policy,
        samples,
        penalised: judged.as_ref().map(|_| count(Verdict::Failed)),
        undecided: judged.iter().flatten().filter(|each| **each == Verdict::Undecided).count(),
        rows,
    })
}

/// Decides which samples pass; `None` if the CLIP scores are missing and no metric needs them.
fn judge(run: &RunScores, concerned: bool) -> Result<Option<Vec<Verdict>>, ReportError> {
    let find = |missing| run.scores.get(missing).ok_or(ReportError::NeedsClip { missing });
    match (find("clip_t"), find("clip_n")) {
        (Ok(with_prompt), Ok(baseline)) => Ok(Some(verdicts(with_prompt, baseline))),
        (Err(error), _) | (_, Err(error)) if concerned => Err(error),
        _ => Ok(None),
    }
}

/// Counts of right and wrong predictions of one attribute in one cluster, for people with and
/// without it.
#[derive(Clone, Copy, Default)]
struct Counts {
    with: [f64; 2],
    without: [f64; 2],
}

/// Computes `aps` as the area under the ROC curve of a run, as in its report.
pub(super) fn area_row(
    identities: &[Option<String>],
    outcomes: &Outcomes,
    policy: Policy,
    verdict: impl Fn(usize) -> Verdict,
    bootstrap: &Bootstrap,
) -> ReportRow {
    let clusters = Clusters::new(identities, |at| at.to_string());
    let columns: Vec<_> = outcomes.values().map(|column| &column[..]).collect();
    attribute_row(identities.len(), &columns, policy, verdict, &clusters, bootstrap)
}

fn attribute_row(
    samples: usize,
    attributes: &[&[Option<(bool, bool)>]],
    policy: Policy,
    verdict: impl Fn(usize) -> Verdict,
    clusters: &Clusters,
    bootstrap: &Bootstrap,
) -> ReportRow {
    let groups = clusters.keys.len();
    let mut seen = vec![false; samples];
    let mut tables = Vec::new();
    for attribute in attributes {
        let mut counts = vec![Counts::default(); groups];
        for (at, outcome) in attribute.iter().enumerate() {
            let Some((target, predicted)) = *outcome else { continue };
            let right = match (verdict(at), policy) {
                (Verdict::Undecided, _) => continue,
                (Verdict::Passed, _) => target == predicted,
                (Verdict::Failed, Policy::Toolkit) => target != predicted,
                (Verdict::Failed, _) => false,
            };
            seen[at] = true;
            let side = if target {
                &mut counts[clusters.of[at]].with
            } else {
                &mut counts[clusters.of[at]].without
            };
            side[usize::from(!right)] += 1.0;
        }
        tables.push(counts);
    }
    // A constant attribute has no area. It is left out for the whole run, not for single resamples.
    tables.retain(|counts| area(counts, &vec![1; groups]).is_finite());
    let statistic = |times: &[u32]| {
        tables.iter().map(|counts| area(counts, times)).sum::<f64>() / tables.len() as f64
    };
    let mean = Some(statistic(&vec![1; groups])).filter(|mean| mean.is_finite());
    let interval = bootstrap.interval(groups, statistic);
    let n = if mean.is_some() { seen.iter().filter(|seen| **seen).count() } else { 0 };
    let people = clusters.sums(seen.iter().map(|seen| (*seen && mean.is_some()).then_some(0.0)));
    ReportRow {
        metric: "aps".to_owned(),
        statistic: Statistic::AttributeAuc,
        mean,
        sample_mean: None,
        std: None,
        low: interval.map(|ends| ends.low),
        high: interval.map(|ends| ends.high),
        clusters: people.iter().filter(|(_, count)| *count > 0).count(),
        n,
        coverage: share(n, samples),
    }
}

/// Computes the area under the ROC curve. For binary predictions, it is the mean of the two true
/// rates.
fn area(counts: &[Counts], times: &[u32]) -> f64 {
    let mut sums = Counts::default();
    for (of, &times) in counts.iter().zip(times) {
        for at in 0..2 {
            sums.with[at] += f64::from(times) * of.with[at];
            sums.without[at] += f64::from(times) * of.without[at];
        }
    }
    let rate = |side: [f64; 2]| side[0] / (side[0] + side[1]);
    f64::midpoint(rate(sums.with), rate(sums.without))
}

fn share(n: usize, of: usize) -> f64 {
    if of == 0 { 0.0 } else { n as f64 / of as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four samples. The last one fails the penalty: `std(clip_n)` is 0.
    fn run() -> RunScores {
        let list = |values: [f64; 4]| values.map(Some).to_vec();
        let scores = [
            ("clip_t", [0.4, 0.4, 0.4, 0.1]),
            ("clip_n", [0.2; 4]),
            ("ips", [0.5, 0.5, 0.5, 0.9]),
            ("dino", [0.1, 0.2, 0.3, 0.4]),
        ];
        RunScores {
            identities: ["a", "a", "b", "b"].map(|name| Some(name.to_owned())).to_vec(),
            scores: scores.map(|(code, values)| (code.to_owned(), list(values))).into(),
            attributes: vec![AttributeOutcomes {
                name: "Male".to_owned(),
                outcomes: vec![
                    Some((true, true)),
                    Some((false, false)),
                    Some((true, false)),
                    Some((false, true)),
                ],
            }],
        }
    }

    fn mean(policy: Policy, metric: &str) -> f64 {
        let report = report(&run(), policy, &Bootstrap::default()).unwrap();
        report.rows.iter().find(|row| row.metric == metric).unwrap().mean.unwrap()
    }

    #[test]
    fn the_penalty_changes_identity_metrics_only() {
        assert!((mean(Policy::None, "ips") - 0.6).abs() < 1e-12);
        assert!((mean(Policy::Stellar, "ips") - 0.375).abs() < 1e-12);
        assert!((mean(Policy::Toolkit, "ips") - 0.375).abs() < 1e-12);
        assert!((mean(Policy::Stellar, "dino") - 0.25).abs() < 1e-12);
    }

    #[test]
    fn a_wrong_prediction_stays_wrong_except_for_the_toolkit() {
        assert!((mean(Policy::Stellar, "aps") - 0.5).abs() < 1e-12);
        assert!((mean(Policy::Toolkit, "aps") - 0.75).abs() < 1e-12);
    }

    #[test]
    fn aps_has_the_area_of_the_run_and_the_mean_of_the_samples() {
        let mut run = run();
        run.scores.insert("aps".to_owned(), [1.0, 1.0, 0.0, 0.0].map(Some).to_vec());
        let report = report(&run, Policy::Stellar, &Bootstrap::default()).unwrap();
        let of = |code: &str| report.rows.iter().find(|row| row.metric == code).unwrap();
        assert_eq!(
            (of("aps").statistic, of("aps").sample_mean),
            (Statistic::AttributeAuc, Some(0.5))
        );
        assert_eq!(
            (of("ips").statistic, of("ips").sample_mean),
            (Statistic::SampleMean, of("ips").mean)
        );
        assert_eq!(report.rows.iter().filter(|row| row.metric == "aps").count(), 1);
    }

    #[test]
    fn with_two_people_a_mean_has_an_interval_and_an_area_has_none() {
        let report = report(&run(), Policy::Stellar, &Bootstrap::default()).unwrap();
        let of = |code: &str| report.rows.iter().find(|row| row.metric == code).unwrap();
        assert!(of("dino").low.is_some() && of("dino").no_interval().is_none());
        let aps = of("aps");
        assert_eq!((aps.clusters, aps.low, aps.high), (2, None, None));
        assert_eq!(aps.no_interval(), Some(NoInterval::TooFewPeople));
    }

    #[test]
    fn the_penalty_without_clip_scores_is_refused() {
        let mut run = run();
        run.scores.remove("clip_n");
        let error = report(&run, Policy::Stellar, &Bootstrap::default()).unwrap_err();
        assert_eq!(error, ReportError::NeedsClip { missing: "clip_n" });
        assert!(report(&run, Policy::None, &Bootstrap::default()).is_ok());
    }

    #[test]
    fn a_sample_that_cannot_be_judged_has_no_identity_score() {
        let mut run = run();
        run.scores.get_mut("clip_t").unwrap()[0] = None;
        let report = report(&run, Policy::Stellar, &Bootstrap::default()).unwrap();
        let ips = report.rows.iter().find(|row| row.metric == "ips").unwrap();
        assert_eq!((report.undecided, report.penalised, ips.n), (1, Some(1), 3));
    }

    #[test]
    fn lists_of_different_lengths_are_refused() {
        let mut run = run();
        run.identities.pop();
        assert!(matches!(
            report(&run, Policy::None, &Bootstrap::default()),
            Err(ReportError::Length { .. })
        ));
    }
}
