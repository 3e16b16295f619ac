//! Settings of the C library's allocator.

/// Lets threads share at most `count` arenas. By default every thread may get one, and a daemon
/// that was busy once keeps the memory of all of them.
pub fn limit_arenas(count: u32) {
    #[cfg(target_env = "gnu")]
    {
        let count = libc::c_int::try_from(count).unwrap_or(libc::c_int::MAX);
        // SAFETY: mallopt takes two integers and locks the allocator itself. There is no other
        // way to change the setting from inside a running program.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, count) };
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = count;
}
