//! Memory that decoded images leave behind.

/// Returns free memory to the system, since the arenas of glibc do not shrink by themselves.
pub fn give_back_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(
        unsafe_code,
        reason = "a C function without pointers; it takes the allocator's locks itself"
    )]
    // SAFETY: malloc_trim may be called at any time from any thread (malloc_trim(3): MT-Safe).
    unsafe {
        libc::malloc_trim(0);
    }
}
