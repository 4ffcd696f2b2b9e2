//! The passes with AVX2: four taps of three channels per register.
//!
//! `vpmaddwd` multiplies 16-bit words and adds pairs of products to 32-bit sums. A weight of 24
//! bits is split into two such words, `w = 4096·high + low`. Each word has its own sum, and the two
//! sums are joined at the end. All sums wrap around, but the joined one is small, so nothing is
//! lost.
//!
//! A register of 16 words holds 8 pairs of taps. The low lane has the pairs `R G B x` of taps 0 and
//! 1, the high lane those of taps 2 and 3; `x` is zero.

use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm256_add_epi32, _mm256_broadcastsi128_si256, _mm256_extract_epi32,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_packs_epi32, _mm256_packus_epi16,
    _mm256_permute2x128_si256, _mm256_set1_epi32, _mm256_setzero_si256, _mm256_shuffle_epi8,
    _mm256_slli_epi32, _mm256_srai_epi32, _mm256_storeu_si256, _mm256_unpackhi_epi8,
    _mm256_unpacklo_epi8,
};

use super::coefficients::{Coefficients, HALF, PRECISION_BITS};
use super::kernel::{Columns, Rows};

/// Bytes per register.
const REGISTER: usize = 32;

/// Taps per register.
const TAPS: usize = 4;

/// Bits of a weight's low word.
const LOW_BITS: u32 = 12;

pub(super) fn is_supported() -> bool {
    is_x86_feature_detected!("avx2")
}

/// Returns whether the weights fit into two words. All weights of a real filter do (the largest is
/// about 1.2).
pub(super) fn can_hold(coefficients: &Coefficients) -> bool {
    coefficients.within(i16::MAX as u32 >> 1 << LOW_BITS)
}

/// Splits a weight into two words: first the low one, which is not negative.
fn words(weight: i32) -> [i16; 2] {
    [(weight & ((1 << LOW_BITS) - 1)) as i16, (weight >> LOW_BITS) as i16]
}

/// Returns the words of two taps side by side, for each of the two planes.
fn pair(weights: &[i32]) -> [i32; 2] {
    let first = words(weights.first().copied().unwrap_or(0));
    let second = words(weights.get(1).copied().unwrap_or(0));
    let join = |plane: usize| {
        i32::from(first[plane].cast_unsigned()) | i32::from(second[plane].cast_unsigned()) << 16
    };
    [join(0), join(1)]
}

#[target_feature(enable = "avx2")]
fn load(bytes: &[u8], at: usize) -> __m256i {
    let bytes: &[u8; REGISTER] = bytes[at..].first_chunk().expect("rows reach far enough");
    #[expect(unsafe_code, reason = "vector loads take a pointer")]
    // SAFETY: the reference covers the 32 bytes that are read; the load needs no alignment.
    unsafe {
        _mm256_loadu_si256(bytes.as_ptr().cast())
    }
}

#[target_feature(enable = "avx2")]
fn load_words(words: &[i32; 8]) -> __m256i {
    #[expect(unsafe_code, reason = "vector loads take a pointer")]
    // SAFETY: the reference covers the 32 bytes that are read; the load needs no alignment.
    unsafe {
        _mm256_loadu_si256(words.as_ptr().cast())
    }
}

/// Loads 16 bytes into both lanes.
#[target_feature(enable = "avx2")]
fn load_twice(bytes: &[u8], at: usize) -> __m256i {
    let bytes: &[u8; 16] = bytes[at..].first_chunk().expect("rows reach far enough");
    #[expect(unsafe_code, reason = "vector loads take a pointer")]
    // SAFETY: the reference covers the 16 bytes that are read; the load needs no alignment.
    let half = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    _mm256_broadcastsi128_si256(half)
}

#[target_feature(enable = "avx2")]
fn store(register: __m256i) -> [u8; REGISTER] {
    let mut bytes = [0; REGISTER];
    #[expect(unsafe_code, reason = "vector stores take a pointer")]
    // SAFETY: the array has the 32 bytes that are written; the store needs no alignment.
    unsafe {
        _mm256_storeu_si256(bytes.as_mut_ptr().cast(), register);
    }
    bytes
}

/// Joins the sums of the two planes.
#[target_feature(enable = "avx2")]
fn join(planes: [__m256i; 2]) -> __m256i {
    _mm256_add_epi32(_mm256_slli_epi32::<{ LOW_BITS as i32 }>(planes[1]), planes[0])
}

/// Rounds sums with 22 fractional bits. Values outside the range of a byte are clamped when packed.
#[target_feature(enable = "avx2")]
fn round(sums: __m256i) -> __m256i {
    _mm256_srai_epi32::<{ PRECISION_BITS as i32 }>(_mm256_add_epi32(sums, _mm256_set1_epi32(HALF)))
}

pub(super) struct ColumnKernel {
    /// Byte offset of the first pixel of each output pixel's span.
    offsets: Vec<usize>,
    /// Registers per span.
    blocks: usize,
    /// The two planes of weights for each output pixel and block.
    weights: Vec<[[i32; 8]; 2]>,
    reach: usize,
}

impl ColumnKernel {
    pub(super) fn new(coefficients: &Coefficients) -> Self {
        let blocks = coefficients.longest().div_ceil(TAPS);
        let mut weights = vec![[[0; 8]; 2]; coefficients.len() * blocks];
        for index in 0..coefficients.len() {
            let taps = coefficients.weights(index);
            for (planes, taps) in weights[index * blocks..].iter_mut().zip(taps.chunks(TAPS)) {
                for (lane, taps) in taps.chunks(2).enumerate() {
                    for (plane, pair) in planes.iter_mut().zip(pair(taps)) {
                        plane[4 * lane..][..3].fill(pair);
                    }
                }
            }
        }
        let offsets: Vec<_> =
            (0..coefficients.len()).map(|index| 3 * coefficients.span(index).0).collect();
        let last = offsets.iter().max().copied().unwrap_or(0);
        Self { reach: last + 3 * TAPS * (blocks - 1) + 16, offsets, blocks, weights }
    }

    #[target_feature(enable = "avx2")]
    fn rows_avx2(&self, sources: [&[u8]; 4], target: &mut [u8], stride: usize) {
        // Shuffles bytes to the words of the pairs. An index with the top bit set yields zero.
        const O: u8 = 0x80;
        let order = [
            0, O, 3, O, 1, O, 4, O, 2, O, 5, O, O, O, O, O, // taps 0 and 1
            6, O, 9, O, 7, O, 10, O, 8, O, 11, O, O, O, O, O, // taps 2 and 3
        ];
        let order = load(&order, 0);
        let zero = _mm256_setzero_si256();
        let (out0, rest) = target.split_at_mut(stride);
        let (out1, rest) = rest.split_at_mut(stride);
        let (out2, out3) = rest.split_at_mut(stride);
        let columns = self.offsets.iter().zip(self.weights.chunks_exact(self.blocks));
        for (column, (&offset, blocks)) in columns.enumerate() {
            let mut sums = [[zero; 2]; 4];
            for (block, planes) in blocks.iter().enumerate() {
                let at = offset + 3 * TAPS * block;
                let weights = [load_words(&planes[0]), load_words(&planes[1])];
                for (source, sums) in sources.iter().zip(&mut sums) {
                    let pixels = _mm256_shuffle_epi8(load_twice(source, at), order);
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pixels, weight));
                    }
                }
            }
            let [a, b, c, d] = sums;
            let (ab, cd) = (add_lanes(join(a), join(b)), add_lanes(join(c), join(d)));
            let words = _mm256_packs_epi32(round(ab), round(cd));
            // Low lane: rows 0 and 2; high lane: rows 1 and 3.
            let pixels = _mm256_packus_epi16(words, words);
            // The fourth byte of each pixel is zero and is overwritten by the next pixel; that of
            // the last pixel falls into the slack.
            let at = 3 * column;
            out0[at..at + 4].copy_from_slice(&_mm256_extract_epi32::<0>(pixels).to_le_bytes());
            out1[at..at + 4].copy_from_slice(&_mm256_extract_epi32::<4>(pixels).to_le_bytes());
            out2[at..at + 4].copy_from_slice(&_mm256_extract_epi32::<1>(pixels).to_le_bytes());
            out3[at..at + 4].copy_from_slice(&_mm256_extract_epi32::<5>(pixels).to_le_bytes());
        }
    }
}

/// Adds up the two lanes of each register. The sums of `a` are in the low lane, those of `b` in the
/// high lane.
#[target_feature(enable = "avx2")]
fn add_lanes(a: __m256i, b: __m256i) -> __m256i {
    _mm256_add_epi32(
        _mm256_permute2x128_si256::<0x20>(a, b),
        _mm256_permute2x128_si256::<0x31>(a, b),
    )
}

impl Columns for ColumnKernel {
    fn reach(&self) -> usize {
        self.reach
    }

    fn rows(&self, sources: [&[u8]; 4], target: &mut [u8], stride: usize) {
        assert!(is_supported(), "this kernel requires AVX2");
        #[expect(unsafe_code, reason = "calls into code for a certain instruction set")]
        // SAFETY: the instruction set has just been checked.
        unsafe {
            self.rows_avx2(sources, target, stride);
        }
    }
}

pub(super) struct RowKernel {
    /// For each output row and each two taps, the two planes: the words of one pair.
    weights: Vec<Vec<[i32; 2]>>,
    /// Number of taps of each output row.
    taps: Vec<usize>,
}

impl RowKernel {
    pub(super) fn new(coefficients: &Coefficients) -> Self {
        let indices = 0..coefficients.len();
        Self {
            weights: indices
                .clone()
                .map(|i| coefficients.weights(i).chunks(2).map(pair).collect())
                .collect(),
            taps: indices.map(|i| coefficients.span(i).1).collect(),
        }
    }

    #[target_feature(enable = "avx2")]
    fn row_avx2(&self, index: usize, source: &[u8], stride: usize, out: &mut [u8]) {
        let zero = _mm256_setzero_si256();
        let last = self.taps[index] - 1;
        for (chunk, out) in out.chunks_mut(REGISTER).enumerate() {
            // Four registers of 8 sums each, in the order that the interleaving produces.
            let mut sums = [[zero; 2]; 4];
            for (two, planes) in self.weights[index].iter().enumerate() {
                // A missing second row has zero weight; the last row is read in its place.
                let row = |tap: usize| {
                    load(source, (2 * two + tap).min(last) * stride + REGISTER * chunk)
                };
                let (a, b) = (row(0), row(1));
                let (low, high) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
                let pairs = [
                    _mm256_unpacklo_epi8(low, zero),
                    _mm256_unpackhi_epi8(low, zero),
                    _mm256_unpacklo_epi8(high, zero),
                    _mm256_unpackhi_epi8(high, zero),
                ];
                let weights = [_mm256_set1_epi32(planes[0]), _mm256_set1_epi32(planes[1])];
                for (sums, pair) in sums.iter_mut().zip(pairs) {
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pair, weight));
                    }
                }
            }
            let [a, b, c, d] = sums;
            // Packing joins the lanes in the same order in which the interleaving split them.
            let words = (
                _mm256_packs_epi32(round(join(a)), round(join(b))),
                _mm256_packs_epi32(round(join(c)), round(join(d))),
            );
            let bytes = store(_mm256_packus_epi16(words.0, words.1));
            out.copy_from_slice(&bytes[..out.len()]);
        }
    }
}

impl Rows for RowKernel {
    fn row(&self, index: usize, source: &[u8], stride: usize, out: &mut [u8]) {
        assert!(is_supported(), "this kernel requires AVX2");
        #[expect(unsafe_code, reason = "calls into code for a certain instruction set")]
        // SAFETY: the instruction set has just been checked.
        unsafe {
            self.row_avx2(index, source, stride, out);
        }
    }
}
