//! The structure and the weights of R-Net and O-Net.

use crate::graph::{Tensors, Unsuited};
use crate::{OUTPUT_SIDE, REFINE_SIDE};

/// A convolution and the pooling after it: maxima over windows of `window` pixels per side, two
/// pixels apart. The last windows are cut off at the edge.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stage {
    /// Side of the kernel, in pixels.
    pub(super) kernel: usize,
    pub(super) outputs: usize,
    /// Side of the pooling window, in pixels; 0 without pooling.
    pub(super) window: usize,
}

/// Structure of a network. The exporter's graph has these operators and shapes.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) side: usize,
    pub(super) stages: &'static [Stage],
    /// Number of outputs of the fully connected layer.
    pub(super) dense: usize,
    /// Sizes of the heads: logits of no face and of a face, corrections, and landmarks if there are
    /// any.
    pub(super) heads: &'static [usize],
}

pub(super) const R_NET: Plan = Plan {
    side: REFINE_SIDE as usize,
    stages: &[
        Stage { kernel: 3, outputs: 28, window: 3 },
        Stage { kernel: 3, outputs: 48, window: 3 },
        Stage { kernel: 2, outputs: 64, window: 0 },
    ],
    dense: 128,
    heads: &[2, 4],
};

pub(super) const O_NET: Plan = Plan {
    side: OUTPUT_SIDE as usize,
    stages: &[
        Stage { kernel: 3, outputs: 32, window: 3 },
        Stage { kernel: 3, outputs: 64, window: 3 },
        Stage { kernel: 3, outputs: 64, window: 2 },
        Stage { kernel: 2, outputs: 128, window: 0 },
    ],
    dense: 256,
    heads: &[2, 4, 10],
};

impl Stage {
    /// Returns the side after the convolution and after the pooling, in pixels, for an input of
    /// this side.
    pub(super) fn sides(&self, input: usize) -> [usize; 2] {
        let side = input + 1 - self.kernel;
        [side, if self.window == 0 { side } else { (side - self.window).div_ceil(2) + 1 }]
    }
}

impl Plan {
    pub(super) fn operators(&self) -> Vec<&'static str> {
        const SLOPES: [&str; 4] = ["Mul", "Relu", "Mul", "Add"];
        let mut all = vec!["Sub", "Mul", "Transpose"];
        for stage in self.stages {
            all.push("Conv");
            all.extend(SLOPES);
            all.extend((stage.window > 0).then_some("MaxPool"));
        }
        all.extend(["Transpose", "Reshape", "MatMul", "Add"]);
        all.extend(SLOPES);
        all.extend(self.heads.iter().flat_map(|_| ["MatMul", "Add"]));
        all.extend(["Softmax", "Gather"]);
        all
    }

    /// Reads the layers from the graph.
    pub(super) fn read(&self, graph: &impl Tensors) -> Result<Vec<Weights>, Unsuited> {
        if graph.operators() != self.operators() {
            return Err(Unsuited::Graph("the list of operators".to_owned()));
        }
        let (mut side, mut inputs) = (self.side, 3);
        let mut layers = Vec::new();
        for (at, &Stage { kernel, outputs, .. }) in self.stages.iter().enumerate() {
            let name = format!("stages.{at}");
            let weight =
                graph.take(&format!("{name}.conv.weight"), &[outputs, inputs, kernel, kernel])?;
            let area = kernel * kernel;
            layers.push(Weights {
                taps: taps(area * inputs, outputs, |tap, output| {
                    weight[(output * inputs + tap % inputs) * area + tap / inputs]
                }),
                bias: graph.take(&format!("{name}.conv.bias"), &[outputs])?,
                slope: graph.slopes(&format!("{name}.slopes"), &[outputs, 1, 1])?,
            });
            (side, inputs) = (self.stages[at].sides(side)[1], outputs);
        }
        // The graph flattens column by column.
        let weight = graph.take("dense.weight", &[side * side * inputs, self.dense])?;
        layers.push(Weights {
            taps: taps(side * side * inputs, self.dense, |tap, output| {
                let (place, channel) = (tap / inputs, tap % inputs);
                let column_first = place % side * side + place / side;
                weight[(column_first * inputs + channel) * self.dense + output]
            }),
            bias: graph.take("dense.bias", &[self.dense])?,
            slope: graph.slopes("slopes", &[self.dense])?,
        });
        let (mut heads, mut bias) = (Vec::new(), Vec::new());
        for (at, &count) in self.heads.iter().enumerate() {
            heads.push((graph.take(&format!("heads.{at}.weight"), &[self.dense, count])?, count));
            bias.extend(graph.take(&format!("heads.{at}.bias"), &[count])?);
        }
        let of_tap = |tap: usize| {
            heads.iter().flat_map(move |(weight, count)| &weight[tap * count..][..*count])
        };
        let taps = (0..self.dense).flat_map(of_tap).copied().collect();
        layers.push(Weights { taps, slope: vec![1.0; bias.len()], bias });
        Ok(layers)
    }
}

/// A layer: weighted sums of its inputs, multiplied by its slope where they are negative.
#[derive(Debug, Clone)]
pub(super) struct Weights {
    /// Indexed by tap (row, column, channel of the input) and output.
    pub(super) taps: Vec<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) slope: Vec<f32>,
}

fn taps(count: usize, outputs: usize, of: impl Fn(usize, usize) -> f32) -> Vec<f32> {
    let of = &of;
    (0..count).flat_map(|tap| (0..outputs).map(move |output| of(tap, output))).collect()
}
