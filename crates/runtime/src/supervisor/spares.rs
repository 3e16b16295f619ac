//! Network namespaces made ahead. The kernel takes 0.3 to 0.5 ms for one, as long as for the rest
//! of a clone, and a new container waits for it; here it is made while nobody does.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use sys::process::{UnshareFlags, unshare};

use crate::interfaces::bring_up_loopback;
use crate::protocol::Failure;

/// A start takes one; a burst of starts takes these and clones the others.
const READY: usize = 2;

/// Fresh network namespaces, their loopback up.
#[derive(Debug, Default)]
pub(super) struct Spares {
    ready: Vec<OwnedFd>,
    /// Making one failed: containers get theirs by clone, which says why if that fails too.
    given_up: bool,
}

impl Spares {
    pub(super) fn take(&mut self) -> Option<OwnedFd> {
        self.ready.pop()
    }

    /// Makes one, if some are missing.
    pub(super) fn refill(&mut self) {
        if self.given_up || self.ready.len() >= READY {
            return;
        }
        match make() {
            Ok(namespace) => self.ready.push(namespace),
            Err(failure) => {
                self.given_up = true;
                super::note(format_args!("make a network namespace ahead: {failure}"));
            }
        }
    }
}

/// Goes into a new namespace and comes back.
fn make() -> Result<OwnedFd, Failure> {
    let failed = |errno: Errno| Failure::System {
        step: "make a network namespace".to_owned(),
        errno: errno.raw_os_error(),
    };
    let open = || openat(CWD, "/proc/self/ns/net", OFlags::CLOEXEC, Mode::empty());
    let home = open().map_err(failed)?;
    unshare(UnshareFlags::NEWNET).map_err(failed)?;
    let made = bring_up_loopback().and_then(|()| open().map_err(failed));
    if move_into_thread_name_spaces(std::os::fd::AsFd::as_fd(&home), ThreadNameSpaceType::NETWORK)
        .is_err()
    {
        // In a wrong namespace it would plug containers into nowhere. They outlive it, and the
        // next supervisor adopts them.
        std::process::abort();
    }
    made
}
