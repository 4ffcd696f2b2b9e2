//! Agreement among annotators.

use std::collections::BTreeMap;

/// What differences between two ratings mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Equal or not.
    Nominal,
    /// An order without distances: what lies between two ratings, by how often it was given.
    Ordinal,
    /// Distances: their square.
    Interval,
}

/// Krippendorff's alpha of ratings, a row a rated unit and a column an annotator, `None` where one gave no rating:
/// 1 for perfect agreement, 0 for what chance would give, below for less.
///
/// None where it has no meaning: no unit was rated twice, or all ratings are the same, so that there is no
/// disagreement to expect. Ratings that are not finite count as not given.
///
/// K. Krippendorff, *Computing Krippendorff's Alpha-Reliability*, 2011.
#[must_use]
pub fn krippendorff_alpha(ratings: &[Vec<Option<f64>>], level: Level) -> Option<f64> {
    // A unit rated once pairs with nothing and does not count at all.
    let units: Vec<Vec<f64>> = ratings
        .iter()
        .map(|unit| unit.iter().copied().flatten().filter(|rating| rating.is_finite()).collect::<Vec<f64>>())
        .filter(|unit| unit.len() > 1)
        .collect();
    let mut values: Vec<f64> = units.iter().flatten().copied().collect();
    values.sort_unstable_by(f64::total_cmp);
    values.dedup();
    let place = |rating: f64| values.partition_point(|value| *value < rating);

    // How often each pair of values was given to the same unit; each unit weighs as much as it has ratings.
    let mut together: BTreeMap<(usize, usize), f64> = BTreeMap::new();
    let mut counts = vec![0.0; values.len()];
    for unit in &units {
        let share = 1.0 / (unit.len() - 1) as f64;
        for (i, a) in unit.iter().enumerate() {
            counts[place(*a)] += 1.0;
            for (j, b) in unit.iter().enumerate() {
                if i != j {
                    *together.entry((place(*a), place(*b))).or_default() += share;
                }
            }
        }
    }
    let total: f64 = counts.iter().sum();
    let difference = differences(level, &values, &counts);

    let observed: f64 = together.iter().map(|(&(a, b), count)| count * difference(a, b)).sum();
    let mut expected = 0.0;
    for (a, of_a) in counts.iter().enumerate() {
        for (b, of_b) in counts.iter().enumerate() {
            expected += of_a * of_b * difference(a, b);
        }
    }
    (expected > 0.0).then(|| 1.0 - (total - 1.0) * observed / expected)
}

/// The squared difference of two values given by their places.
fn differences<'a>(level: Level, values: &'a [f64], counts: &'a [f64]) -> impl Fn(usize, usize) -> f64 + 'a {
    // How many ratings lie below each value.
    let below: Vec<f64> = counts
        .iter()
        .scan(0.0, |sum, count| {
            *sum += count;
            Some(*sum - count)
        })
        .collect();
    move |a, b| match level {
        Level::Nominal => f64::from(a != b),
        Level::Interval => (values[a] - values[b]).powi(2),
        // From the middle of one value's ratings to the middle of the other's.
        Level::Ordinal => (below[a] + counts[a] / 2.0 - below[b] - counts[b] / 2.0).powi(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratings_without_pairs_or_without_variety_have_no_alpha() {
        for level in [Level::Nominal, Level::Ordinal, Level::Interval] {
            assert_eq!(krippendorff_alpha(&[], level), None);
            assert_eq!(krippendorff_alpha(&[vec![Some(1.0), None], vec![None, Some(2.0)]], level), None);
            assert_eq!(
                krippendorff_alpha(&[vec![Some(1.0), Some(1.0)], vec![Some(1.0), Some(1.0)]], level),
                None
            );
        }
    }

    #[test]
    fn perfect_agreement_is_one() {
        let ratings = [vec![Some(1.0), Some(1.0), None], vec![Some(3.0), Some(3.0), Some(3.0)]];
        for level in [Level::Nominal, Level::Ordinal, Level::Interval] {
            assert_eq!(krippendorff_alpha(&ratings, level), Some(1.0));
        }
    }
}
