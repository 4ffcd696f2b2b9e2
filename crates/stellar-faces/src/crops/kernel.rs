//! The way of a crop through the layers of a network.

use super::layer::{Layer, WIDE};
use super::plan::{Plan, Stage, Weights};
use super::{avx2, avx512};
use crate::registers::{Sixteen, has_avx512, is_supported, values};
use crate::{Levels, Verdict};

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
    /// Whether to use registers of sixteen values.
    pub(super) avx512: bool,
}

impl Kernel {
    pub(super) fn new(plan: &'static Plan, layers: &[Weights]) -> Self {
        Self { plan, layers: layers.iter().map(Layer::new).collect(), avx512: has_avx512() }
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
        // Crops that share a pass over the weights of the fully connected layers.
        let together = if self.avx512 { avx512::PLACES } else { avx2::PLACES };
        let mut flat = vec![0.0; together * dense.taps];
        let mut hidden = vec![Sixteen::default(); together * dense.blocks()];
        let mut results = vec![Sixteen::default(); together * heads.blocks()];
        let mut verdicts = Vec::with_capacity(crops.len());
        for group in crops.chunks(together) {
            for (crop, flat) in group.iter().zip(flat.chunks_exact_mut(dense.taps)) {
                self.convolutions(stages, crop, &mut scratch, flat);
            }
            self.see_all(dense, group.len(), &flat, &mut hidden);
            self.see_all(heads, group.len(), values(&hidden), &mut results);
            let results = values(&results).chunks_exact(WIDE * heads.blocks());
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
            self.convolve(layer, stage, input, middle, convolved);
            // Extra values, because the last channels are stored as a whole register.
            input.resize(end * end * layer.outputs + WIDE, 0.0);
            self.pool(layer, convolved, middle, stage.window.max(1), end, input);
            side = end;
        }
        flat.copy_from_slice(&input[..flat.len()]);
    }

    /// Computes a convolution at `side` × `side` positions.
    #[target_feature(enable = "avx2,fma")]
    fn convolve(
        &self,
        layer: &Layer,
        stage: Stage,
        input: &[f32],
        side: usize,
        output: &mut [Sixteen],
    ) {
        if self.avx512 {
            #[expect(unsafe_code, reason = "calls into code for a certain instruction set")]
            // SAFETY: `avx512` says that the CPU has the instruction set.
            unsafe {
                layer.convolve_avx512(stage, input, side, output);
            }
        } else {
            layer.convolve_avx2(stage, input, side, output);
        }
    }

    /// Computes the maxima over windows two pixels apart, or copies the pixels if a window is one
    /// pixel.
    #[target_feature(enable = "avx2,fma")]
    fn pool(
        &self,
        layer: &Layer,
        from: &[Sixteen],
        side: usize,
        window: usize,
        end: usize,
        to: &mut [f32],
    ) {
        if self.avx512 {
            #[expect(unsafe_code, reason = "calls into code for a certain instruction set")]
            // SAFETY: `avx512` says that the CPU has the instruction set.
            unsafe {
                layer.pool_avx512(from, side, window, end, to);
            }
        } else {
            layer.pool_avx2(from, side, window, end, to);
        }
    }

    /// Computes a fully connected layer for `count` crops.
    #[target_feature(enable = "avx2,fma")]
    fn see_all(&self, layer: &Layer, count: usize, input: &[f32], output: &mut [Sixteen]) {
        if self.avx512 {
            #[expect(unsafe_code, reason = "calls into code for a certain instruction set")]
            // SAFETY: `avx512` says that the CPU has the instruction set.
            unsafe {
                layer.see_all_avx512(count, input, output);
            }
        } else {
            layer.see_all_avx2(count, input, output);
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
