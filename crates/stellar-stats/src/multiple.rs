//! Corrections of p-values for multiple testing.

/// Returns Holm's adjusted p-values, in the order given. Rejecting those below α bounds the
/// family-wise error rate by α, under any dependence. (S. Holm, Scandinavian Journal of Statistics
/// 6(2), 1979.)
#[must_use]
pub fn holm(p: &[f64]) -> Vec<f64> {
    let n = p.len();
    let mut adjusted = vec![0.0; n];
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
}
