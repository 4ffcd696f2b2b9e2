//! Drift certificates: differences between two packs' scores of the same images.
//!
//! A certificate can be stored next to the manifest of its pack. It contains the digests of both
//! packs, so that a certificate left there by another pack is detected. The manifest, and therefore
//! the pack's digest, does not change.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{AllScored, Case};
use crate::{
    VERSION,
    engine::{Pack, Precision},
    machine,
    metrics::{Metric, MetricResult, NullReason},
    pack_id::PackId,
    read,
    stats::{spearman, summarize},
};

/// File name of a certificate in its pack's folder.
pub const DRIFT_FILE: &str = "drift.json";

/// Version of the certificate's layout.
const SCHEMA: u32 = 1;

/// Maximum number of samples listed for one kind of difference; the count includes all.
const NAMED: usize = 10;

/// One of two compared packs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MeasuredPack {
    /// The pack.
    #[serde(flatten)]
    pub id: PackId,
    /// Precisions of its graphs.
    #[schema(example = json!(["fp16"]))]
    pub precisions: Vec<Precision>,
}

/// Comparison of a pack's scores with another pack's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DriftCertificate {
    /// Version of this layout.
    pub schema: u32,
    /// The pack that the certificate is about.
    pub pack: MeasuredPack,
    /// The pack to compare with.
    pub against: MeasuredPack,
    /// Number of samples scored by both packs.
    pub samples: usize,
    /// Results for metrics with a number from at least one pack.
    pub metrics: Vec<MetricDrift>,
    /// Metrics without a number from either pack, each with its most frequent reason.
    #[schema(example = json!({"aps": "needs_dataset"}))]
    pub without_numbers: BTreeMap<String, String>,
    /// Samples that could not be scored, with the error.
    pub problems: Vec<String>,
    /// Version of the service.
    pub service_version: String,
    /// CPU architecture and the instruction sets relevant to the graphs.
    #[schema(example = "x86_64 avx2 avx512f avx512_vnni")]
    pub machine: String,
    /// Time of the measurement.
    #[serde(with = "time::serde::rfc3339")]
    pub measured_at: OffsetDateTime,
}

/// One metric's drift. Differences are this pack's score minus the other's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MetricDrift {
    /// Code of the metric.
    pub metric: String,
    /// The metric's version.
    pub version: u32,
    /// Number of samples with a number from both packs.
    pub n: usize,
    /// Mean of the differences.
    pub bias: Option<f64>,
    /// Standard deviation of the differences, with n − 1 in the denominator.
    pub spread: Option<f64>,
    /// Spearman's rank correlation of the scores; null for fewer than two samples, or if one pack's
    /// scores are all equal.
    pub spearman: Option<f64>,
    /// The largest difference.
    pub worst: Option<Worst>,
    /// Samples with a number from only one pack, or null from both for different reasons.
    pub nulls: Vec<NullDifference>,
}

/// The sample with the largest difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Worst {
    /// The sample's name.
    pub sample: String,
    /// This pack's score minus the other's.
    pub difference: f64,
}

/// Samples whose score is null with one pack only, or null for different reasons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NullDifference {
    /// Reason for null with this pack; null if there is a number.
    pub reason: Option<String>,
    /// Reason for null with the other pack; null if there is a number.
    pub reason_against: Option<String>,
    /// Number of samples.
    pub n: usize,
    /// Names of the first samples, at most 10.
    pub samples: Vec<String>,
}

impl MeasuredPack {
    /// Describes a pack with the precisions of its graphs.
    #[must_use]
    pub fn of(pack: &Pack) -> Self {
        let words: BTreeMap<String, Precision> = pack
            .graphs
            .iter()
            .map(|graph| (graph.precision.to_string(), graph.precision))
            .collect();
        Self { id: pack.id(), precisions: words.into_values().collect() }
    }
}

impl DriftCertificate {
    /// Compares two packs' scores of the same samples.
    #[must_use]
    pub fn of(
        [pack, against]: [MeasuredPack; 2],
        cases: &[Case],
        metrics: &[&'static Metric],
        [of_pack, of_against]: [&AllScored; 2],
        measured_at: OffsetDateTime,
    ) -> Self {
        let mut problems = Vec::new();
        let mut pairs = Vec::new();
        for ((case, one), other) in cases.iter().zip(of_pack).zip(of_against) {
            match (one, other) {
                (Ok(one), Ok(other)) => {
                    pairs.push((case.name.as_str(), [&one.outcomes, &other.outcomes]));
                }
                (Err(problem), _) | (_, Err(problem)) => {
                    problems.push(format!("{}: {problem}", case.name));
                }
            }
        }
        let mut compared = Vec::new();
        let mut without_numbers = BTreeMap::new();
        for metric in metrics {
            let outcomes: Vec<_> = pairs
                .iter()
                .filter_map(|(name, sides)| {
                    Some((*name, [sides[0].get(metric.code)?, sides[1].get(metric.code)?]))
                })
                .collect();
            match only_reason(&outcomes) {
                Some(reason) => {
                    without_numbers.insert(metric.code.to_owned(), reason.code().to_owned());
                }
                None => compared.push(MetricDrift::of(metric, &outcomes)),
            }
        }
        Self {
            schema: SCHEMA,
            pack,
            against,
            samples: pairs.len(),
            metrics: compared,
            without_numbers,
            problems,
            service_version: VERSION.to_owned(),
            machine: machine::description(),
            measured_at,
        }
    }

    /// Stores the certificate in its pack's folder, replacing an earlier one.
    ///
    /// # Errors
    /// A folder that now contains another pack, or is not writable.
    pub fn store(&self, pack: &Pack) -> anyhow::Result<PathBuf> {
        anyhow::ensure!(
            self.pack.id.digest == pack.digest.to_string(),
            "the certificate is about another pack than the one in {}: measure again",
            pack.dir.display()
        );
        let path = pack.dir.join(DRIFT_FILE);
        let text = serde_json::to_string_pretty(self)? + "\n";
        // Written atomically, so that a reader never sees a partial file.
        let partial = path.with_extension("partial");
        std::fs::write(&partial, text)
            .and_then(|()| std::fs::rename(&partial, &path))
            .with_context(|| {
                format!(
                    "cannot write {}: the certificate is stored in the pack's folder, which must \
                        be writable",
                    path.display()
                )
            })?;
        Ok(path)
    }

    /// Reads the certificate in a pack's folder, if there is one.
    ///
    /// # Errors
    /// A file that is not a certificate, or the certificate of another pack.
    pub fn stored(pack: &Pack) -> anyhow::Result<Option<Self>> {
        let path = pack.dir.join(DRIFT_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let again = "measure again with `pack verify --against … --store`, or delete it";
        let text = read::text(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let found: Self = serde_json::from_str(&text).with_context(|| {
            format!("{} is not a drift certificate of this version: {again}", path.display())
        })?;
        anyhow::ensure!(
            found.schema == SCHEMA && found.pack.id.digest == pack.digest.to_string(),
            "{} is about pack {}, not about this one: {again}",
            path.display(),
            found.pack.id
        );
        Ok(Some(found))
    }
}

/// Both packs' results of one metric, by sample.
type Outcomes<'a> = Vec<(&'a str, [&'a MetricResult; 2])>;

impl MetricDrift {
    fn of(metric: &Metric, outcomes: &Outcomes<'_>) -> Self {
        let pairs: Vec<_> = outcomes
            .iter()
            .filter_map(|(name, [one, other])| {
                Some((*name, one.as_ref().ok()?.value, other.as_ref().ok()?.value))
            })
            .collect();
        let differences: Vec<f64> = pairs.iter().map(|(_, one, other)| one - other).collect();
        let (ours, theirs): (Vec<f64>, Vec<f64>) =
            pairs.iter().map(|(_, one, other)| (*one, *other)).unzip();
        let summary = summarize(&differences);
        let worst =
            pairs.iter().zip(&differences).max_by(|(_, a), (_, b)| a.abs().total_cmp(&b.abs()));
        Self {
            metric: metric.code.to_owned(),
            version: metric.version,
            n: summary.n,
            bias: summary.mean,
            spread: summary.std,
            spearman: spearman(&ours, &theirs),
            worst: worst.map(|((name, ..), difference)| Worst {
                sample: (*name).to_owned(),
                difference: *difference,
            }),
            nulls: null_differences(outcomes),
        }
    }
}

fn null_differences(outcomes: &Outcomes<'_>) -> Vec<NullDifference> {
    let code = |outcome: &MetricResult| outcome.as_ref().err().map(|reason| reason.code());
    let mut groups: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for (name, [one, other]) in outcomes {
        if code(one) != code(other) {
            groups.entry((code(one), code(other))).or_default().push(name);
        }
    }
    let difference =
        |((one, other), names): ((Option<&str>, Option<&str>), Vec<&str>)| NullDifference {
            reason: one.map(str::to_owned),
            reason_against: other.map(str::to_owned),
            n: names.len(),
            samples: names.into_iter().take(NAMED).map(str::to_owned).collect(),
        };
    groups.into_iter().map(difference).collect()
}

/// Returns the most frequent reason if every sample is null with both packs for the same reason.
fn only_reason(outcomes: &Outcomes<'_>) -> Option<NullReason> {
    let mut counts: Vec<(NullReason, usize)> = Vec::new();
    for (_, sides) in outcomes {
        let [Err(one), Err(other)] = sides else { return None };
        if one != other {
            return None;
        }
        match counts.iter_mut().find(|(reason, _)| reason == one) {
            Some((_, count)) => *count += 1,
            None => counts.push((*one, 1)),
        }
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(reason, _)| reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{metrics, pack_id::Weights, verify::Scored};

    fn side(digest: &str, precision: Precision) -> MeasuredPack {
        let id = PackId { name: "p".to_owned(), digest: digest.repeat(64), weights: Weights::Demo };
        MeasuredPack { id, precisions: vec![precision] }
    }

    #[expect(clippy::unnecessary_wraps, reason = "combined with samples that could not be scored")]
    fn scored(outcome: Result<f64, NullReason>) -> Result<Scored, String> {
        let outcomes =
            [("clip_t", outcome.map(Into::into)), ("aps", Err(NullReason::NeedsDataset))];
        Ok(Scored::new(BTreeMap::from(outcomes)))
    }

    fn certificate(pairs: &[[Result<Scored, String>; 2]]) -> DriftCertificate {
        let case = |at: usize| Case { name: format!("s{at}"), ..Case::default() };
        let cases: Vec<_> = (0..pairs.len()).map(case).collect();
        let all = |at: usize| pairs.iter().map(|pair| pair[at].clone()).collect();
        let (one, other): (AllScored, AllScored) = (all(0), all(1));
        let metrics = ["clip_t", "aps"].map(|code| metrics::find(code).unwrap());
        let packs = [side("a", Precision::Fp16), side("b", Precision::Fp32)];
        DriftCertificate::of(packs, &cases, &metrics, [&one, &other], OffsetDateTime::UNIX_EPOCH)
    }

    #[test]
    fn statistics_are_over_samples_with_a_number_from_both_packs() {
        let drift = certificate(&[
            [scored(Ok(0.5)), scored(Ok(0.25))],
            [scored(Ok(0.75)), scored(Ok(1.25))],
            [scored(Ok(1.0)), scored(Ok(1.0))],
            [scored(Err(NullReason::NoPrompt)), scored(Ok(9.0))],
            [Err("it is no image".to_owned()), scored(Ok(9.0))],
        ]);
        let [of_clip] = &drift.metrics[..] else { panic!("{drift:#?}") };
        assert_eq!((drift.samples, of_clip.n), (4, 3));
        // 0.25, −0.5 and 0; the ranks are 1 2 3 and 1 3 2.
        assert!((of_clip.bias.unwrap() + 0.25 / 3.0).abs() < 1e-12);
        assert!((of_clip.spread.unwrap() - (43.75_f64 / 300.0).sqrt()).abs() < 1e-12);
        assert!((of_clip.spearman.unwrap() - 0.5).abs() < 1e-12);
        assert_eq!(of_clip.worst, Some(Worst { sample: "s1".to_owned(), difference: -0.5 }));
        let [null] = &of_clip.nulls[..] else { panic!("{:?}", of_clip.nulls) };
        assert_eq!(
            (null.reason.as_deref(), null.reason_against.as_deref()),
            (Some("no_prompt"), None)
        );
        assert_eq!((null.n, &null.samples[..]), (1, &["s3".to_owned()][..]));
        assert_eq!(drift.without_numbers["aps"], "needs_dataset");
        assert_eq!(drift.problems, ["s4: it is no image"]);
    }

    #[test]
    fn nulls_for_different_reasons_are_listed_up_to_a_limit() {
        let pair = || [scored(Err(NullReason::NoPrompt)), scored(Err(NullReason::Unavailable))];
        let drift = certificate(&std::array::from_fn::<_, 12, _>(|_| pair()));
        let of_clip = &drift.metrics[0];
        assert_eq!(
            (of_clip.n, of_clip.bias, of_clip.spearman, &of_clip.worst),
            (0, None, None, &None)
        );
        assert_eq!((of_clip.nulls[0].n, of_clip.nulls[0].samples.len()), (12, NAMED));
        assert_eq!(of_clip.nulls[0].reason_against.as_deref(), Some("unavailable"));
    }

    #[test]
    fn a_stored_certificate_is_read_for_its_own_pack_only() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = "schema = 1\nname = \"p\"\nweights = \"demo\"\nexporter = \"none\"\n";
        let write = |text: &str| {
            std::fs::write(folder.path().join("pack.toml"), text).unwrap();
            Pack::open(folder.path()).unwrap()
        };
        let pack = write(manifest);
        assert_eq!(DriftCertificate::stored(&pack).unwrap(), None);
        let mut drift = certificate(&[[scored(Ok(0.1)), scored(Ok(0.3))]]);
        let error = drift.store(&pack).unwrap_err().to_string();
        assert!(error.contains("another pack"), "{error}");
        drift.pack = MeasuredPack::of(&pack);
        let path = drift.store(&pack).unwrap();
        assert_eq!(path, folder.path().join(DRIFT_FILE));
        assert_eq!(Pack::open(folder.path()).unwrap().digest, pack.digest, "the pack is the same");
        assert_eq!(DriftCertificate::stored(&pack).unwrap(), Some(drift));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no partial file is left");

        let changed = write(&manifest.replace("none", "another"));
        let error = DriftCertificate::stored(&changed).unwrap_err().to_string();
        assert!(
            error.contains(&pack.digest.to_string()) && error.contains("measure again"),
            "{error}"
        );
        std::fs::write(&path, "{}").unwrap();
        let error = DriftCertificate::stored(&pack).unwrap_err().to_string();
        assert!(error.contains("not a drift certificate"), "{error}");
    }

    #[test]
    fn a_certificate_survives_a_round_trip() {
        let drift =
            certificate(&[[scored(Ok(0.1)), scored(Ok(0.3))], [scored(Ok(0.7)), scored(Ok(0.2))]]);
        let text = serde_json::to_string(&drift).unwrap();
        assert_eq!(serde_json::from_str::<DriftCertificate>(&text).unwrap(), drift);
    }
}
