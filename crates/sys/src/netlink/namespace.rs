//! Network namespaces as descriptors: make one, work in one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Of `linux/sockios.h`.
const SIOCGSKNS: libc::Ioctl = 0x894c;

/// Returns the namespace that the calling thread is in.
pub fn current() -> io::Result<OwnedFd> {
    File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
}

/// Returns the namespace that a socket was made in, whichever the thread is in.
pub fn of_socket(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: this request takes no argument and returns a new descriptor or -1.
    let fd = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for us; nobody else knows it.
    let namespace = unsafe { OwnedFd::from_raw_fd(fd) };
    // It comes without.
    rustix::io::fcntl_setfd(&namespace, rustix::io::FdFlags::CLOEXEC)?;
    Ok(namespace)
}

/// Makes an empty namespace, by a thread of its own that enters it and ends. It lives as long as
/// the descriptor or a process in it.
pub fn create() -> io::Result<OwnedFd> {
    let made = std::thread::spawn(|| {
        // SAFETY: leaving the network namespace changes no memory, descriptor or signal state that
        // other threads rely on; only this thread is affected, and it ends here.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
        current()
    });
    made.join().map_err(|_panic| io::Error::from(Errno::SRCH))?
}

/// Runs `work` with the calling thread inside `namespace`, then returns to where it was. Only for
/// synchronous work on one thread; sockets opened inside stay there.
pub fn visit<T>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> T) -> io::Result<T> {
    let home = current()?;
    enter(namespace)?;
    let result = work();
    enter(home.as_fd()).expect("the namespace we came from is open and we may enter namespaces");
    Ok(result)
}

fn enter(namespace: BorrowedFd<'_>) -> Result<(), Errno> {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Socket, route};

    #[test]
    fn a_new_namespace_has_only_a_loopback_that_is_down() {
        let namespace = create().unwrap();
        let mut socket = visit(namespace.as_fd(), Socket::route).unwrap().unwrap();
        let loopback = route::links(&mut socket).unwrap().into_iter().find(|link| link.index == 1);
        assert!(loopback.is_some_and(|link| !link.up));
        let inside = visit(namespace.as_fd(), || std::net::UdpSocket::bind("0.0.0.0:0"));
        let found = of_socket(inside.unwrap().unwrap().as_fd()).unwrap();
        let stat = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        assert_eq!(stat(&found), stat(&namespace));
    }
}
