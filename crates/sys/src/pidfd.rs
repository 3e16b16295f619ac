//! What can be done with a process through its pidfd, child or not, that rustix does not wrap.

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::{Errno, Result};

/// `struct pidfd_info` of linux/pidfd.h, as far as version 0 goes.
#[repr(C)]
#[derive(Debug, Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ruid: u32,
    rgid: u32,
    euid: u32,
    egid: u32,
    suid: u32,
    sgid: u32,
    fsuid: u32,
    fsgid: u32,
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)`
const PIDFD_GET_INFO: libc::c_ulong =
    (3 << 30) | ((size_of::<PidfdInfo>() as libc::c_ulong) << 16) | (0xff << 8) | 11;

/// The wait status of a process that has been reaped by whoever its parent is; `None` while it
/// has not. An error (ENOTTY, EINVAL) says that the kernel does not tell (before 6.15).
pub fn exit_status(pidfd: impl AsFd) -> Result<Option<i32>> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: the request number carries the size of `info`, which the kernel reads and fills.
    let ret = unsafe { libc::ioctl(fd, PIDFD_GET_INFO, &raw mut info) };
    if ret != 0 {
        return Err(last_errno());
    }
    Ok((info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code))
}

/// Sends any signal, real-time ones included.
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: without a siginfo the kernel reads no memory of ours.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, 0) };
    if ret == 0 { Ok(()) } else { Err(last_errno()) }
}

fn last_errno() -> Errno {
    let error = std::io::Error::last_os_error();
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

/// The code a shell would show for a wait status: 0-255, or 128 + signal.
pub fn code_of_status(status: i32) -> u8 {
    let code = if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    };
    code as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    #[test]
    fn a_reaped_process_still_tells_its_code() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "read x; exit 7"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        match exit_status(&pidfd) {
            // An old kernel: nothing more to see here.
            Err(Errno::NOTTY | Errno::INVAL) => drop(child.kill()),
            early => {
                assert_eq!(early.unwrap_or(None), None);
                drop(child.stdin.take());
                child.wait().unwrap();
                assert_eq!(exit_status(&pidfd).unwrap().map(code_of_status), Some(7));
            }
        }
    }
}
