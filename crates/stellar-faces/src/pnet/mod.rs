//! P-Net on the CPU's vector units, for whole levels of an image's pyramid.
//!
//! P-Net evaluates every second pixel of every level and finds something at one position in a
//! thousand. As a graph, it takes most of the processing time of an image, because its 3 to 32
//! channels are too few for a general convolution. This module does the same arithmetic for these
//! specific shapes, with the weights of the pack's graph:
//!
//! - The rows of a level are computed when they are needed and used from the cache ([`rows`]).
//! - The second and third convolutions use Winograd's F(4×4, 3×3), a quarter of the
//!   multiplications.
//! - The third convolution is first computed for an upper bound of the logit. After `PReLU`, a
//!   channel contributes `l·y + p·max(y, 0)`. Where `p` is negative, dropping the second term
//!   cannot lower the result. The remaining terms of all such channels are linear and together form
//!   one channel. The second term is dropped for the nine channels with the least negative `p`.
//!   Only the few positions whose bound reaches the threshold are computed in full, as a direct
//!   convolution.
//!
//! A position is therefore judged by the same numbers as in the graph, up to rounding (about 1e-6
//! of probability), and none is lost: the bound holds except for rounding, and [`MARGIN`] is a
//! thousand times larger than that.

#[cfg(target_arch = "x86_64")]
#[expect(
    clippy::many_single_char_names,
    clippy::needless_range_loop,
    reason = "registers are letters, and arrays of them are indexed together"
)]
mod avx2;
#[cfg(target_arch = "x86_64")]
#[expect(clippy::many_single_char_names, reason = "registers are letters")]
mod rows;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
#[cfg(target_arch = "x86_64")]
#[expect(clippy::many_single_char_names, reason = "registers are letters")]
mod winograd;

use stellar_vision::Image;

use super::graph::{Tensors, Unsuited, near};

/// Number of channels after each of the three convolutions.
const WIDTHS: [usize; 3] = [10, 16, 32];
/// Number of heads: corrections of the four sides, then the logit.
const HEADS: usize = 5;
/// Index of the head that is the logit of the probability.
const LOGIT: usize = 4;
/// Added to the bound of a logit, to allow for rounding.
#[cfg(target_arch = "x86_64")]
const MARGIN: f32 = 0.01;

/// Operators of the exporter's graph of P-Net, in order.
const OPERATORS: [&str; 22] = [
    "Sub",
    "Transpose",
    "Conv",
    "MaxPool",
    "Conv",
    "Conv",
    "Relu",
    "Conv",
    "Add",
    "Conv",
    "Mul",
    "Relu",
    "Mul",
    "Add",
    "Conv",
    "Conv",
    "Relu",
    "Conv",
    "Add",
    "Gather",
    "Sigmoid",
    "Slice",
];

/// A position of a level where P-Net sees a face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spot {
    /// Column of the position. Positions are two pixels apart.
    pub x: u32,
    /// Row of the position.
    pub y: u32,
    /// Probability of a face.
    pub probability: f32,
    /// Corrections of left, top, right and bottom, in units of the box sides.
    pub correction: [f32; 4],
}

/// The weights in the graph's layout.
#[derive(Debug, Clone)]
struct Weights {
    /// `[10, 3, 3, 3]`, for levels centred on zero.
    first: Vec<f32>,
    first_bias: Vec<f32>,
    first_slope: Vec<f32>,
    /// `[16, 10, 3, 3]`.
    second: Vec<f32>,
    second_bias: Vec<f32>,
    second_slope: Vec<f32>,
    /// `[32, 16, 3, 3]`.
    third: Vec<f32>,
    third_bias: Vec<f32>,
    /// `[5, 32]`, for the third convolution.
    linear: Vec<f32>,
    /// `[5, 32]`, for its positive part.
    positive: Vec<f32>,
    head_bias: Vec<f32>,
}

impl Weights {
    fn read(graph: &impl Tensors) -> Result<Self, Unsuited> {
        let odd = |what: &str| Unsuited::Graph(what.to_owned());
        if graph.operators() != OPERATORS {
            return Err(odd("the list of operators"));
        }
        let take = |name: &str, shape: &[usize]| graph.take(name, shape);
        let [a, b, c] = WIDTHS;
        let conv =
            graph.tensor("first.conv.bias").map_or(0, |(shape, _)| shape.first().copied().unwrap_or(0));
        let first = take("first.conv.weight", &[conv, 3, 3, 3])?;
        let first_bias = take("first.conv.bias", &[conv])?;
        let keep = take("first.keep", &[a, conv, 1, 1])?;
        let rise = take("first.rise", &[a, conv, 1, 1])?;
        let share = take("first.share", &[a, a, 1, 1])?;
        if conv < a {
            return Err(odd("first.conv"));
        }
        let pooled =
            Pooled { conv, first: &first, bias: &first_bias, keep: &keep, rise: &rise, share: &share };
        let first_slope = (0..a)
            .map(|channel| pooled.slope(channel))
            .collect::<Option<_>>()
            .ok_or_else(|| odd("first.keep"))?;
        let second_slope = graph.slopes("second.slopes", &[b, 1, 1])?;
        Ok(Self {
            first: first[..27 * a].to_vec(),
            first_bias: first_bias[..a].to_vec(),
            first_slope,
            second: take("second.conv.weight", &[b, a, 3, 3])?,
            second_bias: take("second.conv.bias", &[b])?,
            second_slope,
            third: take("third.weight", &[c, b, 3, 3])?,
            third_bias: take("third.bias", &[c])?,
            linear: take("linear.weight", &[HEADS, c, 1, 1])?,
            positive: take("positive.weight", &[HEADS, c, 1, 1])?,
            head_bias: take("linear.bias", &[HEADS])?,
        })
    }
}

/// The first `PReLU`, which the exporter writes after the pooling: `keep·z + share·relu(rise·z)` of
/// the maxima `z`.
struct Pooled<'a> {
    conv: usize,
    first: &'a [f32],
    bias: &'a [f32],
    keep: &'a [f32],
    rise: &'a [f32],
    share: &'a [f32],
}

impl Pooled<'_> {
    /// Returns the slope of a channel, if the matrices are exactly a `PReLU` with this slope.
    fn slope(&self, channel: usize) -> Option<f32> {
        let row = |matrix: &[f32], columns: usize| -> Vec<(usize, f32)> {
            let row = &matrix[channel * columns..][..columns];
            row.iter().copied().enumerate().filter(|(_, value)| *value != 0.0).collect()
        };
        let (keep, rise) = (row(self.keep, self.conv), row(self.rise, self.conv));
        let share = match row(self.share, WIDTHS[0])[..] {
            [] => 0.0,
            [(at, value)] if at == channel => value,
            _ => return None,
        };
        match (&keep[..], &rise[..]) {
            // The maximum itself, with its positive part as a separate term.
            (&[(at, slope)], &[(up, one)]) if at == channel && up == channel && near(one, 1.0) => {
                near(share, 1.0 - slope).then_some(slope)
            }
            (&[], &[(up, one)]) if up == channel && near(one, 1.0) => near(share, 1.0).then_some(0.0),
            // The larger of two maxima. The second one is that of the channel times its negative
            // slope.
            (&[(at, one)], &[(up, plus), (down, minus)])
                if at == down && up == channel && near(one, 1.0) && near(plus, 1.0) && near(minus, -1.0) =>
            {
                let taps =
                    |of: usize| self.first[27 * of..][..27].iter().chain(std::iter::once(&self.bias[of]));
                let product =
                    |a, b| taps(a).zip(taps(b)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                let slope = (product(channel, down) / product(channel, channel)) as f32;
                let largest = taps(channel).fold(0.0_f32, |most, tap| most.max(tap.abs()));
                let same =
                    taps(channel).zip(taps(down)).all(|(a, b)| (slope * a - b).abs() <= 1e-5 * largest);
                (near(share, 1.0) && same).then_some(slope)
            }
            _ => None,
        }
    }
}

/// P-Net for whole levels.
#[derive(Debug)]
pub struct ProposalNet {
    #[cfg(target_arch = "x86_64")]
    kernel: avx2::Kernel,
}

impl ProposalNet {
    /// Takes the weights of P-Net's graph.
    ///
    /// # Errors
    /// If the graph differs from the exporter's, or the CPU lacks the instruction sets. The graph
    /// itself must then be run.
    pub fn new(graph: &impl Tensors) -> Result<Self, Unsuited> {
        let weights = Weights::read(graph)?;
        #[cfg(target_arch = "x86_64")]
        if super::registers::is_supported() {
            let too_many = || Unsuited::Graph("positive.weight".to_owned());
            return Ok(Self { kernel: avx2::Kernel::new(&weights).ok_or_else(too_many)? });
        }
        let _ = weights;
        Err(Unsuited::Processor)
    }

    /// Returns every position of each level whose probability is at least `threshold`, row by row.
    ///
    /// A level of some width and height is the image resized by area (see
    /// [`resize_area`](stellar_vision::resize_area)), with values that are equal up to rounding.
    ///
    /// # Panics
    /// If a level has a side below 12, where P-Net has no position, or a side that is not shorter
    /// than the image's.
    #[must_use]
    pub fn propose(&self, image: &Image, levels: &[(u32, u32)], threshold: f32) -> Vec<Vec<Spot>> {
        for &(width, height) in levels {
            assert!(width >= super::CELL && height >= super::CELL, "{width}×{height} has no position");
            assert!(
                width < image.width && height < image.height,
                "{width}×{height} does not shrink {image:?}"
            );
        }
        #[cfg(target_arch = "x86_64")]
        {
            let mut found = self.kernel.run(image, levels, threshold);
            for spots in &mut found {
                spots.sort_by_key(|spot| (spot.y, spot.x));
            }
            found
        }
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("exists on x86-64 only; called with threshold {threshold}")
    }
}
