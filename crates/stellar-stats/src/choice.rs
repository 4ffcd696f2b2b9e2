//! Strengths of methods from choices of one out of several.

use std::collections::{BTreeMap, BTreeSet};

use super::linear::{Cholesky, dot};

/// Choices of one method out of a set. A tie of two is half a choice of each.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The methods that were shown: at least two, all different.
    pub set: Vec<usize>,
    /// The method that was chosen, one of the set.
    pub chosen: usize,
    /// Number of times; not negative.
    pub times: f64,
    /// Cluster to which the choice belongs, such as its prompt.
    pub cluster: usize,
}

/// The fitted strengths.
#[derive(Clone, Debug, PartialEq)]
pub struct ChoiceModel {
    /// Logarithm of each method's strength; they sum to 0. Out of a set, a method is chosen with
    /// probability exp(strength) / Σ exp(strength).
    pub strengths: Vec<f64>,
    /// Standard errors from the curvature of the likelihood: right if all choices are independent.
    pub errors: Vec<f64>,
    /// Covariances of the strengths in row-major order, which allow for choices of one cluster
    /// that are alike. Empty for fewer than two clusters.
    pub covariance: Vec<f64>,
    /// Covariances from the curvature of the likelihood, with its penalty.
    pub curvature: Vec<f64>,
    /// Whether wins were added to the likelihood.
    pub penalised: bool,
    /// Number of clusters with a choice.
    pub clusters: usize,
}

impl ChoiceModel {
    /// Returns the standard error of a strength over clusters; `None` for fewer than two clusters.
    ///
    /// In a penalised fit, it is the larger one of those from the clusters and from the curvature:
    /// the choices of a method that never lost are all alike, so their spread over clusters says
    /// nothing about how rarely it would lose.
    #[must_use]
    pub fn error(&self, at: usize) -> Option<f64> {
        self.deviation(|covariance| covariance.get(at * self.strengths.len() + at).copied())
    }

    /// Returns the difference of two strengths, and its standard error, as for
    /// [`error`](Self::error).
    #[must_use]
    pub fn difference(&self, a: usize, b: usize) -> (f64, Option<f64>) {
        let n = self.strengths.len();
        let error = self.deviation(|covariance| {
            let of = |a: usize, b: usize| covariance.get(a * n + b).copied();
            Some(of(a, a)? + of(b, b)? - 2.0 * of(a, b)?)
        });
        (self.strengths[a] - self.strengths[b], error)
    }

    fn deviation(&self, variance: impl Fn(&[f64]) -> Option<f64>) -> Option<f64> {
        let mut found = variance(&self.covariance)?;
        if self.penalised {
            found = found.max(variance(&self.curvature)?);
        }
        Some(found.max(0.0).sqrt())
    }
}

/// Errors of fitting choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// Some methods were never chosen over the others, or never shown with them, so that the
    /// likelihood has no maximum.
    #[error(
        "the methods have no common scale: some were never chosen over the others, or were never \
            shown with them; add answers"
    )]
    NotConnected,
    /// A set has an index out of range, fewer than two methods or one twice, the choice is not in
    /// it, or the count is negative or not finite.
    #[error("choice {0} is invalid: it must be one of a set of different methods")]
    Choice(usize),
}

/// Fits strengths of `methods` methods to choices by maximum likelihood.
///
/// This is the first stage of the Plackett-Luce model, the choice axiom of R. D. Luce, *Individual
/// Choice Behavior*, 1959; for sets of two it is the Bradley-Terry model. The maximum exists and is
/// unique if every method can be reached from every other along choices (D. R. Hunter, *MM
/// Algorithms for Generalized Bradley-Terry Models*, Annals of Statistics 32(1), 2004). It is found
/// by Newton's method, since the log-likelihood is concave.
///
/// `prior` wins on each side of every two methods that were shown together are added to the
/// likelihood: 0 for the maximum itself, one half for a penalised fit that always exists.
///
/// The covariances are the sandwich estimate over clusters with the factor G / (G − 1): the inverse
/// information, the sums of squares of the clusters' scores, and the inverse information again
/// (K.-Y. Liang and S. L. Zeger, *Longitudinal Data Analysis Using Generalized Linear Models*,
/// Biometrika 73(1), 1986).
pub fn choice_model(
    methods: usize,
    choices: &[Choice],
    prior: f64,
) -> Result<ChoiceModel, ChoiceError> {
    // Choices of one set are alike, whatever their cluster.
    let mut counts: BTreeMap<(&[usize], usize), f64> = BTreeMap::new();
    let mut together: BTreeSet<(usize, usize)> = BTreeSet::new();
    let mut won = vec![false; methods * methods];
    for (position, of) in choices.iter().enumerate() {
        let distinct: BTreeSet<usize> = of.set.iter().copied().collect();
        let is_valid = distinct.len() == of.set.len()
            && of.set.len() > 1
            && distinct.last().is_some_and(|last| *last < methods)
            && distinct.contains(&of.chosen)
            && of.times.is_finite()
            && of.times >= 0.0;
        if !is_valid {
            return Err(ChoiceError::Choice(position));
        }
        *counts.entry((&of.set, of.chosen)).or_default() += of.times;
        for &other in of.set.iter().filter(|other| **other != of.chosen) {
            won[of.chosen * methods + other] |= of.times > 0.0;
            if prior > 0.0 {
                together.extend(of.set.iter().filter(|a| **a < other).map(|a| (*a, other)));
                together.insert((of.chosen.min(other), of.chosen.max(other)));
            }
        }
    }
    let pairs: Vec<[usize; 2]> = together.iter().map(|(a, b)| [*a, *b]).collect();
    for &[a, b] in &pairs {
        (won[a * methods + b], won[b * methods + a]) = (true, true);
    }
    if !reaches_all(methods, |a, b| won[a * methods + b])
        || !reaches_all(methods, |a, b| won[b * methods + a])
    {
        return Err(ChoiceError::NotConnected);
    }
    let mut weighted: Vec<(&[usize], usize, f64)> =
        counts.iter().map(|((set, chosen), times)| (*set, *chosen, *times)).collect();
    weighted.extend(pairs.iter().flat_map(|set| set.map(|chosen| (&set[..], chosen, prior))));

    let mut strengths = vec![0.0; methods];
    let mut likelihood = log_likelihood(&weighted, &strengths);
    for _ in 0..100 {
        let (gradient, information) = derivatives(methods, &weighted, &strengths);
        let step = information.solve(&gradient);
        let mut share = 1.0;
        loop {
            let next: Vec<f64> =
                strengths.iter().zip(&step).map(|(at, step)| at + share * step).collect();
            let reached = log_likelihood(&weighted, &next);
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
    let information = derivatives(methods, &weighted, &strengths).1;
    // How each strength changes with the gradient, without the direction in which all shift.
    let influence: Vec<Vec<f64>> = (0..methods)
        .map(|method| {
            let mut unit = vec![-1.0 / methods as f64; methods];
            unit[method] += 1.0;
            information.solve(&unit)
        })
        .collect();
    let errors = (0..methods).map(|method| influence[method][method].max(0.0).sqrt()).collect();
    let scores = scores(methods, choices, &strengths);
    let covariance = if scores.len() < 2 { Vec::new() } else { sandwich(&influence, &scores) };
    let curvature = influence.concat();
    let penalised = prior > 0.0;
    let clusters = scores.len();
    Ok(ChoiceModel { strengths, errors, covariance, curvature, penalised, clusters })
}

/// Returns whether all methods can be reached from the first.
fn reaches_all(methods: usize, leads: impl Fn(usize, usize) -> bool) -> bool {
    let mut reached = vec![false; methods];
    let mut stack: Vec<usize> = (0..methods.min(1)).collect();
    while let Some(method) = stack.pop() {
        if !std::mem::replace(&mut reached[method], true) {
            stack.extend((0..methods).filter(|&next| leads(method, next)));
        }
    }
    reached.iter().all(|&reached| reached)
}

/// Returns the gradient of each cluster's own likelihood.
fn scores(methods: usize, choices: &[Choice], strengths: &[f64]) -> Vec<Vec<f64>> {
    let mut scores: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for of in choices {
        let score = scores.entry(of.cluster).or_insert_with(|| vec![0.0; methods]);
        for (method, p) in of.set.iter().zip(probabilities(&of.set, strengths)) {
            score[*method] -= of.times * p;
        }
        score[of.chosen] += of.times;
    }
    scores.into_values().collect()
}

fn sandwich(influence: &[Vec<f64>], scores: &[Vec<f64>]) -> Vec<f64> {
    let (methods, clusters) = (influence.len(), scores.len() as f64);
    let mut covariance = vec![0.0; methods * methods];
    for score in scores {
        let moved: Vec<f64> = influence.iter().map(|of| dot(of, score)).collect();
        for (a, of_a) in moved.iter().enumerate() {
            for (b, of_b) in moved.iter().enumerate() {
                covariance[a * methods + b] += of_a * of_b;
            }
        }
    }
    for entry in &mut covariance {
        *entry *= clusters / (clusters - 1.0);
    }
    covariance
}

/// Returns the probability of each method of a set.
fn probabilities(set: &[usize], strengths: &[f64]) -> Vec<f64> {
    let most = set.iter().map(|method| strengths[*method]).fold(f64::NEG_INFINITY, f64::max);
    let mut parts: Vec<f64> = set.iter().map(|method| (strengths[*method] - most).exp()).collect();
    let sum: f64 = parts.iter().sum();
    for part in &mut parts {
        *part /= sum;
    }
    parts
}

fn log_likelihood(weighted: &[(&[usize], usize, f64)], strengths: &[f64]) -> f64 {
    let of = |(set, chosen, times): &(&[usize], usize, f64)| {
        let most = set.iter().map(|method| strengths[*method]).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = set.iter().map(|method| (strengths[*method] - most).exp()).sum();
        times * (strengths[*chosen] - most - sum.ln())
    };
    weighted.iter().map(of).sum()
}

/// Returns the gradient of the log-likelihood, and its information matrix with 1/n added to every
/// entry: a shift of all strengths changes no probability, so it is singular in that direction.
fn derivatives(
    methods: usize,
    weighted: &[(&[usize], usize, f64)],
    strengths: &[f64],
) -> (Vec<f64>, Cholesky) {
    let mut gradient = vec![0.0; methods];
    let mut information = vec![1.0 / methods.max(1) as f64; methods * methods];
    for &(set, chosen, times) in weighted {
        let p = probabilities(set, strengths);
        gradient[chosen] += times;
        for (&a, of_a) in set.iter().zip(&p) {
            gradient[a] -= times * of_a;
            information[a * methods + a] += times * of_a;
            for (&b, of_b) in set.iter().zip(&p) {
                information[a * methods + b] -= times * of_a * of_b;
            }
        }
    }
    let information =
        Cholesky::new(methods, information).expect("a connected graph's information is definite");
    (gradient, information)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rng, student_quantile};

    fn choice(set: &[usize], chosen: usize, times: f64, cluster: usize) -> Choice {
        Choice { set: set.to_vec(), chosen, times, cluster }
    }

    #[test]
    fn choices_of_one_set_have_the_logarithms_of_their_shares() {
        let set = [0, 1, 2, 3];
        let choices: Vec<_> = [40.0, 30.0, 20.0, 10.0]
            .into_iter()
            .enumerate()
            .map(|(chosen, times)| choice(&set, chosen, times, chosen))
            .collect();
        let fit = choice_model(4, &choices, 0.0).unwrap();
        assert!((fit.strengths[0] - fit.strengths[3] - 4f64.ln()).abs() < 1e-12);
        assert!((fit.strengths[1] - fit.strengths[2] - 1.5f64.ln()).abs() < 1e-12);
        assert!(fit.strengths.iter().sum::<f64>().abs() < 1e-12 && fit.clusters == 4);
    }

    #[test]
    fn two_methods_differ_by_the_log_of_their_odds() {
        let choices = [choice(&[0, 1], 0, 30.0, 0), choice(&[0, 1], 1, 10.0, 0)];
        let fit = choice_model(2, &choices, 0.0).unwrap();
        assert!((fit.strengths[0] - fit.strengths[1] - 3f64.ln()).abs() < 1e-12);
        // The difference has the variance 1/(n p (1 − p)) = 1/7.5; each strength is half of it.
        assert!((fit.errors[0] - 0.5 * (1.0 / 7.5f64).sqrt()).abs() < 1e-12);
        assert!(fit.covariance.is_empty() && fit.difference(0, 1).1.is_none());
    }

    #[test]
    fn methods_without_a_common_scale_are_refused() {
        let beat = |winner: usize, loser: usize, times| choice(&[winner, loser], winner, times, 0);
        for choices in [
            vec![],
            vec![beat(0, 1, 3.0)],
            vec![beat(0, 1, 3.0), beat(1, 0, 1.0)],
            vec![beat(0, 1, 3.0), beat(1, 0, 1.0), beat(2, 0, 5.0)],
            vec![beat(0, 1, 3.0), beat(1, 0, 1.0), beat(2, 0, 5.0), beat(0, 2, 0.0)],
        ] {
            assert_eq!(choice_model(3, &choices, 0.0), Err(ChoiceError::NotConnected));
        }
    }

    #[test]
    fn a_method_that_never_lost_needs_the_penalty() {
        let choices = [choice(&[0, 1, 2], 0, 9.0, 0), choice(&[1, 2], 2, 1.0, 1)];
        assert_eq!(choice_model(3, &choices, 0.0), Err(ChoiceError::NotConnected));
        let fit = choice_model(3, &choices, 0.5).unwrap();
        assert!(fit.strengths[0] > fit.strengths[2] && fit.strengths[2] > fit.strengths[1]);
        assert!(fit.strengths.iter().all(|strength| strength.abs() < 5.0), "{fit:?}");
        assert_eq!(choice_model(4, &choices, 0.5), Err(ChoiceError::NotConnected));
    }

    #[test]
    fn intervals_contain_known_strengths_95_times_in_a_hundred() {
        let (set, truth) = ([0, 1, 2, 3], [0.6, 0.2, -0.2, -0.6]);
        let (mut within, rounds) = (0, 500);
        for round in 0..rounds {
            let mut rng = Rng::new(round);
            let mut choices = Vec::new();
            for cluster in 0..60 {
                for _ in 0..5 {
                    let mut left = rng.unit() * truth.map(f64::exp).iter().sum::<f64>();
                    let chosen = truth.iter().position(|of| {
                        left -= of.exp();
                        left < 0.0
                    });
                    choices.push(choice(&set, chosen.unwrap_or(3), 1.0, cluster));
                }
            }
            let fit = choice_model(4, &choices, 0.0).unwrap();
            let reach = student_quantile(0.975, fit.clusters - 1);
            within += (0..4)
                .filter(|at| {
                    let error = fit.covariance[at * 4 + at].sqrt();
                    (fit.strengths[*at] - truth[*at]).abs() <= reach * error
                })
                .count();
        }
        let share = within as f64 / (4 * rounds) as f64;
        assert!((0.93..0.97).contains(&share), "{share}");
    }

    #[test]
    fn invalid_choices_are_refused() {
        for bad in [
            choice(&[0], 0, 1.0, 0),
            choice(&[0, 0], 0, 1.0, 0),
            choice(&[0, 3], 0, 1.0, 0),
            choice(&[0, 1], 2, 1.0, 0),
            choice(&[0, 1], 0, -1.0, 0),
            choice(&[0, 1], 0, f64::NAN, 0),
        ] {
            assert_eq!(choice_model(3, &[bad], 0.5), Err(ChoiceError::Choice(0)));
        }
        assert_eq!(choice_model(1, &[], 0.0).unwrap().strengths, [0.0]);
        assert!(choice_model(0, &[], 0.0).unwrap().strengths.is_empty());
    }
}
