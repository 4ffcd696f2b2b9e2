//! The three convolutions with AVX-512: registers of sixteen values.
//!
//! Like [`avx2`](super::avx2), with the same arithmetic for each value. Only the logits differ: all
//! 32 channels of the third convolution fit into as many registers as the bound, so the logit
//! itself is computed.

use std::arch::x86_64::{
    __m256, __m512, _mm256_castpd_ps, _mm256_setzero_ps, _mm512_add_ps, _mm512_castps_pd,
    _mm512_castps512_ps256, _mm512_extractf64x4_pd, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_mask_blend_ps, _mm512_max_ps, _mm512_min_ps, _mm512_permutex2var_ps,
    _mm512_reduce_add_ps, _mm512_set1_ps, _mm512_setr_epi32, _mm512_setzero_ps,
};

use super::kernel::{Kernel, Scratch, Strip};
use super::vectors::transposed;
use super::weights::{LOGIT, WIDTHS};
use super::winograd::{Pixel, TILE, TILES, avx512 as winograd};
use crate::registers::{Eight, Sixteen, load_sixteen, store, store_sixteen};

/// Pixels of one row that a kernel of the first convolution computes.
const FIRST: usize = 32;
/// Pixels after pooling that are computed at once.
const POOLED: usize = FIRST / 2;

impl Kernel {
    /// Computes row `y` of the first convolution after pooling, from the rows of the ring.
    #[target_feature(enable = "avx512f")]
    pub(super) fn first_avx512(
        &self,
        ring: &[Eight],
        y: usize,
        strip: &Strip<'_>,
        pixels: &mut [Pixel],
    ) {
        let offsets = strip.taps(y);
        let ring = ring.as_flattened();
        for x in (0..strip.count + 4).step_by(POOLED) {
            let valid = strip.width - 2 - (2 * x).min(strip.width - 2);
            let window = &ring[2 * x..];
            let mut pooled = [_mm512_setzero_ps(); WIDTHS[0]];
            self.pooled_avx512::<5>(window, &offsets, 0, valid, &mut pooled);
            self.pooled_avx512::<5>(window, &offsets, 5, valid, &mut pooled);
            let (low, high) = halves(&pooled);
            for (pixels, channels) in
                pixels[x..x + POOLED].as_chunks_mut::<8>().0.iter_mut().zip([low, high])
            {
                let zero = _mm256_setzero_ps();
                let [a, b, c, d, e, f, g, h, i, j] = channels;
                let eights = transposed(&[a, b, c, d, e, f, g, h]);
                let rest = transposed(&[i, j, zero, zero, zero, zero, zero, zero]);
                for (pixel, (eight, rest)) in pixels.iter_mut().zip(eights.into_iter().zip(rest)) {
                    store(&mut pixel[0], eight);
                    store(&mut pixel[1], rest);
                }
            }
        }
    }

    /// Computes channels `channel` to `channel + N` of sixteen pixels after convolution, pooling
    /// and `PReLU`, with the arguments of `pooled`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn pooled_avx512<const N: usize>(
        &self,
        window: &[f32],
        offsets: &[[usize; 2]; 9],
        channel: usize,
        valid: usize,
        pooled: &mut [__m512; WIDTHS[0]],
    ) {
        let reach =
            offsets.as_flattened().iter().fold(0, |most, &offset| most.max(offset)) + 2 + FIRST;
        assert!(reach <= window.len(), "the ring reaches far enough");
        // Indexed by channel, row and half of the 32 pixels.
        let mut sums = [[[_mm512_setzero_ps(); 2]; 2]; N];
        for n in 0..N {
            sums[n] = [[_mm512_set1_ps(self.first_bias[channel + n]); 2]; 2];
        }
        for (offsets, taps) in offsets.iter().zip(self.first.as_chunks::<3>().0) {
            for (column, tap) in taps.iter().enumerate() {
                let mut weights = [_mm512_setzero_ps(); N];
                for n in 0..N {
                    weights[n] = _mm512_set1_ps(tap[channel + n]);
                }
                for row in 0..2 {
                    for half in 0..2 {
                        let at = offsets[row] + column + POOLED * half;
                        #[expect(
                            unsafe_code,
                            reason = "vector loads take a pointer; a bounds check for each costs a \
                                third"
                        )]
                        // SAFETY: `at` is at most the largest offset plus 18. With the 16 values
                        // that are read, this is within the window by the check above. The load
                        // needs no alignment.
                        let values = unsafe { _mm512_loadu_ps(window.as_ptr().add(at)) };
                        for n in 0..N {
                            sums[n][row][half] =
                                _mm512_fmadd_ps(values, weights[n], sums[n][row][half]);
                        }
                    }
                }
            }
        }
        for n in 0..N {
            let [[a, b], [c, d]] = sums[n];
            let slope = self.first_slope[channel + n];
            let high = pairs(_mm512_max_ps(a, c), _mm512_max_ps(b, d), valid);
            let mut result = prelu(_mm512_max_ps(high.0, high.1), _mm512_set1_ps(slope));
            if slope < 0.0 {
                // PReLU then decreases below zero, so the smallest value can have the largest
                // result.
                let low = pairs(_mm512_min_ps(a, c), _mm512_min_ps(b, d), valid);
                result = _mm512_max_ps(
                    result,
                    prelu(_mm512_min_ps(low.0, low.1), _mm512_set1_ps(slope)),
                );
            }
            pooled[channel + n] = result;
        }
    }
}

impl Strip<'_> {
    /// Computes a row of tiles of the second convolution. The first `count` of its four rows become
    /// the rows from `slot` on.
    #[target_feature(enable = "avx512f")]
    pub(super) fn second_avx512(&self, scratch: &mut Scratch, slot: usize, count: usize) {
        let tiles = (self.count + 2).div_ceil(TILE);
        let bias = load_sixteen(&self.kernel.second_bias);
        let slope = load_sixteen(&self.kernel.second_slope);
        for start in (0..tiles).step_by(TILES) {
            let now = TILES.min(tiles - start);
            winograd::enter(
                &scratch.first,
                TILE * start,
                now,
                &mut scratch.columns,
                &mut scratch.products,
            );
            let sums = scratch.second_sums.as_chunks_mut::<1>().0;
            let weights = self.kernel.second.as_chunks::<1>().0;
            winograd::multiply::<10, 1>(&scratch.products, weights, sums);
            for tile in 0..now {
                let results = winograd::leave(sums, tile, 0);
                for (row, results) in scratch.second[slot..slot + count].iter_mut().zip(results) {
                    let pixels = row[TILE * (start + tile)..][..TILE].iter_mut();
                    for (pixel, result) in pixels.zip(results) {
                        store_sixteen(pixel, prelu(_mm512_add_ps(result, bias), slope));
                    }
                }
            }
        }
    }

    /// Computes the logits of four rows of positions.
    #[target_feature(enable = "avx512f")]
    pub(super) fn logits_avx512(&self, scratch: &mut Scratch) {
        let tiles = self.count.div_ceil(TILE);
        let zero = _mm512_setzero_ps();
        let kernel = self.kernel;
        let two = |of: &[Eight; 4]| {
            let [a, b, c, d] = *of;
            [load_sixteen(&Sixteen([a, b])), load_sixteen(&Sixteen([c, d]))]
        };
        let bias = two(&kernel.third_bias);
        let (linear, positive) = (two(&kernel.linear[LOGIT]), two(&kernel.positive[LOGIT]));
        for start in (0..tiles).step_by(TILES) {
            let now = TILES.min(tiles - start);
            winograd::enter(
                &scratch.second,
                TILE * start,
                now,
                &mut scratch.columns,
                &mut scratch.products,
            );
            winograd::multiply::<16, 2>(
                &scratch.products,
                &kernel.third_spread,
                &mut scratch.third_sums,
            );
            for (tile, bounds) in scratch.bounds[start..start + now].iter_mut().enumerate() {
                let mut totals = [[zero; TILE]; TILE];
                for h in 0..2 {
                    let results = winograd::leave(&scratch.third_sums, tile, h);
                    for y in 0..TILE {
                        for x in 0..TILE {
                            let value = _mm512_add_ps(results[y][x], bias[h]);
                            let total = _mm512_fmadd_ps(value, linear[h], totals[y][x]);
                            totals[y][x] =
                                _mm512_fmadd_ps(_mm512_max_ps(value, zero), positive[h], total);
                        }
                    }
                }
                for (bounds, totals) in bounds.iter_mut().zip(totals) {
                    for (bound, total) in bounds.iter_mut().zip(totals) {
                        *bound = _mm512_reduce_add_ps(total) + kernel.head_bias[LOGIT];
                    }
                }
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn prelu(x: __m512, slope: __m512) -> __m512 {
    let zero = _mm512_setzero_ps();
    _mm512_fmadd_ps(_mm512_min_ps(x, zero), slope, _mm512_max_ps(x, zero))
}

/// Splits 32 values into the even and the odd ones. If only the first `valid` values exist and
/// their number is odd, the last one stands for both of its pair.
#[inline]
#[target_feature(enable = "avx512f")]
fn pairs(low: __m512, high: __m512, valid: usize) -> (__m512, __m512) {
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    let even = _mm512_permutex2var_ps(low, even, high);
    let odd = _mm512_permutex2var_ps(low, odd, high);
    if valid >= FIRST || valid.is_multiple_of(2) {
        return (even, odd);
    }
    (even, _mm512_mask_blend_ps(1 << (valid / 2), odd, even))
}

/// Splits registers into their lower and upper halves.
#[inline]
#[target_feature(enable = "avx512f")]
fn halves<const N: usize>(of: &[__m512; N]) -> ([__m256; N], [__m256; N]) {
    let zero = _mm256_setzero_ps();
    let (mut low, mut high) = ([zero; N], [zero; N]);
    for n in 0..N {
        low[n] = _mm512_castps512_ps256(of[n]);
        high[n] = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(of[n])));
    }
    (low, high)
}
