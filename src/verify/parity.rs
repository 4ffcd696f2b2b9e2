//! Parity: the scores of a pack's golden samples, compared with those of the original programs.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

use super::Case;
use crate::{
    VERSION,
    engine::{Pack, Precision},
    metrics::{self, Metric},
    scoring::{EncodedImage, Metadata, Scoring},
};

/// Largest difference allowed between scoring a sample alone and in a batch, at single precision.
/// At half precision the metric's own tolerance applies, since a different order of summation
/// already changes the fourth digit.
const BATCH_TOLERANCE: f64 = 1e-5;

/// Golden samples: inputs with the scores of the original programs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goldens {
    /// Version of this layout.
    schema: u32,
    /// The programs that computed the scores.
    pub reference: String,
    /// Inputs and expected scores.
    pub samples: Vec<Golden>,
    /// Largest allowed difference by metric code.
    pub tolerance: BTreeMap<String, f64>,
}

/// One golden sample; paths are relative to the pack.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// Name, for messages.
    pub name: String,
    /// The generated image.
    pub image: PathBuf,
    /// The prompt.
    #[serde(default)]
    pub prompt: Option<String>,
    /// The reference image.
    #[serde(default)]
    pub reference: Option<PathBuf>,
    /// Auxiliary images: further images of the same person.
    #[serde(default)]
    pub auxiliary: Vec<PathBuf>,
    /// The sample's metadata.
    #[serde(default)]
    pub metadata: Metadata,
    /// Scores by metric code.
    pub expected: BTreeMap<String, f64>,
}

/// Result of comparing a pack with its golden samples.
#[derive(Debug, Serialize)]
pub struct Certificate {
    /// Whether every metric is within its tolerance, both one by one and batched.
    pub passed: bool,
    /// The programs that computed the expected scores.
    pub reference: String,
    /// Number of golden samples compared.
    pub samples: usize,
    /// Digest of the pack.
    pub pack_digest: String,
    /// Version of the service.
    pub service_version: &'static str,
    /// The largest batch of any graph while the samples were scored concurrently.
    pub largest_batch: usize,
    /// Results by metric.
    pub metrics: Vec<MetricParity>,
    /// Scores that could not be compared, which is a failure.
    pub problems: Vec<String>,
}

/// One metric's comparison.
#[derive(Debug, Serialize)]
pub struct MetricParity {
    /// Code of the metric.
    pub metric: String,
    /// Number of scores compared.
    pub scores: usize,
    /// Largest difference from the original programs, one by one or batched.
    pub largest_difference: f64,
    /// Largest difference allowed.
    pub tolerance: f64,
    /// Largest difference between scoring one by one and concurrently.
    pub batch_difference: f64,
    /// Whether both differences are within their limits.
    pub passed: bool,
}

impl Golden {
    /// Returns the sample with paths in the pack's folder.
    fn case(&self, dir: &Path) -> Case {
        Case {
            name: self.name.clone(),
            image: dir.join(&self.image),
            prompt: self.prompt.clone(),
            references: self.reference.iter().map(|path| dir.join(path)).collect(),
            auxiliary: self.auxiliary.iter().map(|path| dir.join(path)).collect(),
            metadata: self.metadata.clone(),
        }
    }
}

impl Goldens {
    /// Reads the golden samples listed in the pack's manifest.
    ///
    /// # Errors
    /// A pack without golden samples, or a file with another layout.
    pub fn read(pack: &Pack) -> anyhow::Result<Self> {
        let spec = pack.goldens.as_ref().with_context(|| {
            format!(
                "pack {} has no golden samples: re-export it with this version's exporter",
                pack.name
            )
        })?;
        let text = std::fs::read_to_string(&spec.file)
            .with_context(|| format!("cannot read {}", spec.file.display()))?;
        let goldens: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} is not a golden samples file", spec.file.display()))?;
        anyhow::ensure!(
            goldens.schema == 1,
            "golden samples have schema {}: this version reads schema 1",
            goldens.schema
        );
        Ok(goldens)
    }
}

/// Scores all golden samples, first one by one and then concurrently, and compares.
///
/// # Errors
/// An image that cannot be read, or a graph that fails.
pub async fn certify(
    scoring: &Scoring,
    goldens: &Goldens,
    read: impl Fn(&Path) -> anyhow::Result<EncodedImage>,
) -> anyhow::Result<Certificate> {
    let dir = &scoring.pack().dir;
    let samples = goldens
        .samples
        .iter()
        .map(|golden| golden.case(dir).read(&read))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let wanted: Vec<Vec<&'static Metric>> = goldens
        .samples
        .iter()
        .map(|golden| golden.expected.keys().filter_map(|code| metrics::find(code)).collect())
        .collect();
    let work =
        || samples.iter().zip(&wanted).map(|(sample, metrics)| scoring.score(sample, metrics));
    let mut singly = Vec::new();
    for score in work() {
        singly.push(score.await?);
    }
    let batched = try_join_all(work()).await?;

    let mut lines: BTreeMap<&str, MetricParity> = BTreeMap::new();
    let mut problems = Vec::new();
    for (index, golden) in goldens.samples.iter().enumerate() {
        for (code, expected) in &golden.expected {
            let Some(tolerance) = goldens.tolerance.get(code) else {
                problems.push(format!("{code}: the golden samples have no tolerance for it"));
                continue;
            };
            let value = |card: &crate::scoring::Scorecard| {
                let score = card.scores.iter().find(|score| score.metric.code == code)?;
                score.outcome.as_ref().ok().map(|score| score.value)
            };
            let (Some(one), Some(many)) = (value(&singly[index]), value(&batched[index])) else {
                problems.push(format!("{}: {code} is null, expected {expected}", golden.name));
                continue;
            };
            let line = lines.entry(code).or_insert_with(|| MetricParity {
                metric: code.clone(),
                scores: 0,
                largest_difference: 0.0,
                tolerance: *tolerance,
                batch_difference: 0.0,
                passed: false,
            });
            line.scores += 1;
            let difference = (one - expected).abs().max((many - expected).abs());
            line.largest_difference = line.largest_difference.max(difference);
            line.batch_difference = line.batch_difference.max((one - many).abs());
        }
    }
    let single = is_single(scoring.pack());
    for line in lines.values_mut() {
        let batch = if single { BATCH_TOLERANCE } else { line.tolerance };
        line.passed = line.largest_difference <= line.tolerance && line.batch_difference <= batch;
    }
    let lines: Vec<_> = lines.into_values().collect();
    Ok(Certificate {
        passed: !lines.is_empty() && problems.is_empty() && lines.iter().all(|line| line.passed),
        reference: goldens.reference.clone(),
        samples: samples.len(),
        largest_batch: batched
            .iter()
            .flat_map(|card| &card.features)
            .map(|used| used.batch)
            .max()
            .unwrap_or(0),
        pack_digest: scoring.pack().digest.to_string(),
        service_version: VERSION,
        metrics: lines,
        problems,
    })
}

/// Returns whether all graphs compute at single precision.
pub(super) fn is_single(pack: &Pack) -> bool {
    pack.graphs.iter().all(|graph| graph.precision == Precision::Fp32)
}
