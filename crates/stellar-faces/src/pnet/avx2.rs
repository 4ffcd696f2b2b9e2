//! The three convolutions with AVX2 and FMA, strip by strip.
//!
//! A strip is 48 tiles wide. Its rows pass through all layers at once. Each layer retains the six
//! rows that the tiles of the next layer need, so everything stays in a core's L2 cache. Columns
//! where strips meet are computed twice (ten pixels of 390).

use std::arch::x86_64::{
    __m256, _mm_add_ps, _mm_set1_ps, _mm_storeu_ps, _mm256_add_ps, _mm256_castps256_ps128,
    _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_hadd_ps, _mm256_loadu_ps, _mm256_max_ps,
    _mm256_min_ps, _mm256_set1_ps, _mm256_setzero_ps,
};

use super::packing::{BOUND, Bound, eights, spread};
use super::rows::{Level, Rows, Source};
use super::vectors::{FIRST, in_order, prelu, transposed, wider};
use super::weights::{HEADS, LOGIT, Spot, WIDTHS, Weights};
use super::winograd::{self, COLUMNS, POINTS, Pixel, REACH, TILE, TILES};
use crate::registers::{Eight, is_supported, load, store};
use stellar_vision::Image;

/// Added to the bound of a logit, to allow for rounding.
const MARGIN: f32 = 0.01;
/// Tiles per strip.
const ACROSS: usize = 48;
/// Positions per strip.
const PLACES: usize = TILE * ACROSS - 2;
/// Groups of eight values per row of the ring, including those read beyond the last column.
const RING: usize = (2 * (PLACES + 4) + 2 + 32).div_ceil(8);
/// A level that is at least this many times smaller than the image is computed as a whole.
const SMALL: u32 = 6;
/// Rows in the ring: two rows of the first convolution depend on four.
const RING_ROWS: usize = 4;

/// The weights in the order of use.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Indexed by tap: channel, row, column.
    first: [[f32; WIDTHS[0]]; 27],
    first_bias: [f32; WIDTHS[0]],
    first_slope: [f32; WIDTHS[0]],
    /// Indexed by point and input channel.
    second: Vec<Pixel>,
    second_bias: Pixel,
    second_slope: Pixel,
    /// Indexed by point and input channel, for the channels of the bound.
    bound: Vec<[Eight; BOUND]>,
    bound_bias: [Eight; BOUND],
    bound_linear: [Eight; BOUND],
    bound_positive: [Eight; BOUND],
    /// Indexed by row, column and input channel.
    third: Vec<[Eight; 4]>,
    third_bias: [Eight; 4],
    linear: [[Eight; 4]; HEADS],
    positive: [[Eight; 4]; HEADS],
    head_bias: [f32; HEADS],
}

impl Kernel {
    pub(super) fn new(weights: &Weights) -> Option<Self> {
        let bound = Bound::new(weights)?;
        let second: Vec<f64> = weights.second.iter().map(|&tap| f64::from(tap)).collect();
        let mut third = vec![[[0.0; 8]; 4]; 9 * WIDTHS[1]];
        for (at, &tap) in weights.third.iter().enumerate() {
            let (output, input, place) = (at / 9 / WIDTHS[1], at / 9 % WIDTHS[1], at % 9);
            third[place * WIDTHS[1] + input][output / 8][output % 8] = tap;
        }
        let heads = |of: &[f32]| std::array::from_fn(|head| eights(&of[WIDTHS[2] * head..]));
        Some(Self {
            first: std::array::from_fn(|tap| {
                std::array::from_fn(|channel| weights.first[27 * channel + tap])
            }),
            first_bias: std::array::from_fn(|channel| weights.first_bias[channel]),
            first_slope: std::array::from_fn(|channel| weights.first_slope[channel]),
            second: spread(&second, WIDTHS[0]),
            second_bias: eights(&weights.second_bias),
            second_slope: eights(&weights.second_slope),
            bound: spread(&bound.kernels, WIDTHS[1]),
            bound_bias: eights(&bound.bias),
            bound_linear: eights(&bound.linear),
            bound_positive: eights(&bound.positive),
            third,
            third_bias: eights(&weights.third_bias),
            linear: heads(&weights.linear),
            positive: heads(&weights.positive),
            head_bias: std::array::from_fn(|head| weights.head_bias[head]),
        })
    }

    /// Returns the positions of each level whose probability is at least `threshold`, strip by
    /// strip.
    pub(super) fn run(
        &self,
        image: &Image,
        sizes: &[(u32, u32)],
        threshold: f32,
    ) -> Vec<Vec<Spot>> {
        assert!(is_supported(), "this kernel requires AVX2 and FMA");
        #[expect(unsafe_code, reason = "calls into code for a certain instruction set")]
        // SAFETY: the instruction sets have just been checked.
        unsafe {
            self.run_avx2(image, sizes, threshold)
        }
    }

    #[target_feature(enable = "avx2,fma")]
    fn run_avx2(&self, image: &Image, sizes: &[(u32, u32)], threshold: f32) -> Vec<Vec<Spot>> {
        let is_small = |(_, height): (u32, u32)| image.height / SMALL >= height;
        let small: Vec<_> = sizes.iter().copied().filter(|&size| is_small(size)).collect();
        let rendered = Level::render(image, &small);
        let mut rendered = rendered.iter();
        let mut scratch = Scratch::new();
        let mut spots = vec![Vec::new(); sizes.len()];
        for (&(columns, rows), spots) in sizes.iter().zip(&mut spots) {
            let level = if is_small((columns, rows)) { rendered.next() } else { None };
            let (width, height) = (columns as usize, rows as usize);
            for left in (0..places(width)).step_by(PLACES) {
                let count = PLACES.min(places(width) - left);
                let pixels = (2 * (count + 4) + 2).min(width - 2 * left);
                let source = match level {
                    Some(level) => Source::Level(level, 2 * left, pixels),
                    None => Source::Image(Rows::new(
                        image,
                        columns,
                        rows,
                        2 * left as u32,
                        pixels as u32,
                    )),
                };
                let strip =
                    Strip { kernel: self, left, count, width: width - 2 * left, height, threshold };
                strip.run(source, &mut scratch, spots);
            }
        }
        spots
    }

    /// Computes row `y` of the first convolution after pooling, from the rows of the ring.
    #[target_feature(enable = "avx2,fma")]
    fn first(&self, ring: &[Eight], y: usize, strip: &Strip<'_>, pixels: &mut [Pixel]) {
        // The last window has only one row if the convolution has an odd number of rows.
        let below = usize::from(2 * y + 1 < strip.height - 2);
        let offset = |row: usize, tap: usize| (row % RING_ROWS * 3 + tap) * 8 * RING;
        let mut offsets = [[0; 2]; 9];
        for (tap, offsets) in offsets.iter_mut().enumerate() {
            let (channel, row) = (tap / 3, 2 * y + tap % 3);
            *offsets = [offset(row, channel), offset(row + below, channel)];
        }
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

    /// Returns the outputs of the heads at a position, by a direct convolution of the three rows
    /// from `row` on.
    #[target_feature(enable = "avx2,fma")]
    fn heads(&self, rows: &[Vec<Pixel>; REACH], row: usize, x: usize) -> [f32; HEADS] {
        let zero = _mm256_setzero_ps();
        let mut sums = [zero; 4];
        for h in 0..4 {
            sums[h] = load(&self.third_bias[h]);
        }
        for (place, weights) in self.third.as_chunks::<16>().0.iter().enumerate() {
            let pixel = rows[row + place / 3][x + place % 3].as_flattened();
            for (value, weights) in pixel.iter().zip(weights) {
                let value = _mm256_set1_ps(*value);
                for h in 0..4 {
                    sums[h] = _mm256_fmadd_ps(value, load(&weights[h]), sums[h]);
                }
            }
        }
        let mut heads = self.head_bias;
        for (head, result) in heads.iter_mut().enumerate() {
            let mut total = zero;
            for h in 0..4 {
                total = _mm256_fmadd_ps(sums[h], load(&self.linear[head][h]), total);
                total = _mm256_fmadd_ps(
                    _mm256_max_ps(sums[h], zero),
                    load(&self.positive[head][h]),
                    total,
                );
            }
            let mut lanes = [0.0; 8];
            store(&mut lanes, total);
            *result += lanes.iter().sum::<f32>();
        }
        heads
    }
}

/// Returns the number of positions along a side of a level.
fn places(side: usize) -> usize {
    (side - 2).div_ceil(2) - 4
}

/// Buffers, reused for all strips. They start as zeros and only ever hold computed values. Values
/// read beyond the edges are therefore ordinary numbers, and the results that depend on them are
/// not used.
struct Scratch {
    ring: Vec<Eight>,
    first: [Vec<Pixel>; REACH],
    second: [Vec<Pixel>; REACH],
    columns: Vec<[Pixel; REACH]>,
    products: Vec<Pixel>,
    second_sums: Vec<Pixel>,
    bound_sums: Vec<[Eight; BOUND]>,
    bounds: Vec<[[f32; TILE]; TILE]>,
}

impl Scratch {
    fn new() -> Self {
        let pixel = [[0.0; 8]; 2];
        let rows = || std::array::from_fn(|_| vec![pixel; (TILE * ACROSS + 4).next_multiple_of(8)]);
        Self {
            ring: vec![[0.0; 8]; RING_ROWS * 3 * RING],
            first: rows(),
            second: rows(),
            columns: vec![[pixel; REACH]; COLUMNS],
            products: vec![pixel; POINTS * TILES],
            second_sums: vec![pixel; POINTS * TILES],
            bound_sums: vec![[[0.0; 8]; BOUND]; POINTS * TILES],
            bounds: vec![[[0.0; TILE]; TILE]; ACROSS],
        }
    }
}

/// A strip of a level: positions `left` to `left + count` of all rows.
struct Strip<'a> {
    kernel: &'a Kernel,
    left: usize,
    count: usize,
    /// Number of columns of the level from the strip's first one on.
    width: usize,
    height: usize,
    threshold: f32,
}

impl Strip<'_> {
    #[target_feature(enable = "avx2,fma")]
    fn run(&self, mut rows: Source<'_>, scratch: &mut Scratch, spots: &mut Vec<Spot>) {
        let pooled_height = (self.height - 2).div_ceil(2);
        let (second_height, height) = (pooled_height - 2, pooled_height - 4);
        // Number of rows computed so far of the level and of the two convolutions.
        let (mut filled, mut first, mut second) = (0, 0, 0);
        for y in (0..height).step_by(TILE) {
            while second < (y + REACH).min(second_height) {
                for row in first..second + REACH {
                    if row < pooled_height {
                        while filled < (2 * row + 4).min(self.height) {
                            rows.fill(
                                filled,
                                &mut scratch.ring[filled % RING_ROWS * 3 * RING..],
                                RING,
                            );
                            filled += 1;
                        }
                        self.kernel.first(
                            &scratch.ring,
                            row,
                            self,
                            &mut scratch.first[row - second],
                        );
                    }
                }
                // The first tiles of a strip produce six rows, the others the next four.
                let slot = second - y;
                let count = TILE.min(REACH - slot);
                self.second(scratch, slot, count);
                first = second + REACH;
                second += count;
                scratch.first.rotate_left(count);
            }
            self.bounds(scratch);
            self.collect(scratch, y, height, spots);
            scratch.second.rotate_left(TILE);
        }
    }

    /// Computes a row of tiles of the second convolution. The first `count` of its four rows become
    /// the rows from `slot` on.
    #[target_feature(enable = "avx2,fma")]
    fn second(&self, scratch: &mut Scratch, slot: usize, count: usize) {
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
                &self.kernel.second,
                now,
                &mut scratch.second_sums,
            );
            for tile in 0..now {
                for half in 0..2 {
                    let results = winograd::leave(&scratch.second_sums, tile, half);
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
    fn bounds(&self, scratch: &mut Scratch) {
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

    /// Evaluates in full the positions whose bound reaches the threshold; `y` is the first of the
    /// four rows.
    #[target_feature(enable = "avx2,fma")]
    fn collect(&self, scratch: &Scratch, y: usize, height: usize, spots: &mut Vec<Spot>) {
        let least = (self.threshold / (1.0 - self.threshold)).ln() - MARGIN;
        for (tile, bounds) in scratch.bounds[..self.count.div_ceil(TILE)].iter().enumerate() {
            for (at, &bound) in bounds.as_flattened().iter().enumerate() {
                let (row, x) = (at / TILE, TILE * tile + at % TILE);
                // A NaN bound does not exclude a position.
                if bound < least || y + row >= height || x >= self.count {
                    continue;
                }
                let heads = self.kernel.heads(&scratch.second, row, x);
                let probability = 1.0 / (1.0 + (-heads[LOGIT]).exp());
                if probability >= self.threshold {
                    let [a, b, c, d, _] = heads;
                    let (x, y) = ((self.left + x) as u32, (y + row) as u32);
                    spots.push(Spot { x, y, probability, correction: [a, b, c, d] });
                }
            }
        }
    }
}
