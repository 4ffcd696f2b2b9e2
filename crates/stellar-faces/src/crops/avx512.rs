//! The layers with AVX-512: 32 outputs in two registers, at up to [`PLACES`] positions.
//!
//! The arithmetic of each value is that of [`avx2`](super::avx2).

use std::arch::x86_64::{
    __m512, _mm512_fmadd_ps, _mm512_max_ps, _mm512_min_ps, _mm512_set1_ps, _mm512_setzero_ps,
};

use super::layer::{Layer, Reach};
use super::plan::Stage;
use crate::registers::{Sixteen, load_sixteen, store_sixteen, store_values};

/// Positions computed at once.
pub(super) const PLACES: usize = 12;

impl Layer {
    /// Computes `B` blocks of sixteen outputs at the positions whose input begins at `starts`.
    ///
    /// Two blocks share the loads of the input, which would otherwise take longer than the
    /// arithmetic.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn sums_avx512<const P: usize, const B: usize>(
        &self,
        block: usize,
        input: &[f32],
        starts: &[usize; PLACES],
        reach: Reach,
    ) -> [[__m512; B]; P] {
        let mut sums = [[_mm512_setzero_ps(); B]; P];
        let mut weights = [&self.weights[..0]; B];
        for b in 0..B {
            let bias = load_sixteen(&self.bias[block + b]);
            for place in 0..P {
                sums[place][b] = bias;
            }
            weights[b] = &self.weights[self.taps * (block + b)..][..self.taps];
        }
        for run in 0..self.taps / reach.run {
            let mut seen = [&input[..0]; P];
            for place in 0..P {
                seen[place] = &input[starts[place] + reach.row * run..][..reach.run];
            }
            let mut taps = [&self.weights[..0]; B];
            for b in 0..B {
                taps[b] = &weights[b][reach.run * run..][..reach.run];
            }
            for at in 0..reach.run {
                let mut weight = [_mm512_setzero_ps(); B];
                for b in 0..B {
                    weight[b] = load_sixteen(&taps[b][at]);
                }
                for place in 0..P {
                    let value = _mm512_set1_ps(seen[place][at]);
                    for b in 0..B {
                        sums[place][b] = _mm512_fmadd_ps(value, weight[b], sums[place][b]);
                    }
                }
            }
        }
        let zero = _mm512_setzero_ps();
        for b in 0..B {
            let slope = load_sixteen(&self.slope[block + b]);
            for place in 0..P {
                let sum = sums[place][b];
                sums[place][b] =
                    _mm512_fmadd_ps(slope, _mm512_min_ps(sum, zero), _mm512_max_ps(sum, zero));
            }
        }
        sums
    }

    /// Computes all outputs at `count` positions and stores those of one position after those of
    /// the other.
    #[target_feature(enable = "avx512f")]
    fn places_avx512(
        &self,
        count: usize,
        input: &[f32],
        starts: &[usize; PLACES],
        reach: Reach,
        output: &mut [Sixteen],
    ) {
        // More sums than are stored cost less than a loop that waits for each of a few.
        macro_rules! places {
            ($places:literal, $blocks:literal, $block:expr) => {{
                let sums = self.sums_avx512::<$places, $blocks>($block, input, starts, reach);
                for (place, sums) in sums.into_iter().take(count).enumerate() {
                    let output = &mut output[self.blocks() * place + $block..];
                    for (output, sum) in output.iter_mut().zip(sums) {
                        store_sixteen(output, sum);
                    }
                }
            }};
        }
        for block in (0..self.blocks()).step_by(2) {
            match (count, self.blocks() - block) {
                (..=4, 1) => places!(4, 1, block),
                (..=4, _) => places!(4, 2, block),
                (5..=8, 1) => places!(8, 1, block),
                (5..=8, _) => places!(8, 2, block),
                (_, 1) => places!(12, 1, block),
                (_, _) => places!(12, 2, block),
            }
        }
    }

    /// Computes a convolution at `side` × `side` positions.
    #[target_feature(enable = "avx512f")]
    pub(super) fn convolve_avx512(
        &self,
        stage: Stage,
        input: &[f32],
        side: usize,
        output: &mut [Sixteen],
    ) {
        let inputs = self.taps / (stage.kernel * stage.kernel);
        let row = (side + stage.kernel - 1) * inputs;
        let reach = Reach { run: stage.kernel * inputs, row, place: inputs };
        for first in (0..side * side).step_by(PLACES) {
            let count = PLACES.min(side * side - first);
            // The last position stands for those that are missing.
            let starts = std::array::from_fn(|place| {
                let at = first + place.min(count - 1);
                row * (at / side) + inputs * (at % side)
            });
            self.places_avx512(count, input, &starts, reach, &mut output[self.blocks() * first..]);
        }
    }

    /// Computes a fully connected layer for `count` crops.
    #[target_feature(enable = "avx512f")]
    pub(super) fn see_all_avx512(&self, count: usize, input: &[f32], output: &mut [Sixteen]) {
        let reach = Reach { run: self.taps, row: 0, place: self.taps };
        let starts = std::array::from_fn(|place| self.taps * place.min(count - 1));
        self.places_avx512(count, input, &starts, reach, output);
    }

    /// Computes the maxima over windows like `pool_avx2`.
    #[target_feature(enable = "avx512f")]
    pub(super) fn pool_avx512(
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
                for block in 0..self.blocks() {
                    let mut most = _mm512_set1_ps(f32::NEG_INFINITY);
                    for y in rows.clone() {
                        for x in columns.clone() {
                            let values = &from[self.blocks() * (side * y + x) + block];
                            most = _mm512_max_ps(most, load_sixteen(values));
                        }
                    }
                    // The next pixel overwrites the values stored beyond the last channel.
                    let room = pixel[16 * block..].first_chunk_mut();
                    store_values(room.expect("there is room after the last pixel"), most);
                }
            }
        }
    }
}
