//! Weights in the order in which the AVX2 kernel reads them.

use super::weights::{LOGIT, WIDTHS, Weights};
use super::winograd::{self, POINTS};
use crate::registers::Eight;

/// Groups of eight channels in the bound of the third convolution.
pub(super) const BOUND: usize = 3;

/// Splits values into groups of eight.
pub(super) fn eights<const N: usize>(values: &[f32]) -> [Eight; N] {
    std::array::from_fn(|at| std::array::from_fn(|lane| values[8 * at + lane]))
}

/// Transforms kernels of `into` input channels for Winograd's algorithm: indexed by point and input
/// channel.
pub(super) fn spread<const H: usize>(kernels: &[f64], into: usize) -> Vec<[Eight; H]> {
    let mut all = vec![[[0.0; 8]; H]; POINTS * into];
    for (at, kernel) in kernels.as_chunks::<9>().0.iter().enumerate() {
        let (output, input) = (at / into, at % into);
        for (point, weight) in winograd::weights(kernel).into_iter().enumerate() {
            all[point * into + input][output / 8][output % 8] = weight;
        }
    }
    all
}

/// The third convolution and its logit as an upper bound: kernels, biases, linear and positive
/// coefficients.
pub(super) struct Bound {
    pub(super) kernels: Vec<f64>,
    pub(super) bias: Vec<f32>,
    pub(super) linear: Vec<f32>,
    pub(super) positive: Vec<f32>,
}

impl Bound {
    /// Returns `None` if more channels are positive than it can hold: none of those may be dropped.
    pub(super) fn new(weights: &Weights) -> Option<Self> {
        const TAPS: usize = 9 * WIDTHS[1];
        let heads = LOGIT * WIDTHS[2]..(LOGIT + 1) * WIDTHS[2];
        let (linear, positive) = (&weights.linear[heads.clone()], &weights.positive[heads]);
        // The positive ones come first, then the most negative ones. The last slot is for all
        // others together.
        let mut order: Vec<usize> = (0..WIDTHS[2]).collect();
        order.sort_by(|&a, &b| {
            (positive[a] <= 0.0)
                .cmp(&(positive[b] <= 0.0))
                .then(positive[a].total_cmp(&positive[b]))
        });
        let (kept, rest) = order.split_at(8 * BOUND - 1);
        if rest.iter().any(|&channel| positive[channel] > 0.0) {
            return None;
        }
        let kernel = |channel: usize| {
            weights.third[TAPS * channel..][..TAPS].iter().map(|&tap| f64::from(tap))
        };
        let mut together = vec![0.0; TAPS];
        let mut bias = 0.0;
        for &channel in rest {
            let share = f64::from(linear[channel]);
            together.iter_mut().zip(kernel(channel)).for_each(|(sum, tap)| *sum += share * tap);
            bias += share * f64::from(weights.third_bias[channel]);
        }
        let of = |values: &[f32], last: f32| {
            kept.iter().map(|&channel| values[channel]).chain([last]).collect()
        };
        Some(Self {
            kernels: kept.iter().flat_map(|&channel| kernel(channel)).chain(together).collect(),
            bias: of(&weights.third_bias, bias as f32),
            linear: of(linear, 1.0),
            positive: of(positive, 0.0),
        })
    }
}
