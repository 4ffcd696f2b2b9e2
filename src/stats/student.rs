//! Student's t distribution for whole degrees of freedom.

use super::normal::normal_quantile;

/// From so many degrees of freedom on the quantile comes from its series in 1/ν, which is then good to 12 digits; the sums of
/// the distribution would have as many terms as there are degrees.
const MANY: usize = 2_000;

/// The probability that a variable of Student's t distribution with `degrees` ≥ 1 degrees of freedom is at most `t`.
///
/// Finite sums of cosines: M. Abramowitz and I. Stegun, *Handbook of Mathematical Functions*, 26.7.3 and 26.7.4.
#[must_use]
pub fn student_cdf(t: f64, degrees: usize) -> f64 {
    let angle = (t / (degrees as f64).sqrt()).atan();
    let (sine, square) = (angle.sin(), angle.cos().powi(2));
    let odd = degrees % 2 == 1;
    // cos·(1 + 2/3·cos² + …) for odd degrees, 1 + 1/2·cos² + … for even ones; the last power is ν − 3 or ν − 2.
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

/// The number below which such a variable lies with probability `p`: the inverse of [`student_cdf`].
///
/// −∞ at 0, ∞ at 1, NaN outside `[0, 1]` and without degrees of freedom.
#[must_use]
pub fn student_quantile(p: f64, degrees: usize) -> f64 {
    let z = normal_quantile(p);
    if degrees == 0 || !z.is_finite() {
        return if degrees == 0 { f64::NAN } else { z };
    }
    if degrees >= MANY {
        // Abramowitz and Stegun 26.7.5.
        let v = degrees as f64;
        let g1 = (z.powi(3) + z) / 4.0;
        let g2 = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
        let g3 = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
        return z + g1 / v + g2 / v.powi(2) + g3 / v.powi(3);
    }
    // Between the normal quantile, which is nearer to 0, and a bound that doubles until it is beyond.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_and_the_outside_are_what_they_must_be() {
        assert!(student_quantile(0.0, 3) < f64::MIN && student_quantile(1.0, 3) > f64::MAX);
        assert!(student_quantile(1.1, 3).is_nan() && student_quantile(0.5, 0).is_nan());
        assert!(student_quantile(0.5, 3).abs() < 1e-12);
    }

    #[test]
    fn both_ways_to_the_quantile_meet() {
        let (sums, series) = (student_quantile(0.975, MANY - 1), student_quantile(0.975, MANY));
        assert!((sums - series).abs() < 1e-6 && series < sums, "{sums} {series}");
    }
}
