//! Count, mean and standard deviation of a list of numbers.

/// Count, mean and standard deviation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Count of numbers.
    pub n: usize,
    /// Mean; `None` without numbers.
    pub mean: Option<f64>,
    /// Standard deviation with n − 1 in the denominator (ddof 1, like pandas); `None` for fewer
    /// than two numbers.
    pub std: Option<f64>,
}

/// Summarises numbers in two passes, so that a small deviation is not lost next to a large mean.
#[must_use]
pub fn summarize(values: &[f64]) -> Summary {
    let n = values.len();
    let mean = (n > 0).then(|| mean(values));
    let std = mean.filter(|_| n > 1).map(|mean| {
        let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
        (squares / (n - 1) as f64).sqrt()
    });
    Summary { n, mean, std }
}

/// Returns the mean of at least one number; a second pass removes the rounding error of the first.
pub(super) fn mean(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let first = values.iter().sum::<f64>() / n;
    first + values.iter().map(|x| x - first).sum::<f64>() / n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_numbers_have_no_mean_or_no_deviation() {
        assert_eq!(summarize(&[]), Summary { n: 0, mean: None, std: None });
        assert_eq!(summarize(&[0.5]), Summary { n: 1, mean: Some(0.5), std: None });
    }

    #[test]
    fn equal_numbers_have_a_deviation_of_exactly_zero() {
        assert_eq!(summarize(&[0.1; 77]), Summary { n: 77, mean: Some(0.1), std: Some(0.0) });
    }
}
