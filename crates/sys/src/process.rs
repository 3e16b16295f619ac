//! Processes below the level of `std::process`: clone with namespaces, exec without a shell, the
//! state that a child must shed before it may run foreign code.
//!
//! Callers of [`fork`] and [`exec_sibling`] are single-threaded: ordinary code (allocation
//! included) may then run in the child, as its copy of the heap has no lock held by a thread that
//! is gone.

use std::ffi::{CString, c_char, c_int};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::{Errno, Result};
pub use rustix::thread::UnshareFlags;

/// What [`fork`] does beside copying the caller.
#[derive(Debug, Default)]
pub struct ForkOptions<'a> {
    /// New namespaces for the child.
    pub namespaces: Option<UnshareFlags>,
    /// A cgroup v2 directory in which the child is born.
    pub cgroup: Option<BorrowedFd<'a>>,
}

#[derive(Debug)]
pub enum Forked {
    Parent {
        pid: u32,
        pidfd: OwnedFd,
    },
    /// Must end in an exec or in [`exit_now`]: destructors of the parent's values must not run here.
    Child,
}

/// Copies the calling process, which must have one thread.
pub fn fork(options: &ForkOptions<'_>) -> Result<Forked> {
    // The constant in libc overflows its type.
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    let mut pidfd: RawFd = -1;
    let mut flags = libc::CLONE_PIDFD as u64;
    flags |= options.namespaces.map_or(0, |wanted| u64::from(wanted.bits()));
    let cgroup = options.cgroup.map_or(0, |fd| fd.as_raw_fd() as u64);
    if options.cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    let arguments = libc::clone_args {
        flags,
        pidfd: &raw mut pidfd as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup,
    };
    // SAFETY: without CLONE_VM the child has its own copy of all memory and continues on the same
    // stack, as after fork(2); the kernel reads `arguments` and writes one descriptor to `pidfd`.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>())
    };
    match pid {
        0 => Ok(Forked::Child),
        pid if pid > 0 => {
            // SAFETY: CLONE_PIDFD made the kernel open this descriptor for us alone.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Forked::Parent { pid: pid as u32, pidfd })
        }
        _ => Err(last_errno()),
    }
}

/// Makes new namespaces for the calling process.
pub fn unshare(namespaces: UnshareFlags) -> Result<()> {
    assert!(!namespaces.contains(UnshareFlags::FILES), "descriptors are not a namespace");
    // SAFETY: without CLONE_FILES the call does not touch the meaning of any descriptor.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }
}

/// A program with its arguments and environment, ready for the kernel.
#[derive(Debug)]
pub struct Image {
    pub program: Program,
    pub arguments: Vec<CString>,
    pub environment: Vec<CString>,
}

#[derive(Debug)]
pub enum Program {
    Path(CString),
    /// An open executable file, for example a sealed memfd.
    File(OwnedFd),
}

/// Replaces the calling process; returns only to say why not.
pub fn exec(image: &Image) -> Errno {
    let prepared = Prepared::new(image);
    prepared.exec()
}

/// Copies the calling process, which must have one thread, into a child of its *parent* that
/// lives in the pid namespace chosen with `setns`. The copy sees `None` and must end in an exec or
/// in [`exit_now`].
pub fn fork_sibling() -> Result<Option<u32>> {
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: without CLONE_VM the child has its own copy of all memory and continues on the same
    // stack, as after fork(2); the other arguments are unused without their flags.
    let pid = checked(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    Ok((pid > 0).then_some(pid as u32))
}

/// An [`Image`] with the null-terminated pointer arrays that `execve` reads.
struct Prepared<'a> {
    program: &'a Program,
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
}

impl<'a> Prepared<'a> {
    fn new(image: &'a Image) -> Self {
        let pointers = |strings: &[CString]| {
            strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
        };
        Self {
            program: &image.program,
            arguments: pointers(&image.arguments),
            environment: pointers(&image.environment),
        }
    }

    fn exec(&self) -> Errno {
        let arguments = self.arguments.as_ptr();
        let environment = self.environment.as_ptr();
        match self.program {
            Program::Path(path) => {
                // SAFETY: both arrays end in null and point into the `Image` borrowed by `self`.
                unsafe { libc::execve(path.as_ptr(), arguments, environment) };
            }
            Program::File(file) => {
                // SAFETY: as above; the empty path with AT_EMPTY_PATH names the descriptor.
                unsafe {
                    libc::syscall(
                        libc::SYS_execveat,
                        file.as_raw_fd(),
                        c"".as_ptr(),
                        arguments,
                        environment,
                        libc::AT_EMPTY_PATH,
                    )
                };
            }
        }
        last_errno()
    }
}

/// Ends the process without destructors or exit handlers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor but 0, 1, 2 and those in `keep`.
///
/// Only for a forked child: the values that own the closed descriptors belong to the parent's
/// stack frames, which never run again here.
pub fn close_all_but(keep: &[BorrowedFd<'_>]) -> Result<()> {
    let mut numbers: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd() as u32).collect();
    numbers.sort_unstable();
    let mut first = 3;
    for number in numbers {
        if number > first {
            close_range(first, number - 1)?;
        }
        first = first.max(number + 1);
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: takes three numbers; what the closed descriptors mean is the caller's promise.
    checked(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Gives up the parent's signal mask and ignored signals, which an exec would keep.
pub fn reset_signals() {
    // The kernel's `struct sigaction`, all of whose zeros are the default. Not libc's: that keeps
    // two signals to itself, which a parent of ours may have ignored all the same.
    const DEFAULT: [u64; 4] = [0; 4];
    for signal in 1..=64 {
        // SAFETY: the kernel reads the action; EINVAL for SIGKILL and SIGSTOP is expected.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                ptr::null_mut::<u64>(),
                size_of::<u64>(),
            );
        }
    }
    let none = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: an all-zero set is the empty one; it is only read.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut()) };
}

/// Sends any signal number, real-time ones included.
pub fn kill(pid: u32, signal: i32) -> Result<()> {
    // SAFETY: takes two numbers.
    checked(unsafe { libc::kill(pid as libc::pid_t, signal) }.into()).map(drop)
}

/// Lets a signal be ignored by the calling process.
pub fn ignore_signal(signal: i32) {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Leaves the caller's session keyring for a new, anonymous one.
pub fn join_session_keyring() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    let id = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<c_char>())
    };
    checked(id).map(drop)
}

fn checked(result: libc::c_long) -> Result<libc::c_long> {
    if result < 0 { Err(last_errno()) } else { Ok(result) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    use std::os::fd::AsFd;

    /// A directory of a cgroup v2 hierarchy, if this machine has one mounted.
    fn unified() -> Option<std::path::PathBuf> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts.lines().find(|line| line.starts_with("cgroup2 "))?;
        mount.split(' ').nth(1).map(Into::into)
    }

    #[test]
    fn a_child_is_born_in_its_cgroup_and_namespaces() {
        let Some(hierarchy) = unified() else { return };
        let group = hierarchy.join(format!("sys-process-test-{}", std::process::id()));
        std::fs::create_dir(&group).unwrap();
        let directory = std::fs::File::open(&group).unwrap();
        let (gate, open_gate) = rustix::pipe::pipe().unwrap();
        let options = ForkOptions {
            namespaces: Some(UnshareFlags::NEWPID | UnshareFlags::NEWUTS),
            cgroup: Some(directory.as_fd()),
        };
        let Forked::Parent { pid, pidfd } = fork(&options).unwrap() else {
            drop(open_gate);
            rustix::io::read(&gate, &mut [0u8]).ok();
            exit_now(rustix::process::getpid().as_raw_nonzero().get());
        };
        let processes = std::fs::read_to_string(group.join("cgroup.procs")).unwrap();
        let uts = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/uts")).unwrap();
        let separate = uts(&pid.to_string()) != uts("self");
        rustix::io::write(&open_gate, b"x").unwrap();
        let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
        std::fs::remove_dir(&group).unwrap();
        assert_eq!(processes, format!("{pid}\n"));
        assert!(separate);
        assert_eq!(status.exit_status(), Some(1), "it is the first of its pid namespace");
    }

    #[test]
    fn only_kept_descriptors_stay_open() {
        let (kept, _write) = rustix::pipe::pipe().unwrap();
        let (lost, _also) = rustix::pipe::pipe().unwrap();
        let Forked::Parent { pidfd, .. } = fork(&ForkOptions::default()).unwrap() else {
            close_all_but(&[kept.as_fd()]).ok();
            let open = |fd: &OwnedFd| rustix::io::fcntl_getfd(fd).is_ok();
            exit_now(i32::from(open(&kept)) + 2 * i32::from(open(&lost)));
        };
        let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(1));
    }
}
