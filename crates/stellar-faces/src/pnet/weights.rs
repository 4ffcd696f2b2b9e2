//! The weights of P-Net, read from the graph of a pack.

use crate::graph::{Tensors, Unsuited, near};

/// Number of channels after each of the three convolutions.
pub(super) const WIDTHS: [usize; 3] = [10, 16, 32];

/// Number of heads: corrections of the four sides, then the logit.
pub(super) const HEADS: usize = 5;

/// Index of the head that is the logit of the probability.
pub(super) const LOGIT: usize = 4;

/// Operators of the exporter's graph of P-Net, in order.
pub(super) const OPERATORS: [&str; 22] = [
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
pub(super) struct Weights {
    /// `[10, 3, 3, 3]`, for levels centred on zero.
    pub(super) first: Vec<f32>,
    pub(super) first_bias: Vec<f32>,
    pub(super) first_slope: Vec<f32>,
    /// `[16, 10, 3, 3]`.
    pub(super) second: Vec<f32>,
    pub(super) second_bias: Vec<f32>,
    pub(super) second_slope: Vec<f32>,
    /// `[32, 16, 3, 3]`.
    pub(super) third: Vec<f32>,
    pub(super) third_bias: Vec<f32>,
    /// `[5, 32]`, for the third convolution.
    pub(super) linear: Vec<f32>,
    /// `[5, 32]`, for its positive part.
    pub(super) positive: Vec<f32>,
    pub(super) head_bias: Vec<f32>,
}

impl Weights {
    pub(super) fn read(graph: &impl Tensors) -> Result<Self, Unsuited> {
        let odd = |what: &str| Unsuited::Graph(what.to_owned());
        if graph.operators() != OPERATORS {
            return Err(odd("the list of operators"));
        }
        let take = |name: &str, shape: &[usize]| graph.take(name, shape);
        let [a, b, c] = WIDTHS;
        let conv = graph
            .tensor("first.conv.bias")
            .map_or(0, |(shape, _)| shape.first().copied().unwrap_or(0));
        let first = take("first.conv.weight", &[conv, 3, 3, 3])?;
        let first_bias = take("first.conv.bias", &[conv])?;
        let keep = take("first.keep", &[a, conv, 1, 1])?;
        let rise = take("first.rise", &[a, conv, 1, 1])?;
        let share = take("first.share", &[a, a, 1, 1])?;
        if conv < a {
            return Err(odd("first.conv"));
        }
        let pooled = Pooled {
            conv,
            first: &first,
            bias: &first_bias,
            keep: &keep,
            rise: &rise,
            share: &share,
        };
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
pub(super) struct Pooled<'a> {
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
            (&[], &[(up, one)]) if up == channel && near(one, 1.0) => {
                near(share, 1.0).then_some(0.0)
            }
            // The larger of two maxima. The second one is that of the channel times its negative
            // slope.
            (&[(at, one)], &[(up, plus), (down, minus)])
                if at == down
                    && up == channel
                    && near(one, 1.0)
                    && near(plus, 1.0)
                    && near(minus, -1.0) =>
            {
                let taps = |of: usize| {
                    self.first[27 * of..][..27].iter().chain(std::iter::once(&self.bias[of]))
                };
                let product = |a, b| {
                    taps(a).zip(taps(b)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
                };
                let slope = (product(channel, down) / product(channel, channel)) as f32;
                let largest = taps(channel).fold(0.0_f32, |most, tap| most.max(tap.abs()));
                let same = taps(channel)
                    .zip(taps(down))
                    .all(|(a, b)| (slope * a - b).abs() <= 1e-5 * largest);
                (near(share, 1.0) && same).then_some(slope)
            }
            _ => None,
        }
    }
}
