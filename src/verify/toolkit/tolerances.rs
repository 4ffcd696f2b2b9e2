//! How far the scores of the toolkit and of this service may differ.

use std::collections::BTreeMap;

/// Largest differences allowed by metric: if both sides compute at single precision, and if one
/// computes at half precision. They equal those of the golden samples
/// (`export/stellar_export/goldens.py`).
const TOLERANCES: [(&str, f64, f64); 14] = [
    ("clip_t", 1e-4, 5e-3),
    ("clip_n", 1e-4, 5e-3),
    ("clip_i", 1e-4, 5e-3),
    ("aesthetic", 1e-3, 2e-2),
    ("hpsv1", 1e-4, 5e-3),
    ("hpsv2", 1e-4, 5e-3),
    ("pick_score", 1e-4, 5e-3),
    ("image_reward", 1e-3, 2e-2),
    ("dreamsim", 1e-4, 5e-3),
    ("dino", 1e-4, 5e-3),
    ("ips", 5e-3, 5e-3),
    ("sis", 5e-3, 5e-3),
    ("goa", 2e-3, 5e-3),
    ("rfs", 5e-5, 5e-3),
];

/// Metrics that the toolkit's command computes at half precision. The last two are at half
/// precision on a GPU only, and the files do not record the device.
const AT_HALF_PRECISION: [&str; 8] =
    ["clip_t", "clip_n", "clip_i", "aesthetic", "dino", "goa", "hpsv1", "hpsv2"];

/// Overrides of the largest difference allowed by metric.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tolerances(BTreeMap<String, f64>);

impl Tolerances {
    /// Creates the default tolerances with the given overrides.
    ///
    /// # Errors
    /// A metric that no file has, or an invalid tolerance.
    pub fn new(own: &[(String, f64)]) -> anyhow::Result<Self> {
        for (code, tolerance) in own {
            anyhow::ensure!(
                TOLERANCES.iter().any(|(known, ..)| known == code),
                "unknown metric `{code}` in a tolerance: use one of {}",
                TOLERANCES.map(|(known, ..)| known).join(", ")
            );
            anyhow::ensure!(
                tolerance.is_finite() && *tolerance >= 0.0,
                "the tolerance {tolerance} of {code} is not a finite number of at least 0"
            );
        }
        Ok(Self(own.iter().cloned().collect()))
    }

    /// Returns the tolerance of a metric; `single` says whether the pack computes at single
    /// precision.
    #[must_use]
    pub fn of(&self, code: &str, single: bool) -> f64 {
        if let Some(own) = self.0.get(code) {
            return *own;
        }
        let both_single = single && !AT_HALF_PRECISION.contains(&code);
        let known = TOLERANCES.iter().find(|(known, ..)| *known == code);
        known.map_or(0.0, |(_, single, half)| if both_single { *single } else { *half })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics;

    #[test]
    fn readers_are_told_the_tolerances_that_are_applied() {
        for (code, single, half) in TOLERANCES {
            let told = metrics::find(code).and_then(|metric| metric.guide.tolerance);
            assert_eq!(told, Some((single, half)), "{code}");
        }
    }
}
