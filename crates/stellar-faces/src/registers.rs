//! Helpers shared by the networks' kernels: registers of eight and of sixteen values.

use std::arch::x86_64::{
    __m256, __m512, _mm256_loadu_ps, _mm256_storeu_ps, _mm512_loadu_ps, _mm512_storeu_ps,
};

/// Values of a register.
pub(super) type Eight = [f32; 8];
/// Values of two registers, or of a register of AVX-512. Aligned to a cache line, because loads and
/// stores across two lines take twice as long.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(64))]
pub(super) struct Sixteen(pub(super) [Eight; 2]);

impl std::ops::Deref for Sixteen {
    type Target = [Eight; 2];

    fn deref(&self) -> &[Eight; 2] {
        &self.0
    }
}

impl std::ops::DerefMut for Sixteen {
    fn deref_mut(&mut self) -> &mut [Eight; 2] {
        &mut self.0
    }
}

/// Returns the values of several registers, one after the other.
pub(super) fn values(of: &[Sixteen]) -> &[f32] {
    #[expect(unsafe_code, reason = "an array in a structure cannot be flattened otherwise")]
    // SAFETY: a `Sixteen` is sixteen values and nothing else, by `repr(C)` and because its size is
    // that of its alignment.
    unsafe {
        std::slice::from_raw_parts(of.as_ptr().cast(), 16 * of.len())
    }
}

/// Whether the kernels can run: they require AVX2 and FMA.
pub(super) fn is_supported() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// Whether the kernels can use registers of sixteen values.
pub(super) fn has_avx512() -> bool {
    is_supported() && is_x86_feature_detected!("avx512f")
}

/// Returns the values of several registers, one after the other, to be changed.
pub(super) fn values_mut(of: &mut [Sixteen]) -> &mut [f32] {
    #[expect(unsafe_code, reason = "an array in a structure cannot be flattened otherwise")]
    // SAFETY: as above; the values are borrowed for as long as the registers are.
    unsafe {
        std::slice::from_raw_parts_mut(of.as_mut_ptr().cast(), 16 * of.len())
    }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load(from: &Eight) -> __m256 {
    #[expect(unsafe_code, reason = "vector loads take a pointer")]
    // SAFETY: the reference covers the 32 bytes that are read; the load needs no alignment.
    unsafe {
        _mm256_loadu_ps(from.as_ptr())
    }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store(to: &mut Eight, register: __m256) {
    #[expect(unsafe_code, reason = "vector stores take a pointer")]
    // SAFETY: the reference covers the 32 bytes that are written; the store needs no alignment.
    unsafe {
        _mm256_storeu_ps(to.as_mut_ptr(), register);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_sixteen(from: &Sixteen) -> __m512 {
    #[expect(unsafe_code, reason = "vector loads take a pointer")]
    // SAFETY: the reference covers the 64 bytes that are read; the load needs no alignment.
    unsafe {
        _mm512_loadu_ps(from.as_flattened().as_ptr())
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_sixteen(to: &mut Sixteen, register: __m512) {
    #[expect(unsafe_code, reason = "vector stores take a pointer")]
    // SAFETY: the reference covers the 64 bytes that are written; the store needs no alignment.
    unsafe {
        _mm512_storeu_ps(to.as_flattened_mut().as_mut_ptr(), register);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_values(to: &mut [f32; 16], register: __m512) {
    #[expect(unsafe_code, reason = "vector stores take a pointer")]
    // SAFETY: the reference covers the 64 bytes that are written; the store needs no alignment.
    unsafe {
        _mm512_storeu_ps(to.as_mut_ptr(), register);
    }
}
