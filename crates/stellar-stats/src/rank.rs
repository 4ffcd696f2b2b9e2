//! Coefficients of two series: Pearson's r, Spearman's rho, Kendall's tau-b, and the area under the
//! ROC curve.

#![expect(clippy::float_cmp, reason = "numbers tie when they are equal, not when they are close")]

use super::summary::mean;

/// Returns Pearson's correlation, in [−1, 1]. `None` for fewer than two pairs, or if one series is
/// constant.
///
/// # Panics
///
/// If the series differ in length.
#[must_use]
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    check(x, y)?;
    let (mx, my) = (mean(x), mean(y));
    let centre = |values: &[f64], mean: f64| -> Vec<f64> {
        values.iter().map(|value| value - mean).collect()
    };
    pearson_of_centred(&centre(x, mx), &centre(y, my))
}

/// Returns Pearson's correlation of series whose means are 0.
pub(super) fn pearson_of_centred(x: &[f64], y: &[f64]) -> Option<f64> {
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (a, b) in x.iter().zip(y) {
        xx += a * a;
        yy += b * b;
        xy += a * b;
    }
    (xx > 0.0 && yy > 0.0).then(|| (xy / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0))
}

/// Returns Spearman's rank correlation: Pearson's correlation of the [average
/// ranks](average_ranks).
///
/// # Panics
///
/// If the series differ in length.
#[must_use]
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    check(x, y)?;
    pearson(&average_ranks(x), &average_ranks(y))
}

/// Returns Kendall's tau-b, in [−1, 1]: concordant minus discordant pairs, corrected for ties.
/// `None` for fewer than two pairs, or if one series is constant.
///
/// Counts pairs by merge sort in O(n log n): W. R. Knight, *A Computer Method for Calculating
/// Kendall's Tau with Ungrouped Data*, Journal of the American Statistical Association 61(314),
/// 1966.
///
/// # Panics
///
/// If the series differ in length.
#[must_use]
pub fn kendall_tau_b(x: &[f64], y: &[f64]) -> Option<f64> {
    check(x, y)?;
    let PairCounts { difference, free_x, free_y } = pair_counts(x, y);
    (free_x > 0 && free_y > 0).then(|| {
        (difference as f64 / ((free_x as f64).sqrt() * (free_y as f64).sqrt())).clamp(-1.0, 1.0)
    })
}

/// Counts of the pairs of two series.
pub(super) struct PairCounts {
    /// Concordant minus discordant pairs.
    pub(super) difference: i128,
    /// Pairs that are not tied in x.
    pub(super) free_x: u64,
    /// Pairs that are not tied in y.
    pub(super) free_y: u64,
}

/// Counts the pairs of two series of finite numbers.
pub(super) fn pair_counts(x: &[f64], y: &[f64]) -> PairCounts {
    // Integers are sorted without mispredicted branches, which halves the time.
    let mut pairs: Vec<u128> =
        x.iter().zip(y).map(|(x, y)| u128::from(key(*x)) << 64 | u128::from(key(*y))).collect();
    pairs.sort_unstable();
    let tied_x = tied_pairs(&pairs, |a, b| a >> 64 == b >> 64);
    let tied_both = tied_pairs(&pairs, |a, b| a == b);
    let mut ys: Vec<u64> = pairs.iter().map(|pair| *pair as u64).collect();
    let discordant = inversions(&mut ys);
    let tied_y = tied_pairs(&ys, |a, b| a == b);

    let all = count_pairs(x.len() as u64);
    // Concordant − discordant = all − ties in x − ties in y + ties in both − 2 · discordant.
    let difference =
        i128::from(all + tied_both) - i128::from(tied_x + tied_y) - 2 * i128::from(discordant);
    PairCounts { difference, free_x: all - tied_x, free_y: all - tied_y }
}

/// Returns the area under the ROC curve: the probability that a positive outscores a negative, with
/// ties counting half. `None` unless both classes are present.
///
/// # Panics
///
/// If the numbers of labels and scores differ.
#[must_use]
pub fn roc_auc(scores: &[f64], positive: &[bool]) -> Option<f64> {
    assert_eq!(scores.len(), positive.len(), "every score needs its label");
    if scores.iter().any(|score| !score.is_finite()) {
        return None;
    }
    let positives = positive.iter().filter(|&&is| is).count() as f64;
    let negatives = positive.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    let ranks: f64 = average_ranks(scores)
        .iter()
        .zip(positive)
        .filter(|(_, is)| **is)
        .map(|(rank, _)| rank)
        .sum();
    Some((ranks - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

/// Returns the ranks of numbers, starting at 1; equal numbers share the mean of their ranks.
#[must_use]
pub fn average_ranks(values: &[f64]) -> Vec<f64> {
    let mut places: Vec<usize> = (0..values.len()).collect();
    places.sort_unstable_by_key(|&at| key(values[at]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for tied in places.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = f64::midpoint((start + 1) as f64, (start + tied.len()) as f64);
        for &place in tied {
            ranks[place] = rank;
        }
        start += tied.len();
    }
    ranks
}

fn check(x: &[f64], y: &[f64]) -> Option<()> {
    assert_eq!(x.len(), y.len(), "the series must be of the same length");
    (x.len() > 1 && x.iter().chain(y).all(|value| value.is_finite())).then_some(())
}

fn count_pairs(n: u64) -> u64 {
    n * n.saturating_sub(1) / 2
}

/// Counts the equal pairs of a sorted series.
fn tied_pairs<T>(sorted: &[T], equal: impl FnMut(&T, &T) -> bool) -> u64 {
    sorted.chunk_by(equal).map(|tied| count_pairs(tied.len() as u64)).sum()
}

/// Returns an integer in the order of finite numbers. 0 and −0 have the same, as they tie in scipy.
fn key(value: f64) -> u64 {
    let bits = (value + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// Sorts the values and counts the pairs that were out of order.
fn inversions(values: &mut [u64]) -> u64 {
    let n = values.len();
    let mut merged = vec![0; n];
    let mut count = 0;
    let mut width = 1;
    while width < n {
        for start in (0..n).step_by(2 * width) {
            let (middle, end) = ((start + width).min(n), (start + 2 * width).min(n));
            let (mut left, mut right, mut to) = (start, middle, start);
            while left < middle && right < end {
                let (a, b) = (values[left], values[right]);
                let is_left = a <= b;
                merged[to] = if is_left { a } else { b };
                // The right one moves ahead of all remaining values of the left half.
                count += if is_left { 0 } else { (middle - left) as u64 };
                left += usize::from(is_left);
                right += usize::from(!is_left);
                to += 1;
            }
            let rest = if left < middle { left..middle } else { right..end };
            merged[to..end].copy_from_slice(&values[rest]);
        }
        values.copy_from_slice(&merged);
        width *= 2;
    }
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn constant_short_or_infinite_series_have_no_coefficient() {
        for (x, y) in [
            (vec![], vec![]),
            (vec![1.0], vec![2.0]),
            (vec![1.0, 1.0, 1.0], vec![1.0, 2.0, 3.0]),
            (vec![1.0, 2.0, 3.0], vec![0.1; 3]),
            (vec![1.0, f64::NAN, 3.0], vec![1.0, 2.0, 3.0]),
            (vec![1.0, 2.0, 3.0], vec![1.0, 2.0, f64::INFINITY]),
        ] {
            for coefficient in [pearson, spearman, kendall_tau_b] {
                assert_eq!(coefficient(&x, &y), None, "{x:?} {y:?}");
            }
        }
        assert_eq!(roc_auc(&[0.1, 0.2], &[true, true]), None);
        assert_eq!(roc_auc(&[], &[]), None);
    }

    proptest! {
        #[test]
        fn tau_counts_every_pair(pairs in proptest::collection::vec((0..6_i32, 0..6_i32), 2..40)) {
            let x: Vec<f64> = pairs.iter().map(|pair| f64::from(pair.0)).collect();
            let y: Vec<f64> = pairs.iter().map(|pair| f64::from(pair.1)).collect();
            let (mut difference, mut free_x, mut free_y) = (0.0, 0.0, 0.0);
            for i in 0..x.len() {
                for j in 0..i {
                    let (a, b) = (x[i] - x[j], y[i] - y[j]);
                    difference += if a * b == 0.0 { 0.0 } else { (a * b).signum() };
                    free_x += f64::from(a != 0.0);
                    free_y += f64::from(b != 0.0);
                }
            }
            let expected = (free_x > 0.0 && free_y > 0.0).then(|| difference / (free_x * free_y).sqrt());
            match (kendall_tau_b(&x, &y), expected) {
                (Some(found), Some(expected)) => prop_assert!((found - expected).abs() < 1e-12),
                (found, expected) => prop_assert_eq!(found, expected),
            }
        }

        #[test]
        fn the_area_is_the_share_of_pairs_in_order(
            labelled in proptest::collection::vec((0..5_i32, any::<bool>()), 2..40)
        ) {
            let scores: Vec<f64> = labelled.iter().map(|(score, _)| f64::from(*score)).collect();
            let labels: Vec<bool> = labelled.iter().map(|(_, label)| *label).collect();
            let (mut won, mut pairs) = (0.0, 0.0);
            for (a, _) in labelled.iter().filter(|(_, label)| *label) {
                for (b, _) in labelled.iter().filter(|(_, label)| !*label) {
                    pairs += 1.0;
                    won += f64::from(a.cmp(b) as i8 + 1) / 2.0;
                }
            }
            match roc_auc(&scores, &labels) {
                Some(area) => prop_assert!((area - won / pairs).abs() < 1e-12),
                None => prop_assert!(pairs == 0.0),
            }
        }
    }
}
