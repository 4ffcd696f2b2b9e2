//! Operations on whole registers.

use std::arch::x86_64::{
    __m256, _mm256_blendv_ps, _mm256_castpd_ps, _mm256_castps_pd, _mm256_castsi256_ps,
    _mm256_cmpeq_epi32, _mm256_fmadd_ps, _mm256_max_ps, _mm256_min_ps, _mm256_permute2f128_ps,
    _mm256_permute4x64_pd, _mm256_set1_epi32, _mm256_setr_epi32, _mm256_setzero_ps,
    _mm256_shuffle_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps,
};

/// Pixels of one row that a kernel of the first convolution computes.
pub(super) const FIRST: usize = 16;

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn prelu(x: __m256, slope: __m256) -> __m256 {
    let zero = _mm256_setzero_ps();
    _mm256_fmadd_ps(_mm256_min_ps(x, zero), slope, _mm256_max_ps(x, zero))
}

/// Splits sixteen values into the even and the odd ones, with the pairs in the order
/// `0 1 4 5 2 3 6 7`. If only the first `valid` values exist and their number is odd, the last one
/// stands for both of its pair.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn wider(low: __m256, high: __m256, valid: usize) -> (__m256, __m256) {
    let even = _mm256_shuffle_ps::<0b10_00_10_00>(low, high);
    let odd = _mm256_shuffle_ps::<0b11_01_11_01>(low, high);
    if valid >= FIRST || valid.is_multiple_of(2) {
        return (even, odd);
    }
    let pairs = _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7);
    let last =
        _mm256_castsi256_ps(_mm256_cmpeq_epi32(pairs, _mm256_set1_epi32((valid / 2) as i32)));
    (even, _mm256_blendv_ps(odd, even, last))
}

/// Restores the natural order from that of [`wider`].
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn in_order(pairs: __m256) -> __m256 {
    _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(_mm256_castps_pd(pairs)))
}

/// Transposes rows and columns.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn transposed(rows: &[__m256; 8]) -> [__m256; 8] {
    let [a, b, c, d, e, f, g, h] = *rows;
    let pairs = [
        _mm256_unpacklo_ps(a, b),
        _mm256_unpackhi_ps(a, b),
        _mm256_unpacklo_ps(c, d),
        _mm256_unpackhi_ps(c, d),
        _mm256_unpacklo_ps(e, f),
        _mm256_unpackhi_ps(e, f),
        _mm256_unpacklo_ps(g, h),
        _mm256_unpackhi_ps(g, h),
    ];
    let fours = [
        _mm256_shuffle_ps::<0x44>(pairs[0], pairs[2]),
        _mm256_shuffle_ps::<0xEE>(pairs[0], pairs[2]),
        _mm256_shuffle_ps::<0x44>(pairs[1], pairs[3]),
        _mm256_shuffle_ps::<0xEE>(pairs[1], pairs[3]),
        _mm256_shuffle_ps::<0x44>(pairs[4], pairs[6]),
        _mm256_shuffle_ps::<0xEE>(pairs[4], pairs[6]),
        _mm256_shuffle_ps::<0x44>(pairs[5], pairs[7]),
        _mm256_shuffle_ps::<0xEE>(pairs[5], pairs[7]),
    ];
    [
        _mm256_permute2f128_ps::<0x20>(fours[0], fours[4]),
        _mm256_permute2f128_ps::<0x20>(fours[1], fours[5]),
        _mm256_permute2f128_ps::<0x20>(fours[2], fours[6]),
        _mm256_permute2f128_ps::<0x20>(fours[3], fours[7]),
        _mm256_permute2f128_ps::<0x31>(fours[0], fours[4]),
        _mm256_permute2f128_ps::<0x31>(fours[1], fours[5]),
        _mm256_permute2f128_ps::<0x31>(fours[2], fours[6]),
        _mm256_permute2f128_ps::<0x31>(fours[3], fours[7]),
    ]
}
