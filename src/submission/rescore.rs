//! Which samples are scored again, and the differences of their scores.

use std::collections::{BTreeMap, HashMap};

use super::facts::BundleSample;
use super::labels::shown;
use crate::content::ContentHash;
use crate::metrics::MetricResult;
use crate::verify::Case;

/// Chooses the samples to score again: `share` of all, at least one, by a hash of the seed and the
/// name. Nobody who does not know the seed can tell which. Returns ascending positions.
#[must_use]
pub fn part(samples: &[BundleSample], share: f64, seed: u64) -> Vec<usize> {
    let share = if share.is_nan() { 1.0 } else { share.clamp(0.0, 1.0) };
    let count = ((samples.len() as f64 * share).ceil() as usize).clamp(1, samples.len().max(1));
    let place = |at: &usize| {
        ContentHash::of_parts([seed.to_le_bytes().as_slice(), samples[*at].name.as_bytes()])
    };
    let mut order: Vec<usize> = (0..samples.len()).collect();
    order.sort_by_cached_key(place);
    order.truncate(count);
    order.sort_unstable();
    order
}

/// Returns the cases of these samples, with the metadata of the bundle. Samples without a case are
/// left out: they are differences already.
#[must_use]
pub fn cases(samples: &[&BundleSample], cases: &[Case]) -> Vec<Case> {
    let by_name: HashMap<&str, &Case> = cases.iter().map(|case| (&*case.name, case)).collect();
    let case = |sample: &&BundleSample| {
        let case = (*by_name.get(&*sample.name)?).clone();
        Some(Case { metadata: sample.metadata.clone(), ..case })
    };
    samples.iter().filter_map(case).collect()
}

/// Returns the differences of a sample's scores, beyond the tolerance of each metric. Metrics that
/// were not scored again are not compared.
pub fn compare(
    sample: &BundleSample,
    again: &BTreeMap<&'static str, MetricResult>,
    tolerance: impl Fn(&str) -> f64,
) -> Vec<String> {
    let mut differences = Vec::new();
    for (metric, outcome) in again {
        let Some(score) = sample.scores.get(*metric) else {
            differences.push(format!("sample {}: {metric} is missing", shown(&sample.name)));
            continue;
        };
        let here = match outcome {
            Ok(value) => Ok(value.value),
            Err(reason) => Err(reason.code()),
        };
        let same = match (here, score.value, &score.reason) {
            (Ok(here), Some(there), _) => (here - there).abs() <= tolerance(metric),
            (Err(here), None, Some(there)) => here == there,
            _ => false,
        };
        if !same {
            let there = score.value.map(|value| value.to_string());
            let there = there.or_else(|| Some(format!("null ({})", shown(score.reason.as_ref()?))));
            let here = match here {
                Ok(here) => here.to_string(),
                Err(here) => format!("null ({here})"),
            };
            differences.push(format!(
                "sample {}: {metric} is {} in the bundle and {here} here",
                shown(&sample.name),
                there.unwrap_or_default()
            ));
        }
    }
    differences
}
