//! Running summaries: count, mean and standard deviation of a metric over a run, updated without
//! reading scores.
//!
//! A summary row stores `n`, `nulls` and the sums of `x − pivot` and `(x − pivot)²`, where the
//! pivot is the first number that was added to the row. This has the properties that a leaderboard
//! needs:
//!
//! - Adding is one commutative upsert, so concurrent writers need no read before their write and
//!   the order of samples does not matter; replacing a score removes the old number and adds the
//!   new one.
//! - Plain sums of `x²` lose a deviation that is small compared with the mean (at a mean of 5 and a
//!   deviation of 1e-8 nothing is left). Sums that are shifted by a number from the data do not:
//!   the relative error of the variance is about `n · 2⁻⁵³ · (1 + (mean − pivot)² / variance)`,
//!   which is 1e-10 for 100,000 samples and a pivot three deviations from the mean, and equal
//!   scores have a deviation of exactly 0. (Chan, Golub, LeVeque: *Algorithms for Computing the
//!   Sample Variance*, The American Statistician 37(3), 1983, section 3.)
//! - A removed number leaves its rounding error behind, at most about `2⁻⁵² · (x − pivot)²` in the
//!   variance: for scores between −1 and 1 the deviation is never off by more than 1e-7. When the
//!   last number of a summary is removed, its sums restart at 0.
//! - Welford's update would not need the pivot, but is neither commutative nor expressible as an
//!   upsert: each write would have to lock and read the row first.
//!
//! Runs of one method have different pivots; they are merged by Chan's formula for pairs of means
//! and deviations.

/// One metric over the samples of a run or a method, all scored with one pack and one version of
/// the metric.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricSummary {
    /// Code of the metric.
    pub metric: String,
    /// Version of the metric's definition; numbers of different versions are never averaged.
    pub version: u32,
    /// Number of samples with a number.
    pub n: u64,
    /// Number of samples with a null.
    pub nulls: u64,
    /// Mean of the numbers; `None` if there are none.
    pub mean: Option<f64>,
    /// Standard deviation with n − 1 in the denominator (ddof 1); `None` below two numbers.
    pub std: Option<f64>,
}

/// Count, mean and sum of squared deviations, mergeable.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// Number of samples with a number.
    pub n: u64,
    /// Number of samples with a null.
    pub nulls: u64,
    mean: f64,
    /// Σ (x − mean)².
    deviation: f64,
}

/// Clamps at 0 and keeps NaN, which `f64::max` would turn into 0.
fn not_below_zero(number: f64) -> f64 {
    if number < 0.0 { 0.0 } else { number }
}

impl Moments {
    /// Computes moments from a row's sums of `x − pivot` and `(x − pivot)²`.
    pub(super) fn from_sums(n: u64, nulls: u64, pivot: f64, total: f64, squares: f64) -> Self {
        if n == 0 {
            return Self { nulls, ..Self::default() };
        }
        let shift = total / n as f64;
        // Rounding can leave a tiny negative number if all numbers are equal.
        Self { n, nulls, mean: pivot + shift, deviation: not_below_zero(squares - total * shift) }
    }

    /// Computes moments from counts, mean and standard deviation.
    #[must_use]
    pub fn from_summary(n: u64, nulls: u64, mean: Option<f64>, std: Option<f64>) -> Self {
        let deviation = std.map_or(0.0, |std| std * std * n.saturating_sub(1) as f64);
        Self { n, nulls, mean: mean.unwrap_or(0.0), deviation }
    }

    /// Returns the moments of both sets of samples together.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        let nulls = self.nulls + other.nulls;
        if self.n == 0 || other.n == 0 {
            let counted = if self.n == 0 { other } else { self };
            return Self { nulls, ..counted };
        }
        let n = self.n + other.n;
        let (share, apart) = (other.n as f64 / n as f64, other.mean - self.mean);
        Self {
            n,
            nulls,
            mean: self.mean + apart * share,
            deviation: self.deviation + other.deviation + apart * apart * self.n as f64 * share,
        }
    }

    /// Returns the summary that a leaderboard shows.
    #[must_use]
    pub fn summary(self, metric: String, version: u32) -> MetricSummary {
        MetricSummary {
            metric,
            version,
            n: self.n,
            nulls: self.nulls,
            mean: (self.n > 0).then_some(self.mean).filter(|mean| mean.is_finite()),
            std: (self.n > 1)
                .then(|| (self.deviation / (self.n - 1) as f64).sqrt())
                .filter(|std| std.is_finite()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Moments {
        let pivot = values.first().copied().unwrap_or(0.0);
        let total = values.iter().map(|x| x - pivot).sum();
        let squares = values.iter().map(|x| (x - pivot).powi(2)).sum();
        Moments::from_sums(values.len() as u64, 0, pivot, total, squares)
    }

    #[test]
    fn a_small_deviation_around_a_large_mean_is_not_lost() {
        let summary = of(&[5.0 + 1e-8, 5.0 - 1e-8, 5.0]).summary("m".into(), 1);
        assert!((summary.std.unwrap() - 1e-8).abs() < 1e-15, "{summary:?}");
        assert!((summary.mean.unwrap() - 5.0).abs() < 1e-15, "{summary:?}");
    }

    #[test]
    fn equal_numbers_have_no_deviation() {
        assert_eq!(of(&[0.1; 1000]).summary("m".into(), 1).std, Some(0.0));
    }

    #[test]
    fn sums_that_overflow_yield_none_rather_than_a_wrong_number() {
        let of = of(&[1e308, -1e308, 1e308]).summary("m".into(), 1);
        assert_eq!((of.n, of.std), (3, None), "{of:?}");
    }

    #[test]
    fn merged_parts_equal_the_whole() {
        let whole = [0.25, 0.5, -1.0, 3.0, 0.125, 2.5];
        let merged = of(&whole[..2]).merge(of(&[])).merge(of(&whole[2..]));
        let (a, b) = (merged.summary("m".into(), 1), of(&whole).summary("m".into(), 1));
        assert_eq!(a.n, b.n);
        assert!((a.mean.unwrap() - b.mean.unwrap()).abs() < 1e-15);
        assert!((a.std.unwrap() - b.std.unwrap()).abs() < 1e-15);
    }

    #[test]
    fn one_number_has_a_mean_but_no_deviation_and_none_has_neither() {
        let one = of(&[0.5]).summary("m".into(), 1);
        assert_eq!((one.mean, one.std), (Some(0.5), None));
        let none = Moments::from_sums(0, 3, 0.0, 0.0, 0.0).merge(of(&[])).summary("m".into(), 1);
        assert_eq!((none.n, none.nulls, none.mean, none.std), (0, 3, None, None));
    }
}
