//! Correlations of metrics: a matrix of coefficients over samples.
//!
//! **Intervals.** Samples of one person are correlated, so whole identities are left out. They are
//! pooled into at most 20 groups of about equal size, and each coefficient is computed without each
//! group (delete-a-group jackknife). The spread of these coefficients, after Fisher's
//! transformation z = artanh r, is the standard error of z; the interval has Student's quantile
//! with one degree of freedom less than groups, and is transformed back.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::clusters::Clusters;
use super::reasons::NoCoefficient;
use crate::metrics::Family;
use crate::stats::{
    Interval, cancel::cancelled, kendall_tau_b, kendall_within, pearson, pearson_within, spearman,
    spearman_within, student_quantile,
};

/// Maximum number of groups of identities. More would take longer, and are hardly more accurate.
const GROUPS: usize = 20;

/// Fewest groups for an interval: fewer have no usable spread.
const FEWEST: usize = 5;

/// Fisher's transformation of 1 is infinite.
const MOST: f64 = 1.0 - 1e-9;

/// A correlation coefficient of two series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Coefficient {
    /// Kendall's tau-b: concordant minus discordant pairs, corrected for ties.
    Kendall,
    /// Spearman's rho: Pearson's r of the ranks.
    Spearman,
    /// Pearson's r of the numbers.
    Pearson,
}

impl Coefficient {
    /// Computes the coefficient of two series within groups, which `groups` has for each number;
    /// `None` if it is undefined.
    #[must_use]
    pub fn within(self, x: &[f64], y: &[f64], groups: &[usize]) -> Option<f64> {
        match self {
            Self::Kendall => kendall_within(x, y, groups),
            Self::Spearman => spearman_within(x, y, groups),
            Self::Pearson => pearson_within(x, y, groups),
        }
    }

    /// Computes the coefficient of two series of equal length; `None` if it is undefined.
    #[must_use]
    pub fn of(self, x: &[f64], y: &[f64]) -> Option<f64> {
        match self {
            Self::Kendall => kendall_tau_b(x, y),
            Self::Spearman => spearman(x, y),
            Self::Pearson => pearson(x, y),
        }
    }
}

/// Coefficient of two columns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Cell {
    /// Coefficient in [−1, 1]; null if fewer than two samples have both, or one column is constant
    /// over them.
    pub value: Option<f64>,
    /// Reason if the value is null: `too_few_samples` or `constant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<NoCoefficient>,
    /// Samples that have both numbers; within prompts, those whose prompt has at least two of
    /// them.
    pub n: usize,
    /// Within prompts: number of these prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<usize>,
    /// Lower end of the 95 % interval by identity, if intervals were requested; absent below 5
    /// identities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Upper end of the interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
}

impl Cell {
    const EMPTY: Self = Self {
        value: None,
        reason: Some(NoCoefficient::TooFewSamples),
        n: 0,
        prompts: None,
        low: None,
        high: None,
    };
}

/// Computes the coefficients of all pairs of columns of equal length, each over the rows in which
/// both have a number. With `prompts`, which has the prompt of each row, the coefficients are
/// within prompts.
///
/// Takes O(n log n) for each pair of columns.
#[must_use]
pub fn correlations(
    columns: &[&[Option<f64>]],
    coefficient: Coefficient,
    prompts: Option<&[usize]>,
) -> Vec<Vec<Cell>> {
    let mut matrix = vec![vec![Cell::EMPTY; columns.len()]; columns.len()];
    for (row, x) in columns.iter().enumerate() {
        for (column, y) in columns.iter().enumerate().take(row + 1) {
            let both = Both::of(x, y, prompts);
            let value = both.coefficient(coefficient);
            let reason = match (value, both.x.len()) {
                (Some(_), _) => None,
                (None, 0 | 1) => Some(NoCoefficient::TooFewSamples),
                (None, _) => Some(NoCoefficient::Constant),
            };
            let count =
                both.prompts.as_ref().map(|prompts| prompts.iter().collect::<HashSet<_>>().len());
            let cell = Cell { value, reason, n: both.x.len(), prompts: count, ..Cell::EMPTY };
            (matrix[row][column], matrix[column][row]) = (cell, cell);
        }
    }
    matrix
}

/// The numbers of two columns in the rows that have both.
struct Both {
    /// Indices of the rows.
    rows: Vec<usize>,
    x: Vec<f64>,
    y: Vec<f64>,
    prompts: Option<Vec<usize>>,
}

impl Both {
    /// Collects the rows. Within prompts, those without another row of their prompt are left out.
    fn of(x: &[Option<f64>], y: &[Option<f64>], prompts: Option<&[usize]>) -> Self {
        let mut rows: Vec<usize> =
            (0..x.len()).filter(|&at| x[at].is_some() && y[at].is_some()).collect();
        if let Some(prompts) = prompts {
            let mut counts: HashMap<usize, usize> = HashMap::new();
            for &at in &rows {
                *counts.entry(prompts[at]).or_default() += 1;
            }
            rows.retain(|at| counts[&prompts[*at]] > 1);
        }
        let values = |column: &[Option<f64>]| rows.iter().filter_map(|&at| column[at]).collect();
        Self {
            x: values(x),
            y: values(y),
            prompts: prompts.map(|prompts| rows.iter().map(|&at| prompts[at]).collect()),
            rows,
        }
    }

    fn coefficient(&self, coefficient: Coefficient) -> Option<f64> {
        match &self.prompts {
            Some(prompts) => coefficient.within(&self.x, &self.y, prompts),
            None => coefficient.of(&self.x, &self.y),
        }
    }

    /// Returns these rows without those that a group has.
    fn without(&self, groups: &[usize], left_out: usize) -> Self {
        let kept: Vec<usize> =
            (0..self.rows.len()).filter(|&at| groups[self.rows[at]] != left_out).collect();
        Self {
            rows: kept.iter().map(|&at| self.rows[at]).collect(),
            x: kept.iter().map(|&at| self.x[at]).collect(),
            y: kept.iter().map(|&at| self.y[at]).collect(),
            prompts: self.prompts.as_ref().map(|of| kept.iter().map(|&at| of[at]).collect()),
        }
    }
}

/// Mean absolute coefficient of the metrics of two families.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FamilyPair {
    /// The first family.
    pub a: Family,
    /// The second family; the same for pairs within one.
    pub b: Family,
    /// Number of pairs of different metrics, one of each family, that have a coefficient.
    pub pairs: usize,
    /// Mean of the absolute values of these coefficients, in [0, 1].
    pub mean_absolute: f64,
}

/// Averages a matrix of coefficients by family: over the pairs of different metrics within each
/// family and between each two. Families without a coefficient are left out.
#[must_use]
pub fn family_pairs(matrix: &[Vec<Cell>], families: &[Family]) -> Vec<FamilyPair> {
    let mut sums: BTreeMap<(Family, Family), (usize, f64)> = BTreeMap::new();
    for (row, cells) in matrix.iter().enumerate() {
        for (column, cell) in cells.iter().enumerate().take(row) {
            let Some(value) = cell.value else { continue };
            let (a, b) = (families[row], families[column]);
            let of = sums.entry((a.min(b), a.max(b))).or_default();
            *of = (of.0 + 1, of.1 + value.abs());
        }
    }
    let pairs = sums.into_iter().map(|((a, b), (pairs, sum))| FamilyPair {
        a,
        b,
        pairs,
        mean_absolute: sum / pairs as f64,
    });
    pairs.collect()
}

/// Adds intervals to the coefficients of different columns. The samples of each identity stay
/// together; a sample without an identity stands for itself and has the name that `anonymous`
/// returns.
pub fn add_intervals(
    matrix: &mut [Vec<Cell>],
    columns: &[&[Option<f64>]],
    coefficient: Coefficient,
    prompts: Option<&[usize]>,
    identities: &[Option<String>],
    anonymous: impl Fn(usize) -> String,
) {
    let groups = groups(&Clusters::new(identities, anonymous));
    for row in 0..columns.len() {
        for column in 0..row {
            if cancelled() {
                return;
            }
            let Some(value) = matrix[row][column].value else { continue };
            let both = Both::of(columns[row], columns[column], prompts);
            if let Some(Interval { low, high }) = interval(value, &both, &groups, coefficient) {
                let cell = Cell { low: Some(low), high: Some(high), ..matrix[row][column] };
                (matrix[row][column], matrix[column][row]) = (cell, cell);
            }
        }
    }
}

/// Assigns each sample to a group, so that groups are about equally large: the largest identities
/// are placed first, each into the smallest group.
fn groups(clusters: &Clusters) -> Vec<usize> {
    let mut sizes = vec![0_usize; clusters.keys.len()];
    for &cluster in &clusters.of {
        sizes[cluster] += 1;
    }
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|cluster| std::cmp::Reverse(sizes[*cluster]));
    let mut filled = [0_usize; GROUPS];
    let mut group_of = vec![0; sizes.len()];
    for cluster in order {
        let smallest = (0..GROUPS).min_by_key(|group| filled[*group]).unwrap_or_default();
        filled[smallest] += sizes[cluster];
        group_of[cluster] = smallest;
    }
    clusters.of.iter().map(|cluster| group_of[*cluster]).collect()
}

fn interval(
    value: f64,
    both: &Both,
    groups: &[usize],
    coefficient: Coefficient,
) -> Option<Interval> {
    let fisher = |r: f64| r.clamp(-MOST, MOST).atanh();
    let without: Option<Vec<f64>> = (0..GROUPS)
        .filter(|left_out| both.rows.iter().any(|&at| groups[at] == *left_out))
        .map(|left_out| both.without(groups, left_out).coefficient(coefficient).map(fisher))
        .collect();
    let without = without.filter(|without| without.len() >= FEWEST)?;
    let count = without.len() as f64;
    let mean = without.iter().sum::<f64>() / count;
    let squares: f64 = without.iter().map(|z| (z - mean).powi(2)).sum();
    let error = ((count - 1.0) / count * squares).sqrt();
    let reach = student_quantile(0.975, without.len() - 1) * error;
    let middle = fisher(value);
    Some(Interval { low: (middle - reach).tanh(), high: (middle + reach).tanh() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Rng, normal_quantile};

    /// Two scores of people with several images each, correlated by `rho`; half of the variance is
    /// between people.
    fn simulated(
        seed: u64,
        people: usize,
        rho: f64,
    ) -> (Vec<Vec<Option<f64>>>, Vec<Option<String>>) {
        let mut rng = Rng::new(seed);
        let mut normal = || normal_quantile(rng.unit().clamp(1e-12, 1.0 - 1e-12));
        let mut pair = || {
            let (x, y) = (normal(), normal());
            (x, rho * x + (1.0 - rho * rho).sqrt() * y)
        };
        let (mut columns, mut identities) = (vec![Vec::new(), Vec::new()], Vec::new());
        for person in 0..people {
            let own = pair();
            for _ in 0..4 {
                let noise = pair();
                columns[0].push(Some(own.0 + noise.0));
                columns[1].push(Some(own.1 + noise.1));
                identities.push(Some(person.to_string()));
            }
        }
        (columns, identities)
    }

    fn cell(columns: &[Vec<Option<f64>>], identities: &[Option<String>], of: Coefficient) -> Cell {
        let columns: Vec<&[Option<f64>]> = columns.iter().map(Vec::as_slice).collect();
        let mut matrix = correlations(&columns, of, None);
        add_intervals(&mut matrix, &columns, of, None, identities, |at| at.to_string());
        assert_eq!(matrix[0][1], matrix[1][0]);
        assert_eq!((matrix[0][0].low, matrix[1][1].high), (None, None), "a metric with itself");
        matrix[0][1]
    }

    #[test]
    fn intervals_contain_the_truth_about_95_times_in_100() {
        for (of, truth) in [
            (Coefficient::Pearson, 0.4),
            // Kendall's tau of a normal distribution.
            (Coefficient::Kendall, 0.4_f64.asin() * std::f64::consts::FRAC_2_PI),
        ] {
            for people in [12, 60] {
                let rounds = 300;
                let covers = |seed: &u64| {
                    let (columns, identities) = simulated(*seed, people, 0.4);
                    let cell = cell(&columns, &identities, of);
                    cell.low.unwrap() <= truth && truth <= cell.high.unwrap()
                };
                let share = (0..rounds).filter(covers).count() as f64 / rounds as f64;
                assert!((0.91..=0.985).contains(&share), "{of:?} over {people} people: {share}");
            }
        }
    }

    #[test]
    fn images_of_one_person_do_not_count_as_many() {
        let (columns, identities) = simulated(1, 12, 0.4);
        let of_people = cell(&columns, &identities, Coefficient::Pearson);
        let of_images = cell(&columns, &vec![None; identities.len()], Coefficient::Pearson);
        let width = |of: Cell| of.high.unwrap() - of.low.unwrap();
        assert!(width(of_people) > width(of_images), "{of_people:?} {of_images:?}");
        assert_eq!(of_people.value, of_images.value);
    }

    #[test]
    fn few_people_have_no_interval() {
        let (columns, identities) = simulated(1, 4, 0.4);
        assert_eq!(cell(&columns, &identities, Coefficient::Pearson).low, None);
    }
}
