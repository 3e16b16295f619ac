//! Descriptors across fork and exec: what a process inherited, what a child must not, and the
//! few process-wide settings of the supervisor that rustix does not wrap.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Forks a child that runs `body` and exits with its result; returns the child's pidfd. The child
/// holds no descriptor above 2, so `body` opens what it needs by path. Call only from a process
/// with one thread.
pub fn fork(body: impl FnOnce() -> u8) -> io::Result<OwnedFd> {
    // SAFETY: the caller has one thread, so the child's copy of the heap is consistent.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            close_from(3);
            let code = body();
            // SAFETY: `_exit` does not return, so no owner of a descriptor closed above runs.
            unsafe { libc::_exit(i32::from(code)) }
        }
        // The child is ours and unreaped, so its pid cannot be another process's.
        _ => {
            let pid = Pid::from_raw(pid).expect("fork returns a positive pid to the parent");
            Ok(pidfd_open(pid, PidfdFlags::empty())?)
        }
    }
}

/// Forks and lets the parent go on with `true`, the child with `false`. For a process that wants
/// to leave its parent; the one that gets `true` should exit. Call with one thread only.
pub fn fork_away() -> io::Result<bool> {
    // SAFETY: the caller has one thread, so the child's copy of the heap is consistent.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid != 0),
    }
}

/// Closes every descriptor from `first` up. Only for a process that owns none of them in Rust
/// objects: one that has just started, or a forked child that never returns.
pub fn close_from(first: u32) {
    // SAFETY: close_range touches no memory; the contract above says that nobody owns these.
    let ret = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    debug_assert_eq!(ret, 0, "close_range exists since Linux 5.9");
}

/// Takes over a descriptor that an earlier program in this process left open for us; `None` when
/// there is no such descriptor.
pub fn inherit(number: RawFd) -> Option<OwnedFd> {
    if number < 3 {
        return None;
    }
    // SAFETY: F_GETFD only asks whether the number is open.
    let open = unsafe { libc::fcntl(number, libc::F_GETFD) } != -1;
    // SAFETY: open, and named to us by the program that was here before, which is gone.
    let fd = open.then(|| unsafe { OwnedFd::from_raw_fd(number) })?;
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(fd)
}

/// Lets a descriptor pass through exec; returns the number it will have.
pub fn keep_over_exec(fd: impl AsFd) -> io::Result<RawFd> {
    rustix::io::fcntl_setfd(fd.as_fd(), rustix::io::FdFlags::empty())?;
    Ok(fd.as_fd().as_raw_fd())
}

extern "C" fn nothing(_signal: libc::c_int) {}

/// Makes these signals interrupt a wait and do nothing else. A handler, unlike "ignore", is not
/// inherited by programs that are executed.
pub fn survive_signals(signals: &[i32]) -> io::Result<()> {
    for signal in signals {
        // SAFETY: all-zero is a valid `sigaction`: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: `action` outlives the call, and the handler touches nothing.
        if unsafe { libc::sigaction(*signal, &raw const action, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Blocks SIGCHLD, which [`child_signals`] then makes readable. Programs that are executed have to
/// be given their mask back.
pub fn hold_child_signals() -> io::Result<()> {
    // SAFETY: the set is filled before it is read, and the old mask is not asked for.
    let done = unsafe {
        let set = child_signal();
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A non-blocking descriptor that is readable when children have ended since the last
/// [`forget_signals`].
pub fn child_signals() -> io::Result<OwnedFd> {
    let set = child_signal();
    // SAFETY: the kernel reads the set and makes a descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn child_signal() -> libc::sigset_t {
    // SAFETY: all-zero is a valid empty set, to which a valid signal is added.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        set
    }
}

/// Takes out what a descriptor of signals has to tell.
pub fn forget_signals(signals: &OwnedFd) {
    let mut described = [0u8; 4 * size_of::<libc::signalfd_siginfo>()];
    while rustix::io::read(signals, &mut described).is_ok_and(|length| length > 0) {}
}

/// Whether a descriptor can be read: for a pidfd, whether the process has ended (it may still wait
/// to be reaped).
pub fn is_readable(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Waits until a descriptor can be read; `TimedOut` when it cannot for that long.
pub fn wait_readable_for(fd: impl AsFd, patience: Duration) -> io::Result<()> {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let timeout =
        Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: i64::from(patience.subsec_nanos()) };
    match rustix::io::retry_on_intr(|| poll(&mut fds, Some(&timeout)))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// Waits until a descriptor can be read.
pub fn wait_readable(fd: impl AsFd) -> io::Result<()> {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
    Ok(())
}
