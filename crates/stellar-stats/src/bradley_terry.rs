//! Bradley–Terry strengths of methods from pairwise comparisons.

use super::linear::Cholesky;

/// Number of times that one method was preferred to another. A tie is half a win for each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// The method preferred.
    pub winner: usize,
    /// The other one.
    pub loser: usize,
    /// Number of wins; not negative.
    pub times: f64,
}

/// The fitted strengths.
#[derive(Clone, Debug, PartialEq)]
pub struct BradleyTerry {
    /// Logarithm of each method's strength; they sum to 0. Method a is preferred to b with
    /// probability 1 / (1 + exp(b − a)).
    pub strengths: Vec<f64>,
    /// Standard errors of the strengths, from the curvature of the likelihood at its maximum. An
    /// interval of ±1.96 standard errors is for a method relative to the mean of all.
    pub errors: Vec<f64>,
}

/// Errors of fitting strengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BradleyTerryError {
    /// Some methods never lost to the others (or were never compared with them), so that the
    /// likelihood has no maximum.
    #[error(
        "the methods have no common scale: some never lost to the others, or were never compared \
            with them; add comparisons"
    )]
    NotConnected,
    /// An index is out of range, a method is compared with itself, or the count is negative or not
    /// finite.
    #[error(
        "comparison {0} is invalid: it must have two different methods and a count of at least 0"
    )]
    Comparison(usize),
}

/// Fits strengths of `methods` methods by maximum likelihood (R. A. Bradley and M. E. Terry,
/// Biometrika 39, 1952).
///
/// The maximum exists and is unique if and only if every method can be reached from every other
/// along wins (L. R. Ford, American Mathematical Monthly 64(8), 1957). This is checked first. The
/// log-likelihood is concave and is maximised by Newton's method.
pub fn bradley_terry(
    methods: usize,
    comparisons: &[Comparison],
) -> Result<BradleyTerry, BradleyTerryError> {
    // Wins of the row over the column.
    let mut wins = vec![0.0; methods * methods];
    for (position, &Comparison { winner, loser, times }) in comparisons.iter().enumerate() {
        if winner >= methods
            || loser >= methods
            || winner == loser
            || !times.is_finite()
            || times < 0.0
        {
            return Err(BradleyTerryError::Comparison(position));
        }
        wins[winner * methods + loser] += times;
    }
    if !reaches_all(methods, |a, b| wins[a * methods + b] > 0.0)
        || !reaches_all(methods, |a, b| wins[b * methods + a] > 0.0)
    {
        return Err(BradleyTerryError::NotConnected);
    }

    let mut strengths = vec![0.0; methods];
    let mut likelihood = log_likelihood(methods, &wins, &strengths);
    for _ in 0..100 {
        let (gradient, information) = derivatives(methods, &wins, &strengths);
        let step = information.solve(&gradient);
        let mut share = 1.0;
        loop {
            let next: Vec<f64> =
                strengths.iter().zip(&step).map(|(at, step)| at + share * step).collect();
            let reached = log_likelihood(methods, &wins, &next);
            if reached >= likelihood || share < 1e-6 {
                (strengths, likelihood) = (next, reached);
                break;
            }
            share /= 2.0;
        }
        if step.iter().all(|step| step.abs() < 1e-12) {
            break;
        }
    }
    let mean = strengths.iter().sum::<f64>() / methods.max(1) as f64;
    for strength in &mut strengths {
        *strength -= mean;
    }
    let errors = errors(methods, &derivatives(methods, &wins, &strengths).1);
    Ok(BradleyTerry { strengths, errors })
}

/// Returns whether all methods can be reached from the first.
pub(super) fn reaches_all(methods: usize, leads: impl Fn(usize, usize) -> bool) -> bool {
    let mut reached = vec![false; methods];
    let mut stack: Vec<usize> = (0..methods.min(1)).collect();
    while let Some(method) = stack.pop() {
        if !std::mem::replace(&mut reached[method], true) {
            stack.extend((0..methods).filter(|&next| leads(method, next)));
        }
    }
    reached.iter().all(|&reached| reached)
}

fn log_likelihood(methods: usize, wins: &[f64], strengths: &[f64]) -> f64 {
    let mut sum = 0.0;
    for (a, of_a) in strengths.iter().enumerate() {
        for (b, of_b) in strengths.iter().enumerate() {
            let (behind, times) = (of_b - of_a, wins[a * methods + b]);
            sum -= times * ((-behind.abs()).exp().ln_1p() + behind.max(0.0));
        }
    }
    sum
}

/// Returns the gradient of the log-likelihood, and its information matrix with 1/n added to every
/// entry. Shifting all strengths together changes no probability, so the information is singular in
/// that direction; the addition makes it regular without affecting the other directions.
fn derivatives(methods: usize, wins: &[f64], strengths: &[f64]) -> (Vec<f64>, Cholesky) {
    let mut gradient = vec![0.0; methods];
    let mut information = vec![1.0 / methods.max(1) as f64; methods * methods];
    for a in 0..methods {
        for b in 0..methods {
            let p = 1.0 / (1.0 + (strengths[b] - strengths[a]).exp());
            let (won, lost) = (wins[a * methods + b], wins[b * methods + a]);
            gradient[a] += won * (1.0 - p) - lost * p;
            let weight = (won + lost) * p * (1.0 - p);
            information[a * methods + a] += weight;
            information[a * methods + b] -= weight;
        }
    }
    let information =
        Cholesky::new(methods, information).expect("a connected graph's information is definite");
    (gradient, information)
}

/// Returns the square roots of the diagonal of the inverse information, without the regularised
/// direction.
fn errors(methods: usize, information: &Cholesky) -> Vec<f64> {
    (0..methods)
        .map(|method| {
            let mut unit = vec![-1.0 / methods as f64; methods];
            unit[method] += 1.0;
            information.solve(&unit)[method].max(0.0).sqrt()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(winner: usize, loser: usize, times: f64) -> Comparison {
        Comparison { winner, loser, times }
    }

    #[test]
    fn methods_without_a_common_scale_are_refused() {
        for comparisons in [
            vec![],
            vec![beat(0, 1, 3.0)],
            vec![beat(0, 1, 3.0), beat(1, 0, 1.0)],
            vec![beat(0, 1, 3.0), beat(1, 0, 1.0), beat(2, 0, 5.0)],
            vec![beat(0, 1, 3.0), beat(1, 0, 1.0), beat(2, 0, 5.0), beat(0, 2, 0.0)],
        ] {
            assert_eq!(bradley_terry(3, &comparisons), Err(BradleyTerryError::NotConnected));
        }
    }

    #[test]
    fn invalid_comparisons_are_refused() {
        for bad in [beat(0, 0, 1.0), beat(0, 2, 1.0), beat(0, 1, -1.0), beat(0, 1, f64::NAN)] {
            let comparisons = [beat(0, 1, 1.0), bad];
            assert_eq!(bradley_terry(2, &comparisons), Err(BradleyTerryError::Comparison(1)));
        }
    }

    #[test]
    fn two_methods_differ_by_the_log_of_their_odds() {
        let fit = bradley_terry(2, &[beat(0, 1, 30.0), beat(1, 0, 10.0)]).unwrap();
        assert!((fit.strengths[0] - fit.strengths[1] - 3f64.ln()).abs() < 1e-12);
        // The difference has the variance 1/(n p (1 − p)) = 1/7.5; each strength is half of it.
        assert!((fit.errors[0] - 0.5 * (1.0 / 7.5f64).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn zero_or_one_methods_need_no_comparisons() {
        assert!(bradley_terry(0, &[]).unwrap().strengths.is_empty());
        assert_eq!(bradley_terry(1, &[]).unwrap().strengths, [0.0]);
    }
}
