//! The three convolutions with AVX2 and FMA: registers of eight values.

use std::arch::x86_64::{
    __m256, _mm_add_ps, _mm_set1_ps, _mm_storeu_ps, _mm256_add_ps, _mm256_castps256_ps128,
    _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_hadd_ps, _mm256_loadu_ps, _mm256_max_ps,
    _mm256_min_ps, _mm256_set1_ps, _mm256_setzero_ps,
};

use super::kernel::{Kernel, Scratch, Strip};
use super::packing::BOUND;
use super::vectors::{FIRST, in_order, prelu, transposed, wider};
use super::weights::LOGIT;
use super::winograd::{Pixel, TILE, TILES, avx2 as winograd};
use crate::registers::{Eight, load, store, values, values_mut};

impl Kernel {
    /// Computes row `y` of the first convolution after pooling, from the rows of the ring.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn first_avx2(
        &self,
        ring: &[Eight],
        y: usize,
        strip: &Strip<'_>,
        pixels: &mut [Pixel],
    ) {
        let offsets = strip.taps(y);
        let ring = ring.as_flattened();
        for x in (0..strip.count + 4).step_by(8) {
            let valid = strip.width - 2 - (2 * x).min(strip.width - 2);
            let mut pooled = [_mm256_setzero_ps(); 16];
            let window = &ring[2 * x..];
            self.pooled::<3>(window, &offsets, 0, valid, &mut pooled);
            self.pooled::<3>(window, &offsets, 3, valid, &mut pooled);
            self.pooled::<2>(window, &offsets, 6, valid, &mut pooled);
            self.pooled::<2>(window, &offsets, 8, valid, &mut pooled);
            let (low, high) = pooled.split_at(8);
            let low = transposed(low.try_into().expect("half of sixteen"));
            let high = transposed(high.try_into().expect("half of sixteen"));
            for (pixel, (low, high)) in pixels[x..x + 8].iter_mut().zip(low.into_iter().zip(high)) {
                store(&mut pixel[0], low);
                store(&mut pixel[1], high);
            }
        }
    }

    /// Computes channels `channel` to `channel + N` of eight pixels after convolution, pooling and
    /// `PReLU`. `offsets` gives the place of each row of taps in the ring, for the two rows of the
    /// convolution. `valid` is the number of existing pixels of the convolution.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn pooled<const N: usize>(
        &self,
        window: &[f32],
        offsets: &[[usize; 2]; 9],
        channel: usize,
        valid: usize,
        pooled: &mut [__m256; 16],
    ) {
        let reach =
            offsets.as_flattened().iter().fold(0, |most, &offset| most.max(offset)) + 2 + FIRST;
        assert!(reach <= window.len(), "the ring reaches far enough");
        // Indexed by channel, row and half of the sixteen pixels.
        let mut sums = [[[_mm256_setzero_ps(); 2]; 2]; N];
        for n in 0..N {
            sums[n] = [[_mm256_set1_ps(self.first_bias[channel + n]); 2]; 2];
        }
        for (offsets, taps) in offsets.iter().zip(self.first.as_chunks::<3>().0) {
            for (column, tap) in taps.iter().enumerate() {
                let mut weights = [_mm256_setzero_ps(); N];
                for n in 0..N {
                    weights[n] = _mm256_set1_ps(tap[channel + n]);
                }
                for row in 0..2 {
                    for half in 0..2 {
                        let at = offsets[row] + column + 8 * half;
                        #[expect(
                            unsafe_code,
                            reason = "vector loads take a pointer; a bounds check for each costs a \
                                third"
                        )]
                        // SAFETY: `at` is at most the largest offset plus 10. With the 8 values
                        // that are read, this is within the window by the check above. The load
                        // needs no alignment.
                        let values = unsafe { _mm256_loadu_ps(window.as_ptr().add(at)) };
                        for n in 0..N {
                            sums[n][row][half] =
                                _mm256_fmadd_ps(values, weights[n], sums[n][row][half]);
                        }
                    }
                }
            }
        }
        for n in 0..N {
            let [[a, b], [c, d]] = sums[n];
            let slope = self.first_slope[channel + n];
            let high = wider(_mm256_max_ps(a, c), _mm256_max_ps(b, d), valid);
            let mut result = prelu(_mm256_max_ps(high.0, high.1), _mm256_set1_ps(slope));
            if slope < 0.0 {
                // PReLU then decreases below zero, so the smallest value can have the largest
                // result.
                let low = wider(_mm256_min_ps(a, c), _mm256_min_ps(b, d), valid);
                result = _mm256_max_ps(
                    result,
                    prelu(_mm256_min_ps(low.0, low.1), _mm256_set1_ps(slope)),
                );
            }
            pooled[channel + n] = in_order(result);
        }
    }
}

impl Strip<'_> {
    /// Computes a row of tiles of the second convolution. The first `count` of its four rows become
    /// the rows from `slot` on.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn second_avx2(&self, scratch: &mut Scratch, slot: usize, count: usize) {
        let tiles = (self.count + 2).div_ceil(TILE);
        for start in (0..tiles).step_by(TILES) {
            let now = TILES.min(tiles - start);
            winograd::enter(
                &scratch.first,
                TILE * start,
                now,
                &mut scratch.columns,
                &mut scratch.products,
            );
            winograd::multiply::<10, 6, 2>(
                &scratch.products,
                pairs(values(&self.kernel.second)),
                now,
                values_mut(&mut scratch.second_sums).as_chunks_mut::<8>().0.as_chunks_mut::<2>().0,
            );
            let sums = pairs(values(&scratch.second_sums));
            for tile in 0..now {
                for half in 0..2 {
                    let results = winograd::leave(sums, tile, half);
                    let bias = load(&self.kernel.second_bias[half]);
                    let slope = load(&self.kernel.second_slope[half]);
                    for (row, results) in scratch.second[slot..slot + count].iter_mut().zip(results)
                    {
                        let pixels = row[TILE * (start + tile)..][..TILE].iter_mut();
                        for (pixel, result) in pixels.zip(results) {
                            store(&mut pixel[half], prelu(_mm256_add_ps(result, bias), slope));
                        }
                    }
                }
            }
        }
    }

    /// Computes the upper bounds of the logits of four rows of positions.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn bounds_avx2(&self, scratch: &mut Scratch) {
        let tiles = self.count.div_ceil(TILE);
        let zero = _mm256_setzero_ps();
        let constant = _mm_set1_ps(self.kernel.head_bias[LOGIT]);
        for start in (0..tiles).step_by(TILES) {
            let now = TILES.min(tiles - start);
            winograd::enter(
                &scratch.second,
                TILE * start,
                now,
                &mut scratch.columns,
                &mut scratch.products,
            );
            winograd::multiply::<16, 3, BOUND>(
                &scratch.products,
                &self.kernel.bound,
                now,
                &mut scratch.bound_sums,
            );
            for (tile, bounds) in scratch.bounds[start..start + now].iter_mut().enumerate() {
                let mut totals = [[zero; TILE]; TILE];
                for h in 0..BOUND {
                    let results = winograd::leave(&scratch.bound_sums, tile, h);
                    let bias = load(&self.kernel.bound_bias[h]);
                    let linear = load(&self.kernel.bound_linear[h]);
                    let positive = load(&self.kernel.bound_positive[h]);
                    for y in 0..TILE {
                        for x in 0..TILE {
                            let value = _mm256_add_ps(results[y][x], bias);
                            let total = _mm256_fmadd_ps(value, linear, totals[y][x]);
                            totals[y][x] =
                                _mm256_fmadd_ps(_mm256_max_ps(value, zero), positive, total);
                        }
                    }
                }
                for (bounds, [a, b, c, d]) in bounds.iter_mut().zip(totals) {
                    let sums = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
                    let sums =
                        _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps::<1>(sums));
                    #[expect(unsafe_code, reason = "vector stores take a pointer")]
                    // SAFETY: the array has the 16 bytes that are written; the store needs no
                    // alignment.
                    unsafe {
                        _mm_storeu_ps(bounds.as_mut_ptr(), _mm_add_ps(sums, constant));
                    }
                }
            }
        }
    }
}

/// Groups the values of pixels by register.
fn pairs(values: &[f32]) -> &[[Eight; 2]] {
    values.as_chunks::<8>().0.as_chunks::<2>().0
}
