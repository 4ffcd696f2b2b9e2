//! Correlations of metrics: a matrix of coefficients over samples.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::reasons::NoCoefficient;
use crate::stats::{kendall_tau_b, pearson, spearman};

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
    /// Samples that have both numbers.
    pub n: usize,
}

/// Computes the coefficients of all pairs of columns of equal length, each over the rows in which
/// both have a number.
///
/// Takes O(n log n) for each pair of columns.
#[must_use]
pub fn correlations(columns: &[&[Option<f64>]], coefficient: Coefficient) -> Vec<Vec<Cell>> {
    let mut matrix = vec![
        vec![
            Cell { value: None, reason: Some(NoCoefficient::TooFewSamples), n: 0 };
            columns.len()
        ];
        columns.len()
    ];
    for (row, x) in columns.iter().enumerate() {
        for (column, y) in columns.iter().enumerate().take(row + 1) {
            let (x, y): (Vec<f64>, Vec<f64>) =
                x.iter().zip(*y).filter_map(|(x, y)| x.zip(*y)).unzip();
            let value = coefficient.of(&x, &y);
            let reason = match (value, x.len()) {
                (Some(_), _) => None,
                (None, 0 | 1) => Some(NoCoefficient::TooFewSamples),
                (None, _) => Some(NoCoefficient::Constant),
            };
            let cell = Cell { value, reason, n: x.len() };
            (matrix[row][column], matrix[column][row]) = (cell, cell);
        }
    }
    matrix
}
