//! The way through the three convolutions, strip by strip.
//!
//! A strip is 48 tiles wide. Its rows pass through all layers at once. Each layer retains the six
//! rows that the tiles of the next layer need, so everything stays in a core's L2 cache. Columns
//! where strips meet are computed twice (ten pixels of 390).

use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_max_ps, _mm256_set1_ps, _mm256_setzero_ps};

use super::packing::{BOUND, Bound, eights, spread};
use super::rows::{Level, Rows, Source};
use super::weights::{HEADS, LOGIT, Spot, WIDTHS, Weights};
use super::winograd::{COLUMNS, POINTS, Pixel, REACH, TILE, TILES};
use crate::registers::{Eight, Sixteen, has_avx512, is_supported, load, store};
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
    pub(super) first: [[f32; WIDTHS[0]]; 27],
    pub(super) first_bias: [f32; WIDTHS[0]],
    pub(super) first_slope: [f32; WIDTHS[0]],
    /// Indexed by point and input channel.
    pub(super) second: Vec<Pixel>,
    pub(super) second_bias: Pixel,
    pub(super) second_slope: Pixel,
    /// Indexed by point and input channel, for the channels of the bound.
    pub(super) bound: Vec<[Eight; BOUND]>,
    pub(super) bound_bias: [Eight; BOUND],
    pub(super) bound_linear: [Eight; BOUND],
    pub(super) bound_positive: [Eight; BOUND],
    /// Whether to use registers of sixteen values.
    pub(super) avx512: bool,
    /// Indexed by point and input channel, for registers of sixteen values.
    pub(super) third_spread: Vec<[Pixel; 2]>,
    /// Indexed by row, column and input channel.
    third: Vec<[Eight; 4]>,
    pub(super) third_bias: [Eight; 4],
    pub(super) linear: [[Eight; 4]; HEADS],
    pub(super) positive: [[Eight; 4]; HEADS],
    pub(super) head_bias: [f32; HEADS],
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
        let third_spread = weights.third.iter().map(|&tap| f64::from(tap)).collect::<Vec<_>>();
        let heads = |of: &[f32]| std::array::from_fn(|head| eights(&of[WIDTHS[2] * head..]));
        Some(Self {
            first: std::array::from_fn(|tap| {
                std::array::from_fn(|channel| weights.first[27 * channel + tap])
            }),
            first_bias: std::array::from_fn(|channel| weights.first_bias[channel]),
            first_slope: std::array::from_fn(|channel| weights.first_slope[channel]),
            second: spread(&second, WIDTHS[0]).into_iter().map(Sixteen).collect(),
            second_bias: Sixteen(eights(&weights.second_bias)),
            second_slope: Sixteen(eights(&weights.second_slope)),
            bound: spread(&bound.kernels, WIDTHS[1]),
            bound_bias: eights(&bound.bias),
            bound_linear: eights(&bound.linear),
            bound_positive: eights(&bound.positive),
            avx512: has_avx512(),
            third_spread: spread::<4>(&third_spread, WIDTHS[1])
                .into_iter()
                .map(|[a, b, c, d]| [Sixteen([a, b]), Sixteen([c, d])])
                .collect(),
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
pub(super) struct Scratch {
    pub(super) ring: Vec<Eight>,
    pub(super) first: [Vec<Pixel>; REACH],
    pub(super) second: [Vec<Pixel>; REACH],
    pub(super) columns: Vec<[Pixel; REACH]>,
    pub(super) products: Vec<Pixel>,
    pub(super) second_sums: Vec<Pixel>,
    pub(super) bound_sums: Vec<[Eight; BOUND]>,
    pub(super) bounds: Vec<[[f32; TILE]; TILE]>,
    pub(super) third_sums: Vec<[Pixel; 2]>,
}

impl Scratch {
    fn new() -> Self {
        let pixel = Pixel::default();
        let rows =
            || std::array::from_fn(|_| vec![pixel; (TILE * ACROSS + 4).next_multiple_of(16)]);
        Self {
            ring: vec![[0.0; 8]; RING_ROWS * 3 * RING],
            first: rows(),
            second: rows(),
            columns: vec![[pixel; REACH]; COLUMNS],
            products: vec![pixel; POINTS * TILES],
            second_sums: vec![pixel; POINTS * TILES],
            bound_sums: vec![[[0.0; 8]; BOUND]; POINTS * TILES],
            third_sums: vec![[pixel; 2]; POINTS * TILES],
            bounds: vec![[[0.0; TILE]; TILE]; ACROSS],
        }
    }
}

/// A strip of a level: positions `left` to `left + count` of all rows.
pub(super) struct Strip<'a> {
    pub(super) kernel: &'a Kernel,
    left: usize,
    pub(super) count: usize,
    /// Number of columns of the level from the strip's first one on.
    pub(super) width: usize,
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
                        self.first(scratch, row, row - second);
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

    /// Returns the place of each row of taps of the first convolution in the ring, for the two rows
    /// of the convolution that make row `y` after pooling.
    pub(super) fn taps(&self, y: usize) -> [[usize; 2]; 9] {
        // The last window has only one row if the convolution has an odd number of rows.
        let below = usize::from(2 * y + 1 < self.height - 2);
        let offset = |row: usize, tap: usize| (row % RING_ROWS * 3 + tap) * 8 * RING;
        std::array::from_fn(|tap| {
            let (channel, row) = (tap / 3, 2 * y + tap % 3);
            [offset(row, channel), offset(row + below, channel)]
        })
    }

    /// Computes row `y` of the first convolution as the row `slot` of those that are retained.
    #[target_feature(enable = "avx2,fma")]
    fn first(&self, scratch: &mut Scratch, y: usize, slot: usize) {
        let (kernel, pixels) = (self.kernel, &mut scratch.first[slot]);
        if kernel.avx512 {
            #[expect(unsafe_code, reason = "calls into code for a certain instruction set")]
            // SAFETY: `avx512` says that the CPU has the instruction set.
            unsafe {
                kernel.first_avx512(&scratch.ring, y, self, pixels);
            }
        } else {
            kernel.first_avx2(&scratch.ring, y, self, pixels);
        }
    }

    /// Computes a row of tiles of the second convolution. The first `count` of its four rows become
    /// the rows from `slot` on.
    #[target_feature(enable = "avx2,fma")]
    fn second(&self, scratch: &mut Scratch, slot: usize, count: usize) {
        if self.kernel.avx512 {
            #[expect(unsafe_code, reason = "calls into code for a certain instruction set")]
            // SAFETY: `avx512` says that the CPU has the instruction set.
            unsafe {
                self.second_avx512(scratch, slot, count);
            }
        } else {
            self.second_avx2(scratch, slot, count);
        }
    }

    /// Computes upper bounds of the logits of four rows of positions.
    #[target_feature(enable = "avx2,fma")]
    fn bounds(&self, scratch: &mut Scratch) {
        if self.kernel.avx512 {
            #[expect(unsafe_code, reason = "calls into code for a certain instruction set")]
            // SAFETY: `avx512` says that the CPU has the instruction set.
            unsafe {
                self.logits_avx512(scratch);
            }
        } else {
            self.bounds_avx2(scratch);
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
