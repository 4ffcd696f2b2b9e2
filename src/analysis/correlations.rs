//! How metrics go together: a matrix of coefficients over samples.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::reasons::NoCoefficient;
use crate::stats::{kendall_tau_b, pearson, spearman};

/// A coefficient of two series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Coefficient {
    /// Kendall's tau-b: concordant less discordant pairs, corrected for ties.
    Kendall,
    /// Spearman's: Pearson's of the ranks.
    Spearman,
    /// Pearson's: of the numbers.
    Pearson,
}

impl Coefficient {
    /// The coefficient of two series of one length; none where it has no meaning.
    #[must_use]
    pub fn of(self, x: &[f64], y: &[f64]) -> Option<f64> {
        match self {
            Self::Kendall => kendall_tau_b(x, y),
            Self::Spearman => spearman(x, y),
            Self::Pearson => pearson(x, y),
        }
    }
}

/// The coefficient of two columns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Cell {
    /// In [−1, 1]; none below two samples that have both, and where one of the columns is constant over them.
    pub value: Option<f64>,
    /// Why there is none: `too_few_samples` or `constant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<NoCoefficient>,
    /// Samples that have both.
    pub n: usize,
}

/// The coefficients of every two columns of one length, each over the rows in which both have a number.
///
/// O(n log n) for each pair of columns.
#[must_use]
pub fn correlations(columns: &[&[Option<f64>]], coefficient: Coefficient) -> Vec<Vec<Cell>> {
    let mut matrix =
        vec![
            vec![Cell { value: None, reason: Some(NoCoefficient::TooFewSamples), n: 0 }; columns.len()];
            columns.len()
        ];
    for (row, x) in columns.iter().enumerate() {
        for (column, y) in columns.iter().enumerate().take(row + 1) {
            let (x, y): (Vec<f64>, Vec<f64>) = x.iter().zip(*y).filter_map(|(x, y)| x.zip(*y)).unzip();
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
