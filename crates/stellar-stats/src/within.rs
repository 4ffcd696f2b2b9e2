//! Coefficients of two series within groups: differences between groups do not count.
//!
//! Scores of one prompt are alike in all images, because some prompts are easy. Over images of many
//! prompts, two metrics may correlate only because both find the same prompts easy. Within prompts,
//! the question is whether they prefer the same of several images of one prompt.

use super::rank::{average_ranks, pair_counts, pearson_of_centred};

/// Returns the pooled within-group correlation: Pearson's correlation of the deviations from each
/// group's means. `None` if no group has two numbers that differ, in either series.
///
/// J. M. Bland and D. G. Altman, *Calculating correlation coefficients with repeated observations:
/// Part 1, correlation within subjects*, BMJ 310, 1995.
///
/// # Panics
///
/// If the series and the groups differ in length.
#[must_use]
pub fn pearson_within(x: &[f64], y: &[f64], groups: &[usize]) -> Option<f64> {
    let parts = parts(x, y, groups)?;
    let centred = parts.iter().map(|(x, y)| (centre(x), centre(y)));
    pooled(centred)
}

/// Returns Spearman's correlation within groups: the numbers are ranked within each group, with
/// average ranks for ties, and then treated as by [`pearson_within`]. `None` as there.
///
/// # Panics
///
/// If the series and the groups differ in length.
#[must_use]
pub fn spearman_within(x: &[f64], y: &[f64], groups: &[usize]) -> Option<f64> {
    let parts = parts(x, y, groups)?;
    let centred = parts.iter().map(|(x, y)| (centre(&average_ranks(x)), centre(&average_ranks(y))));
    pooled(centred)
}

/// Returns Kendall's tau-b over the pairs within groups: concordant minus discordant pairs, divided
/// by the square root of (pairs not tied in x × pairs not tied in y), each count summed over the
/// groups. `None` if all pairs are tied in one of the series.
///
/// E. L. Korn, *Kendall's tau with a blocking variable*, Biometrics 40(1), 1984.
///
/// # Panics
///
/// If the series and the groups differ in length.
#[must_use]
pub fn kendall_within(x: &[f64], y: &[f64], groups: &[usize]) -> Option<f64> {
    let (mut difference, mut free_x, mut free_y) = (0_i128, 0_u64, 0_u64);
    for (x, y) in parts(x, y, groups)? {
        let counts = pair_counts(&x, &y);
        difference += counts.difference;
        free_x += counts.free_x;
        free_y += counts.free_y;
    }
    (free_x > 0 && free_y > 0).then(|| {
        (difference as f64 / ((free_x as f64).sqrt() * (free_y as f64).sqrt())).clamp(-1.0, 1.0)
    })
}

/// Two series of one group.
type Part = (Vec<f64>, Vec<f64>);

/// Splits the series by group. `None` if a number is not finite.
fn parts(x: &[f64], y: &[f64], groups: &[usize]) -> Option<Vec<Part>> {
    assert!(x.len() == y.len() && x.len() == groups.len(), "the series must be of one length");
    if x.iter().chain(y).any(|value| !value.is_finite()) {
        return None;
    }
    let mut places: Vec<usize> = (0..x.len()).collect();
    places.sort_by_key(|at| groups[*at]);
    let of = |places: &[usize], series: &[f64]| places.iter().map(|at| series[*at]).collect();
    let parts = places.chunk_by(|a, b| groups[*a] == groups[*b]);
    Some(parts.map(|places| (of(places, x), of(places, y))).collect())
}

fn centre(values: &[f64]) -> Vec<f64> {
    let first = values.first().copied().unwrap_or_default();
    if values.iter().all(|value| value.to_bits() == first.to_bits()) {
        // Rounding of the mean must not make a constant group vary.
        return vec![0.0; values.len()];
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter().map(|value| value - mean).collect()
}

fn pooled(parts: impl Iterator<Item = Part>) -> Option<f64> {
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for (of_x, of_y) in parts {
        x.extend(of_x);
        y.extend(of_y);
    }
    pearson_of_centred(&x, &y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_between_groups_do_not_count() {
        // Both rise from group to group, and oppose each other within each.
        let (x, y) = ([1.0, 2.0, 11.0, 12.0], [2.0, 1.0, 12.0, 11.0]);
        for coefficient in [pearson_within, spearman_within, kendall_within] {
            let within = coefficient(&x, &y, &[7, 7, 3, 3]).unwrap();
            assert!((within + 1.0).abs() < 1e-12, "{within}");
            assert!(coefficient(&x, &y, &[0; 4]).unwrap() > 0.0, "one group is no group");
        }
    }

    #[test]
    fn without_a_pair_in_a_group_there_is_no_coefficient() {
        for coefficient in [pearson_within, spearman_within, kendall_within] {
            assert_eq!(coefficient(&[1.0, 2.0], &[1.0, 2.0], &[0, 1]), None);
            assert_eq!(coefficient(&[0.1, 0.1, 3.0], &[1.0, 2.0, 3.0], &[0, 0, 1]), None);
            assert_eq!(coefficient(&[], &[], &[]), None);
            assert_eq!(coefficient(&[1.0, f64::NAN], &[1.0, 2.0], &[0, 0]), None);
        }
    }
}
