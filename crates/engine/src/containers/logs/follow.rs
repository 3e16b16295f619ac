//! Waiting for a log to change: inotify on its directory, where both writes and rotations show.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::inotify;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::files::Set;
use crate::watched::{Watched, watch};

#[derive(Debug)]
pub(super) struct Changes(AsyncFd<Watched<OwnedFd>>);

impl Changes {
    pub(super) fn watch(set: &Set) -> io::Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let events = inotify::init(flags)?;
        let directory = set.path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let wanted = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE_SELF;
        inotify::add_watch(&events, directory, wanted)?;
        Ok(Self(watch(events, Interest::READABLE)?))
    }

    /// Returns after at least one change since the last time. What changed is for the caller to
    /// look up.
    pub(super) async fn next(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let mut ready = self.0.readable().await?;
            match rustix::io::read(self.0.get_ref(), &mut buffer) {
                Ok(_events) => return Ok(()),
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
