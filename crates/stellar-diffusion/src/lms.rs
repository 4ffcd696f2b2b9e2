//! Weights of the linear multistep method (LMS) over noise levels.
//!
//! The change of the latents over a step is the integral of the predicted noise over the noise
//! level. The method integrates the polynomial through the latest predictions (K. Crowson's
//! k-diffusion, `linear_multistep_coeff`).

/// Predictions that a step uses at most.
pub(crate) const ORDER: usize = 4;

/// Returns the weights of the latest predictions in a step, newest first: the integrals of their
/// Lagrange polynomials from `sigmas[step]` to `sigmas[step + 1]`.
///
/// The first steps have fewer predictions and a lower order.
pub(crate) fn weights(sigmas: &[f32], step: usize) -> Vec<f32> {
    let order = ORDER.min(step + 1);
    let known: Vec<f64> = (0..order).map(|back| f64::from(sigmas[step - back])).collect();
    let (from, to) = (known[0], f64::from(sigmas[step + 1]));
    (0..order).map(|newest| integral(&known, newest, from, to) as f32).collect()
}

/// Integrates the polynomial that is 1 at `known[one]` and 0 at the others.
///
/// Gauss-Legendre's rule with two nodes is exact up to degree 3, that of four known points.
fn integral(known: &[f64], one: usize, from: f64, to: f64) -> f64 {
    let (middle, half) = (f64::midpoint(from, to), (to - from) / 2.0);
    let node = half / 3.0_f64.sqrt();
    let polynomial = |at: f64| -> f64 {
        let others = known.iter().enumerate().filter(|&(other, _)| other != one);
        others.map(|(_, other)| (at - other) / (known[one] - other)).product()
    };
    half * (polynomial(middle - node) + polynomial(middle + node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_is_eulers() {
        assert_eq!(weights(&[8.0, 4.0, 2.0, 0.0], 0), [-4.0]);
    }

    #[test]
    fn weights_sum_to_the_change_of_the_noise_level() {
        let sigmas = [14.0, 9.0, 5.0, 2.5, 1.0, 0.0];
        for step in 0..5 {
            let weights = weights(&sigmas, step);
            assert_eq!(weights.len(), ORDER.min(step + 1));
            let sum: f32 = weights.iter().sum();
            assert!((sum - (sigmas[step + 1] - sigmas[step])).abs() < 1e-5, "{step}: {sum}");
        }
    }

    #[test]
    fn cubic_predictions_are_integrated_exactly() {
        let sigmas = [14.0_f32, 9.0, 5.0, 2.5, 1.0];
        let (newest, next) = (f64::from(sigmas[3]), f64::from(sigmas[4]));
        for degree in 0..4 {
            let value: f64 = weights(&sigmas, 3)
                .iter()
                .enumerate()
                .map(|(back, &weight)| f64::from(weight) * f64::from(sigmas[3 - back]).powi(degree))
                .sum();
            let power = degree + 1;
            let exact = (next.powi(power) - newest.powi(power)) / f64::from(power);
            assert!((value - exact).abs() < 1e-4, "{degree}: {value} and {exact}");
        }
    }
}
