//! Student's t distribution.

use super::normal::normal_quantile;

/// Degrees of freedom from which the quantile is computed by its series in 1/ν, which is then
/// accurate to 12 digits. The sums of the distribution would have as many terms as degrees of
/// freedom.
const MANY: usize = 2_000;

/// Returns the probability that a variable of Student's t distribution with `degrees` ≥ 1 degrees
/// of freedom is at most `t`.
///
/// Computed by finite sums of cosines: M. Abramowitz and I. Stegun, *Handbook of Mathematical
/// Functions*, 26.7.3 and 26.7.4.
#[must_use]
pub fn student_cdf(t: f64, degrees: usize) -> f64 {
    let angle = (t / (degrees as f64).sqrt()).atan();
    let (sine, square) = (angle.sin(), angle.cos().powi(2));
    let odd = degrees % 2 == 1;
    // cos·(1 + 2/3·cos² + …) for odd degrees, 1 + 1/2·cos² + … for even ones; the last power is ν −
    // 3 or ν − 2.
    let mut term = if odd { angle.cos() } else { 1.0 };
    let mut sum = if degrees == 1 { 0.0 } else { term };
    let mut step = if odd { 3 } else { 2 };
    while step < degrees {
        term *= square * (step - 1) as f64 / step as f64;
        sum += term;
        step += 2;
    }
    let both = if odd { (angle + sine * sum) * std::f64::consts::FRAC_2_PI } else { sine * sum };
    0.5 + both / 2.0
}

/// Returns the quantile of Student's t distribution, the inverse of [`student_cdf`].
///
/// −∞ at 0, ∞ at 1, NaN outside `[0, 1]` and without degrees of freedom.
#[must_use]
pub fn student_quantile(p: f64, degrees: usize) -> f64 {
    let z = normal_quantile(p);
    if degrees == 0 || !z.is_finite() {
        return if degrees == 0 { f64::NAN } else { z };
    }
    if degrees >= MANY {
        return series(z, degrees as f64);
    }
    // Bisects between the normal quantile, which is closer to 0, and a bound that doubles until it
    // is beyond.
    let sign = if z < 0.0 { -1.0 } else { 1.0 };
    let wanted = if z < 0.0 { 1.0 - p } else { p };
    let (mut low, mut high) = (z.abs(), z.abs().max(1.0));
    while student_cdf(high, degrees) < wanted && high < 1e300 {
        high *= 2.0;
    }
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            break;
        }
        if student_cdf(middle, degrees) < wanted { low = middle } else { high = middle }
    }
    sign * f64::midpoint(low, high)
}

/// Like [`student_quantile`], for estimated degrees of freedom that need not be whole; less than
/// one counts as one.
///
/// Up to 50 degrees of freedom, it is interpolated in 1/ν between the neighbouring whole numbers.
/// The quantile is convex there, so the result is never too close to 0. Beyond 50, the series is
/// accurate to 6 digits.
#[must_use]
pub fn student_quantile_between(p: f64, degrees: f64) -> f64 {
    if degrees.is_nan() {
        return f64::NAN;
    }
    if degrees > 50.0 {
        return series(normal_quantile(p), degrees);
    }
    let below = degrees.max(1.0).floor();
    let at = |degrees: f64| student_quantile(p, degrees as usize);
    let share = (1.0 / below - 1.0 / degrees.max(1.0)) * below * (below + 1.0);
    let (low, high) = (at(below), at(below + 1.0));
    if low.is_finite() { low + (high - low) * share } else { low }
}

/// Returns the expansion of the quantile around the normal quantile: Abramowitz and Stegun 26.7.5.
fn series(z: f64, degrees: f64) -> f64 {
    let g1 = (z.powi(3) + z) / 4.0;
    let g2 = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let g3 = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    z + g1 / degrees + g2 / degrees.powi(2) + g3 / degrees.powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_at_and_beyond_the_ends_have_defined_results() {
        assert!(student_quantile(0.0, 3) < f64::MIN && student_quantile(1.0, 3) > f64::MAX);
        assert!(student_quantile(1.1, 3).is_nan() && student_quantile(0.5, 0).is_nan());
        assert!(student_quantile(0.5, 3).abs() < 1e-12);
    }

    #[test]
    fn both_methods_for_the_quantile_agree() {
        let (sums, series) = (student_quantile(0.975, MANY - 1), student_quantile(0.975, MANY));
        assert!((sums - series).abs() < 1e-6 && series < sums, "{sums} {series}");
    }

    #[test]
    fn quantiles_of_fractional_degrees_lie_between_those_of_whole_ones() {
        for whole in [1, 2, 9, 49, 51, 3000] {
            let (exact, found) =
                (student_quantile(0.975, whole), student_quantile_between(0.975, whole as f64));
            assert!((exact - found).abs() < 1e-5, "{whole}: {exact} {found}");
        }
        // scipy.stats.t.ppf(0.975, 6.5) and (0.975, 80.5).
        let (few, many) =
            (student_quantile_between(0.975, 6.5), student_quantile_between(0.975, 80.5));
        assert!((few - 2.401_9).abs() < 5e-3 && few > 2.401, "{few}");
        assert!((many - 1.989_9).abs() < 1e-3, "{many}");
        assert!((student_quantile_between(0.025, 6.5) + few).abs() < 1e-9);
        assert!(
            student_quantile_between(0.975, 0.3) > 12.7
                && student_quantile_between(0.9, f64::NAN).is_nan()
        );
        assert!(student_quantile_between(1.0, 3.5) > f64::MAX);
    }
}
