//! Number of answers that tell a share from chance.

use super::normal::{normal_cdf, normal_quantile};

/// Returns the number of independent answers with which a two-sided test of level `alpha` tells a
/// true share `p` from `p0` with probability `power`, not rounded.
///
/// n = ((z₁₋α⸝₂ √(p0(1 − p0)) + z₁₋β √(p(1 − p))) / (p − p0))²: J. L. Fleiss, B. Levin and M. C.
/// Paik, *Statistical Methods for Rates and Proportions*, 3rd edition, 2003, section 2.5, without
/// the correction for continuity. `None` unless all four are between 0 and 1, the shares differ,
/// and the power is more than α/2.
#[must_use]
pub fn answers_for_share(p0: f64, p: f64, alpha: f64, power: f64) -> Option<f64> {
    let inside = |value: f64| value > 0.0 && value < 1.0;
    if ![p0, p, alpha, power].into_iter().all(inside) || power <= alpha / 2.0 {
        return None;
    }
    let reach = normal_quantile(1.0 - alpha / 2.0) * (p0 * (1.0 - p0)).sqrt()
        + normal_quantile(power) * (p * (1.0 - p)).sqrt();
    let answers = (reach / (p - p0)).powi(2);
    (reach > 0.0 && answers.is_finite()).then_some(answers)
}

/// Returns the power that so many independent answers have: the inverse of [`answers_for_share`].
#[must_use]
pub fn power_for_share(p0: f64, p: f64, alpha: f64, answers: f64) -> Option<f64> {
    let inside = |value: f64| value > 0.0 && value < 1.0;
    if ![p0, p, alpha].into_iter().all(inside) || !answers.is_finite() || answers <= 0.0 {
        return None;
    }
    let away = (p - p0).abs() * answers.sqrt();
    let reach = normal_quantile(1.0 - alpha / 2.0) * (p0 * (1.0 - p0)).sqrt();
    Some(normal_cdf((away - reach) / (p * (1.0 - p)).sqrt()))
}

/// Returns the factor by which answers must be more if `per_item` of them are about the same item
/// and correlate by `correlation`: 1 + (m − 1)ρ (L. Kish, *Survey Sampling*, 1965, section 5.4).
#[must_use]
pub fn design_effect(per_item: f64, correlation: f64) -> f64 {
    1.0 + (per_item - 1.0) * correlation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_and_answers_are_inverse() {
        for (p0, p) in [(0.25, 0.35), (0.5, 0.4), (0.125, 0.2)] {
            let answers = answers_for_share(p0, p, 0.05, 0.8).unwrap();
            let power = power_for_share(p0, p, 0.05, answers).unwrap();
            assert!((power - 0.8).abs() < 1e-12, "{power}");
        }
    }

    #[test]
    fn what_has_no_answer_is_none() {
        for (p0, p, alpha, power) in [
            (0.25, 0.25, 0.05, 0.8),
            (0.0, 0.5, 0.05, 0.8),
            (0.5, 1.0, 0.05, 0.8),
            (0.5, 0.6, 0.05, 0.02),
            (0.5, f64::NAN, 0.05, 0.8),
        ] {
            assert_eq!(answers_for_share(p0, p, alpha, power), None);
        }
        assert_eq!(power_for_share(0.5, 0.6, 0.05, 0.0), None);
        assert!((design_effect(5.0, 0.25) - 2.0).abs() < 1e-12);
    }
}
