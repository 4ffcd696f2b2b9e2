//! Helpers shared by the networks' kernels: registers of eight values.

use std::arch::x86_64::{__m256, _mm256_loadu_ps, _mm256_storeu_ps};

/// Values of a register.
pub(super) type Eight = [f32; 8];

pub(super) fn is_supported() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
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
