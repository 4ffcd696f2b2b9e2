//! Inter-annotator agreement.

use std::collections::BTreeMap;

use super::bootstrap::Bootstrap;
use super::interval::Interval;

/// Level of measurement: the meaning of a difference between two ratings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Categories: equal or not.
    Nominal,
    /// An order without distances: the difference is the number of ratings that lie between two
    /// values.
    Ordinal,
    /// Distances: the difference is squared.
    Interval,
}

/// Computes Krippendorff's alpha of ratings, with a row per rated unit and a column per annotator,
/// `None` for a missing rating: 1 for perfect agreement, 0 for agreement by chance, negative for
/// less than chance.
///
/// Returns `None` if alpha is undefined: no unit was rated twice, or all ratings are the same, so
/// that the expected disagreement is 0. Ratings that are not finite count as missing.
///
/// K. Krippendorff, *Computing Krippendorff's Alpha-Reliability*, 2011.
#[must_use]
pub fn krippendorff_alpha(ratings: &[Vec<Option<f64>>], level: Level) -> Option<f64> {
    let units = Units::new(ratings);
    units.alpha(level, &vec![1; units.units.len()])
}

/// Computes the confidence interval of [`krippendorff_alpha`]. Whole units are resampled, which
/// preserves differences between raters, so that the interval is for further units rated by similar
/// annotators.
///
/// This is the BCa interval of [`Bootstrap::interval`]. Returns `None` for fewer than
/// [`FEWEST_CLUSTERS`](super::FEWEST_CLUSTERS) units that were rated twice, or if alpha is
/// undefined.
#[must_use]
pub fn krippendorff_alpha_interval(
    ratings: &[Vec<Option<f64>>],
    level: Level,
    bootstrap: &Bootstrap,
) -> Option<Interval> {
    let units = Units::new(ratings);
    bootstrap.interval(units.units.len(), |times| units.alpha(level, times).unwrap_or(f64::NAN))
}

/// Units that were rated more than once.
struct Units {
    /// Distinct ratings, ascending.
    values: Vec<f64>,
    /// For each unit, the count of each value, by index in `values`.
    units: Vec<Vec<(usize, f64)>>,
}

impl Units {
    fn new(ratings: &[Vec<Option<f64>>]) -> Self {
        // A unit with one rating forms no pairs and does not count.
        let units: Vec<Vec<f64>> = ratings
            .iter()
            .map(|unit| {
                unit.iter()
                    .copied()
                    .flatten()
                    .filter(|rating| rating.is_finite())
                    .collect::<Vec<f64>>()
            })
            .filter(|unit| unit.len() > 1)
            .collect();
        let mut values: Vec<f64> = units.iter().flatten().copied().collect();
        values.sort_unstable_by(f64::total_cmp);
        values.dedup();
        let counted = units.iter().map(|unit| {
            let mut counts: BTreeMap<usize, f64> = BTreeMap::new();
            for rating in unit {
                *counts.entry(values.partition_point(|value| value < rating)).or_default() += 1.0;
            }
            counts.into_iter().collect()
        });
        let units = counted.collect();
        Self { values, units }
    }

    /// Computes alpha of the units, each taken `times` times.
    fn alpha(&self, level: Level, times: &[u32]) -> Option<f64> {
        let mut counts = vec![0.0; self.values.len()];
        for (unit, times) in self.units.iter().zip(times) {
            for (value, count) in unit {
                counts[*value] += f64::from(*times) * count;
            }
        }
        let total: f64 = counts.iter().sum();
        let places = places(level, &self.values, &counts);
        // Observed disagreement within units; each unit is weighted by its number of ratings.
        let mut observed = 0.0;
        for (unit, times) in self.units.iter().zip(times) {
            let ratings: f64 = unit.iter().map(|(_, count)| count).sum();
            let apart = apart(places.as_deref(), unit.iter().copied());
            observed += f64::from(*times) * apart / (ratings - 1.0);
        }
        let expected = apart(places.as_deref(), counts.iter().copied().enumerate());
        (expected > 0.0).then(|| 1.0 - (total - 1.0) * observed / expected)
    }
}

/// Returns the position of each value on the scale of squared differences; `None` for nominal
/// values.
fn places(level: Level, values: &[f64], counts: &[f64]) -> Option<Vec<f64>> {
    match level {
        Level::Nominal => None,
        Level::Interval => Some(values.to_vec()),
        // The middle of the value's own ratings, counted from the lowest.
        Level::Ordinal => {
            let mut below = 0.0;
            let middle = counts.iter().map(|count| {
                below += count;
                below - count / 2.0
            });
            Some(middle.collect())
        }
    }
}

/// Computes Σ n(a)·n(b)·difference(a, b) over all pairs of values, given each value's position and
/// count.
///
/// This takes linear time: Σ n(a)·n(b)·(x(a) − x(b))² is twice the number of ratings times their
/// sum of squares about the mean.
fn apart(places: Option<&[f64]>, values: impl Iterator<Item = (usize, f64)> + Clone) -> f64 {
    let total: f64 = values.clone().map(|(_, count)| count).sum();
    let Some(places) = places else {
        return values.map(|(_, count)| count * (total - count)).sum();
    };
    if total == 0.0 {
        return 0.0;
    }
    let mean = values.clone().map(|(value, count)| count * places[value]).sum::<f64>() / total;
    2.0 * total * values.map(|(value, count)| count * (places[value] - mean).powi(2)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::super::rng::Rng;
    use super::*;

    #[test]
    fn ratings_without_pairs_or_without_variety_have_no_alpha() {
        for level in [Level::Nominal, Level::Ordinal, Level::Interval] {
            assert_eq!(krippendorff_alpha(&[], level), None);
            assert_eq!(
                krippendorff_alpha(&[vec![Some(1.0), None], vec![None, Some(2.0)]], level),
                None
            );
            assert_eq!(
                krippendorff_alpha(
                    &[vec![Some(1.0), Some(1.0)], vec![Some(1.0), Some(1.0)]],
                    level
                ),
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

    #[test]
    fn the_interval_of_alpha_covers_alpha_of_many_units() {
        let mut rng = Rng::new(8);
        // Three annotators who rate the truth of a unit, 0 to 4, with occasional errors.
        let mut units = |count: usize| -> Vec<Vec<Option<f64>>> {
            let unit = |rng: &mut Rng| {
                let truth = rng.below(5);
                (0..3)
                    .map(|_| Some(if rng.unit() < 0.3 { rng.below(5) } else { truth } as f64))
                    .collect()
            };
            (0..count).map(|_| unit(&mut rng)).collect()
        };
        let truth = krippendorff_alpha(&units(20_000), Level::Ordinal).unwrap();
        let (mut covered, rounds) = (0, 200);
        for seed in 0..rounds {
            let bootstrap = Bootstrap { resamples: 300, seed, ..Bootstrap::default() };
            let found =
                krippendorff_alpha_interval(&units(40), Level::Ordinal, &bootstrap).unwrap();
            covered += u32::from(found.low <= truth && truth <= found.high);
        }
        // 95 % of 200, within four standard deviations of a binomial.
        assert!((178..=200).contains(&covered), "{covered} of {rounds}");
        assert_eq!(
            krippendorff_alpha_interval(&units(1), Level::Ordinal, &Bootstrap::default()),
            None
        );
    }
}
