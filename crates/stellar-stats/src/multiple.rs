//! Corrections of p-values for multiple testing.

/// Returns Holm's adjusted p-values, in the order given. Rejecting those below α bounds the
/// family-wise error rate by α, under any dependence. (S. Holm, Scandinavian Journal of Statistics
/// 6(2), 1979.)
#[must_use]
pub fn holm(p: &[f64]) -> Vec<f64> {
    holm_of(p, p.len())
}

/// Returns Holm's adjusted p-values of some of `n` tests, in the order given, without the p-values
/// of the others.
///
/// They are at least as large as the adjusted ones among all n tests, whose steps divide by fewer
/// tests wherever another test has a smaller p-value: the family-wise error rate remains bounded.
/// `n` below the number of p-values counts as that number.
#[must_use]
pub fn holm_of(p: &[f64], n: usize) -> Vec<f64> {
    let n = n.max(p.len());
    let mut adjusted = vec![0.0; p.len()];
    let mut running: f64 = 0.0;
    for (place, &index) in ascending(p).iter().enumerate() {
        running = running.max((n - place) as f64 * p[index]).min(1.0);
        adjusted[index] = running;
    }
    adjusted
}

/// Returns Benjamini and Hochberg's adjusted p-values, in the order given. Rejecting those below α
/// bounds the expected share of false rejections by α, for independent or positively dependent
/// tests. (Journal of the Royal Statistical Society B 57(1), 1995.)
#[must_use]
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let n = p.len();
    let mut adjusted = vec![0.0; n];
    let mut running: f64 = 1.0;
    for (place, &index) in ascending(p).iter().enumerate().rev() {
        running = running.min(n as f64 / (place + 1) as f64 * p[index]);
        adjusted[index] = running;
    }
    adjusted
}

fn ascending(p: &[f64]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..p.len()).collect();
    places.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_or_one_p_values_need_no_correction() {
        for adjust in [holm, benjamini_hochberg] {
            assert!(adjust(&[]).is_empty());
            assert_eq!(adjust(&[0.03]), [0.03]);
        }
    }

    #[test]
    fn some_of_many_tests_are_corrected_for_all() {
        let all = [0.001, 0.04, 0.002, 0.3];
        let (some, of_all) = (holm_of(&[0.001, 0.04], 4), holm(&all));
        assert_eq!(some, [0.004, 0.12]);
        assert!(some[0] >= of_all[0] && some[1] >= of_all[1], "{of_all:?}");
        assert_eq!(holm_of(&all, 1), of_all);
    }
}
