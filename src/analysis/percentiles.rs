//! Percentile of a score in a reference population.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ranks::more_is_better;
use crate::store::Quantiles;

/// Place of a score among the scores of a population.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Place {
    /// Percent of the population's scores below this one, including half of the equal ones.
    #[schema(example = 81.5)]
    pub percentile: f64,
    /// Percent of the population's scores that are worse, including half of the equal ones; null
    /// for metrics without a direction.
    #[schema(example = 81.5)]
    pub better_than: Option<f64>,
    /// Number of scores in the population.
    pub population: u64,
}

/// Returns the place of a score among all scores of these distributions, each weighted by its
/// number of scores. Stored quantiles are half a percent apart, which is the accuracy of the place.
#[must_use]
pub fn place<'a>(
    metric: &str,
    value: f64,
    distributions: impl Iterator<Item = &'a Quantiles>,
) -> Option<Place> {
    let (mut below, mut population) = (0.0, 0);
    for of in distributions.filter(|of| of.n > 0 && of.places.len() > 1) {
        below += share_below(&of.places, value) * of.n as f64;
        population += of.n;
    }
    let percentile = (population > 0).then(|| 100.0 * below / population as f64)?;
    let better_than =
        more_is_better(metric).map(|more| if more { percentile } else { 100.0 - percentile });
    Some(Place { percentile, better_than, population })
}

/// Returns the share of a distribution below a value, including half of the equal ones.
fn share_below(places: &[f64], value: f64) -> f64 {
    let steps = (places.len() - 1) as f64;
    let under = places.partition_point(|place| *place < value);
    let up_to = places.partition_point(|place| *place <= value);
    if under == places.len() {
        return 1.0;
    }
    if up_to == 0 {
        return 0.0;
    }
    if up_to > under {
        // The middle of the quantiles that equal the value.
        return f64::midpoint(under as f64, (up_to - 1) as f64) / steps;
    }
    let (low, high) = (places[under - 1], places[under]);
    (under as f64 - 1.0 + (value - low) / (high - low)) / steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Rng, quantiles};

    fn of(mut values: Vec<f64>) -> Quantiles {
        let n = values.len() as u64;
        let places = quantiles(&mut values, 201).unwrap();
        Quantiles { metric: "ips".into(), version: 1, n, places }
    }

    #[test]
    fn places_are_those_of_a_count_over_all_scores() {
        let mut rng = Rng::new(4);
        let values =
            |rng: &mut Rng, n: usize| (0..n).map(|_| rng.unit().powi(2)).collect::<Vec<f64>>();
        let (one, other) = (values(&mut rng, 3000), values(&mut rng, 900));
        let all: Vec<f64> = one.iter().chain(&other).copied().collect();
        let kept = [of(one), of(other)];
        for _ in 0..200 {
            let value = rng.unit();
            let counted = all.iter().filter(|at| **at < value).count() as f64 / all.len() as f64;
            let found = place("ips", value, kept.iter()).unwrap();
            assert!(
                (found.percentile - 100.0 * counted).abs() < 0.5,
                "{value} {found:?} {counted}"
            );
            assert_eq!((found.better_than, found.population), (Some(found.percentile), 3900));
        }
    }

    #[test]
    fn ends_ties_and_distances_have_the_right_place() {
        let kept = [of((0..=100).map(f64::from).collect())];
        let at = |metric, value| place(metric, value, kept.iter()).unwrap();
        assert_eq!((at("ips", -1.0).percentile, at("ips", 101.0).percentile), (0.0, 100.0));
        assert_eq!(at("dreamsim", 25.0).better_than, Some(75.0));
        assert_eq!(at("clip_n", 25.0).better_than, None);
        let ties = [of(vec![0.5; 10])];
        assert!((place("ips", 0.5, ties.iter()).unwrap().percentile - 50.0).abs() < 1e-9);
        assert_eq!(place("ips", 0.5, [].iter()), None);
    }
}
