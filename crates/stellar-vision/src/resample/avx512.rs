//! The passes with AVX-512: 20 taps of three channels per register.
//!
//! `vpdpbusd` multiplies unsigned bytes by signed bytes and adds groups of four products to 32-bit
//! sums. A weight of 24 bits is split into three signed bytes. Each byte has its own sum, and the
//! three sums are joined at the end. All sums wrap around, but the joined one is small, so nothing
//! is lost.
//!
//! A register of 64 bytes holds 16 groups of four taps. Lane `l` (of 128 bits) has the groups
//! `R G B x` of taps `4l..4l+4`. The odd groups `x` of the first three lanes hold R, G, B of taps
//! `16..20`.

use std::arch::x86_64::{
    __m128i, __m512i, _mm_extract_epi32, _mm512_add_epi32, _mm512_cvtusepi32_epi8,
    _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_maskz_permutexvar_epi32, _mm512_max_epi32,
    _mm512_packs_epi32, _mm512_packus_epi16, _mm512_permutexvar_epi8, _mm512_set1_epi32,
    _mm512_setzero_si512, _mm512_shuffle_i64x2, _mm512_slli_epi32, _mm512_srai_epi32,
    _mm512_storeu_si512, _mm512_unpackhi_epi8, _mm512_unpackhi_epi16, _mm512_unpacklo_epi8,
    _mm512_unpacklo_epi16,
};

use super::coefficients::{Coefficients, HALF, PRECISION_BITS};
use super::kernel::{Columns, Rows};

/// Bytes per register.
const REGISTER: usize = 64;

/// Taps per register.
const TAPS: usize = 20;

/// Signed bytes per weight.
const PLANES: usize = 3;

pub(super) fn is_supported() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vbmi")
        && is_x86_feature_detected!("avx512vnni")
}

/// Returns whether the weights fit into three signed bytes. All weights of a real filter do (the
/// largest is about 1.2).
pub(super) fn can_hold(coefficients: &Coefficients) -> bool {
    coefficients.within((1 << 23) - (1 << 16))
}

/// Splits a weight into signed bytes, lowest first: `w = b0 + 256·b1 + 65536·b2`.
fn signed_bytes(weight: i32) -> [u8; PLANES] {
    let b0 = weight as i8;
    let rest = (weight - i32::from(b0)) >> 8;
    let b1 = rest as i8;
    let b2 = ((rest - i32::from(b1)) >> 8) as i8;
    [b0, b1, b2].map(i8::cast_unsigned)
}

/// Returns the tap and the channel that byte `at` of a register holds.
fn tap_and_channel(at: usize) -> Option<(usize, usize)> {
    let (group, within) = (at / 4, at % 4);
    let (lane, place) = (group / 4, group % 4);
    match place {
        0..3 => Some((4 * lane + within, place)),
        _ if lane < 3 => Some((16 + within, lane)),
        _ => None,
    }
}

#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8], at: usize) -> __m512i {
    let bytes: &[u8; REGISTER] = bytes[at..].first_chunk().expect("rows reach far enough");
    #[expect(unsafe_code, reason = "vector loads take a pointer")]
    // SAFETY: the reference covers the 64 bytes that are read; the load needs no alignment.
    unsafe {
        _mm512_loadu_si512(bytes.as_ptr().cast())
    }
}

#[target_feature(enable = "avx512f")]
fn store(register: __m512i) -> [u8; REGISTER] {
    let mut bytes = [0; REGISTER];
    #[expect(unsafe_code, reason = "vector stores take a pointer")]
    // SAFETY: the array has the 64 bytes that are written; the store needs no alignment.
    unsafe {
        _mm512_storeu_si512(bytes.as_mut_ptr().cast(), register);
    }
    bytes
}

/// Joins the sums of the three planes.
#[target_feature(enable = "avx512f")]
fn join(planes: [__m512i; PLANES]) -> __m512i {
    let high = _mm512_add_epi32(_mm512_slli_epi32::<8>(planes[2]), planes[1]);
    _mm512_add_epi32(_mm512_slli_epi32::<8>(high), planes[0])
}

/// Rounds sums with 22 fractional bits. Values outside the range of a byte are clamped when packed.
#[target_feature(enable = "avx512f")]
fn round(sums: __m512i) -> __m512i {
    _mm512_srai_epi32::<PRECISION_BITS>(_mm512_add_epi32(sums, _mm512_set1_epi32(HALF)))
}

pub(super) struct ColumnKernel {
    /// Byte offset of the first pixel of each output pixel's span.
    offsets: Vec<usize>,
    /// Registers per span.
    blocks: usize,
    /// The three planes of weights for each output pixel and block.
    weights: Vec<[[u8; REGISTER]; PLANES]>,
    reach: usize,
}

impl ColumnKernel {
    pub(super) fn new(coefficients: &Coefficients) -> Self {
        let blocks = coefficients.longest().div_ceil(TAPS);
        let mut weights = vec![[[0; REGISTER]; PLANES]; coefficients.len() * blocks];
        for index in 0..coefficients.len() {
            let taps: Vec<_> =
                coefficients.weights(index).iter().map(|&w| signed_bytes(w)).collect();
            for (block, planes) in weights[index * blocks..][..blocks].iter_mut().enumerate() {
                for at in 0..REGISTER {
                    let tap = tap_and_channel(at).and_then(|(tap, _)| taps.get(block * TAPS + tap));
                    for (plane, byte) in planes.iter_mut().zip(tap.copied().unwrap_or_default()) {
                        plane[at] = byte;
                    }
                }
            }
        }
        let offsets: Vec<_> =
            (0..coefficients.len()).map(|index| 3 * coefficients.span(index).0).collect();
        let last = offsets.iter().max().copied().unwrap_or(0);
        Self { reach: last + 3 * TAPS * (blocks - 1) + REGISTER, offsets, blocks, weights }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")]
    fn rows_avx512(&self, sources: [&[u8]; 4], target: &mut [u8], stride: usize) {
        let order: [u8; REGISTER] = std::array::from_fn(|at| {
            tap_and_channel(at).map_or(0, |(tap, channel)| 3 * tap + channel) as u8
        });
        let order = load(&order, 0);
        // Moves the sums of taps `16..20` (groups 3, 7, 11) to the sums of the other taps of their
        // channel.
        let mut odd_groups = [0; REGISTER];
        for (group, from) in [3_u8, 7, 11].into_iter().enumerate() {
            odd_groups[4 * group] = from;
        }
        let odd_groups = load(&odd_groups, 0);
        let zero = _mm512_setzero_si512();
        let (out0, rest) = target.split_at_mut(stride);
        let (out1, rest) = rest.split_at_mut(stride);
        let (out2, out3) = rest.split_at_mut(stride);
        let columns = self.offsets.iter().zip(self.weights.chunks_exact(self.blocks));
        for (column, (&offset, blocks)) in columns.enumerate() {
            let mut sums = [[zero; PLANES]; 4];
            for (block, planes) in blocks.iter().enumerate() {
                let at = offset + 3 * TAPS * block;
                let weights = [load(&planes[0], 0), load(&planes[1], 0), load(&planes[2], 0)];
                for (source, sums) in sources.iter().zip(&mut sums) {
                    let pixels = _mm512_permutexvar_epi8(order, load(source, at));
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = _mm512_dpbusd_epi32(*sum, pixels, weight);
                    }
                }
            }
            let mut lanes = [zero; 4];
            for (lanes, planes) in lanes.iter_mut().zip(sums) {
                let joined = join(planes);
                let odd = _mm512_maskz_permutexvar_epi32(0b0111, odd_groups, joined);
                *lanes = _mm512_add_epi32(joined, odd);
            }
            let pixels = to_bytes(add_lanes(lanes));
            // The fourth byte of each pixel is arbitrary and is overwritten by the next pixel; that
            // of the last pixel falls into the slack.
            let at = 3 * column;
            out0[at..at + 4].copy_from_slice(&_mm_extract_epi32::<0>(pixels).to_le_bytes());
            out1[at..at + 4].copy_from_slice(&_mm_extract_epi32::<1>(pixels).to_le_bytes());
            out2[at..at + 4].copy_from_slice(&_mm_extract_epi32::<2>(pixels).to_le_bytes());
            out3[at..at + 4].copy_from_slice(&_mm_extract_epi32::<3>(pixels).to_le_bytes());
        }
    }
}

/// Adds up the four lanes of each register. The sums of register `i` are in lane `i`.
#[target_feature(enable = "avx512f")]
fn add_lanes(rows: [__m512i; 4]) -> __m512i {
    let halves = |a, b| {
        _mm512_add_epi32(
            _mm512_shuffle_i64x2::<0b01_00_01_00>(a, b),
            _mm512_shuffle_i64x2::<0b11_10_11_10>(a, b),
        )
    };
    let (a, b) = (halves(rows[0], rows[1]), halves(rows[2], rows[3]));
    _mm512_add_epi32(
        _mm512_shuffle_i64x2::<0b10_00_10_00>(a, b),
        _mm512_shuffle_i64x2::<0b11_01_11_01>(a, b),
    )
}

#[target_feature(enable = "avx512f")]
fn to_bytes(sums: __m512i) -> __m128i {
    _mm512_cvtusepi32_epi8(_mm512_max_epi32(round(sums), _mm512_setzero_si512()))
}

impl Columns for ColumnKernel {
    fn reach(&self) -> usize {
        self.reach
    }

    fn rows(&self, sources: [&[u8]; 4], target: &mut [u8], stride: usize) {
        assert!(is_supported(), "this kernel requires AVX-512");
        #[expect(unsafe_code, reason = "calls into code for a certain instruction set")]
        // SAFETY: the instruction set has just been checked.
        unsafe {
            self.rows_avx512(sources, target, stride);
        }
    }
}

pub(super) struct RowKernel {
    /// For each output row and each four taps, the three planes: the four bytes of one group.
    weights: Vec<Vec<[i32; PLANES]>>,
    /// Number of taps of each output row.
    taps: Vec<usize>,
}

impl RowKernel {
    pub(super) fn new(coefficients: &Coefficients) -> Self {
        let group = |weights: &[i32]| {
            let mut planes = [[0; 4]; PLANES];
            for (tap, &weight) in weights.iter().enumerate() {
                for (plane, byte) in planes.iter_mut().zip(signed_bytes(weight)) {
                    plane[tap] = byte;
                }
            }
            planes.map(i32::from_le_bytes)
        };
        let indices = 0..coefficients.len();
        Self {
            weights: indices
                .clone()
                .map(|i| coefficients.weights(i).chunks(4).map(group).collect())
                .collect(),
            taps: indices.map(|i| coefficients.span(i).1).collect(),
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn row_avx512(&self, index: usize, source: &[u8], stride: usize, out: &mut [u8]) {
        let zero = _mm512_setzero_si512();
        let last = self.taps[index] - 1;
        for (chunk, out) in out.chunks_mut(REGISTER).enumerate() {
            // Four registers of 16 sums each, in the order that the interleaving produces.
            let mut sums = [[zero; PLANES]; 4];
            for (four, planes) in self.weights[index].iter().enumerate() {
                // The missing rows of a group have zero weights; the last row is read in their
                // place.
                let row = |tap: usize| {
                    load(source, (4 * four + tap).min(last) * stride + REGISTER * chunk)
                };
                let (a, b, c, d) = (row(0), row(1), row(2), row(3));
                let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
                let (ab_high, cd_high) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
                let groups = [
                    _mm512_unpacklo_epi16(ab, cd),
                    _mm512_unpackhi_epi16(ab, cd),
                    _mm512_unpacklo_epi16(ab_high, cd_high),
                    _mm512_unpackhi_epi16(ab_high, cd_high),
                ];
                let weights = [
                    _mm512_set1_epi32(planes[0]),
                    _mm512_set1_epi32(planes[1]),
                    _mm512_set1_epi32(planes[2]),
                ];
                for (sums, group) in sums.iter_mut().zip(groups) {
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = _mm512_dpbusd_epi32(*sum, group, weight);
                    }
                }
            }
            let [a, b, c, d] = sums;
            // Packing joins the lanes in the same order in which the interleaving split them.
            let words = (
                _mm512_packs_epi32(round(join(a)), round(join(b))),
                _mm512_packs_epi32(round(join(c)), round(join(d))),
            );
            let bytes = store(_mm512_packus_epi16(words.0, words.1));
            out.copy_from_slice(&bytes[..out.len()]);
        }
    }
}

impl Rows for RowKernel {
    fn row(&self, index: usize, source: &[u8], stride: usize, out: &mut [u8]) {
        assert!(is_supported(), "this kernel requires AVX-512");
        #[expect(unsafe_code, reason = "calls into code for a certain instruction set")]
        // SAFETY: the instruction set has just been checked.
        unsafe {
            self.row_avx512(index, source, stride, out);
        }
    }
}
