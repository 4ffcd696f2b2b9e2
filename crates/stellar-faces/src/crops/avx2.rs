//! The layers with AVX2 and FMA: sixteen outputs in two registers, at up to [`PLACES`] positions.

use std::arch::x86_64::{
    __m256, _mm256_fmadd_ps, _mm256_max_ps, _mm256_min_ps, _mm256_set1_ps, _mm256_setzero_ps,
};

use super::layer::{Layer, Reach};
use super::plan::Stage;
use crate::registers::{Sixteen, load, store};

/// Positions computed at once.
pub(super) const PLACES: usize = 6;

impl Layer {
    /// Computes sixteen outputs at `P` positions. The first one starts at the beginning of `input`.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn sums_avx2<const P: usize>(
        &self,
        block: usize,
        input: &[f32],
        reach: Reach,
    ) -> [[__m256; 2]; P] {
        let [low, high] = &*self.bias[block];
        let mut sums = [[load(low), load(high)]; P];
        let weights = &self.weights[self.taps * block..][..self.taps];
        for (run, weights) in weights.chunks_exact(reach.run).enumerate() {
            let mut seen = [&input[..0]; P];
            for place in 0..P {
                seen[place] = &input[reach.place * place + reach.row * run..][..weights.len()];
            }
            for (at, weight) in weights.iter().enumerate() {
                let (low, high) = (load(&weight[0]), load(&weight[1]));
                for place in 0..P {
                    let value = _mm256_set1_ps(seen[place][at]);
                    sums[place][0] = _mm256_fmadd_ps(value, low, sums[place][0]);
                    sums[place][1] = _mm256_fmadd_ps(value, high, sums[place][1]);
                }
            }
        }
        let zero = _mm256_setzero_ps();
        let [low, high] = &*self.slope[block];
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
    fn places_avx2(
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
                        let sums = self.sums_avx2::<$count>(block, input, reach);
                        for place in 0..$count {
                            let [low, high] = &mut *output[self.blocks() * place + block];
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
    pub(super) fn convolve_avx2(
        &self,
        stage: Stage,
        input: &[f32],
        side: usize,
        output: &mut [Sixteen],
    ) {
        let inputs = self.taps / (stage.kernel * stage.kernel);
        let row = (side + stage.kernel - 1) * inputs;
        let reach = Reach { run: stage.kernel * inputs, row, place: inputs };
        for block in 0..self.blocks() {
            for y in 0..side {
                for x in (0..side).step_by(PLACES) {
                    let count = PLACES.min(side - x);
                    let first = self.blocks() * (side * y + x);
                    self.places_avx2(
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

    /// Computes a fully connected layer for `count` crops.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn see_all_avx2(&self, count: usize, input: &[f32], output: &mut [Sixteen]) {
        let reach = Reach { run: self.taps, row: 0, place: self.taps };
        for block in 0..self.blocks() {
            self.places_avx2(block, count, input, reach, output);
        }
    }

    /// Computes the maxima over windows two pixels apart (or copies the pixels if a window is one
    /// pixel), without the padding between the channels of one pixel and those of the next.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn pool_avx2(
        &self,
        from: &[Sixteen],
        side: usize,
        window: usize,
        end: usize,
        to: &mut [f32],
    ) {
        let step = if window == 1 { 1 } else { 2 };
        for y in 0..end {
            let rows = step * y..(step * y + window).min(side);
            for x in 0..end {
                let columns = step * x..(step * x + window).min(side);
                let pixel = &mut to[self.outputs * (end * y + x)..];
                for channel in (0..self.outputs).step_by(8) {
                    let mut most = _mm256_set1_ps(f32::NEG_INFINITY);
                    for y in rows.clone() {
                        for x in columns.clone() {
                            let block = &from[self.blocks() * (side * y + x) + channel / 16];
                            most = _mm256_max_ps(most, load(&block[channel / 8 % 2]));
                        }
                    }
                    // The next pixel overwrites the values stored beyond the last channel.
                    store(
                        pixel[channel..]
                            .first_chunk_mut()
                            .expect("there is room after the last pixel"),
                        most,
                    );
                }
            }
        }
    }
}
