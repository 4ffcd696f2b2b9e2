//! Intervals of proportions.

use super::{Interval, normal_quantile};

/// Returns Wilson's score interval of the proportion `count / of` at a level such as 0.95; `None`
/// for no observations.
///
/// Observations must be independent.
#[must_use]
pub fn wilson(count: usize, of: usize, confidence: f64) -> Option<Interval> {
    if of == 0 || count > of {
        return None;
    }
    let n = of as f64;
    let share = count as f64 / n;
    let z = normal_quantile(f64::midpoint(1.0, confidence));
    let scale = 1.0 / (1.0 + z * z / n);
    let centre = scale * (share + z * z / (2.0 * n));
    let reach = scale * z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    Some(Interval { low: centre - reach, high: centre + reach }.within(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: the closed formula in Python, in double precision.
    #[test]
    fn the_interval_has_the_ends_of_the_closed_formula() {
        for (count, of, low, high) in [
            (8, 10, 0.490_162_471_536_641_8, 0.943_317_848_545_624_7),
            (0, 5, 0.0, 0.434_482_464_783_174_8),
            (5, 5, 0.565_517_535_216_825_4, 1.0),
            (50, 100, 0.403_831_530_365_995_6, 0.596_168_469_634_004_4),
        ] {
            let found = wilson(count, of, 0.95).unwrap();
            assert!(
                (found.low - low).abs() < 1e-9 && (found.high - high).abs() < 1e-9,
                "{found:?}"
            );
        }
        assert_eq!(wilson(0, 0, 0.95), None);
    }
}
