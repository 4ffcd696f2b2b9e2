//! Variance components of scores in groups of repeated measurements: how much of the variance is
//! within groups, and how much of that is between the units of a group.
//!
//! A group is, for instance, all images of one prompt and person, and its units are the photos that
//! the images were made from. The estimates are those of the analysis of variance with nested
//! random effects and unequal numbers (S. R. Searle, G. Casella and C. E. `McCulloch`, *Variance
//! Components*, 1992, section 3.6 for one way, chapter 5 for nested effects). Without a second
//! measurement of any unit, they are those of the one-way analysis, whose ratio is the intraclass
//! correlation ICC(1) (P. E. Shrout and J. L. Fleiss, *Intraclass Correlations: Uses in Assessing
//! Rater Reliability*, Psychological Bulletin 86(2), 1979).

/// Sums of one cluster of groups, such as a person, from which variance components are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NestedSums {
    groups: f64,
    units: f64,
    numbers: f64,
    sum: f64,
    /// Σ of squared sums of groups, divided by their sizes.
    of_groups: f64,
    /// Σ of squared sums of units, divided by their sizes.
    of_units: f64,
    squares: f64,
    /// Σ over groups of Σ of squared sizes of units, divided by the size of the group.
    unit_share: f64,
    unit_squares: f64,
    group_squares: f64,
}

impl NestedSums {
    /// Sums groups of units of numbers. Units and groups without numbers are left out.
    ///
    /// Numbers should be near 0, as they are after subtracting their mean: sums of squares of large
    /// numbers lose digits.
    #[must_use]
    pub fn of(groups: &[Vec<Vec<f64>>]) -> Self {
        let mut found = Self::default();
        for group in groups {
            let (mut size, mut sum, mut unit_squares) = (0.0, 0.0, 0.0);
            for unit in group.iter().filter(|unit| !unit.is_empty()) {
                let count = unit.len() as f64;
                let of_unit: f64 = unit.iter().sum();
                found.units += 1.0;
                found.of_units += of_unit * of_unit / count;
                found.squares += unit.iter().map(|number| number * number).sum::<f64>();
                unit_squares += count * count;
                size += count;
                sum += of_unit;
            }
            if size > 0.0 {
                found.groups += 1.0;
                found.numbers += size;
                found.sum += sum;
                found.of_groups += sum * sum / size;
                found.unit_share += unit_squares / size;
                found.unit_squares += unit_squares;
                found.group_squares += size * size;
            }
        }
        found
    }

    fn add(&mut self, of: &Self, times: f64) {
        for (total, part) in [
            (&mut self.groups, of.groups),
            (&mut self.units, of.units),
            (&mut self.numbers, of.numbers),
            (&mut self.sum, of.sum),
            (&mut self.of_groups, of.of_groups),
            (&mut self.of_units, of.of_units),
            (&mut self.squares, of.squares),
            (&mut self.unit_share, of.unit_share),
            (&mut self.unit_squares, of.unit_squares),
            (&mut self.group_squares, of.group_squares),
        ] {
            *total += times * part;
        }
    }
}

/// Estimated variance components. Estimates below 0 are 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Variances {
    /// Variance within groups: between units and, if units were measured several times, within
    /// them.
    pub within: f64,
    /// Variance between groups; `None` for a single group.
    pub between: Option<f64>,
    /// The part of `within` that is between units; `None` if no unit was measured twice.
    pub units: Option<f64>,
    /// The part of `within` that remains within units.
    pub rest: Option<f64>,
}

impl Variances {
    /// Returns the share of the total variance that is within groups: 1 − ICC(1). `None` for a
    /// single group or without any variance.
    #[must_use]
    pub fn share_within(&self) -> Option<f64> {
        self.share_of(self.within)
    }

    /// Returns the share of the total variance that is between units of one group.
    #[must_use]
    pub fn share_of_units(&self) -> Option<f64> {
        self.share_of(self.units?)
    }

    fn share_of(&self, part: f64) -> Option<f64> {
        let total = self.within + self.between?;
        (total > 0.0).then(|| part / total)
    }
}

/// Estimates variance components over clusters, each taken `times` times. `None` if no group has
/// two units.
#[must_use]
pub fn variances(clusters: &[NestedSums], times: &[u32]) -> Option<Variances> {
    let mut all = NestedSums::default();
    for (of, times) in clusters.iter().zip(times) {
        all.add(of, f64::from(*times));
    }
    let NestedSums { groups, units, numbers, .. } = all;
    if units - groups < 0.5 {
        return None;
    }
    // What remains of two equal sums of squares is rounding.
    let above = |whole: f64, part: f64| {
        if whole - part > 1e-12 * whole { whole - part } else { 0.0 }
    };
    let mean_units = above(all.of_units, all.of_groups) / (units - groups);
    let twice = numbers - units > 0.5;
    // Expected size of a unit in the mean square between units.
    let size = (numbers - all.unit_share) / (units - groups);
    let (of_units, rest) = if twice {
        let rest = above(all.squares, all.of_units) / (numbers - units);
        (((mean_units - rest) / size).max(0.0), rest)
    } else {
        (mean_units, 0.0)
    };
    let between = (groups > 1.5).then(|| {
        let mean_groups = above(all.of_groups, all.sum * all.sum / numbers) / (groups - 1.0);
        let of_unit = (all.unit_share - all.unit_squares / numbers) / (groups - 1.0);
        let of_group = (numbers - all.group_squares / numbers) / (groups - 1.0);
        ((mean_groups - rest - of_unit * of_units) / of_group).max(0.0)
    });
    Some(Variances {
        within: of_units + rest,
        between,
        units: twice.then_some(of_units),
        rest: twice.then_some(rest),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rng, normal_quantile};

    fn estimate(groups: &[Vec<Vec<f64>>]) -> Option<Variances> {
        variances(&[NestedSums::of(groups)], &[1])
    }

    #[test]
    fn one_way_components_are_those_of_shrout_and_fleiss() {
        // Six targets rated by four judges, their table 2: ICC(1) is 0.166 (MSB 11.24, MSW 6.26).
        let ratings = [
            [9.0, 2.0, 5.0, 8.0],
            [6.0, 1.0, 3.0, 2.0],
            [8.0, 4.0, 6.0, 8.0],
            [7.0, 1.0, 2.0, 6.0],
            [10.0, 5.0, 6.0, 9.0],
            [6.0, 2.0, 4.0, 7.0],
        ];
        let groups: Vec<Vec<Vec<f64>>> =
            ratings.iter().map(|of| of.iter().map(|rating| vec![*rating]).collect()).collect();
        let found = estimate(&groups).unwrap();
        assert!((found.within - 6.264).abs() < 1e-3, "{found:?}");
        assert!((1.0 - found.share_within().unwrap() - 0.166).abs() < 1e-3, "{found:?}");
        assert_eq!((found.units, found.rest), (None, None));
    }

    #[test]
    fn known_components_are_found() {
        let mut rng = Rng::new(11);
        let mut normal = |scale: f64| scale * normal_quantile(rng.unit().max(1e-12));
        let groups: Vec<Vec<Vec<f64>>> = (0..4_000)
            .map(|at| {
                let group = normal(2.0);
                (0..2 + at % 3)
                    .map(|photo| {
                        let unit = group + normal(1.0);
                        (0..=(at + photo) % 3).map(|_| unit + normal(0.5)).collect()
                    })
                    .collect()
            })
            .collect();
        let found = estimate(&groups).unwrap();
        assert!((found.between.unwrap() - 4.0).abs() < 0.3, "{found:?}");
        assert!((found.units.unwrap() - 1.0).abs() < 0.08, "{found:?}");
        assert!((found.rest.unwrap() - 0.25).abs() < 0.02, "{found:?}");
        assert!((found.share_of_units().unwrap() - 1.0 / 5.25).abs() < 0.02);
    }

    #[test]
    fn clusters_taken_twice_are_two_clusters() {
        let one = vec![vec![vec![1.0], vec![3.0]], vec![vec![0.5], vec![0.0, 1.0]]];
        let other = vec![vec![vec![-2.0], vec![2.0], vec![0.0]]];
        let sums = [NestedSums::of(&one), NestedSums::of(&other)];
        let doubled: Vec<_> = [one.clone(), other, one].concat();
        let (found, expected) = (variances(&sums, &[2, 1]), estimate(&doubled));
        let of = |of: Option<Variances>| of.unwrap().share_within().unwrap();
        assert!((of(found) - of(expected)).abs() < 1e-12);
    }

    #[test]
    fn without_two_units_there_is_nothing_to_estimate() {
        assert_eq!(estimate(&[]), None);
        assert_eq!(estimate(&[vec![vec![1.0, 2.0]], vec![vec![3.0], vec![]]]), None);
        let single = estimate(&[vec![vec![1.0], vec![3.0]]]).unwrap();
        assert_eq!((single.within, single.between, single.share_within()), (2.0, None, None));
    }
}
