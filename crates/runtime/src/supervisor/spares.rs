//! Network namespaces made ahead. The kernel takes 0.3 to 0.5 ms for one, as long as for the rest
//! of a clone, and a new container waits for it; here it is made while nobody does.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use sys::netlink::namespace;
use sys::process::{UnshareFlags, unshare};

use crate::interfaces::bring_up_loopback;

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

    pub(super) fn are_short(&self) -> bool {
        !self.given_up && self.ready.len() < READY
    }

    /// Makes one more.
    pub(super) fn add(&mut self) {
        match make() {
            Ok(namespace) => self.ready.push(namespace),
            Err(error) => {
                self.given_up = true;
                super::note(format_args!("make a network namespace ahead: {error}"));
            }
        }
    }
}

/// A visit ends where it began, whatever namespace was made on the way.
fn make() -> io::Result<OwnedFd> {
    let home = namespace::current()?;
    namespace::visit(home.as_fd(), || {
        unshare(UnshareFlags::NEWNET)?;
        bring_up_loopback().map_err(io::Error::other)?;
        namespace::current()
    })?
}
