//! A layer: weighted sums of runs of values.
//!
//! Values are ordered by row, column and channel, so one row of a kernel covers one contiguous run
//! of values, and a fully connected layer is a kernel of one row. So there is one kernel for both:
//! several positions times sixteen outputs in registers.

use super::plan::Weights;
use crate::registers::Sixteen;

/// Outputs in a block.
pub(super) const WIDE: usize = 16;

/// A layer's weights in the order of use.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) outputs: usize,
    /// Number of values that an output depends on.
    pub(super) taps: usize,
    /// Indexed by block of sixteen outputs and by tap.
    pub(super) weights: Vec<Sixteen>,
    pub(super) bias: Vec<Sixteen>,
    pub(super) slope: Vec<Sixteen>,
}

/// Layout of the input of a layer's positions.
#[derive(Clone, Copy)]
pub(super) struct Reach {
    /// Length of a run of values that a position covers.
    pub(super) run: usize,
    /// Distance from one run to the next.
    pub(super) row: usize,
    /// Distance from one position to the next.
    pub(super) place: usize,
}

fn sixteens(values: &[f32]) -> Vec<Sixteen> {
    let value = |at: usize| values.get(at).copied().unwrap_or(0.0);
    let eight = |first: usize| std::array::from_fn(|lane| value(first + lane));
    (0..values.len()).step_by(WIDE).map(|first| Sixteen([eight(first), eight(first + 8)])).collect()
}

impl Layer {
    pub(super) fn new(weights: &Weights) -> Self {
        let outputs = weights.bias.len();
        let by_tap: Vec<Vec<Sixteen>> = weights.taps.chunks_exact(outputs).map(sixteens).collect();
        let blocks = outputs.div_ceil(WIDE);
        Self {
            outputs,
            taps: by_tap.len(),
            weights: (0..blocks)
                .flat_map(|block| by_tap.iter().map(move |tap| tap[block]))
                .collect(),
            bias: sixteens(&weights.bias),
            slope: sixteens(&weights.slope),
        }
    }

    /// Returns the number of blocks of sixteen outputs.
    pub(super) fn blocks(&self) -> usize {
        self.bias.len()
    }
}
