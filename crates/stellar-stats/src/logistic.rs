//! Logistic regression with an L2 penalty, with the defaults of scikit-learn's
//! `LogisticRegression`.

use super::linear::{Cholesky, dot};

/// A fitted linear classifier.
#[derive(Clone, Debug, PartialEq)]
pub struct Logistic {
    /// One weight per feature.
    pub weights: Vec<f64>,
    /// The intercept.
    pub intercept: f64,
}

/// Errors of fitting a classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogisticError {
    /// All labels are of one class.
    #[error("all labels are the same: leave the attribute out, or add samples of the other class")]
    OneClass,
    /// The features do not have one row per label, or a number is not finite.
    #[error("the features must be finite numbers, with the same count for each label")]
    Features,
}

impl Logistic {
    /// Returns the signed distance from the boundary in log odds: positive means the positive
    /// class.
    #[must_use]
    pub fn decision(&self, features: &[f64]) -> f64 {
        dot(&self.weights, features) + self.intercept
    }
}

/// Convergence threshold: maximum absolute component of the gradient of the summed loss. The error
/// of the decision function is then less than this times the largest feature, since the penalty
/// makes the loss at least as curved as x²/2.
const GRADIENT: f64 = 1e-9;

/// Maximum number of steps, more than any data needs: near the minimum, each step of Newton's
/// method doubles the number of correct digits.
const STEPS: u32 = 100;

/// Fits a classifier to rows of `columns` features each (`features` is in row-major order), with a
/// label and a weight per row. The weight is the number of times that the row counts. Repeated rows
/// (a photo shared by many prompts) are cheaper as one row with a weight.
///
/// Minimises ½ |w|² + C · Σ weightᵢ · log(1 + exp(∓(w·xᵢ + b))) for C = 1; the intercept b is not
/// penalised. There is exactly one minimum if both classes are present, even if the classes are
/// separable or a feature is constant, so any converged solver agrees. This solver is Newton's
/// method with step halving. scikit-learn's default (L-BFGS to a gradient of 1e-4) stops slightly
/// earlier.
///
/// Costs rows · columns² per step, for about ten steps.
pub fn fit_logistic(
    features: &[f64],
    columns: usize,
    labels: &[bool],
    weights: &[f64],
) -> Result<Logistic, LogisticError> {
    let finite = |numbers: &[f64]| numbers.iter().all(|number| number.is_finite());
    let fits = features.len() == labels.len() * columns && weights.len() == labels.len();
    if !fits || !finite(features) || !finite(weights) || weights.iter().any(|weight| *weight < 0.0)
    {
        return Err(LogisticError::Features);
    }
    let counts = |class: bool| {
        labels.iter().zip(weights).any(|(label, weight)| *label == class && *weight > 0.0)
    };
    if !counts(true) || !counts(false) {
        return Err(LogisticError::OneClass);
    }

    let data = Data { features, columns, labels, weights };
    // The intercept is the last parameter.
    let mut point = vec![0.0; columns + 1];
    let mut loss = data.loss(&point);
    for _ in 0..STEPS {
        let (gradient, curvature) = data.derivatives(&point);
        if gradient.iter().all(|slope| slope.abs() < GRADIENT) {
            break;
        }
        let Some(step) =
            Cholesky::new(columns + 1, curvature).map(|curvature| curvature.solve(&gradient))
        else {
            break;
        };
        let descent = dot(&gradient, &step);
        let mut share = 1.0;
        let next = loop {
            let next: Vec<f64> =
                point.iter().zip(&step).map(|(at, step)| at - share * step).collect();
            let reached = data.loss(&next);
            // Armijo's condition. Near the minimum, rounding hides further descent.
            if reached <= loss - 1e-4 * share * descent {
                loss = reached;
                break Some(next);
            }
            share /= 2.0;
            if share < 1e-6 {
                break None;
            }
        };
        let Some(next) = next else {
            // The loss cannot resolve further progress; the full step may still improve the
            // gradient.
            let last: Vec<f64> = point.iter().zip(&step).map(|(at, step)| at - step).collect();
            if steepest(&data.derivatives(&last).0) < steepest(&gradient) {
                point = last;
            }
            break;
        };
        point = next;
    }
    let intercept = point.pop().unwrap_or_default();
    Ok(Logistic { weights: point, intercept })
}

fn steepest(gradient: &[f64]) -> f64 {
    gradient.iter().fold(0.0, |steepest, slope| slope.abs().max(steepest))
}

struct Data<'a> {
    features: &'a [f64],
    columns: usize,
    labels: &'a [bool],
    weights: &'a [f64],
}

impl<'a> Data<'a> {
    fn rows(&self) -> impl Iterator<Item = (&'a [f64], f64, f64)> {
        let (features, columns) = (self.features, self.columns);
        self.labels.iter().zip(self.weights).enumerate().map(move |(row, (label, weight))| {
            let sign = if *label { 1.0 } else { -1.0 };
            (&features[row * columns..(row + 1) * columns], sign, *weight)
        })
    }

    fn loss(&self, point: &[f64]) -> f64 {
        let (weights, intercept) = (&point[..self.columns], point[self.columns]);
        let losses: f64 = self
            .rows()
            .map(|(row, sign, weight)| {
                let margin = sign * (dot(weights, row) + intercept);
                // log(1 + exp(−margin)) without overflow.
                weight * ((-margin.abs()).exp().ln_1p() + (-margin).max(0.0))
            })
            .sum();
        0.5 * dot(weights, weights) + losses
    }

    /// Returns the gradient, and the lower triangle of the Hessian.
    fn derivatives(&self, point: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (columns, size) = (self.columns, self.columns + 1);
        let (weights, intercept) = (&point[..columns], point[columns]);
        let mut gradient = weights.to_vec();
        gradient.push(0.0);
        let mut curvature = vec![0.0; size * size];
        for column in 0..columns {
            curvature[column * size + column] = 1.0;
        }
        for (row, sign, weight) in self.rows() {
            let margin = sign * (dot(weights, row) + intercept);
            // The probability of the other class.
            let wrong = if margin > 0.0 {
                (-margin).exp() / (1.0 + (-margin).exp())
            } else {
                1.0 / (1.0 + margin.exp())
            };
            let slope = -weight * sign * wrong;
            let bend = weight * wrong * (1.0 - wrong);
            for (slot, feature) in gradient.iter_mut().zip(row) {
                *slot += slope * feature;
            }
            gradient[columns] += slope;
            if bend > 0.0 {
                for (i, feature) in row.iter().enumerate() {
                    let scaled = bend * feature;
                    for (slot, other) in curvature[i * size..=i * size + i].iter_mut().zip(row) {
                        *slot += scaled * other;
                    }
                }
                for (slot, feature) in curvature[columns * size..].iter_mut().zip(row) {
                    *slot += bend * feature;
                }
                curvature[size * size - 1] += bend;
            }
        }
        (gradient, curvature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_class_cannot_be_fitted() {
        assert_eq!(
            fit_logistic(&[1.0, 2.0], 1, &[true, true], &[1.0, 1.0]),
            Err(LogisticError::OneClass)
        );
        assert_eq!(
            fit_logistic(&[1.0, 2.0], 1, &[true, false], &[1.0, 0.0]),
            Err(LogisticError::OneClass)
        );
        assert_eq!(fit_logistic(&[], 3, &[], &[]), Err(LogisticError::OneClass));
    }

    #[test]
    fn invalid_features_are_refused() {
        for (features, weights) in [
            (vec![1.0], vec![1.0, 1.0]),
            (vec![1.0, 2.0], vec![1.0]),
            (vec![1.0, f64::NAN], vec![1.0, 1.0]),
            (vec![1.0, 2.0], vec![1.0, -1.0]),
        ] {
            assert_eq!(
                fit_logistic(&features, 1, &[true, false], &weights),
                Err(LogisticError::Features)
            );
        }
    }

    #[test]
    fn a_weight_counts_as_that_many_repetitions() {
        let once =
            fit_logistic(&[0.5, -1.0, 2.0], 1, &[true, false, false], &[3.0, 1.0, 2.0]).unwrap();
        let repeated = fit_logistic(
            &[0.5, 0.5, 0.5, -1.0, 2.0, 2.0],
            1,
            &[true, true, true, false, false, false],
            &[1.0; 6],
        )
        .unwrap();
        assert!((once.weights[0] - repeated.weights[0]).abs() < 1e-9);
        assert!((once.intercept - repeated.intercept).abs() < 1e-9);
    }
}
