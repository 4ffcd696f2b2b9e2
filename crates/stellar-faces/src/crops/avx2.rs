//! The layers with AVX2 and FMA.
//!
//! Values are ordered by row, column and channel, so one row of a kernel covers one contiguous run
//! of values, and a fully connected layer is a kernel of one row. Therefore [`Layer::sums`] is the
//! only kernel: up to six positions times sixteen outputs in registers.

use std::arch::x86_64::{
    __m256, _mm256_fmadd_ps, _mm256_max_ps, _mm256_min_ps, _mm256_set1_ps, _mm256_setzero_ps,
};

use super::plan::{Plan, Stage, Weights};
use crate::registers::{Eight, is_supported, load, store};
use crate::{Levels, Verdict};

/// Outputs computed at once.
type Sixteen = [Eight; 2];
const WIDE: usize = 16;
/// Positions computed at once, and crops that share a pass over the weights of the fully connected
/// layers.
const PLACES: usize = 6;

/// A layer's weights in the order of use.
#[derive(Debug)]
struct Layer {
    outputs: usize,
    /// Number of values that an output depends on.
    taps: usize,
    /// Indexed by block of sixteen outputs and by tap.
    weights: Vec<Sixteen>,
    bias: Vec<Sixteen>,
    slope: Vec<Sixteen>,
}

/// Layout of the input of a layer's positions.
#[derive(Clone, Copy)]
struct Reach {
    /// Length of a run of values that a position covers.
    run: usize,
    /// Distance from one run to the next.
    row: usize,
    /// Distance from one position to the next.
    place: usize,
}

fn sixteens(values: &[f32]) -> Vec<Sixteen> {
    let value = |at: usize| values.get(at).copied().unwrap_or(0.0);
    let eight = |first: usize| std::array::from_fn(|lane| value(first + lane));
    (0..values.len()).step_by(WIDE).map(|first| [eight(first), eight(first + 8)]).collect()
}

impl Layer {
    fn new(weights: &Weights) -> Self {
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

    fn blocks(&self) -> usize {
        self.bias.len()
    }

    /// Computes sixteen outputs at `P` positions. The first one starts at the beginning of `input`.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn sums<const P: usize>(&self, block: usize, input: &[f32], reach: Reach) -> [[__m256; 2]; P] {
        let [low, high] = &self.bias[block];
        let mut sums = [[load(low), load(high)]; P];
        let weights = &self.weights[self.taps * block..][..self.taps];
        for (run, weights) in weights.chunks_exact(reach.run).enumerate() {
            let mut seen = [&input[..0]; P];
            for place in 0..P {
                seen[place] = &input[reach.place * place + reach.row * run..][..weights.len()];
            }
            for (at, [low, high]) in weights.iter().enumerate() {
                let (low, high) = (load(low), load(high));
                for place in 0..P {
                    let value = _mm256_set1_ps(seen[place][at]);
                    sums[place][0] = _mm256_fmadd_ps(value, low, sums[place][0]);
                    sums[place][1] = _mm256_fmadd_ps(value, high, sums[place][1]);
                }
            }
        }
        let zero = _mm256_setzero_ps();
        let [low, high] = &self.slope[block];
        for half in 0..2 {
            let slope = load(if half == 0 { low } else { high });
            for place in 0..P {
                let sum = sums[place][half];
                sums[place][half] =
                    _mm256_fmadd_ps(slope, _mm256_min_ps(sum, zero), _mm256_max_ps(sum, zero));
            }
        }
        sums
    }

    /// Computes sixteen outputs at `count` positions and stores them one after the other,
    /// [`blocks`](Self::blocks) apart.
    #[target_feature(enable = "avx2,fma")]
    fn places(
        &self,
        block: usize,
        count: usize,
        input: &[f32],
        reach: Reach,
        output: &mut [Sixteen],
    ) {
        macro_rules! places {
            ($($count:literal)*) => {
                match count {
                    $($count => {
                        let sums = self.sums::<$count>(block, input, reach);
                        for place in 0..$count {
                            let [low, high] = &mut output[self.blocks() * place + block];
                            store(low, sums[place][0]);
                            store(high, sums[place][1]);
                        }
                    })*
                    _ => unreachable!("{count} positions at once"),
                }
            };
        }
        places!(1 2 3 4 5 6);
    }

    /// Computes a convolution at `side` × `side` positions.
    #[target_feature(enable = "avx2,fma")]
    fn convolve(&self, stage: Stage, input: &[f32], side: usize, output: &mut [Sixteen]) {
        let inputs = self.taps / (stage.kernel * stage.kernel);
        let row = (side + stage.kernel - 1) * inputs;
        let reach = Reach { run: stage.kernel * inputs, row, place: inputs };
        for block in 0..self.blocks() {
            for y in 0..side {
                for x in (0..side).step_by(PLACES) {
                    let count = PLACES.min(side - x);
                    let first = self.blocks() * (side * y + x);
                    self.places(
                        block,
                        count,
                        &input[row * y + inputs * x..],
                        reach,
                        &mut output[first..],
                    );
                }
            }
        }
    }
}

/// Buffers for the layers of a crop.
struct Scratch {
    input: Vec<f32>,
    convolved: Vec<Sixteen>,
}

/// A network's weights and structure.
#[derive(Debug)]
pub(super) struct Kernel {
    plan: &'static Plan,
    layers: Vec<Layer>,
}

impl Kernel {
    pub(super) fn new(plan: &'static Plan, layers: &[Weights]) -> Self {
        Self { plan, layers: layers.iter().map(Layer::new).collect() }
    }

    pub(super) fn run(&self, crops: &[Levels]) -> Vec<Verdict> {
        assert!(is_supported(), "this kernel requires AVX2 and FMA");
        #[expect(unsafe_code, reason = "calls into code for a certain instruction set")]
        // SAFETY: the instruction sets have just been checked.
        unsafe {
            self.run_avx2(crops)
        }
    }

    #[target_feature(enable = "avx2,fma")]
    fn run_avx2(&self, crops: &[Levels]) -> Vec<Verdict> {
        let (stages, rest) = self.layers.split_at(self.plan.stages.len());
        let [dense, heads] = rest else { unreachable!("two layers follow the convolutions") };
        let mut scratch = Scratch { input: Vec::new(), convolved: Vec::new() };
        let mut flat = vec![0.0; PLACES * dense.taps];
        let mut hidden = vec![Sixteen::default(); PLACES * dense.blocks()];
        let mut results = vec![Sixteen::default(); PLACES * heads.blocks()];
        let mut verdicts = Vec::with_capacity(crops.len());
        for group in crops.chunks(PLACES) {
            for (crop, flat) in group.iter().zip(flat.chunks_exact_mut(dense.taps)) {
                self.convolutions(stages, crop, &mut scratch, flat);
            }
            see_all(dense, group.len(), &flat, &mut hidden);
            see_all(heads, group.len(), hidden.as_flattened().as_flattened(), &mut results);
            let results = results.as_flattened().as_flattened().chunks_exact(WIDE * heads.blocks());
            verdicts.extend(results.take(group.len()).map(verdict));
        }
        verdicts
    }

    /// Runs the convolutions on a crop and stores the result in `flat`.
    #[target_feature(enable = "avx2,fma")]
    fn convolutions(
        &self,
        stages: &[Layer],
        crop: &Levels,
        scratch: &mut Scratch,
        flat: &mut [f32],
    ) {
        let Scratch { input, convolved } = scratch;
        let mut side = self.plan.side;
        assert!(
            crop.height as usize == side
                && crop.width as usize == side
                && crop.data.len() == 3 * side * side,
            "a crop of {side}×{side} is expected, not {}×{}",
            crop.width,
            crop.height
        );
        input.clear();
        input.extend(crop.data.iter().map(|level| (level - 127.5) * 0.007_812_5));
        for (layer, &stage) in stages.iter().zip(self.plan.stages) {
            let [middle, end] = stage.sides(side);
            convolved.resize(
                (middle * middle * layer.blocks()).max(convolved.len()),
                Sixteen::default(),
            );
            layer.convolve(stage, input, middle, convolved);
            // Eight extra values, because the last eight channels are stored as a whole.
            input.resize(end * end * layer.outputs + 8, 0.0);
            pool(convolved, layer, middle, stage.window.max(1), end, input);
            side = end;
        }
        flat.copy_from_slice(&input[..flat.len()]);
    }
}

/// Computes a fully connected layer for `count` crops.
#[target_feature(enable = "avx2,fma")]
fn see_all(layer: &Layer, count: usize, input: &[f32], output: &mut [Sixteen]) {
    let reach = Reach { run: layer.taps, row: 0, place: layer.taps };
    for block in 0..layer.blocks() {
        layer.places(block, count, input, reach, output);
    }
}

/// Computes the maxima over windows two pixels apart (or copies the pixels if a window is one
/// pixel), without the padding between the channels of one pixel and those of the next.
#[target_feature(enable = "avx2")]
fn pool(from: &[Sixteen], layer: &Layer, side: usize, window: usize, end: usize, to: &mut [f32]) {
    let step = if window == 1 { 1 } else { 2 };
    let eights = 2 * layer.blocks();
    let from = from.as_flattened();
    for y in 0..end {
        let rows = step * y..(step * y + window).min(side);
        for x in 0..end {
            let columns = step * x..(step * x + window).min(side);
            let pixel = &mut to[layer.outputs * (end * y + x)..];
            for channel in (0..layer.outputs).step_by(8) {
                let mut most = _mm256_set1_ps(f32::NEG_INFINITY);
                for y in rows.clone() {
                    for x in columns.clone() {
                        most =
                            _mm256_max_ps(most, load(&from[eights * (side * y + x) + channel / 8]));
                    }
                }
                // The next pixel overwrites the values stored beyond the last channel.
                store(
                    pixel[channel..].first_chunk_mut().expect("there is room after the last pixel"),
                    most,
                );
            }
        }
    }
}

/// Converts the outputs of the heads to a verdict.
fn verdict(heads: &[f32]) -> Verdict {
    let &[none, face, ref rest @ ..] = heads else { unreachable!("two logits come first") };
    Verdict {
        probability: 1.0 / (1.0 + (none - face).exp()),
        correction: std::array::from_fn(|side| rest[side]),
        landmarks: std::array::from_fn(|at| rest.get(4 + at).copied().unwrap_or(0.0)),
    }
}
