//! Loading a seccomp filter into the calling thread.

use rustix::io::{Errno, Result};

/// `SECCOMP_FILTER_FLAG_*`: loads for all threads of the process.
pub const FLAG_TSYNC: u32 = 1;
/// Logs every answer but "allow".
pub const FLAG_LOG: u32 = 2;
/// Leaves speculative store bypass on.
pub const FLAG_SPEC_ALLOW: u32 = 4;

const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;

/// Installs a filter for the calling thread, its future children and what they execute, for good.
/// `instructions` are the kernel's `struct sock_filter`. Needs `CAP_SYS_ADMIN` or
/// no-new-privileges.
pub fn load(instructions: &[[u8; 8]], flags: u32) -> Result<()> {
    // `sock_filter` wants alignment, which byte arrays do not promise.
    let mut program: Vec<libc::sock_filter> = instructions.iter().map(decode).collect();
    let header = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_too_long| Errno::INVAL)?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `header` and the program it points to outlive the call; the kernel copies them. The
    // effect is on the thread's system calls, not on its memory. No crate in use wraps seccomp(2).
    let ret = unsafe {
        libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const header)
    };
    match ret {
        0 => Ok(()),
        // With TSYNC, the id of a thread that has another filter.
        1.. => Err(Errno::SRCH),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

const fn decode(bytes: &[u8; 8]) -> libc::sock_filter {
    let [code0, code1, jt, jf, k0, k1, k2, k3] = *bytes;
    libc::sock_filter {
        code: u16::from_ne_bytes([code0, code1]),
        jt,
        jf,
        k: u32::from_ne_bytes([k0, k1, k2, k3]),
    }
}
